"""Surrogate trials: recordings that keep some properties of the data and lose all others, for null distances.

    kind             keeps                                       destroys
    phase            mean, auto- and cross-spectra               all that is nonlinear or not Gaussian
    iaaft            values of each channel, spectra nearly      nonlinear dynamics
    shuffle_times    values and correlations of each sample      all dynamics
    shuffle_trials   each channel of each trial as it is         what channels of one trial share

Phases are drawn once for all channels of a trial, so that channels keep their relations (Prichard and Theiler 1994).
Values are restored by the iteration of Schreiber and Schmitz (1996, 2000).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_trials, check_choice, check_seed

SHORTEST = 16  # samples of a trial: shorter ones have too few frequencies
ITERATIONS = 100  # of iaaft, at most; it stops when no value changes place


def surrogates(trials: Any, kind: str = "phase", *, seed: int) -> Tensor | list[Tensor]:
    """Draw one surrogate of each trial of a system.

    Which one to take depends on the question. "phase" keeps all that a linear operator is fitted to, so distances
    between surrogates of two systems are what linear statistics alone give, and "shuffle_times" leaves no dynamics at
    all. A circular shift of trials is no surrogate for DSA: it keeps the operator, but for the seam.

    Parameters
    ----------
    trials : (n_trials, n_times, n_channels) or list of (n_times_i, n_channels)
    kind : "phase", "iaaft", "shuffle_times" or "shuffle_trials"
        See the table at the top of this module.
    seed : int >= 0

    Returns
    -------
    Tensor, or list of Tensor if trials have unequal lengths
        Of the same shapes, float64, on the device of the trials.

    Raises
    ------
    DataError
        An unknown kind, a trial of fewer than 16 samples, a constant channel, or, for "shuffle_trials", a single trial
        or trials of unequal length.
    """
    check_choice("kind", kind, KINDS)
    parts = [trial.double() for trial in as_trials(trials, "trials")]
    generator = torch.Generator().manual_seed(check_seed(seed))
    for place, trial in enumerate(parts):
        if len(trial) < SHORTEST:
            raise DataError(f"trial {place} has {len(trial)} samples; surrogates need at least {SHORTEST}")
        if (flat := (trial == trial[0]).all(0)).any():
            raise DataError(f"trial {place}, channel {int(flat.nonzero()[0])} is constant, and has no surrogate")
    found = KINDS[kind](parts, generator)
    return torch.stack(found) if len({len(trial) for trial in found}) == 1 else found


def _phase(parts: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [_with_phases(trial, _phases(len(trial), generator).to(trial.device)) for trial in parts]


def _iaaft(parts: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [_values_restored(trial, _phases(len(trial), generator).to(trial.device)) for trial in parts]


def _shuffle_times(parts: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [trial[torch.randperm(len(trial), generator=generator).to(trial.device)] for trial in parts]


def _shuffle_trials(parts: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    lengths = {len(trial) for trial in parts}
    if len(parts) < 2 or len(lengths) > 1:
        raise DataError(
            f"shuffle_trials needs at least 2 trials of one length; {len(parts)} came, of {min(lengths)} to "
            f"{max(lengths)} samples"
        )
    stacked = torch.stack(parts)
    orders = [torch.randperm(len(parts), generator=generator).to(stacked.device) for _ in range(stacked.shape[-1])]
    mixed = torch.stack([stacked[order, :, channel] for channel, order in enumerate(orders)], -1)
    return list(mixed)


KINDS: dict[str, Callable[[list[Tensor], torch.Generator], list[Tensor]]] = {
    "phase": _phase,
    "iaaft": _iaaft,
    "shuffle_times": _shuffle_times,
    "shuffle_trials": _shuffle_trials,
}


def _phases(n_times: int, generator: torch.Generator) -> Tensor:
    """Random rotations of the frequencies of a real signal, (n_frequencies, 1): none at zero, signs at the highest."""
    angles = 2 * torch.pi * torch.rand(n_times // 2 + 1, 1, generator=generator, dtype=torch.float64)
    angles[0] = 0.0
    if n_times % 2 == 0:
        angles[-1] = torch.pi * (angles[-1] > torch.pi)
    return torch.polar(torch.ones_like(angles), angles)


def _with_phases(trial: Tensor, rotations: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(trial, dim=0) * rotations, n=len(trial), dim=0)


def _values_restored(trial: Tensor, rotations: Tensor) -> Tensor:
    """Alternate between the spectra of a trial and its values, from random phases (Schreiber and Schmitz 2000).

    All channels are turned together at each frequency, by the angle that brings them nearest to the last iterate.
    """
    spectrum, values = torch.fft.rfft(trial, dim=0), trial.sort(0).values
    ranks = _with_phases(trial, rotations).argsort(0).argsort(0)
    for _ in range(ITERATIONS):
        present = torch.fft.rfft(values.gather(0, ranks), dim=0)
        turned = (spectrum.conj() * present).sum(1, keepdim=True)
        turned = torch.where(turned.abs() > 0, turned / turned.abs().clamp_min(1e-300), torch.ones_like(turned))
        new = torch.fft.irfft(spectrum * turned, n=len(trial), dim=0).argsort(0).argsort(0)
        if torch.equal(new, ranks):
            break
        ranks = new
    return values.gather(0, ranks)
