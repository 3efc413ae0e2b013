"""README.md and the pages under docs/: their Python code runs, shown output is right, links and commands exist.

A block that opens with ```python is run. Blocks of one page share their variables and run in a temporary folder that
has a copy of config.yaml; a block whose first line is a comment with the name of a file (`# name.py`) is also saved
there. A ```text block right after one is its output. Blocks that open with ```bash hold commands: their options are
checked, but they are not run.
"""

import contextlib
import io
import re
import shlex
import shutil
import warnings
from dataclasses import fields
from glob import glob
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import matplotlib.pyplot as plt
import pytest

import dsa_analysis.controls
import multitask
from dsa_analysis import METRICS, Comparison
from dsa_analysis.recordings import READERS
from workbench.__main__ import main, parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = re.compile(r"(?<![\w.])-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?!\w)")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int  # of its first line of code, counted from 1


def blocks_of(text: str) -> list[Block]:
    found, lines = [], text.splitlines()
    fences = [k for k, line in enumerate(lines) if line.startswith("```")]
    assert len(fences) % 2 == 0, "a fence is not closed"
    for start, stop in zip(fences[::2], fences[1::2], strict=True):
        found.append(Block(lines[start][3:].strip(), "\n".join(lines[start + 1 : stop]) + "\n", start + 2))
    return found


def outputs_of(text: str) -> dict[int, str]:
    """The output shown after a Python block, by the line of that block."""
    blocks, lines = blocks_of(text), text.splitlines()
    shown = {}
    for code, output in pairwise(blocks):
        between = lines[code.line + code.code.count("\n") : output.line - 2]
        if code.language == "python" and output.language == "text" and not any(map(str.strip, between)):
            shown[code.line] = output.code
    return shown


def prose_of(text: str) -> str:
    """A page without its fenced blocks, line numbers kept."""
    inside, kept = False, []
    for line in text.splitlines():
        fence = line.startswith("```")
        kept.append("" if inside or fence else line)
        inside ^= fence
    return "\n".join(kept)


def prepare(page: Path, folder: Path) -> None:
    """Put what pages refer to into the folder in which they run; skip the page of a download that is not there."""
    shutil.copy(ROOT / "config.yaml", folder)
    (folder / "tests").symlink_to(ROOT / "tests", target_is_directory=True)
    if page.name == "real_data.md":
        wheels = list((ROOT / "results" / "motions").glob("aeon-*.whl"))
        if not wheels:
            pytest.skip("needs BasicMotions: run the first command of docs/real_data.md")
        (folder / "results" / "motions").mkdir(parents=True)
        shutil.copy(wheels[0], folder / "results" / "motions")


def anchors_of(text: str) -> set[str]:
    """Names of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings}


def assert_same_output(printed: str, shown: str) -> None:
    """The same words, and numbers that differ by one unit of the last digit shown at most: rounding of another machine
    may turn it."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split(), f"printed:\n{printed}\nshown:\n{shown}"
    for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        decimals = len(theirs.partition(".")[2].partition("e")[0]) if "." in theirs else 0
        close = abs(float(ours) - float(theirs)) <= 1.001 * 10.0**-decimals if "." in theirs else ours == theirs
        assert close, f"{ours} was printed, {theirs} is shown:\n{printed}"


def run_commands(text: str) -> None:
    """Run the comparisons that a page shows, in the current folder."""
    for block in blocks_of(text):
        words = shlex.split(block.code.replace("\\\n", " ")) if block.language == "bash" else []
        if words[1:2] == ["compare"]:
            files = [name for word in words[1:] for name in (sorted(glob(word)) if "*" in word else [word])]
            assert main(files) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@patch.dict(READERS)  # pages may add to it
def test_python_code_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    shown, names = outputs_of(text), {"__name__": page.stem}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    prepare(page, tmp_path)
    for block in blocks_of(text):
        if block.language != "python":
            continue
        if name := re.match(r"# (\w+\.py)\n", block.code):
            (tmp_path / name[1]).write_text(block.code)
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")  # tracebacks show the page's lines
        with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # readers would stumble over it
            exec(code, names)
        if block.line in shown:
            assert_same_output(printed.getvalue(), shown[block.line])
    plt.close("all")
    if page.name == "real_data.md":
        run_commands(text)
        assert (tmp_path / "results" / "motions" / "report" / "report.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(text)):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors_of(file.read_text(encoding="utf-8")), f"{page.name} links to {target}: no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_are_shown(page):
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.language != "bash":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                assert f"\n{words[1]}:" in makefile, f"{page.name}: no such target: {line}"
            called = [at for at, word in enumerate(words) if Path(word).name in ("workbench", "compute-alike")]
            if called and "--version" not in words:
                argv = list(takewhile(lambda word: not word.startswith(">"), words[called[0] + 1 :]))
                parser(argv).parse_args(argv)  # exits where an option is unknown


def test_every_page_can_be_reached_from_the_readme():
    reached, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)", prose_of(page.read_text(encoding="utf-8")))
        new |= {(page.parent / target).resolve() for target in targets if not target.startswith("http")} - reached
    assert reached >= set(PAGES)


def test_choices_explains_every_field_of_comparison_and_every_metric():
    text = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    named = [each.name for each in fields(Comparison)]
    assert [row for row in rows if row in named] == named  # in their order, each once
    assert [row for row in rows if row not in named] == list(METRICS)


def test_recordings_names_every_format():
    text = (ROOT / "docs" / "recordings.md").read_text(encoding="utf-8")
    assert all(f"`{extension}`" in text for extension in READERS)


def test_every_page_is_in_the_tree_of_the_site():
    tree = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    named = set(re.findall(r"(docs/\w+|CONTRIBUTING|CHANGELOG)[\">]", tree))
    pages = {page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES}
    assert named == pages - {"README"} | {"CHANGELOG"}


@pytest.mark.parametrize("package", [dsa_analysis, dsa_analysis.controls, multitask])
def test_api_lists_every_public_name(package):
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in package.__all__ if not re.search(rf"^   {name}$|`{name}`|\.{name}`", text, re.M)] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 110


def test_a_wrong_number_or_word_in_shown_output_is_found():
    assert_same_output("a  0.1234\n", "a 0.123\n")
    assert_same_output("0.123 1.0e-05\n", "0.124 1.0e-05\n")
    for printed in ("a 0.125", "b 0.123", "a 0.123 0.5", "a -0.123"):
        with pytest.raises(AssertionError):
            assert_same_output(printed, "a 0.123")
    with pytest.raises(AssertionError):
        assert_same_output("(20, 40)", "(20, 41)")
