"""Executes notebooks into results/notebooks/: an executed copy and a web page of each, and an index of all.

Every notebook runs in a kernel of its own, started in the notebook's folder, with the settings of the caller. One
that fails does not keep the next from running. The sources are read once and never changed, unless ``in_place`` is set.

Notebooks themselves import this module for `save_figure`; nbformat, nbclient and nbconvert, two seconds of import, are
therefore loaded where they are used.
"""

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jupyter_client import AsyncKernelManager
from tqdm import tqdm
from traitlets.config import Config

from workbench.settings import ConfigError, Settings, replacing

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from nbclient import NotebookClient
    from nbformat import NotebookNode

PROJECT = Path(__file__).parents[1]
STOPPING = (signal.SIGINT, signal.SIGTERM)
STORY = ("lorenz_sanity_check", "compositional", "dsa_epochs", "Activity_and_Representation")
PROGRESS_BAR = re.compile(r"^.*\d+%\|.*\|.*\n?|^.*\d+it \[.*/s\].*\n?", re.MULTILINE)


def save_figure(figure: "Figure", name: str, settings: Settings) -> None:
    """Save the figure as results/figures/name.png for slides and name.pdf for print."""
    for kind in ("png", "pdf"):
        with replacing(settings.results / "figures" / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=150, bbox_inches="tight")


def read_results(path: Path, *about: object) -> "xr.Dataset | None":
    """What `write_results` wrote about the same settings with the same code; None if anything changed since."""
    import xarray as xr

    if not path.is_file():
        return None
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            return file.load() if file.attrs.get("about") == fingerprint(*about) else None
    except (OSError, ValueError):  # cut short or overwritten: as good as none
        return None


def write_results(results: "xr.Dataset", path: Path, *about: object) -> None:
    """Store results with all they follow from, such as a section of the settings and the seed, for `read_results`."""
    with replacing(path) as temporary:
        results.assign_attrs(about=fingerprint(*about)).to_netcdf(temporary, engine="h5netcdf")


def fingerprint(*about: object) -> str:
    """A digest of settings and of the code that results follow from."""
    digest = hashlib.sha256("\n".join(map(str, about)).encode())
    for path in sorted((PROJECT / "dsa_analysis").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def find_notebooks(names: Sequence[str | Path] = (), project: Path = PROJECT) -> list[Path]:
    """Paths of the notebooks asked for, each by its path or by its name in the project, with or without ``.ipynb``.

    Without names: all that lie in the project's folder, in the order of the story.
    """
    there = {path.stem: path for path in _in_order(project.glob("*.ipynb"))}
    if not names and not there:
        raise ConfigError(f"{project}: no notebooks here")
    found: dict[str, Path] = {}
    for path in map(Path, names or there.values()):
        if path.suffix != ".ipynb" or not path.is_file():
            path = there.get(str(path).removesuffix(".ipynb"), path)
        if not path.is_file():
            near = get_close_matches(path.stem, there, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(there) or 'none'}"
            raise ConfigError(f"{path}: no such notebook; {hint}")
        if path.stem in found:
            raise ConfigError(f"{path}: the copy of {found[path.stem]} would be overwritten; run only one {path.stem}")
        found[path.stem] = path
    return list(found.values())


def run_notebooks(names: Sequence[str | Path], settings: Settings, in_place: bool = False) -> list[str]:
    """Execute notebooks one after another and return the names of those that failed.

    Parameters
    ----------
    names : paths, or names of notebooks of the project
        None at all means every notebook of the project.
    settings : Settings
        What the notebooks' ``load_settings()`` gives them; stored as results/notebooks/config.yaml.
    in_place : bool
        Also write notebooks that ran to their end back to where they came from, as they are committed: without
        progress bars, timestamps and widgets.

    Raises
    ------
    ConfigError
        A notebook is missing or cannot be read; nothing has run then.
    """
    sources = {path: path.read_bytes() for path in find_notebooks(names)}
    notebooks = {path: _parse(path, source) for path, source in sources.items()}
    folder = settings.results / "notebooks"
    settings.save(folder / "config.yaml")
    failed = []
    for path, notebook in notebooks.items():
        started, error = time.perf_counter(), "interrupted"
        try:
            error = _execute(notebook, path, folder / "config.yaml")
            _tidy(notebook)
            if in_place and not error:
                error = _write_back(notebook, path, sources[path])
        finally:  # also when interrupted: a reader wants to see how far it came
            _publish(notebook, folder / path.stem, time.perf_counter() - started, error)
        if error:
            failed.append(path.stem)
            print(f"{path.name} failed:\n{error}", file=sys.stderr)
    print(f"{len(sources) - len(failed)} of {len(sources)} notebooks ran to their end: {folder / 'index.html'}")
    return failed


def _parse(path: Path, source: bytes) -> "NotebookNode":
    import nbformat

    try:
        notebook = nbformat.reads(source.decode(), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises whatever it stumbles over
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: not a notebook that can be read: {reason}") from None
    return notebook


def _execute(notebook: "NotebookNode", path: Path, config: Path) -> str:
    """Run the cells, changing ``notebook`` as they go; the traceback of the cell that failed, empty if none did."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbconvert.filters import strip_ansi

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None  # else a failing notebook shows an earlier run's end
    # matrices are small here: more threads wait for each other, and sums would depend on the number of cores
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "COMPUTE_ALIKE_CONFIG": str(config)}
    environment.pop("MPLBACKEND", None)  # it would keep figures out of the notebook
    with (
        TemporaryDirectory() as sockets,
        tqdm(desc=path.stem, total=sum(bool(cell.source.strip()) for cell in cells), unit="cell") as progress,
    ):
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            kernel_manager_class=_Kernel,
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),  # files, no open ports
            resources={"metadata": {"path": str(path.parent.absolute())}},
            timeout=None,
            record_timing=False,
            coalesce_streams=True,
            on_cell_executed=lambda **_: progress.update(),
        )
        try:
            asyncio.run(_attend(client, environment))
        except CellExecutionError as error:
            if error.ename == "KeyboardInterrupt":
                raise KeyboardInterrupt from None
            return strip_ansi(str(error)).strip()
        except RuntimeError as error:  # the kernel died
            return f"{type(error).__name__}: {error}"
    return ""


async def _attend(client: "NotebookClient", environment: dict[str, str]) -> None:
    """Execute; Ctrl-C, or a batch system's SIGTERM, interrupts the running cell, a second one the program."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        _forget_signals(loop)
        os.kill(client.km.provisioner.pid, signal.SIGINT)  # type: ignore[union-attr]

    def listen(**_: Any) -> None:
        for number in STOPPING:
            loop.add_signal_handler(number, interrupt)

    client.on_notebook_start = listen
    await client.async_execute(env=environment)


class _Kernel(AsyncKernelManager):
    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        # nbclient's own handlers, set a moment ago, would end this kernel and let the run go on with the next notebook.
        _forget_signals(asyncio.get_running_loop())
        await self._async_start_kernel(**options)


def _forget_signals(loop: asyncio.AbstractEventLoop) -> None:
    for number in STOPPING:
        loop.remove_signal_handler(number)


def _tidy(notebook: "NotebookNode") -> None:
    """Take out what changes from run to run though the results do not, and make figures light."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = PROGRESS_BAR.sub("", output.text)
                elif "image/png" in output.get("data", {}):
                    output.data["image/png"] = _lighter(output.data["image/png"])
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("text", "?").strip()
                and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            ]


def _lighter(png: str) -> str:
    """The figure in 256 colours, a third of the size: notebooks are read on the web, and their history is kept."""
    from PIL import Image  # as matplotlib needs it

    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        # the method that keeps rare colours, such as that of a single line
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def _write_back(notebook: "NotebookNode", path: Path, source: bytes) -> str:
    import nbformat

    if path.read_bytes() != source:
        return f"{path} was changed while it ran and has been left as it is; run it again"
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)
    return ""


# ---- pages -----------------------------------------------------------------------------------------------------------


def _publish(notebook: "NotebookNode", target: Path, seconds: float, error: str) -> None:
    """Write the executed copy, its page, and the index anew."""
    import nbformat
    from nbconvert.exporters.html import HTMLExporter

    notebook.metadata["run"] = {
        "finished": time.strftime("%Y-%m-%d %H:%M"),
        "seconds": round(seconds, 1),
        "error": error.splitlines()[-1] if error else "",
    }
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": target.stem}})
    for suffix, text in ((".ipynb", nbformat.writes(notebook)), (".html", page)):
        with replacing(target.with_name(target.name + suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with replacing(target.with_name("index.html")) as temporary:
        temporary.write_text(_index(target.parent), encoding="utf-8")


def _index(folder: Path) -> str:
    """A page with title, first figure, run time and fate of every executed notebook in the folder."""
    copies = [(path.stem, json.loads(path.read_text("utf-8"))) for path in _in_order(folder.glob("*.ipynb"))]
    return INDEX.format(rows="".join(_row(name, copy) for name, copy in copies if "run" in copy["metadata"]))


def _row(name: str, notebook: dict[str, Any]) -> str:
    run, cells = notebook["metadata"]["run"], notebook["cells"]
    prose = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in [*cell["source"], "\n"])
    heading = re.search(r"^#+ +(.+)$", prose, re.MULTILINE)
    figures = (
        output["data"]["image/png"]
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    )
    figure = next(figures, None)
    return ROW.format(
        name=escape(name),
        title=escape(heading[1] if heading else name),
        figure=f'<img src="data:image/png;base64,{"".join(figure).strip()}" alt="">' if figure else "",
        fate="failed" if run["error"] else "passed",
        **{key: escape(str(value)) for key, value in run.items()},
    )


def _in_order(paths: Iterable[Path]) -> list[Path]:
    places = {name: place for place, name in enumerate(STORY)}
    return sorted(paths, key=lambda path: (places.get(path.stem, len(places)), path.stem))


ROW = """
<a href="{name}.html"><figure>{figure}<figcaption><h2>{title}</h2>
<p>{name}: <b class="{fate}">{fate}</b> after {seconds} s, {finished}</p><p class="failed">{error}</p>
</figcaption></figure></a>
"""
INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Notebooks</title>
<style>
body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto }}
a {{ color: inherit; text-decoration: none }}
figure {{ display: grid; grid-template-columns: 16rem 1fr; gap: 1.5rem; margin: 1.5rem 0 }}
figcaption {{ grid-column: 2 }}
img {{ max-width: 16rem; max-height: 12rem }}
.passed {{ color: #2a7f3f }} .failed {{ color: #b3261e }}
</style>
<h1>Notebooks</h1>{rows}</html>
"""
