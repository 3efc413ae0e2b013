"""Spike trains -> rates: the rows of the tables that a condition selects, windows of trials, counts in bins."""

from __future__ import annotations

import ast
import re
import warnings
from io import StringIO
from tokenize import generate_tokens, untokenize
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.containers import DataError, check_memory
from dsa_analysis.data import check_choice
from dsa_analysis.recordings.contents import SpikeTrains
from dsa_analysis.recordings.processing import check_width, reach

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-6  # s, of times written with few digits


def rates(
    spikes: SpikeTrains,
    rate: float,
    where: str,
    *,
    smooth: float = 0.0,
    align_to: str | None = None,
    window: tuple[float, float] | None = None,
    trials: str | None = None,
    units: str | None = None,
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Spikes a second of each unit, (n_bins_i, n_units) for each trial in bins of 1 / ``rate`` s; what was selected.

    Parameters are those of `load_recording`.
    """
    if len(spikes.times) != len(spikes.units):
        raise DataError(f"{where}: spike times of {len(spikes.times)} units, but a table of {len(spikes.units)} units")
    which = select(spikes.units, units, "units", where)
    table = spikes.trials[select(spikes.trials, trials, "trials", where)]
    times = {unit: _rising(spikes.times[unit], unit, where) for unit in np.flatnonzero(which).tolist()}
    starts, stops = _limits(table, align_to, window, where)
    n_bins = np.floor((stops - starts) * rate + 1e-6)  # a bin that lacks a rounding error is whole
    wrong = np.flatnonzero(~(n_bins >= 1) | ~np.isfinite(n_bins))
    if len(wrong):
        numbers = [str(table.index[k]) for k in wrong[:5]] + ["..."] * (len(wrong) > 5)
        raise DataError(
            f"{where}: trials {', '.join(numbers)} hold no bin of {1000 / rate:g} ms, or lack a time (trial "
            f"{numbers[0]}: {starts[wrong[0]]:g} to {stops[wrong[0]]:g} s); leave them out by trials, such as "
            f"trials='stop_time > start_time'"
        )
    _warn_of_unobserved(spikes.observed, list(times), starts, stops, where)
    width = check_width(smooth, rate, n_bins.max(), where) if smooth else 0.0
    margin = reach(width)  # so that the Gaussian meets spikes and not the end of the trial
    check_memory(8 * float(n_bins.sum() + 2 * margin) * len(times), f"{where}: bins of {1000 / rate:g} ms")
    result = [_counted(times, start, int(n), rate, width, margin) for start, n in zip(starts, n_bins, strict=True)]
    kept = {"n_trials": f"{len(table)} of {len(spikes.trials)}", "n_units": f"{len(times)} of {len(spikes.times)}"}
    return result, kept


def select(table: pd.DataFrame, condition: str | None, what: str, where: str) -> np.ndarray:
    """Which rows of the table a condition holds for, bool (n_rows,).

    `pandas.DataFrame.query` takes any value for labels of rows, such as the 0 and 1 of a column of integers, and
    numbers beside "and" and "or" bit by bit or as true. Here each part of a condition is true or false in each row, or
    it is refused.
    """
    if condition is None:
        return np.ones(len(table), bool)
    if not isinstance(condition, str):
        raise DataError(f"{where}: {what} = {condition!r} is no text; give a condition such as 'correct == 1'")
    asked = f"{where}: {what} = {condition!r}"
    try:
        tree, named = _parsed(condition, table)
        rows = _holds(tree, named, asked)
    except DataError:
        raise
    except Exception as problem:  # pandas raises whatever the words in the condition lead it to
        said = " ".join(str(problem).split())
        raise DataError(f"{asked} cannot be answered ({said}); {_columns(table)}") from None
    if not rows.any():
        raise DataError(f"{asked} leaves none of {len(table)}")
    return rows


def _columns(table: pd.DataFrame) -> str:
    left_out = "; ".join(f"{name}: {why}" for name, why in table.attrs.get("left_out", {}).items())
    return f"columns are {', '.join(map(str, table))}" + f" (not usable: {left_out})" * bool(left_out)


def _parsed(condition: str, table: pd.DataFrame) -> tuple[ast.expr, pd.DataFrame]:
    """The condition as Python parses it, and the table with names of columns that Python takes."""
    names = {f"`{name}`": f"column_{k}_" for k, name in enumerate(table)}
    quoted = re.sub("`[^`]*`", lambda found: names.get(found[0], found[0]), condition)
    words = {"&": " and ", "|": " or ", "~": " not "}  # as pandas reads them
    tokens = [(one.type, words.get(one.string, one.string)) for one in generate_tokens(StringIO(quoted).readline)]
    used = {name: names[f"`{name}`"] for name in table if f"`{name}`" in condition}
    both = table.assign(**{new: table[name] for name, new in used.items()})
    return ast.parse(untokenize(tokens).strip(), mode="eval").body, both


def _holds(node: ast.expr, table: pd.DataFrame, asked: str) -> np.ndarray:
    """Where an expression is true, bool (n_rows,); each operand of "and", "or" and "not" has to be true or false."""
    if isinstance(node, ast.BoolOp):
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return join.reduce([_holds(part, table, asked) for part in node.values])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_holds(node.operand, table, asked)
    part = ast.unparse(node)
    if any(isinstance(one, ast.BoolOp) for one in ast.walk(node)):
        raise DataError(f"{asked}: 'and' and 'or' stand within {part!r}; put each comparison in brackets")
    value = table.eval(part, engine="python", local_dict={}, global_dict={})
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if not hasattr(value, "isna") or value.shape != (len(table),) or kind != "b" or value.isna().any():
        came = {"f": "numbers", "i": "numbers", "u": "numbers", "O": "text", "T": "text"}.get(kind, "one value")
        example = f"{part} == 1" if part in table else "correct == 1"
        raise DataError(
            f"{asked}: {part!r} is no condition, since it gives {came} and not true or false for each row; say what "
            f"must hold, such as {example!r}; {_columns(table)}"
        )
    return value.to_numpy(dtype=bool)


def _limits(
    table: pd.DataFrame, align_to: str | None, window: tuple[float, float] | None, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of each trial in s."""
    numeric = [str(name) for name, dtype in table.dtypes.items() if dtype.kind in "fiu"]
    if align_to is not None and window is not None:
        check_choice("align_to", align_to, numeric)
        events = table[align_to].to_numpy(float)
        return events + window[0], events + window[1]
    missing = [name for name in ("start_time", "stop_time") if name not in numeric]
    if missing:
        raise DataError(
            f"{where}: the table of trials has no times {' and '.join(missing)}; {_columns(table)}; say align_to, one "
            f"of its columns of times, and window"
        )
    return table["start_time"].to_numpy(float), table["stop_time"].to_numpy(float)


def _warn_of_unobserved(
    observed: list[np.ndarray] | None, units: list[int], starts: np.ndarray, stops: np.ndarray, where: str
) -> None:
    """Warn of units that were not observed in whole trials, where no spike does not mean a rate of 0."""
    if observed is None:
        return
    counts = {}
    for unit in units:
        begin, end = (observed[unit][:, k] for k in (0, 1))
        within = (begin <= starts[:, None] + ROUNDING) & (stops[:, None] <= end + ROUNDING)  # (trial, interval)
        counts[unit] = int((~within.any(1)).sum())
    wrong = {unit: count for unit, count in counts.items() if count}
    if wrong:
        unit, count = next(iter(wrong.items()))
        warnings.warn(
            f"{where}: {len(wrong)} of {len(units)} units were not observed during some trials (obs_intervals; unit "
            f"{unit} in {count} of {len(starts)}), where their rates read 0; leave them out by units or trials",
            stacklevel=4,
        )


def _rising(times: np.ndarray, unit: int, where: str) -> np.ndarray:
    if not np.isfinite(times).all():
        k = int(np.argmin(np.isfinite(times)))
        raise DataError(f"{where}, unit {unit}: the time of spike {k} is {times[k]}")
    if not (np.diff(times) >= 0).all():
        k = int(np.argmin(np.diff(times) >= 0))
        raise DataError(
            f"{where}, unit {unit}: spike times do not rise at spike {k + 1} ({times[k]:g} s, then {times[k + 1]:g} s)"
        )
    return times


def _counted(
    times: dict[int, np.ndarray], start: float, n_bins: int, rate: float, width: float, margin: int
) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    edges = start + np.arange(-margin, n_bins + margin + 1) / rate
    counts = rate * np.stack([np.diff(np.searchsorted(one, edges)) for one in times.values()], 1).astype(float)
    if width:
        counts = gaussian_filter1d(counts, width, axis=0, mode="constant", radius=margin)
    return counts[margin : margin + n_bins]
