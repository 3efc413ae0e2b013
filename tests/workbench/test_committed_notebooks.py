"""The notebooks as committed: run from top to bottom, with nothing in their output that changes from run to run."""

import json
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted(Path(__file__).parents[2].glob("*.ipynb"))
PROGRESS = re.compile(r"\d+%\|| \[\d\d:\d\d[<,]|it/s\]")
MACHINE = re.compile(r"(^|[\s'\"(])(/(home|Users|root|tmp|work|mnt|data|scratch|opt|usr|var)/|[A-Z]:\\)", re.MULTILINE)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def cells(path) -> list:
    return nbformat.read(path, as_version=4).cells


@pytest.fixture
def code(cells) -> list:
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.fixture
def outputs(code) -> list:
    return [output for cell in code for output in cell.outputs]


def texts(output) -> list[str]:
    """What a reader sees of an output, and what lies behind it."""
    return [
        output.get("text", ""),
        *(str(data) for kind, data in output.get("data", {}).items() if kind != "image/png"),
    ]


def test_there_are_notebooks():
    """Otherwise the tests below would all be skipped."""
    assert NOTEBOOKS


def test_ran_from_top_to_bottom_in_a_fresh_kernel(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_ran_without_error_warning_or_progress_bar(outputs):
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    said = "\n".join(text for output in outputs for text in texts(output))
    assert not PROGRESS.search(said)
    assert not re.search(r"\b\w*Warning\b", said)


def test_names_no_folder_of_a_machine(outputs, code):
    everything = [text for output in outputs for text in texts(output)] + [cell.source for cell in code]
    assert [match[0] for text in everything for match in MACHINE.finditer(text)] == []


def test_is_small_enough_to_be_read_on_the_web(path):
    assert path.stat().st_size < 1e6  # bytes


def test_cells_have_stable_identities_and_no_traces_of_a_run(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert (raw["nbformat"], raw["nbformat_minor"]) >= (4, 5)
    identities = [cell["id"] for cell in raw["cells"]]
    assert len(set(identities)) == len(identities)
    assert all("execution" not in cell["metadata"] for cell in raw["cells"])
    assert "widgets" not in raw["metadata"]
    assert "version" not in raw["metadata"]["language_info"]


def test_kernel_is_the_one_everybody_has(path):
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


def test_tells_a_story_and_leaves_the_work_to_the_packages(cells, code):
    assert cells[0].cell_type == "markdown"
    defined = re.compile(r"^\s*(def|class|async def) ", re.MULTILINE)
    assert [cell.source for cell in code if defined.search(cell.source)] == []
    assert [cell.source for cell in code if re.search(r"sys\.path|^[%!]", cell.source, re.MULTILINE)] == []
