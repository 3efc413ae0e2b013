"""Trajectories -> linear operator: Hankel dynamic mode decomposition (HAVOK) from lag covariances, without the Hankel matrix.

With windows h(t) = [x(t), x(t - d), ..., x(t - (m-1) d)], H their stack over all trials and H = V S U^T its singular value
decomposition cut at ``rank``, the operator is the regression of the whitened coordinates v(t) = S^-1 U^T h(t) on themselves,

    v(t + s) ~ A v(t),     A^T = (V-^T V- + ridge I)^-1 V-^T V+,

V- all rows that have a successor s samples later in their trial, V+ those successors (Brunton et al. 2017, HAVOK; Ostrow et al.
2023, arXiv 2306.10168, section 3).

All of it follows from two matrices, G- = sum h(t) h(t)^T and M = sum h(t) h(t + s)^T, and these from products of the samples with
themselves some lags apart: G = sum over t of g(t) g(t)^T, g a window long enough to hold both h(t) and h(t + s), is constant along
its block diagonals up to a few samples at the ends of each trial. So one pass over the trials, of any lengths, with m + s products of
channels is enough, where the Hankel matrix would take m times the memory and the time of its own Gram matrix.

Squaring costs digits. Where the cut-off direction is so small that they are missed, a second pass projects the windows on the
leading directions and decomposes that narrow matrix itself; below what the data resolve the rank is refused. A recording with fewer
windows than entries in a window is solved through the products of windows with windows instead.
"""

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor

from dsa_analysis import spectra
from dsa_analysis.data import DataError, as_device, as_trials, check_choice, check_count
from dsa_analysis.embedding import delay_embed

ESTIMATORS = ("least_squares",)
SPARE = 10  # directions computed beyond the rank: for the gap there, and as room for the second pass


@dataclass(frozen=True)
class EmbeddingParameters:
    """How trajectories become an operator; see `fit_operator`."""

    n_delays: int
    rank: int
    delay_interval: int = 1
    steps_ahead: int = 1
    ridge: float = 1e-8
    center: bool = True
    estimator: str = "least_squares"

    def __post_init__(self) -> None:
        for name in ("n_delays", "rank", "delay_interval", "steps_ahead"):
            check_count(name, getattr(self, name))
        if isinstance(self.ridge, (bool, str)) or not 0 <= self.ridge < math.inf:
            raise DataError(f"ridge = {self.ridge!r} is not a number of at least 0")
        check_choice("estimator", self.estimator, ESTIMATORS)

    @property
    def window(self) -> int:
        """Samples from the oldest to the newest of a window."""
        return (self.n_delays - 1) * self.delay_interval + 1


@dataclass(frozen=True)
class Operator:
    """Fitted linear map v(t + s) = A v(t) between whitened coordinates v = S^-1 U^T (h - mean) of windows h.

    Attributes
    ----------
    matrix : (rank, rank) float64
        A.
    singular_values : (rank,)
        S, of the stack of all windows, descending.
    basis : (n_delays * n_channels, rank)
        U, orthonormal columns, the newest sample in the first ``n_channels`` rows. Signs are such that each column's largest entry is positive.
    mean : (n_channels,)
        What was subtracted from every sample; zeros where ``center`` is off.
    gap : float
        S_rank / S_(rank + 1): how clearly the cut separates; near 1 it goes through a cluster, and the operator turns with the noise. Infinite where nothing is left.
    n_transitions : int
        Pairs of windows the regression saw.
    parameters : EmbeddingParameters
    """

    matrix: Tensor
    singular_values: Tensor
    basis: Tensor
    mean: Tensor
    gap: float
    n_transitions: int
    parameters: EmbeddingParameters

    @property
    def rank(self) -> int:
        return self.parameters.rank

    @property
    def n_delays(self) -> int:
        return self.parameters.n_delays

    @property
    def n_channels(self) -> int:
        return len(self.mean)

    @property
    def eigenvalues(self) -> Tensor:
        """(rank,) complex, largest modulus first; of a conjugate pair the one with positive imaginary part first."""
        values = torch.linalg.eigvals(self.matrix)
        values = values[values.imag.argsort(descending=True)]
        # rounded, since the two of a pair may differ in the last digit of their modulus
        return values[values.abs().round(decimals=12).argsort(descending=True, stable=True)]

    def time_constants(self, dt: float) -> Tensor:
        """(rank,) time constants of the modes in the unit of the sampling interval ``dt``."""
        return spectra.time_constants(self.eigenvalues, dt * self.parameters.steps_ahead)

    def frequencies(self, dt: float) -> Tensor:
        """(rank,) frequencies of the modes in cycles per unit of the sampling interval ``dt``."""
        return spectra.frequencies(self.eigenvalues, dt * self.parameters.steps_ahead)

    def predict(self, trials: Any, horizon: int = 1) -> Tensor | list[Tensor]:
        """Samples ``horizon`` applications of A ahead of each window that has such a sample in its trial.

        Returns
        -------
        Tensor, (n_trials, n_times - past, n_channels), or a list of (n_times_i - past, n_channels) where a list came in
            Row t predicts sample t + past, past = (n_delays - 1) * delay_interval + horizon * steps_ahead: compare with ``trials[:, past:]``.
        """
        check_count("horizon", horizon)
        p = self.parameters
        ahead = horizon * p.steps_ahead
        tensors = as_trials(trials, device=self.matrix.device)
        for k, trial in enumerate(tensors):
            if trial.shape[1] != self.n_channels:
                raise DataError(
                    f"trial {k} has {trial.shape[1]} channels; the operator was fitted to {self.n_channels}"
                )
            if len(trial) < p.window + ahead:
                raise DataError(
                    f"trial {k} has {len(trial)} samples; a window and {ahead} ahead are {p.window + ahead}"
                )
        power = torch.linalg.matrix_power(self.matrix, horizon)
        newest = self.singular_values[:, None] * self.basis[: self.n_channels].T  # from v back to the newest sample
        predictions = []
        for trial in tensors:
            windows = delay_embed(trial[: len(trial) - ahead].double() - self.mean, p.n_delays, p.delay_interval)
            predictions.append((windows @ self.basis) / self.singular_values @ power.T @ newest + self.mean)
        return predictions if isinstance(trials, (list, tuple)) else torch.stack(predictions)


def fit_operator(
    trials: Any,
    *,
    n_delays: int,
    rank: int,
    delay_interval: int = 1,
    steps_ahead: int = 1,
    ridge: float = 1e-8,
    center: bool = True,
    estimator: str = "least_squares",
    device: str | torch.device | None = None,
    name: str = "system",
) -> Operator:
    """Fit the linear dynamics of one system in delay coordinates.

    Parameters
    ----------
    trials : (n_trials, n_times, n_channels), (n_times, n_channels), or a list of (n_times_i, n_channels)
        Real and finite. No window crosses from one trial into another.
    n_delays, delay_interval : int >= 1
        m and d: copies in a window with the present one, and their spacing in samples.
    rank : int, 1 .. n_delays * n_channels
        Dimensions kept, and so the size of the operator.
    steps_ahead : int >= 1
        s, samples from a window to the one it predicts.
    ridge : float >= 0
        Added to the unit diagonal of V^T V.
    center : bool
        Subtract each channel's mean over all samples. Without it an offset takes a direction of its own and moves the distance.
    estimator : "least_squares"
        How A is estimated.
    device : str or torch.device, optional
        Where the work is done; by default where the data are. Arithmetic is float64.
    name : str
        What messages call the system.

    Raises
    ------
    DataError
        Trials too short for a window and its successor, a rank beyond what the data carry (the largest admissible is named), or more memory
        than there is; and whatever `as_trials` refuses.
    """
    parameters = EmbeddingParameters(n_delays, rank, delay_interval, steps_ahead, ridge, center, estimator)
    operator, concerns = fit(as_trials(trials, name, as_device(device)), parameters, name)
    for concern in concerns:
        warnings.warn(f"system {name!r}: {concern}", stacklevel=2)
    return operator


def singular_spectrum(
    trials: Any, *, n_delays: int, delay_interval: int = 1, center: bool = True, name: str = "system"
) -> Tensor:
    """Singular values of the stack of all windows, descending: (n_delays * n_channels,), or as many as there are windows.

    Their gaps show at which ranks a system can be cut. Values below 1e-8 of the first are rounding.
    """
    trials = as_trials(trials, name)
    parameters = EmbeddingParameters(n_delays, 1, delay_interval, center=center)
    _refuse_short(trials, parameters, name)
    mean = _mean(trials, center)
    few = _n_windows(trials, parameters) < n_delays * trials[0].shape[1]
    gram = _window_products(trials, mean, parameters) if few else _lag_covariances(trials, mean, parameters)[0]
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()


def fit(trials: list[Tensor], parameters: EmbeddingParameters, name: str = "system") -> tuple[Operator, list[str]]:
    """The operator of checked trials, and what a reader of it should know (empty if nothing)."""
    n_channels, rank = trials[0].shape[1], parameters.rank
    size = parameters.n_delays * n_channels
    _refuse_short(trials, parameters, name)
    n_windows = _n_windows(trials, parameters)
    n_transitions = n_windows - len(trials) * parameters.steps_ahead
    if rank > min(size, n_transitions):
        raise DataError(
            f"system {name!r}: rank = {rank} is out of reach; {size} entries in a window (n_delays {parameters.n_delays} x {n_channels} "
            f"channels) and {n_transitions} transitions allow at most {min(size, n_transitions)}"
        )
    few = n_windows < size
    _refuse_memory(n_windows if few else size, parameters, n_channels, trials[0].device, name)

    mean = _mean(trials, parameters.center)
    V = None
    if few:
        S, U, V = _decompose_short(trials, mean, parameters)
    else:
        gram, cross, last = _lag_covariances(trials, mean, parameters)
        S, U = _leading(gram, rank + SPARE)
        if S[rank - 1] < 1e-5 * S[0]:
            S, U, V = _second_pass(trials, mean, parameters, U)
    _refuse_unresolved(S, rank, trials[0].dtype, name)

    signs = torch.where(U.gather(0, U.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0).to(U)
    U, kept = (U * signs)[:, :rank].contiguous(), S[:rank]
    if V is None:
        ends = last @ U / kept
        past = torch.eye(rank, dtype=S.dtype, device=S.device) - ends.T @ ends  # V-^T V-, without cancellation
        step = U.T @ cross @ U / kept[:, None] / kept  # V-^T V+
    else:
        past, step = _transitions((V * signs)[:, :rank], trials, parameters)
    ridge = parameters.ridge * torch.eye(rank, dtype=S.dtype, device=S.device)
    operator = Operator(
        matrix=torch.linalg.solve(past + ridge, step).T.contiguous(),
        singular_values=kept,
        basis=U,
        mean=mean,
        gap=float(kept[-1] / S[rank]) if len(S) > rank and S[rank] > 0 else math.inf,
        n_transitions=n_transitions,
        parameters=parameters,
    )
    return operator, _concerns(operator, S)


def _lag_covariances(trials: list[Tensor], mean: Tensor, p: EmbeddingParameters) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over all windows of h h^T, over all transitions of h(t) h(t+s)^T, and the windows without successor as rows.

    The first and second are (m c, m c), the third (n_trials * s, m c).
    """
    m, d, s, c = p.n_delays, p.delay_interval, p.steps_ahead, len(mean)
    if s % d == 0:  # every d-th sample is a trial of its own, in which windows have no holes
        phases = [trial[start::d] for trial in trials for start in range(d)]
        J = _lag_gram(phases, mean, m + s // d)
        past, cross = J[s // d :, :, s // d :], J[s // d :, :, :m]
    else:  # a window and its successor hold different phases: each sample carries the one s later beside it
        pairs = [torch.cat([trial[:-s], trial[s:]], 1) for trial in trials]
        J = _lag_gram([pair[start::d] for pair in pairs for start in range(d)], mean.repeat(2), m)
        past, cross = J[:, :c, :, :c], J[:, :c, :, c:]
    ends = [delay_embed(trial[len(trial) - p.window - s + 1 :].double() - mean, m, d) for trial in trials]
    last = torch.cat(ends)
    return past.reshape(m * c, m * c) + last.T @ last, cross.reshape(m * c, m * c), last


def _lag_gram(trials: list[Tensor], mean: Tensor, w: int) -> Tensor:
    """J = sum g g^T over all windows g of w consecutive samples, newest first: (w, c, w, c) float64.

    J[i, :, j] sums products of samples j - i apart. Its first row takes w products over all samples; from there down a diagonal each step
    takes in one early and leaves out one late product of each trial.
    """
    c, past = len(mean), w - 1
    trials = [trial for trial in trials if len(trial) >= w]
    J = torch.zeros(w, c, w, c, dtype=torch.float64, device=mean.device)
    for samples, newest in _pieces(trials, mean, past):
        for lag in range(w):
            J[0, :, lag] += newest[lag:].T @ samples[: len(samples) - lag]
    if past:
        heads, tails = (
            torch.stack([(trial[part].double() - mean).flip(0) for trial in trials]).flatten(1)
            for part in (slice(0, past), slice(-past, None))
        )
        turnover = (heads.T @ heads - tails.T @ tails).view(past, c, past, c)
        for i in range(past):
            J[i + 1, :, i + 1 :] = J[i, :, i:past] + turnover[i, :, i:]
            J[i + 1 :, :, i] = J[i, :, i + 1 :].permute(1, 2, 0)
    return J


def _pieces(trials: list[Tensor], mean: Tensor, past: int, numbers: int = 1 << 17) -> Iterator[tuple[Tensor, Tensor]]:
    """Trials one after the other in pieces of about ``numbers`` values: centred samples, and the same with 0 where fewer than
    ``past`` samples of the trial come before. Products of the second with the shifted first never cross trials."""
    length = max(past + 1, numbers // len(mean))
    views = [trial[start : start + length + past] for trial in trials for start in range(0, len(trial) - past, length)]
    pack: list[Tensor] = []
    for k, view in enumerate(views):
        pack.append(view)
        if k + 1 == len(views) or sum(map(len, pack)) + len(views[k + 1]) > length + past:
            samples = torch.cat([v.double() for v in pack]) - mean
            newest, start = samples.clone(), 0
            for v in pack:
                newest[start : start + past] = 0
                start += len(v)
            yield samples, newest
            pack = []


def _leading(gram: Tensor, n_values: int) -> tuple[Tensor, Tensor]:
    """Square roots of the largest eigenvalues, descending, and their vectors as columns."""
    n_values = min(n_values, len(gram))
    if gram.device.type == "cpu" and 4 * n_values < len(gram):
        try:
            start = torch.randn(len(gram), generator=torch.Generator().manual_seed(0), dtype=gram.dtype)
            w, U = map(torch.from_numpy, eigsh(gram.numpy(), k=n_values, which="LA", v0=start.numpy()))
        except ArpackError:  # clusters of zeros may keep it from converging
            w, U = torch.linalg.eigh(gram)
    else:
        w, U = torch.linalg.eigh(gram)
    order = w.argsort(descending=True)[:n_values]
    return w[order].clamp_min(0).sqrt(), U[:, order]


def _second_pass(
    trials: list[Tensor], mean: Tensor, p: EmbeddingParameters, U: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """S, U and V again, from the windows projected on the span of U: no squared digits are lost on the small directions."""
    Y = torch.cat([_project(trial.double() - mean, p, U) for trial in trials])
    V, S, rotation = torch.linalg.svd(Y, full_matrices=False)
    return S, U @ rotation.T, V


def _project(trial: Tensor, p: EmbeddingParameters, U: Tensor) -> Tensor:
    """Windows of a centred trial times U, (n_windows, columns of U), one delay at a time."""
    blocks = U.unflatten(0, (p.n_delays, -1))
    return sum(trial[part] @ block for part, block in zip(_delays(len(trial), p), blocks, strict=True))


def _decompose_short(trials: list[Tensor], mean: Tensor, p: EmbeddingParameters) -> tuple[Tensor, Tensor, Tensor]:
    """S, U and V of few windows, from their products with each other and a second pass from that side."""
    V = _leading(_window_products(trials, mean, p), p.rank + SPARE)[1]
    parts = V.split([len(trial) - p.window + 1 for trial in trials])
    Z = sum(
        torch.cat([(trial[part].double() - mean).T @ v for part in _delays(len(trial), p)])
        for trial, v in zip(trials, parts, strict=True)
    )
    U, S, rotation = torch.linalg.svd(Z, full_matrices=False)
    return S, U, V @ rotation.T


def _window_products(trials: list[Tensor], mean: Tensor, p: EmbeddingParameters) -> Tensor:
    """Products of all windows with each other, (n_windows, n_windows)."""
    shifted = zip(*([trial[part] for part in _delays(len(trial), p)] for trial in trials), strict=True)
    copies = (torch.cat(copy).double() - mean for copy in shifted)
    return sum(copy @ copy.T for copy in copies)


def _delays(n_times: int, p: EmbeddingParameters) -> list[slice]:
    """Where in a trial the newest, second newest, ... sample of each window lies."""
    oldest = range(p.window - 1, -1, -p.delay_interval)
    return [slice(start, start + n_times - p.window + 1) for start in oldest]


def _transitions(V: Tensor, trials: list[Tensor], p: EmbeddingParameters) -> tuple[Tensor, Tensor]:
    """V-^T V- and V-^T V+ of coordinates (n_windows, rank) of all trials."""
    parts = V.split([len(trial) - p.window + 1 for trial in trials])
    past = torch.cat([part[: -p.steps_ahead] for part in parts])
    future = torch.cat([part[p.steps_ahead :] for part in parts])
    return past.T @ past, past.T @ future


def _mean(trials: list[Tensor], center: bool) -> Tensor:
    total = sum(trial.sum(0, dtype=torch.float64) for trial in trials)
    return total / sum(map(len, trials)) if center else torch.zeros_like(total)


def _n_windows(trials: list[Tensor], p: EmbeddingParameters) -> int:
    return sum(len(trial) - p.window + 1 for trial in trials)


def _refuse_short(trials: list[Tensor], p: EmbeddingParameters, name: str) -> None:
    needed = p.window + p.steps_ahead
    short = [k for k, trial in enumerate(trials) if len(trial) < needed]
    if short:
        shortest = min(map(len, trials))
        longest = (shortest - p.steps_ahead - 1) // p.delay_interval + 1
        where = f"trial{'s' * (len(short) > 1)} {', '.join(map(str, short[:10]))}{', ...' * (len(short) > 10)}"
        remedy = f"at most n_delays = {longest} fits" if longest > 0 else "not even n_delays = 1 fits"
        raise DataError(
            f"n_delays = {p.n_delays} with delay_interval = {p.delay_interval} needs trials of at least {needed} samples ({p.window} for one "
            f"window, {p.steps_ahead} more to predict), but system {name!r}, {where} has {shortest}; {remedy}, or leave the short trials out"
        )


def _refuse_memory(size: int, p: EmbeddingParameters, n_channels: int, device: torch.device, name: str) -> None:
    needed = 4 * 8 * size**2  # the matrix, its lag products and the edge terms, in float64
    if device.type == "cuda":
        present = torch.cuda.mem_get_info(device)[0]
    else:
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf
    if needed > present:
        raise DataError(
            f"system {name!r}: the lag covariances need {needed / 1e9:.1f} GB (n_delays {p.n_delays}, {n_channels} channels), {present / 1e9:.1f} GB "
            f"are there; lower n_delays or reduce the channels"
        )


def _refuse_unresolved(S: Tensor, rank: int, dtype: torch.dtype, name: str) -> None:
    resolution = 1e-8 if dtype == torch.float64 else 1e-6
    if S[rank - 1] < resolution * S[0]:
        largest = int((S[:rank] >= resolution * S[0]).sum())
        raise DataError(
            f"system {name!r}: rank = {rank} is out of reach; singular value {rank} is {float(S[rank - 1] / S[0]):.0e} of the first, and {dtype} "
            f"data resolve {resolution:.0e}: at most rank = {largest}".replace("torch.", "")
        )


def _concerns(operator: Operator, S: Tensor) -> list[str]:
    concerns, rank = [], operator.rank
    if operator.gap < 1.1:
        ratios = S[:-1] / S[1:]
        clear = [r for r in range(1, len(S)) if ratios[r - 1] >= 1.3]
        concerns.append(
            f"the cut at rank = {rank} goes through a cluster of singular values (S_{rank} / S_{rank + 1} = {operator.gap:.2f}): the distance "
            f"will be unstable; clear gaps are at {', '.join(map(str, clear)) or 'no smaller rank'}"
        )
    if operator.n_transitions < 10 * rank:
        concerns.append(
            f"{operator.n_transitions} transitions for rank = {rank}: fewer than 10 for each dimension kept"
        )
    return concerns
