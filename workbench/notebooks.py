"""Executes notebooks into results/notebooks/: a copy and a web page of each notebook, and an index page.

Each notebook runs in its own kernel, started in the notebook's folder, with the settings of the caller, two at once
where there are two cores. If one fails, the others still run. The source files are not changed unless ``in_place`` is
set.

Notebooks import this module for `save_figure`. Packages that only execution needs (nbformat, nbclient, nbconvert and
others, two seconds of import) are therefore imported where they are used.
"""

import asyncio
import atexit
import base64
import hashlib
import io
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from joblib import cpu_count
from tqdm import tqdm

from workbench.settings import ConfigError, Settings, replacing

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from nbclient import NotebookClient
    from nbformat import NotebookNode

PROJECT = Path(__file__).parents[1]
SOCKETS = hasattr(socket, "AF_UNIX")  # not so in Python for Windows
STOPPING = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = "interrupted"
STORY = (
    "lorenz_sanity_check", "compositional", "dsa_epochs", "Activity_and_Representation", "geometry_or_dynamics",
)  # fmt: skip
PROGRESS_BAR = re.compile(r"^.*\d+%\|.*\|.*\n?|^.*\d+it \[.*/s\].*\n?", re.MULTILINE)


def save_figure(figure: "Figure", name: str, settings: Settings) -> None:
    """Save a figure as results/figures/NAME.png for slides and NAME.pdf for print. It keeps the layout that it has now.

    Parameters
    ----------
    figure : matplotlib Figure
    name : str
        Without folder and extension.
    settings : Settings
        Says where results are.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # made once: to arrange a figure takes longer than to draw it
    whole = figure.get_tightbbox().padded(0.1)  # inches
    for kind in ("png", "pdf"):
        with replacing(settings.results / "figures" / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=150, bbox_inches=whole)


def read_results(path: Path, *about: object) -> "xr.Dataset | None":
    """Read what `write_results` stored.

    Parameters
    ----------
    path : Path
    about : objects
        What the results depend on, such as a section of the settings and the seed.

    Returns
    -------
    Dataset, or None
        None if there is no file, if it is damaged, or if ``about`` or the code of `dsa_analysis` has changed since.
    """
    import xarray as xr

    if not path.is_file():
        return None
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            return file.load() if file.attrs.get("about") == fingerprint(*about) else None
    except (OSError, ValueError):  # damaged
        return None


def write_results(results: "xr.Dataset", path: Path, *about: object) -> None:
    """Store results for `read_results`, with a digest of ``about``: everything that they depend on."""
    with replacing(path) as temporary:
        # written in memory first: HDF5 aborts the interpreter if a disk is full
        temporary.write_bytes(results.assign_attrs(about=fingerprint(*about)).to_netcdf(engine="h5netcdf"))


def fingerprint(*about: object) -> str:
    """Digest (SHA-256) of some objects, by their text, and of the code of `dsa_analysis`.

    Raises
    ------
    ValueError
        An object whose text holds its address in memory, which differs between runs.
    """
    text = "\n".join(map(str, about))
    if address := re.search(r"<.* at 0x\w+>", text):
        raise ValueError(f"{address[0]} has another text in every run: results that depend on it cannot be found again")
    digest = hashlib.sha256(text.encode())
    for path in sorted((PROJECT / "dsa_analysis").rglob("*")):
        if path.suffix in (".py", ".cpp"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def find_notebooks(names: Sequence[str | Path] = (), project: Path = PROJECT) -> list[Path]:
    """Paths of notebooks.

    Parameters
    ----------
    names : paths, or names of notebooks in the project's folder with or without ``.ipynb``
        If empty: all notebooks in the project's folder, in their order of reading.
    project : Path

    Raises
    ------
    ConfigError
        A notebook does not exist (the nearest name is suggested), or two have the same name.
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


def run_notebooks(
    names: Sequence[str | Path],
    settings: Settings,
    in_place: bool = False,
    progress: bool = True,
    at_once: int | None = None,
) -> list[str]:
    """Execute notebooks and return the names of those that failed.

    Parameters
    ----------
    names : paths, or names of notebooks of the project
        If empty, all notebooks of the project.
    settings : Settings
        Returned by ``load_settings()`` in the notebooks; stored as results/notebooks/config.yaml.
    in_place : bool
        Also write notebooks that ran without error back to their source files, without progress bars, timestamps and
        widgets, ready to be committed.
    progress : bool
        Show a bar over the cells of all notebooks on stderr, with the names of those that run.
    at_once : int >= 1, optional
        Number of notebooks that run at the same time. Default: 2, or 1 on a single core.

    Raises
    ------
    ConfigError
        A notebook is missing or cannot be read, or ``at_once`` is not positive. No notebook has run then.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM. The copies show how far the notebooks came.
    """
    if at_once is None:
        at_once = min(2, cpu_count())
    if at_once < 1:
        raise ConfigError(f"{at_once} notebooks at once: must be at least 1")
    sources = {path: path.read_bytes() for path in find_notebooks(names)}
    notebooks = {path: _parse(path, source) for path, source in sources.items()}
    folder = settings.results / "notebooks"
    settings.save(folder / "config.yaml")
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    try:
        errors, came = asyncio.run(_run_all(notebooks, sources, folder, in_place, progress, at_once))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came is not None and callable(handlers[came]):
        signal.raise_signal(came)  # the caller's own handler knows what to do
    if INTERRUPTED in errors.values():
        raise KeyboardInterrupt
    failed = [path.stem for path in notebooks if errors[path]]
    print(f"{len(sources) - len(failed)} of {len(sources)} notebooks ran without error: {folder / 'index.html'}")
    return failed


async def _run_all(
    notebooks: dict[Path, "NotebookNode"],
    sources: dict[Path, bytes],
    folder: Path,
    in_place: bool,
    progress: bool,
    at_once: int,
) -> tuple[dict[Path, str], signal.Signals | None]:
    """Run, publish and write back. Returns the error of each notebook, or "", and the signal that interrupted them."""
    free, signals = asyncio.Semaphore(at_once), _Signals()
    errors, running = dict.fromkeys(notebooks, INTERRUPTED), list[str]()
    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for n in notebooks.values() for cell in n.cells)
    bar = tqdm(desc="notebooks", total=cells, unit="cell", disable=not progress)

    async def run(path: Path, notebook: "NotebookNode") -> None:
        async with free:
            if signals.came:
                return
            started, error = time.perf_counter(), INTERRUPTED
            running.append(path.stem)
            bar.set_postfix_str(", ".join(running))
            try:
                error = await _execute(notebook, path, folder / "config.yaml", bar, signals)
                _tidy(notebook)
                if in_place and not error:
                    error = _write_back(notebook, path, sources[path])
            finally:  # also when interrupted, to show how far it came
                errors[path] = error
                running.remove(path.stem)
                _publish(notebook, folder / path.stem, time.perf_counter() - started, error)
            if error and error != INTERRUPTED:
                bar.write(f"{path.name} failed:\n{error}", file=sys.stderr)

    # later notebooks of the story take longer, and the longest ones should not be left for the end
    order = list(notebooks)[:: 1 if at_once == 1 else -1]
    with bar:
        await asyncio.gather(*(run(path, notebooks[path]) for path in order))
    return errors, signals.came


def _parse(path: Path, source: bytes) -> "NotebookNode":
    import nbformat

    try:
        notebook = nbformat.reads(source.decode(), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises many kinds of errors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: is not a readable notebook: {reason}") from None
    return notebook


async def _execute(notebook: "NotebookNode", path: Path, config: Path, bar: tqdm, signals: "_Signals") -> str:
    """Run the cells of ``notebook`` in place; return the traceback of the cell that failed, or "" if none failed."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbconvert.filters import strip_ansi
    from traitlets.config import Config

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # otherwise cells after a failing one keep old outputs
    # matrices are small, so more threads are no faster; with one, sums do not depend on the number of cores
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "COMPUTE_ALIKE_CONFIG": str(config)}
    environment.pop("MPLBACKEND", None)  # another backend would not show figures in the notebook
    with TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            kernel_manager_class=_kernel_manager(signals),
            config=Config(KernelManager=_transport(sockets)),
            extra_arguments=["--log-level=CRITICAL"],  # of the kernel itself, which complains of being interrupted
            resources={"metadata": {"path": str(path.parent.absolute())}},
            timeout=None,
            record_timing=False,
            coalesce_streams=True,
            on_cell_executed=lambda **_: bar.update(),
        )
        client.on_notebook_start = lambda **_: signals.follow(client)
        try:
            await client.async_execute(env=environment)
        except CellExecutionError as error:
            return INTERRUPTED if error.ename == "KeyboardInterrupt" else strip_ansi(str(error)).strip()
        except RuntimeError as error:  # the kernel died
            return INTERRUPTED if signals.came else f"{type(error).__name__}: {error}"
        finally:
            # what nbclient leaves for the end of the program if it is cut short fails there: its loop is closed by then
            atexit.unregister(client._cleanup_kernel)
            signals.leave(client)
    return ""


def _transport(folder: str) -> dict[str, str]:
    """How to talk to a kernel: by sockets in a folder instead of open ports, where the system has them."""
    return {"transport": "ipc", "ip": f"{folder}/kernel"} if SOCKETS else {}


class _Signals:
    """Ctrl-C or SIGTERM (from a batch system) interrupts the running cells, a second one the program.

    nbclient sets handlers of its own, which would end one kernel and go on, whenever a kernel starts, and removes all
    when it ends: after both, ``listen`` is called. On Windows, whose loops know no signals, the first one interrupts
    the program.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.running: list[NotebookClient] = []
        self.came: signal.Signals | None = None
        self.loop.set_exception_handler(self._tell)
        self.listen()

    def _tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What goes wrong in tasks that a second signal cuts short is no news."""
        if self.came is None:
            loop.default_exception_handler(context)

    def listen(self) -> None:
        with suppress(NotImplementedError):
            for number in STOPPING:
                self.loop.remove_signal_handler(number)
                if self.came is None:
                    self.loop.add_signal_handler(number, self._interrupt, number)

    def follow(self, client: "NotebookClient") -> None:
        """A kernel has started."""
        self.running.append(client)
        if self.came is not None:
            _interrupt_cell(client)

    def leave(self, client: "NotebookClient") -> None:
        self.running = [other for other in self.running if other is not client]
        self.listen()

    def _interrupt(self, number: signal.Signals) -> None:
        self.came = number
        self.listen()
        for client in self.running:
            _interrupt_cell(client)


def _interrupt_cell(client: "NotebookClient") -> None:
    os.kill(client.km.provisioner.pid, signal.SIGINT)  # type: ignore[union-attr]


def _kernel_manager(signals: _Signals) -> type:
    from jupyter_client import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            signals.listen()
            await self._async_start_kernel(**options)

    return Kernel


def _tidy(notebook: "NotebookNode") -> None:
    """Remove what differs between runs with the same results, and compress figures."""
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
    """Reduce a figure to 256 colours, a third of the size, because git keeps every version of it."""
    from PIL import Image  # a dependency of matplotlib

    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        # this method keeps rare colours, such as that of a single line
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def _write_back(notebook: "NotebookNode", path: Path, source: bytes) -> str:
    import nbformat

    if path.read_bytes() != source:
        return f"{path} was changed while it ran, so it was not overwritten; run it again"
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)
    return ""


# ---- pages -----------------------------------------------------------------------------------------------------------


def _publish(notebook: "NotebookNode", target: Path, seconds: float, error: str) -> None:
    """Write the executed copy, its page and a new index."""
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
    """Page with title, first figure, run time, outcome and claims of every executed notebook in the folder."""
    from workbench.report.page import environment

    copies = [(path.stem, json.loads(path.read_text("utf-8"))) for path in _in_order(folder.glob("*.ipynb"))]
    rows = [_row(name, copy) for name, copy in copies if "run" in copy["metadata"]]
    return environment().get_template("index.html").render(rows=rows)


def _row(name: str, notebook: dict[str, Any]) -> dict[str, Any]:
    from workbench.claims import Verdict, read_claims

    run, cells = notebook["metadata"]["run"], notebook["cells"]
    prose = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in [*cell["source"], "\n"])
    heading = re.search(r"^#+ +(.+)$", prose, re.MULTILINE)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    figures = (output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {}))
    printed = ("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    judged = [claim for text in printed for claim in read_claims(text)]
    verdicts = {verdict: [what for what, said in judged if said == verdict] for verdict in get_args(Verdict)}
    return {
        "name": name,
        "title": heading[1] if heading else name,
        "figure": "".join(next(figures, "")).strip(),
        "fate": "failed" if run["error"] else "passed",
        "claims": verdicts if judged else {},
        **run,
    }


def _in_order(paths: Iterable[Path]) -> list[Path]:
    places = {name: place for place, name in enumerate(STORY)}
    return sorted(paths, key=lambda path: (places.get(path.stem, len(places)), path.stem))
