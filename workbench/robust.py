"""Does a verdict hold under other choices, and against chance? The options --stability and --null of ``compare``."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import dsa_analysis as dsa
from dsa_analysis import Comparison
from dsa_analysis.metrics import is_matched
from dsa_analysis.nulls import EXCHANGE
from dsa_analysis.stability import ALL, OF_DATA
from workbench.options import CHOICE, count, positive
from workbench.settings import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from dsa_analysis.nulls import Nulls
    from dsa_analysis.stability import Stability

LEAST_SYSTEMS = 4  # that have an order of distances worth the name


def count_or_all(text: str) -> int | str:
    return text if text == ALL else count(text)


READ: dict[str, Any] = {"estimator": str, "metric": str, "horizon": positive, "delay_window": positive} | dict.fromkeys(
    OF_DATA, count_or_all
)  # how values of an axis are written; those of others are counts
FIELDS = {"delay_window": "window"}


def check(arguments: argparse.Namespace, metric: Any) -> None:
    """Refuse what could not be done, before any file is read."""
    asked = {"--stability": arguments.stability, "--null": arguments.null}
    for option, words in asked.items():
        if words is None:
            continue
        if arguments.operators:
            raise ConfigError(f"{option}: compares data again, and --operators says that files hold none")
        if getattr(arguments, CHOICE + "windows", None) is not None:
            raise ConfigError(f"{option}: compares whole trials; leave --windows out")
    if arguments.stability is not None:
        grid(arguments.stability)
        if len(arguments.files) < LEAST_SYSTEMS:
            raise ConfigError(
                f"--stability: judges the order of distances, which takes {LEAST_SYSTEMS} files or more; "
                f"{len(arguments.files)} came"
            )
    if arguments.null is not None and arguments.null_draws < 19:
        raise ConfigError(f"--null-draws: {arguments.null_draws} is too few; give 19 or more")
    if arguments.null is not None and EXCHANGE in kinds(arguments.null) and is_matched(metric):
        raise ConfigError(
            f"--null {EXCHANGE}: exchanges trials, which metric {metric.name} takes to correspond; use --null "
            f"shuffle_times or shuffle_trials"
        )


def kinds(words: Sequence[str]) -> list[str]:
    """The kinds of nulls that were asked for, each once."""
    return list(dict.fromkeys(words)) or [EXCHANGE]


def grid(words: Sequence[str]) -> dict[str, list[Any]]:
    """The axes that were asked for: name -> values."""
    axes: dict[str, list[Any]] = {}
    for word in words:
        name, _, values = word.partition("=")
        name = name.replace("-", "_")
        try:
            found = [READ.get(name, count)(value) for value in values.split(",")]
        except argparse.ArgumentTypeError as error:
            raise ConfigError(f"--stability {word}: {error}") from None
        axes[FIELDS.get(name, name)] = list(dict.fromkeys([*axes.get(FIELDS.get(name, name), []), *found]))
    return axes


def neighbourhood(how: Comparison, shortest: int, fewest: int) -> dict[str, list[Any]]:
    """A grid around a comparison: half and twice its delays, ranks and horizon, or fewer samples and trials.

    Parameters
    ----------
    how : Comparison
    shortest : int
        Samples of the shortest trial.
    fewest : int
        Trials of the system with the fewest.
    """
    if how.metric.needs == "trials":
        return {"trial_length": [ALL, max(2, shortest // 2)], "n_trials": [ALL, max(2, fewest // 2)]}
    interval = how.dt if isinstance(how.dt, int | float) else max((how.dt or {"": 1.0}).values())
    rank, axes = cast("int", how.rank), dict[str, list[Any]]()
    if how.window is not None:
        axes["window"] = _times(how.window, interval * how.delay_interval)
    else:
        axes["n_delays"] = _counts(cast("int", how.n_delays))
    axes["rank"] = sorted({max(2, round(rank / 1.4)), rank, round(1.4 * rank)})
    if how.horizon is not None:
        axes["horizon"] = _times(cast("float", how.horizon), interval)
    else:
        axes["steps_ahead"] = _counts(how.steps_ahead or 1)
    return axes


def _counts(n: int) -> list[int]:
    return sorted({max(1, n // 2), n, 2 * n})


def _times(time: float, interval: float) -> list[float]:
    """Half a time, the time and twice it, as multiples of an interval."""
    steps = max(1, round(time / interval))
    return [time if other == steps else other * interval for other in _counts(steps)]


def stability(
    systems: Mapping[str, Any],
    how: Comparison,
    words: Sequence[str],
    groups: Sequence[str],
    device: Any,
    progress: bool,
) -> "Stability":
    """The verdict over the grid that was asked for, or over the neighbourhood of the comparison."""
    axes = grid(words)
    if axes:  # the choices in use are the reference
        used = {name: ALL if name in OF_DATA else getattr(how, name) for name in axes}
        used |= {"metric": how.metric.name} if "metric" in axes else {}
        used |= {"steps_ahead": how.steps_ahead or 1} if "steps_ahead" in axes and how.horizon is None else {}
        axes = {name: list(dict.fromkeys([used[name], *values])) for name, values in axes.items()}
        axes = {
            name: values if ALL in values or isinstance(values[0], str) else sorted(values)
            for name, values in axes.items()
        }
    lengths = [len(trial) for system in systems.values() for trial in system.trials]
    fewest = min(len(system.trials) for system in systems.values())
    return dsa.stability(
        systems, how, over=axes or neighbourhood(how, min(lengths), fewest), groups=groups or None,
        leave_out=not axes, device=device, progress=progress,
    )  # fmt: skip


def nulls(
    systems: Mapping[str, Any], how: Comparison, arguments: argparse.Namespace, progress: bool
) -> "dict[str, Nulls]":
    """Null distances by kind."""
    return {
        kind: dsa.null_distances(
            systems, how, kind=kind, n=arguments.null_draws, device=arguments.device, progress=progress
        )
        for kind in kinds(arguments.null)
    }


def against_nulls(
    table: "pd.DataFrame", similarity: dsa.Similarity, floor: "pd.Series | None", nulls: "Mapping[str, Nulls]"
) -> "pd.DataFrame":
    """The table of pairs with columns for each null: its mean, p, Holm's p, and the distance from floor 0 to null 1.

    There is no scale to exchanged trials, whose distances are those of one system to itself.
    """
    table = table.copy()
    for kind, null in nulls.items():
        found = null.to_dataframe()
        for column in ("null", "p", "p_holm"):
            table[f"{column}_{kind}"] = found[column]
        if floor is not None and kind != EXCHANGE:
            scale = similarity.scaled(floor, null)
            for column, told in (("scaled", "scaled"), ("low", "scaled_low"), ("high", "scaled_high")):
                table[f"{told}_{kind}"] = scale[column]
    return table
