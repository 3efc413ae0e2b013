"""What the command line says to a terminal: colours where there is one, stages with their time, how to open a page."""

import os
import shlex
import signal
import sys
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

CODES = {"error": "31", "warning": "33", "strong": "1", "soft": "2"}


def styled(text: str, kind: str, stream: TextIO) -> str:
    """The text with ANSI codes of a kind (a key of CODES), if the stream is a terminal that shows colours.

    The variable NO_COLOR turns colours off (no-color.org), and so does TERM=dumb.
    """
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{CODES[kind]}m{text}\033[0m"


def program() -> str:
    """Name and version; a folder on the path that is not installed has no version."""
    from importlib.metadata import PackageNotFoundError, version  # takes a moment

    try:
        return f"compute-alike {version('compute-alike')}"
    except PackageNotFoundError:
        return "compute-alike (not installed)"


def complain(text: object, kind: str = "error") -> None:
    """Write one message to stderr."""
    print(styled(str(text), kind, sys.stderr), file=sys.stderr)


WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
ALARM: int | None = getattr(signal, "SIGALRM", None)  # Windows has none


class Stopping:
    """In its block, Ctrl-C and SIGTERM (from a batch system) raise KeyboardInterrupt in the main thread.

    ``number`` is the signal that came, or None. Libraries may turn the exception into another one, so ask this and not
    the kind of exception. Where Python ignores it (in callbacks of the garbage collector) it is raised again a moment
    later. A second signal ends the program at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            self._before = {number: signal.signal(number, self._stop) for number in WORDS}
            if ALARM is not None:
                self._before[ALARM] = signal.signal(ALARM, self._again)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._ignored
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        if self.number is not None:
            end(number)
        self.number = number
        raise KeyboardInterrupt

    def _ignored(self, ignored: Any) -> None:
        if self.number is None or not issubclass(ignored.exc_type, KeyboardInterrupt):
            self._hook(ignored)
            return
        if ALARM is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            threading.Timer(0.01, interrupt_main).start()  # which ends the program, as a second Ctrl-C does

    def _again(self, number: int, _: object) -> None:
        raise KeyboardInterrupt


def end(number: int, *_: object) -> None:
    """A signal handler: leave at once, with one word and the exit code of the signal."""
    os.write(2, f"{WORDS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


@contextmanager
def loading() -> Iterator[None]:
    """While modules are imported, a signal ends the program at once.

    An exception would come up inside of torch or numpy, which may turn it into another one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in WORDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stages:
    """Names what a long command is doing: on a terminal as it begins, with ``verbose`` also how long it took.

    Parameters
    ----------
    total : int
        Number of stages.
    quiet, verbose : bool
    """

    def __init__(self, total: int, quiet: bool = False, verbose: bool = False) -> None:
        self.total, self.verbose, self.done = total, verbose, 0
        self.bars = not quiet  # whether progress is shown
        self.told = not quiet and (verbose or sys.stderr.isatty())

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """One stage: everything in the block."""
        self.done, started = self.done + 1, time.perf_counter()
        if self.told:
            complain(f"[{self.done}/{self.total}] {what}", "soft")
        yield
        if self.told and self.verbose:
            complain(f"      {time.perf_counter() - started:.1f} s", "soft")


def called() -> str:
    """How this program was started: by its own command, or as a module."""
    return "compute-alike" if Path(sys.argv[0]).stem == "compute-alike" else "python -m workbench"


def last_line(page: Path) -> str:
    """Where a page lies, and the command that opens it."""
    where = relative(page)
    if sys.platform == "win32":
        return f'Report: {where} (open it with: start "" "{where}")'
    opens = "open" if sys.platform == "darwin" else "xdg-open"
    return f"Report: {where} (open it with: {opens} {shlex.quote(where)})"


def relative(path: Path) -> str:
    """A path as seen from the working folder; whole if it lies on another drive of Windows."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)
