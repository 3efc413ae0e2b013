"""Each notebook runs in its own kernel and is copied with a page and an index; sources change only if asked for."""

import base64
import io
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import nbformat.v4 as v4
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from workbench.notebooks import find_notebooks, fingerprint, run_notebooks, save_figure, write_results
from workbench.settings import ConfigError, load_settings

pytestmark = pytest.mark.xdist_group("notebooks")  # one worker, so that `session` runs once

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
FIGURE = f"display({{'image/png': {PIXEL!r}}}, raw=True)"
WHERE = "import os; print(os.getpid(), os.getcwd(), os.environ['COMPUTE_ALIKE_CONFIG'], os.environ.get('MPLBACKEND'))"
CLAIMS = (
    "from workbench.claims import claims_table\n"
    "rows = [('a <b>', [1.0, 1.1], '>', 0), ('unsure', [-1.0, 1.0], '>', 0), ('no claim', 3.0), ('bad', False)]\n"
    "print('seen'); print(claims_table(rows).to_string(index=False)); print(); print('after, met')"
)
BAR = (
    "import sys; from tqdm import tqdm\nfor _ in tqdm(range(3)): pass\nprint('said'); print('warned', file=sys.stderr)"
)
OWN_CHANGE = "open('changing.ipynb', 'a').write(' ')"


def write(path: Path, *code: str, title: str = "A <title>") -> Path:
    cells = [v4.new_markdown_cell(f"# {title}\nProse."), *map(v4.new_code_cell, code)]
    cells[-1].outputs = [v4.new_output("stream", text="of an earlier run\n")]
    cells[-1].metadata["execution"] = {"iopub.status.busy": "2020-01-01T00:00:00Z"}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "widgets": {}}), path)
    return path


def outputs(path: Path) -> list[list]:
    return [cell.outputs for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() if Path("/proc/self").exists() else os.kill(pid, 0) is None


@pytest.fixture(scope="module")
def session(settings, tmp_path_factory):
    """One run of a failing and a working notebook, not in place."""
    folder = tmp_path_factory.mktemp("notebooks")
    bad = write(folder / "bad.ipynb", "x = 1", "x / 0", "print('never')")
    good = write(folder / "good.ipynb", WHERE, BAR, FIGURE, CLAIMS)
    before = {path: path.read_bytes() for path in (bad, good)}
    capture = pytest.MonkeyPatch()
    capture.setattr(sys, "stderr", error := open(folder / "stderr", "w+"))  # noqa: SIM115
    failed = run_notebooks([bad, good], settings)
    capture.undo()
    error.seek(0)
    return {
        "failed": failed,
        "before": before,
        "stderr": error.read(),
        "results": settings.results / "notebooks",
        "folder": folder,
    }


def test_failing_notebook_is_named_and_its_traceback_printed(session):
    assert session["failed"] == ["bad"]
    assert "bad.ipynb failed:" in session["stderr"]
    assert "ZeroDivisionError: division by zero" in session["stderr"]
    assert "\x1b[" not in session["stderr"]


def test_progress_is_told_cell_by_cell_with_the_notebooks_that_run(session):
    assert re.search(r"notebooks: .* 6/7 ", session["stderr"])  # the cell after the failing one never ran
    assert re.search(r"cell.*, (good, bad|bad, good)\]", session["stderr"])


def test_good_notebook_runs_after_a_failing_one(session):
    _, (said, warned), (figure,), _ = outputs(session["results"] / "good.ipynb")
    assert said.text == "said\n"
    assert warned.text == "warned\n"
    assert "image/png" in figure.data


def test_kernel_runs_in_the_notebooks_folder_with_the_callers_settings_and_inline_figures(session, settings):
    _, folder, config, backend = outputs(session["results"] / "good.ipynb")[0][0].text.split()
    assert Path(folder) == session["folder"]
    assert load_settings(config) == settings
    assert "inline" in backend


def test_copy_of_a_failing_notebook_stops_at_the_failing_cell(session):
    first, failing, never = outputs(session["results"] / "bad.ipynb")
    assert first == []
    assert failing[0].ename == "ZeroDivisionError"
    assert never == []


def test_sources_are_unchanged(session):
    assert {path: path.read_bytes() for path in session["before"]} == session["before"]


def test_nothing_is_left_beside_the_sources_or_the_copies(session):
    assert {path.name for path in session["folder"].iterdir()} == {"bad.ipynb", "good.ipynb", "stderr"}
    names = {"bad.ipynb", "bad.html", "good.ipynb", "good.html", "index.html", "config.yaml"}
    assert names <= {path.name for path in session["results"].iterdir()}
    assert not list(session["results"].glob(".*"))


def test_kernels_end_with_their_notebooks(session):
    pid = int(outputs(session["results"] / "good.ipynb")[0][0].text.split()[0])
    assert not is_running(pid)


def colour_of(png: bytes) -> Any:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB").getpixel((0, 0))


def test_index_shows_title_fate_time_and_figure(session):
    page = (session["results"] / "index.html").read_text()
    _, bad, good = page.split('class="notebook"')
    assert 'href="bad.html"' in bad
    assert "A &lt;title&gt;" in good
    assert '<b class="passed">passed</b> after ' in good
    shown = re.search(r'src="data:image/png;base64,([^"]+)"', good)
    assert shown is not None
    assert colour_of(base64.b64decode(shown[1])) == colour_of(PIXEL)
    assert '<b class="failed">failed</b> after ' in bad
    assert "ZeroDivisionError: division by zero" in bad
    assert "<img" not in bad


def test_index_shows_the_verdicts_of_claims(session):
    page = (session["results"] / "index.html").read_text()
    _, bad, good = page.split('class="notebook"')
    assert '<b class="met">1 met</b>' in good
    assert '<b class="not met">1 not met</b>' in good
    assert '<b class="undecided">1 undecided</b>' in good
    assert re.search("<summary>not met</summary><ul><li>bad</li></ul>", good)
    assert "Claims" not in bad


def test_page_shows_what_the_notebook_printed(session):
    assert "said" in (session["results"] / "good.html").read_text()


def test_in_place_writes_back_what_ran_and_only_that(settings, tmp_path):
    good = write(tmp_path / "tidy.ipynb", BAR, "1 + 1")
    bad = write(tmp_path / "broken.ipynb", "1 / 0")
    changing = write(tmp_path / "changing.ipynb", OWN_CHANGE)
    identities = [cell.id for cell in nbformat.read(good, as_version=4).cells]
    before = bad.read_bytes(), changing.read_bytes()
    assert run_notebooks([good, bad, changing], settings, in_place=True) == ["broken", "changing"]
    assert (bad.read_bytes(), changing.read_bytes()) == (before[0], before[1] + b" ")

    notebook = nbformat.read(good, as_version=4)
    assert [cell.id for cell in notebook.cells] == identities
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert [output.text for output in notebook.cells[1].outputs] == ["said\n", "warned\n"]  # and no progress bar
    assert all(not cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    index = (settings.results / "notebooks" / "index.html").read_text()
    assert "changed while it ran" in index


@pytest.mark.parametrize(("stop", "at_once"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_interruption_ends_the_run_and_its_kernels_and_leaves_the_copies(settings, tmp_path, stop, at_once):
    """Those that wait for their turn do not begin."""
    waiting = "import os, time\nwith open(f'{name}.part', 'w') as file: file.write(str(os.getpid()))\n"
    waiting += "os.replace(f'{name}.part', name); time.sleep(60)"
    names = ["first", "second", "third"][:: -1 if at_once > 1 else 1]  # the last of several begin first
    paths = [write(tmp_path / f"{name}.ipynb", f"name = {name!r}; print('done')", waiting) for name in names]
    running, last = ["first", "second"][:at_once], "third"

    def interrupt() -> None:
        wait_until(lambda: all((tmp_path / name).exists() for name in running))
        os.kill(os.getpid(), stop)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    user = threading.Thread(target=interrupt)
    user.start()
    with pytest.raises(KeyboardInterrupt):
        run_notebooks(paths, settings, at_once=at_once)
    user.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not (tmp_path / last).exists()
    assert not (settings.results / "notebooks" / f"{last}.ipynb").exists()
    for name in running:
        assert not is_running(int((tmp_path / name).read_text()))
        copy = outputs(settings.results / "notebooks" / f"{name}.ipynb")
        assert copy[0][0].text == "done\n"
        assert copy[1][0].ename == "KeyboardInterrupt"


def test_second_interruption_ends_a_notebook_that_ignores_the_first(settings, tmp_path):
    stubborn = (
        "import os, time\nwith open('part', 'w') as file: file.write(str(os.getpid()))\nos.replace('part', 'started')\n"
        "while True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: open('asked', 'w').close()"
    )

    def interrupt_twice() -> None:
        for sign in ("started", "asked"):
            wait_until(lambda sign=sign: (tmp_path / sign).exists())
            os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=interrupt_twice)
    user.start()
    with pytest.raises(KeyboardInterrupt):
        run_notebooks([write(tmp_path / "stubborn.ipynb", stubborn)], settings)
    user.join()
    wait_until(lambda: not is_running(int((tmp_path / "started").read_text())))


def test_notebooks_run_at_the_same_time(settings, tmp_path):
    """Each waits for the other, and says so."""
    meeting = (
        "import os, time\nopen({mine!r}, 'w')\nend = time.monotonic() + 60\n"
        "while not os.path.exists({other!r}):\n    assert time.monotonic() < end\n    time.sleep(0.05)\n"
    )
    here = write(tmp_path / "here.ipynb", meeting.format(mine="here", other="there"))
    there = write(tmp_path / "there.ipynb", meeting.format(mine="there", other="here"))
    assert run_notebooks([here, there], settings, at_once=2) == []
    with pytest.raises(ConfigError, match=r"^0 notebooks at once: must be at least 1$"):
        run_notebooks([here, there], settings, at_once=0)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- which notebooks -------------------------------------------------------------------------------------------------


def test_without_names_the_story_comes_first_and_in_order(tmp_path):
    for name in ("a_last", "dsa_epochs", "Activity_and_Representation", "lorenz_sanity_check", "z_last"):
        write(tmp_path / f"{name}.ipynb", "")
    found = [path.stem for path in find_notebooks((), tmp_path)]
    assert found == ["lorenz_sanity_check", "dsa_epochs", "Activity_and_Representation", "a_last", "z_last"]


def test_notebooks_are_found_by_name_and_by_path(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    here, there = write(tmp_path / "here.ipynb", ""), write(tmp_path / "elsewhere" / "there.ipynb", "")
    assert find_notebooks(["here", there], tmp_path) == [here, there]
    assert find_notebooks(["here.ipynb"], tmp_path) == [here]


def test_unknown_notebook_is_answered_with_the_nearest(tmp_path):
    write(tmp_path / "dsa_epochs.ipynb", "")
    with pytest.raises(ConfigError, match="dsa_epoch: no such notebook; did you mean 'dsa_epochs'"):
        find_notebooks(["dsa_epoch"], tmp_path)
    with pytest.raises(ConfigError, match=r"zebra.ipynb: no such notebook; there are: dsa_epochs"):
        find_notebooks(["zebra.ipynb"], tmp_path)


def test_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no notebooks here"):
        find_notebooks((), tmp_path)


def test_two_notebooks_of_one_name_are_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    paths = [write(folder / "same.ipynb", "") for folder in (tmp_path, tmp_path / "elsewhere")]
    with pytest.raises(ConfigError, match=r"same.ipynb: the copy of .*same.ipynb would be overwritten"):
        find_notebooks(paths, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{ broken", "broken.ipynb: is not a readable notebook: Notebook does not appear to be JSON"),
        (b"{}", "broken.ipynb: is not a readable notebook"),
        (
            b'{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
            "broken.ipynb: is not a readable notebook",
        ),
        (b"\xff", "broken.ipynb: is not a readable notebook: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_unreadable_notebook_is_refused_before_any_runs(settings, tmp_path, content, message):
    ran = tmp_path / "ran"
    good = write(tmp_path / "runs.ipynb", f"open({str(ran)!r}, 'w')")
    (tmp_path / "broken.ipynb").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        run_notebooks([good, tmp_path / "broken.ipynb"], settings)
    assert message in str(caught.value)
    assert not ran.exists()


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_figure_is_saved_for_slides_and_for_print(settings):
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, 1])
    save_figure(figure, "line", settings)
    plt.close(figure)
    folder = settings.results / "figures"
    assert (folder / "line.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "line.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in folder.iterdir()} == {"line.png", "line.pdf"}


def test_saved_figure_holds_what_stands_beside_its_axes(settings):
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.text(1.5, 0.5, "beside", transform=axes.transAxes)
    save_figure(figure, "wide", settings)
    plt.close(figure)
    with Image.open(settings.results / "figures" / "wide.png") as image:
        assert image.size[0] > 2.5 * 150  # the axes end at 1.8 inches, and the text begins at 2.6


def test_a_digest_tells_settings_apart_and_refuses_what_changes_from_run_to_run():
    assert fingerprint("a", 1) == fingerprint("a", 1) != fingerprint("a", 2)
    with pytest.raises(ValueError, match=r"object at 0x.* has another text in every run"):
        fingerprint({"key": object()})


def test_results_that_cannot_be_written_leave_the_earlier_ones_and_name_the_file(tmp_path):
    """Under a limit of file size, as on a full disk, where HDF5 itself would abort the interpreter."""
    path, few, many = tmp_path / "x.nc", xr.Dataset({"x": ("t", [1.0])}), xr.Dataset({"x": ("t", np.zeros(100_000))})
    write_results(few, path, "about")
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*x\.nc"):
            write_results(many, path, "about")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_importing_the_figure_helper_loads_no_notebook_machinery():
    """Every notebook imports it, and the import of nbformat alone takes seconds."""
    code = (
        "import sys, types\n"
        # stands in for the real one, which loads torch
        "sys.modules['workbench.settings'] = types.SimpleNamespace(ConfigError=0, Settings=0, replacing=0)\n"
        "import workbench.notebooks\n"
        "print({'nbformat', 'nbclient', 'nbconvert', 'jupyter_client', 'traitlets'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
