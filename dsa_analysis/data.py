"""What users hand in -> checked systems: lists of trials as tensors, each (n_times, n_channels).

A *system* is whatever produced the trajectories: one network, one recording, one attractor. Accepted layouts are

    (n_trials, n_times, n_channels)     trials of equal length
    (n_times, n_channels)               one trial
    (n_times,)                          one trial of one channel
    a list or tuple of such trials      trials of unequal length, the same channels in each

as numpy arrays (memory-mapped ones too), torch tensors, xarray objects, data frames or sparse matrices, real numbers of
any kind. Masked and missing values count as NaN. Named dimensions (xarray, pandas, torch) such as ("unit", "time",
"trial") are put in order by their names; an order that the names do not settle is refused. See `containers`.

Nothing is repaired here: data that cannot be used are refused with the place at which the problem was found, unless
you ask `omit_trials` to leave such trials out.
"""

import dataclasses
import difflib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsa_analysis.containers import DataError, as_tensor, is_list, trial_dimension

__all__ = [
    "DataError",
    "as_device",
    "as_generator",
    "as_systems",
    "as_trials",
    "check_choice",
    "check_count",
    "check_flag",
    "check_number",
    "omit_trials",
    "refuse_non_finite",
    "rounding",
    "shown",
]

LAYOUTS = "(n_trials, n_times, n_channels), (n_times, n_channels), or a list of (n_times_i, n_channels)"
LARGEST_SEED = 2**63 - 1  # what fits into the integers of torch, numpy and files
LARGEST_COUNT = 10**9
MOST_REPEATS = 10**6  # of starts, splits, permutations and the like; more would run for years
NESTED = "give np.asarray(x) for one array, or [np.asarray(trial) for trial in x] for a list of trials"


# ---- settings --------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """``value`` for a message: its repr, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of more than some thousand digits
        return f"a number of {int(abs(value).bit_length() * math.log10(2)) + 1} digits"
    return text if len(text) <= 200 else f"{text[:150]}... ({len(text)} characters)"


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse a value that is not one of ``choices``, naming the nearest one."""
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return
    near = difflib.get_close_matches(shown(value).strip("'"), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(f"{name} = {shown(value)} is none of {', '.join(map(repr, choices))}{hint}")


def check_seed(seed: Any) -> int:
    """``seed`` as a Python integer; refuse what generators do not take."""
    return check_count("seed", seed, 0, LARGEST_SEED)


def check_count(name: str, value: Any, least: int = 1, most: int = LARGEST_COUNT) -> int:
    """``value`` as a Python integer; refuse what is not a whole number from ``least`` to ``most``."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and least <= value <= most:
        return int(value)
    limit = f" and at most {most}" if whole and value > most else ""
    raise DataError(f"{name} = {shown(value)} is not a whole number of at least {least}{limit}")


def check_number(name: str, value: Any, what: str, least: float = -math.inf, *, above: bool = False) -> float:
    """``value`` as a Python float; refuse what is not a finite number of at least (or ``above``) ``least``.

    ``what`` ends the message "name = value is not ...": "a time in ms of at least 0".
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a Python integer beyond 1e308
            number = math.inf
        if math.isfinite(number) and (number > least if above else number >= least):
            return number
    raise DataError(f"{name} = {shown(value)} is not {what}")


def check_flag(name: str, value: Any) -> bool:
    """``value`` as a Python bool; refuse anything but true and false, such as the text "False"."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise DataError(f"{name} = {shown(value)} is neither True nor False")


def as_device(device: str | torch.device | None) -> torch.device | None:
    """The device of that name; ``"auto"`` is CUDA where there is one; ``None`` leaves data where they are."""
    if device is None:
        return None
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
        torch.empty(0, dtype=torch.float64, device=wanted)
    except Exception:  # torch has another kind for each kind of device
        present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise DataError(f"device = {device!r} is not there, or lacks float64; here are {', '.join(present)}") from None
    return wanted


def as_generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator:
    """The generator that came, or one of ``seed``; exactly one of the two is needed."""
    if generator is not None and seed is None:
        return generator
    if generator is not None or seed is None:
        raise DataError("give exactly one of seed and generator")
    return torch.Generator().manual_seed(check_seed(seed))


# ---- systems ---------------------------------------------------------------------------------------------------------


def as_systems(systems: Any) -> dict[str, Any]:
    """Label each system: a mapping keeps its names, a sequence is counted ("0", "1", ...). Contents are not checked."""
    if isinstance(systems, Mapping):
        named = {str(name): system for name, system in systems.items()}
        if len(named) < len(systems):
            raise DataError(f"two systems have the same name: {', '.join(map(str, systems))}")
    elif isinstance(systems, Sequence) and not isinstance(systems, (str, bytes)):
        named = {str(index): system for index, system in enumerate(systems)}
    else:
        raise DataError(
            f"systems came as {_kind(systems)}; give a mapping from name to system, or a list of systems "
            f"(a single system goes into a list of one)"
        )
    if not named:
        raise DataError("no systems came; at least one is needed")
    return named


def as_trials(
    system: Any, name: str = "system", device: torch.device | None = None, *, constant: bool = False
) -> list[Tensor]:
    """The trials of one system, each (n_times, n_channels), finite and real, in the precision they came in.

    Trials of a tensor are views of it. ``name`` is used in messages; ``device`` moves the trials there;
    ``constant`` lets channels pass that do not vary.

    Raises
    ------
    DataError
        Wrong layout, complex or non-numeric values, units, named dimensions whose order is unclear, masked samples, NaN
        or infinity (with trial, channel and sample), trials of unequal channel counts, or no variance at all.
    """
    trials = _split(system, name)
    refuse_non_finite(trials, name)
    if not constant:
        _look_at_variance(trials, name)
    return [trial.to(device) for trial in trials] if device is not None else trials


def omit_trials(systems: Any, *, non_finite: bool = False, shorter_than: int = 0, matched: bool = False) -> Any:
    """The systems without the trials that nothing could be fitted to; one warning tells how many went from which.

    Where systems are compared trial by trial ("cka", "procrustes"), leaving out other trials of each would match what
    does not belong together, and unseen if their numbers agree: ``matched`` is for these.

    Parameters
    ----------
    systems : mapping from name to system, or sequence of systems
        Data, as in `compare`.
    non_finite : bool
        Leave out trials that hold NaN or infinity.
    shorter_than : int >= 0, in samples
        Leave out trials of fewer. An embedding needs (n_delays - 1) * delay_interval + 1 + steps_ahead.
    matched : bool
        A trial that goes from one system goes from all.

    Returns
    -------
    dict or list
        As they came, each in its own layout and type; a system that loses nothing is the same object. A `Recording`
        notes which trials went.

    Raises
    ------
    DataError
        A system of which nothing is left, systems of unequal numbers of trials that were to be matched, or a wrong
        layout.
    """
    shorter_than = check_count("shorter_than", shorter_than, 0)
    non_finite, matched = check_flag("non_finite", non_finite), check_flag("matched", matched)
    named = as_systems(systems)
    trials = {name: _split(system, name) for name, system in named.items()}
    gone = {
        name: {k for k, x in enumerate(own) if len(x) < shorter_than or (non_finite and not _is_finite(x))}
        for name, own in trials.items()
    }
    if matched:
        if len({len(own) for own in trials.values()}) > 1:
            counts = ", ".join(f"{name!r} {len(own)}" for name, own in trials.items())
            raise DataError(f"matched trials are as many in each system, but came as {counts}")
        gone = dict.fromkeys(gone, set().union(*gone.values()))
    for name, own in trials.items():
        if len(gone[name]) == len(own):
            wrong = " or ".join(
                ["hold NaN or infinity"] * non_finite + [f"are shorter than {shorter_than}"] * (shorter_than > 0)
            )
            raise DataError(
                f"system {name!r}: of its {len(own)} trials none would be left, since all {wrong}"
                f"{', here or in another system' * matched}; leave out the system, or repair the recording"
            )
    if any(gone.values()):
        listed = ", ".join(f"{len(out)} of {len(trials[name])} of {name!r}" for name, out in gone.items() if out)
        warnings.warn(f"trials left out: {listed}", stacklevel=2)
    kept = {name: _without(system, gone[name], len(trials[name])) for name, system in named.items()}
    return kept if isinstance(systems, Mapping) else list(kept.values())


def _without(system: Any, gone: set[int], n_trials: int) -> Any:
    """A system of several trials without some of them."""
    if not gone:
        return system
    left = [k for k in range(n_trials) if k not in gone]
    if not hasattr(system, "__array__") and hasattr(system, "trials"):
        noted = system.settings | {"omitted_trials": sorted(gone)}
        return dataclasses.replace(system, trials=_without(system.trials, gone, n_trials), settings=noted)
    if (dimension := trial_dimension(system)) is not None:
        return system.isel({dimension: left})
    if isinstance(system, Tensor) and system.is_nested:
        trials = _split(system, "system")
        return [trials[k] for k in left]
    if isinstance(system, np.ndarray) and system.dtype.kind == "O":
        system = list(system.ravel())
    return [system[k] for k in left] if isinstance(system, (list, tuple)) else system[left]


def _split(system: Any, name: str) -> list[Tensor]:
    """The trials of one system, each (n_times, n_channels) of real numbers."""
    if not hasattr(system, "__array__"):  # an xarray object may have an axis of that name
        system = getattr(system, "trials", system)  # of a recording
    array = system if is_list(system) else as_tensor(system, f"system {name!r}")
    trials = (
        [_as_trial(trial, f"system {name!r}, trial {k}") for k, trial in enumerate(array)] if is_list(array) else []
    )
    if isinstance(array, Tensor):
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim not in (2, 3):
            raise DataError(f"system {name!r} has shape {tuple(array.shape)}; accepted are {LAYOUTS}")
        trials = list(array.unbind(0)) if array.ndim == 3 else [array]
    if not trials:
        raise DataError(f"system {name!r} has no trials; at least one is needed")
    n_channels = trials[0].shape[1]
    for k, trial in enumerate(trials):
        if not len(trial):
            raise DataError(f"system {name!r}, trial {k} has no samples; at least one is needed")
        if trial.shape[1] != n_channels or not n_channels:
            raise DataError(
                f"system {name!r}, trial {k} has {trial.shape[1]} channels, trial 0 has {n_channels}; all trials need "
                f"the same, at least 1"
            )
    return trials


def _as_trial(trial: Any, where: str) -> Tensor:
    """One trial of a list. Nested lists could mean trials, samples or channels, so they are refused."""
    tensor = trial if is_list(trial) else as_tensor(trial, where)
    if isinstance(tensor, list | tuple) or not tensor.ndim:
        raise DataError(f"{where} is {'a list' if is_list(tensor) else 'a number'} inside a list; {NESTED}")
    tensor = tensor[:, None] if tensor.ndim == 1 else tensor
    if tensor.ndim != 2:
        raise DataError(f"{where} has shape {tuple(tensor.shape)}; a trial of a list is (n_times_i, n_channels)")
    return tensor


def _kind(value: Any) -> str:
    return type(value).__name__


def _is_finite(trial: Tensor) -> bool:
    return not trial.is_floating_point() or bool(torch.isfinite(trial).all())


def refuse_non_finite(trials: list[Tensor], name: str, first_load: str = "") -> None:
    """Raise `DataError` with the place of the first NaN or infinity, and the way out."""
    for k, trial in enumerate(trials):
        if not _is_finite(trial):
            wrong = ~torch.isfinite(trial)
            channel = int(wrong.any(0).nonzero()[0])
            count, first = int(wrong[:, channel].sum()), int(wrong[:, channel].nonzero()[0])
            raise DataError(
                f"system {name!r}, trial {k}, channel {channel}: {count} non-finite value{'s' * (count > 1)}, first at "
                f"sample {first} ({trial[first, channel].item()}); {first_load}leave such trials out by "
                f"omit_trials(systems, non_finite=True), or repair the recording"
            )


def rounding(dtype: torch.dtype | np.dtype) -> float:
    """The range, relative to the largest value, that arithmetic makes of a constant; 0 for whole numbers.

    A constant channel that was smoothed, filtered or shifted varies by rounding errors, so a comparison of its minimum
    with its maximum does not find it. The tolerance is 1e-12 in float64 and 64 units of the last place in float32.
    """
    return {"float64": 1e-12, "float32": 64 * 2.0**-23}.get(str(dtype).removeprefix("torch."), 0.0)


def _look_at_variance(trials: list[Tensor], name: str) -> None:
    low = torch.stack([trial.amin(0) for trial in trials]).amin(0)
    high = torch.stack([trial.amax(0) for trial in trials]).amax(0)
    tolerance = max(rounding(trial.dtype) for trial in trials)
    magnitude = torch.maximum(low.double().abs(), high.double().abs())
    near = high.double() - low.double() <= tolerance * magnitude if tolerance else high == low
    constant = near.nonzero().flatten().tolist()
    if len(constant) == trials[0].shape[1]:
        raise DataError(
            f"system {name!r} is constant in all {len(constant)} channels: it has no variance, and so no dynamics"
        )
    if constant:
        warnings.warn(f"system {name!r}: constant channels {constant} carry nothing", stacklevel=4)
    longest = max(len(trial) for trial in trials)
    if trials[0].shape[1] > 10 * longest:
        warnings.warn(
            f"system {name!r}: {trials[0].shape[1]} channels x {longest} samples; is time on the last axis? "
            f"It belongs before the channels: {LAYOUTS}",
            stacklevel=4,
        )
