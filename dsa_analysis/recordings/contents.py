"""What a reader returns: the variables of a file of arrays, or the spike trains of a file of spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.containers import DataError, as_tensor

if TYPE_CHECKING:
    import pandas as pd

# By name: an array, a list of arrays (trials), or words that say why a variable cannot be used, such as "text".
Variables = dict[str, "np.ndarray | list[np.ndarray] | str"]


@dataclass(frozen=True)
class SpikeTrains:
    """Spike times and the two tables from which units and trials are selected.

    Attributes
    ----------
    times : list of (n_spikes_i,)
        Rising spike times of each unit, in s.
    units, trials : pandas.DataFrame
        One row a unit, one row a trial, rows counted from 0. Trials have the columns start_time and stop_time, in s,
        or other columns of times to align to.
    observed : list of (n_intervals_i, 2), optional
        Start and stop in s of the intervals in which each unit was observed; None where that is not known.
    """

    times: list[np.ndarray]
    units: pd.DataFrame
    trials: pd.DataFrame
    observed: list[np.ndarray] | None = None


def as_contents(found: Any, where: str) -> Variables | SpikeTrains:
    """What a reader returned, in one form: masked values as NaN, named dimensions in order.

    Raises
    ------
    DataError
        Anything but an array, a list of arrays, a mapping from names to these or text, or `SpikeTrains`.
    """
    if isinstance(found, SpikeTrains):
        return found
    named = dict(found) if isinstance(found, Mapping) else {"": found}
    return {str(name): _as_variable(value, f"{where}, {name}" if name else where) for name, value in named.items()}


def _as_variable(value: Any, where: str) -> np.ndarray | list[np.ndarray] | str:
    if isinstance(value, str) or type(value) is np.ndarray:
        return value
    if isinstance(value, (list, tuple)):
        return [_as_array(trial, where) for trial in value]
    return _as_array(value, where)


def _as_array(value: Any, where: str) -> np.ndarray:
    if type(value) is np.ndarray:
        return value
    if not hasattr(value, "__array__") and not hasattr(value, "shape"):
        raise DataError(
            f"{where}: the reader returned {type(value).__name__}; it must return an array, a list of arrays, a "
            f"mapping from names to these, or SpikeTrains"
        )
    tensor = as_tensor(value, where)
    if isinstance(tensor, list):
        raise DataError(f"{where}: the reader returned an array of arrays; it must return a list of arrays")
    return tensor.cpu().numpy()
