"""Windows: pieces of trials, the same in all trials and systems, that are compared one by one.

An operator fitted to whole trials is an average over time and does not depend on the order of events. If each piece has
its own operator, and is compared with the same piece of the other system, the distance depends on this order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from dsa_analysis.data import DataError, as_trials, check_count


def sliding_windows(n_times: int, length: int, step: int | None = None) -> list[tuple[int, int]]:
    """Windows of equal length at equal spacing.

    Parameters
    ----------
    n_times : int >= 1
        Samples in a trial. The last window ends at or before it.
    length : int >= 1, in samples
        Length of each window.
    step : int >= 1, in samples, optional
        From the start of a window to the start of the next; by default ``length``.

    Returns
    -------
    list of (start, stop)
        In samples, ``stop`` excluded.

    Raises
    ------
    DataError
        A window longer than ``n_times``, or counts below 1.

    Examples
    --------
    >>> sliding_windows(10, length=4, step=3)
    [(0, 4), (3, 7), (6, 10)]
    """
    step = length if step is None else step
    for name, value in (("n_times", n_times), ("length", length), ("step", step)):
        check_count(name, value)
    if length > n_times:
        raise DataError(f"length = {length} does not fit into n_times = {n_times}")
    return [(start, start + length) for start in range(0, n_times - length + 1, step)]


def as_windows(windows: Any) -> dict[str, tuple[int, int]]:
    """Label each window: a mapping keeps its names, pairs (start, stop) in samples are named "start:stop".

    Raises
    ------
    DataError
        Anything but whole numbers with 0 <= start < stop, no window, or the same window twice.
    """
    if isinstance(windows, Mapping):
        pairs = {str(name): tuple(pair) for name, pair in windows.items()}
    elif isinstance(windows, Sequence) and not isinstance(windows, str):
        try:
            pairs = {f"{start}:{stop}": (start, stop) for start, stop in windows}
        except (TypeError, ValueError):
            raise DataError(
                f"windows = {windows!r} is not a list of pairs (start, stop) in samples, such as sliding_windows gives"
            ) from None
    else:
        raise DataError(
            f"windows came as {type(windows).__name__}; give pairs (start, stop) in samples, or a mapping from "
            f"name to pair"
        )
    if not pairs:
        raise DataError("windows is empty; at least one (start, stop) is needed")
    if len(pairs) < len(windows):
        raise DataError(f"windows holds the same window twice: {', '.join(map(str, windows))}")
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise DataError(f"window {name!r} = {pair} is not a pair (start, stop)")
        check_count(f"start of window {name!r}", pair[0], 0)
        check_count(f"stop of window {name!r}", pair[1], pair[0] + 1)
    return {name: (int(start), int(stop)) for name, (start, stop) in pairs.items()}


def piece_label(name: str, window: str) -> str:
    """Label of a window of a system, if windows are compared as systems of their own."""
    return f"{name}, {window}"


def as_pieces(systems: Mapping[str, Any], windows: Mapping[str, tuple[int, int]], device: Any = None) -> dict[str, Any]:
    """Each window of each system as a system of its own, system by system.

    Raises
    ------
    DataError
        Two pieces of one label, or what `cut` refuses.
    """
    pieces: dict[str, Any] = {}
    for name, system in systems.items():
        for window, trials in cut(system, windows, name, device).items():
            if (label := piece_label(name, window)) in pieces:
                raise DataError(f"two pieces would be called {label!r}; rename system {name!r} or window {window!r}")
            pieces[label] = trials
    return pieces


def cut(
    system: Any,
    windows: Mapping[str, tuple[int, int]],
    name: str = "system",
    device: Any = None,
    *,
    constant: bool = False,
) -> dict[str, list[Tensor]]:
    """Cut the trials of a system into windows: a mapping from window to pieces, which are views of the trials.

    ``constant`` lets channels pass that do not vary, as those of inputs.

    Raises
    ------
    DataError
        A trial that ends before a window does, or data that `as_trials` refuses.
    """
    trials = as_trials(system, name, device, constant=constant)
    pieces = {}
    for window, (start, stop) in windows.items():
        for k, trial in enumerate(trials):
            if len(trial) < stop:
                raise DataError(
                    f"window {window!r} ends at sample {stop}, but system {name!r}, trial {k} has {len(trial)}; "
                    f"shorten the window, or leave such trials out by omit_trials(systems, shorter_than={stop})"
                )
        pieces[window] = [trial[start:stop] for trial in trials]
    return pieces
