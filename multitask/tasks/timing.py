"""Random draws of a batch, and durations of periods in time steps.

A timetable has one row for each period and one column for each mode. Each entry is either a duration or the time at
which the period ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multitask.trials import MultitaskError

MODES = ("random", "test", "psychometric")
Periods = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Draws:
    """Source of the random conditions of a batch.

    Attributes
    ----------
    generator : torch.Generator
        CPU generator that all values are drawn from.
    n_trials : int >= 1
        Number of values in a draw unless ``n`` is given.
    easiness : float in [0, 1]
        0 for the standard difficulty, 1 for easy trials.
    """

    generator: torch.Generator
    n_trials: int
    easiness: float

    def uniform(self, low: float, high: float, n: int | None = None) -> Tensor:
        """Uniform values in [low, high), (n,), float64; ``n`` is the number of trials by default."""
        unit = torch.rand(n or self.n_trials, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * unit

    def choice(self, values: Sequence[float], n: int | None = None) -> Tensor:
        """Equally likely values, (n,), int64 or float64; ``n`` is the number of trials by default."""
        index = torch.randint(len(values), (n or self.n_trials,), generator=self.generator)
        return torch.from_numpy(np.array(values))[index]  # int64 or float64


class Uniform(NamedTuple):
    """A duration drawn uniformly from [low, high), ms."""

    low: float
    high: float


class Choice(NamedTuple):
    """A duration drawn from equally likely values, ms."""

    values: tuple[int, ...]


class At(NamedTuple):
    """End of a period, in ms after the start of the trial, or the name of a time that the caller gives."""

    time: float | str


Entry = float | str | Uniform | Choice | At
Timetable = dict[str, tuple[Entry, Entry, Entry]]


def schedule(timetable: Timetable, mode: str, dt: float, draws: Draws, times: Mapping[str, float]) -> Periods:
    """Time steps of each period of a batch.

    Every duration is truncated to whole time steps separately.

    Parameters
    ----------
    timetable : dict of period -> entries for the modes "random", "test" and "psychometric"
    mode : "random", "test" or "psychometric"
    dt : float > 0, ms
        Length of a time step.
    draws : Draws
        Source of random durations.
    times : mapping name -> time, ms
        Values of the times that the timetable refers to by name.

    Returns
    -------
    dict of period -> (start, stop)
        Each period covers the time steps [start, stop).

    Raises
    ------
    MultitaskError
        If a period has no time step.
    """

    def steps(time: float | str) -> int:
        return int((times[time] if isinstance(time, str) else time) / dt)

    periods: Periods = {}
    start = 0
    for name, row in timetable.items():
        match row[MODES.index(mode)]:
            case At(time):
                stop = steps(time)
            case Uniform(low, high):
                stop = start + steps(draws.uniform(low, high, 1).item())
            case Choice(values):
                stop = start + steps(draws.choice(values, 1).item())
            case duration:
                stop = start + steps(duration)
        if stop <= start:
            raise MultitaskError(
                f"period {name!r} has no time step: it starts at step {start} and ends at step {stop} with "
                f"dt = {dt:g} ms. Use a smaller dt, or choose later times for the end of the period"
            )
        periods[name] = (start, stop)
        start = stop
    return periods
