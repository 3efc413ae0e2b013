"""Computes lag covariances of trajectories and their leading directions, in one pass over the samples.

H stacks the windows h(t) = [x(t), x(t - d), ..., x(t - (m-1) d)] of all trials. A linear fit needs the products

    G = H^T H = sum h(t) h(t)^T,      M = sum h(t) h(t + s)^T.

Both are blocks of the sum over t of g(t) g(t)^T, where the window g is long enough to contain h(t) and h(t + s). This
sum is constant along its block diagonals, except for a few samples at the ends of each trial. So one pass over the
trials, which may have any lengths, with m + s products of channels is enough. H itself would take m times the memory,
and its Gram matrix m times the time. The products of shorter windows are the upper left blocks of those of longer
windows, so they need no other pass.

The leading directions H ~ V S U^T follow from G. They give the covariances of the whitened coordinates
v(t) = S^-1 U^T h(t) from one window to the next. Those of a smaller rank are their upper left block.

Squaring loses digits. If the last direction is so small that these digits matter, a second pass projects the windows on
the leading directions and decomposes that narrow matrix itself. Directions that the data do not resolve are left out.
If a recording has fewer windows than a window has entries, the products of windows with windows are used instead.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import torch
from torch import Tensor

from dsa_analysis.data import DataError
from dsa_analysis.embedding import EmbeddingParameters, delay_embed

SPARE = 10  # directions computed beyond the rank, for the gap after the rank and for the second pass
BLOCK_WIDTH = 128  # numbers in a block of samples: products of blocks this wide reach the speed of the processor


@dataclass(frozen=True)
class Directions:
    """The leading directions of all windows of one system, and the covariances of the coordinates along them.

    Attributes
    ----------
    singular_values : (n,)
        S, descending; more than k.
    basis : (n_delays * n_channels, k)
        U, orthonormal columns. k is limited by the precision of the data and the number of transitions. Signs are such
        that the largest entry of each column is positive.
    past, cross, future : (k, k)
        V-^T V-, V-^T V+ and V+^T V+ over all transitions. The first and last are the identity, except for the windows
        at the ends of trials.
    mean : (n_channels,)
        What was subtracted from every sample.
    floor : (n_channels,)
        Variance of white noise in each channel, estimated from the directions in which its windows vary least. NaN if a
        window is a single sample.
    n_windows, n_transitions : int
    dtype : torch.dtype
        Of the data.
    """

    singular_values: Tensor
    basis: Tensor
    past: Tensor
    cross: Tensor
    future: Tensor
    mean: Tensor
    floor: Tensor
    n_windows: int
    n_transitions: int
    dtype: torch.dtype

    @property
    def rank(self) -> int:
        """Rank of the largest operator that can be fitted."""
        return self.basis.shape[1]

    def gap(self, rank: int) -> float:
        """S_rank / S_(rank + 1); infinite if no direction is left out."""
        S = self.singular_values
        return float(S[rank - 1] / S[rank]) if len(S) > rank and S[rank] > 0 else math.inf

    def noise(self, variance: Tensor, shift: int = 0) -> Tensor:
        """The part of ``past`` (or, with ``shift`` = s / d, of ``cross``) that white noise contributes: (k, k).

        ``variance`` is that of each channel, (n_channels,). Windows that are ``shift`` delays apart share the samples,
        and the noise, of all but ``shift`` of their delays.
        """
        blocks = self.basis.unflatten(0, (-1, len(self.mean))) / self.singular_values[: self.rank]
        newer, older = blocks[: max(len(blocks) - shift, 0)], blocks[shift:]
        return self.n_transitions * torch.einsum("ick,c,icl->kl", newer, variance, older)


@dataclass(frozen=True)
class LagCovariances:
    """Products of the windows of one system with themselves and with their successors, summed over all trials.

    Attributes
    ----------
    gram, cross : (n_delays * n_channels, n_delays * n_channels)
        G, over all windows, and M, over the windows that have a successor.
    heads : (n_trials, (n_delays - 1) * delay_interval + steps_ahead, n_channels)
        The first samples of each trial, centred. They contain the additional windows that there are if windows are
        shorter.
    last : (n_trials * steps_ahead, n_delays * n_channels)
        Windows without successor.
    trials, mean, parameters
        The data that this was computed from.
    """

    gram: Tensor
    cross: Tensor
    heads: Tensor
    last: Tensor
    trials: list[Tensor]
    mean: Tensor
    parameters: EmbeddingParameters

    def shortened(self, n_delays: int) -> "LagCovariances":
        """The products of windows with fewer delays, without another pass over the samples."""
        p = replace(self.parameters, n_delays=n_delays)
        m, d, s, c = n_delays, p.delay_interval, p.steps_ahead, len(self.mean)
        if not 1 <= m <= self.parameters.n_delays:
            raise DataError(f"n_delays = {m} is not between 1 and the {self.parameters.n_delays} delays computed")
        size = m * c
        gram, cross = self.gram[:size, :size], self.cross[:size, :size]
        if m < self.parameters.n_delays:  # windows that end before the first of the longer windows ends
            n_early = (self.parameters.n_delays - m) * d
            early = delay_embed(self.heads, m, d)
            past, future = (early[:, part].flatten(0, 1) for part in (slice(n_early), slice(s, n_early + s)))
            gram, cross = gram + past.T @ past, cross + past.T @ future
        heads = self.heads[:, : p.window - 1 + s]
        return LagCovariances(gram, cross, heads, self.last[:, :size], self.trials, self.mean, p)

    @property
    def n_windows(self) -> int:
        return _n_windows(self.trials, self.parameters)

    @cached_property
    def spectrum(self) -> Tensor:
        """(n_delays * n_channels,) all singular values of the stack of windows, descending."""
        return torch.linalg.eigvalsh(self.gram).flip(0).clamp_min(0).sqrt()

    @cached_property
    def floor(self) -> Tensor:
        """Variance of white noise in each channel; see `Directions`."""
        m = self.parameters.n_delays
        blocks = self.gram.reshape(m, len(self.mean), m, len(self.mean))
        return _noise_floor(blocks.diagonal(dim1=1, dim2=3).permute(2, 0, 1), self.n_windows)

    def directions(self, rank: int) -> Directions:
        """The leading ``rank`` directions (fewer if the data do not resolve them), and a few more singular values."""
        p = self.parameters
        S, U = _leading(self.gram, rank + SPARE)
        if S[min(rank, len(S)) - 1] < 1e-5 * S[0]:
            S, U, V = _second_pass(self.trials, self.mean, p, U)
            return _from_coordinates(S, U, V, self.trials, self.mean, self.floor, replace(p, rank=rank))
        k = _n_usable(S[:rank], self.trials, p)
        U = (U * _signs(U))[:, :k].contiguous()
        first = delay_embed(self.heads, p.n_delays, p.delay_interval).flatten(0, 1)
        initial, final = first @ U / S[:k], self.last @ U / S[:k]
        eye = torch.eye(k, dtype=S.dtype, device=S.device)
        n_windows = self.n_windows
        return Directions(
            singular_values=S,
            basis=U,
            past=eye - final.T @ final,  # without cancellation
            cross=U.T @ self.cross @ U / S[:k, None] / S[:k],
            future=eye - initial.T @ initial,
            mean=self.mean,
            floor=self.floor,
            n_windows=n_windows,
            n_transitions=n_windows - len(self.last),
            dtype=self.trials[0].dtype,
        )


def lag_covariances(trials: list[Tensor], p: EmbeddingParameters, name: str = "system") -> LagCovariances:
    """Products of all windows of checked trials; the rank in ``p`` is not used.

    Raises
    ------
    DataError
        Trials that are too short for a window and its successor, or more memory than available.
    """
    _refuse_short(trials, p, name)
    refuse_memory(p.n_delays * trials[0].shape[1], p, trials[0], name)
    mean = _mean(trials, p.center)
    m, d, s, c = p.n_delays, p.delay_interval, p.steps_ahead, len(mean)
    if s % d == 0 and s // d <= m:  # every d-th sample forms a trial, whose windows have consecutive samples
        phases = [trial[start::d] for trial in trials for start in range(d)]
        J = lag_gram(phases, mean, m + s // d)
        past, cross = J[s // d :, :, s // d :], J[s // d :, :, :m]
    else:  # otherwise each sample is stacked with the sample s later
        pairs = [torch.cat([trial[:-s], trial[s:]], 1) for trial in trials]
        J = lag_gram([pair[start::d] for pair in pairs for start in range(d)], mean.repeat(2), m)
        past, cross = J[:, :c, :, :c], J[:, :c, :, c:]
    ends = p.window - 1 + s
    heads, tails = (
        torch.stack([trial[part].double() for trial in trials]) - mean for part in (slice(ends), slice(-ends, None))
    )
    last = delay_embed(tails, m, d).flatten(0, 1)
    gram = past.reshape(m * c, m * c) + last.T @ last
    return LagCovariances(gram, cross.reshape(m * c, m * c), heads, last, trials, mean, p)


def directions(trials: list[Tensor], p: EmbeddingParameters, name: str = "system") -> Directions:
    """The leading ``p.rank`` directions of checked trials, or fewer if the data do not resolve them.

    Raises
    ------
    DataError
        As `lag_covariances`.
    """
    _refuse_short(trials, p, name)
    n_windows = _n_windows(trials, p)
    if n_windows >= p.n_delays * trials[0].shape[1]:
        return lag_covariances(trials, p, name).directions(p.rank)
    refuse_memory(n_windows, p, trials[0], name)
    mean = _mean(trials, p.center)
    S, U, V = _decompose_short(trials, mean, p)
    return _from_coordinates(S, U, V, trials, mean, _noise_floor(_own_products(trials, mean, p), n_windows), p)


def spectrum(trials: list[Tensor], p: EmbeddingParameters, name: str = "system") -> Tensor:
    """All singular values of the matrix of windows of checked trials, descending."""
    _refuse_short(trials, p, name)
    if _n_windows(trials, p) >= p.n_delays * trials[0].shape[1]:
        return lag_covariances(trials, p, name).spectrum
    products = _window_products(trials, _mean(trials, p.center), p)
    return torch.linalg.eigvalsh(products).flip(0).clamp_min(0).sqrt()


def _from_coordinates(
    S: Tensor, U: Tensor, V: Tensor, trials: list[Tensor], mean: Tensor, floor: Tensor, p: EmbeddingParameters
) -> Directions:
    """Directions from the coordinates V (n_windows, k) of all windows."""
    k = _n_usable(S[: p.rank], trials, p)
    signs = _signs(U[:, :k])
    parts = (V[:, :k] * signs).split([len(trial) - p.window + 1 for trial in trials])
    past = torch.cat([part[: -p.steps_ahead] for part in parts])
    future = torch.cat([part[p.steps_ahead :] for part in parts])
    moments = past.T @ past, past.T @ future, future.T @ future
    return Directions(S, (U[:, :k] * signs).contiguous(), *moments, mean, floor, len(V), len(past), trials[0].dtype)


def coordinates(found: Directions, trials: list[Tensor], p: EmbeddingParameters) -> list[Tensor]:
    """Whitened coordinates v(t) of all windows of each trial along the directions, (n_windows_i, k)."""
    S = found.singular_values[: found.rank]
    return [project(trial.double() - found.mean, p, found.basis) / S for trial in trials]


def with_horizon(found: Directions, v: list[Tensor], trials: list[Tensor], p: EmbeddingParameters) -> Directions:
    """The same directions, with the covariances of windows that are ``p.steps_ahead`` samples apart.

    The directions do not depend on the horizon. The covariances come from ``v``, the `coordinates` of ``found``.
    """
    _refuse_short(trials, p, "system")
    k = min(found.rank, _n_usable(found.singular_values[: found.rank], trials, p))
    past = torch.cat([part[: -p.steps_ahead, :k] for part in v])
    future = torch.cat([part[p.steps_ahead :, :k] for part in v])
    return replace(
        found,
        basis=found.basis[:, :k],
        past=past.T @ past,
        cross=past.T @ future,
        future=future.T @ future,
        n_transitions=len(past),
    )


def lag_gram(trials: list[Tensor], mean: Tensor, w: int) -> Tensor:
    """J = sum g g^T over all windows g of w consecutive samples, newest first: (w, c, w, c) float64.

    J[i, :, j] is a sum of products of samples that are j - i apart. The first row needs products over all samples. Each
    step down a diagonal adds one early product and removes one late product of each trial.
    """
    c, past = len(mean), w - 1
    trials = [trial for trial in trials if len(trial) >= w]
    J = torch.zeros(w, c, w, c, dtype=torch.float64, device=mean.device)
    J[0] = _lag_products(trials, mean, w).transpose(0, 1)
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


def _lag_products(trials: list[Tensor], mean: Tensor, w: int) -> Tensor:
    """sum_t x(t) x(t - lag)^T over the windows of w samples that end at t, for lags below w: (w, c, c).

    Samples are taken in blocks of b. Products of all blocks with those q blocks earlier contain the lags
    (q - 1) b < lag < (q + 1) b, along the diagonals of a (b, b) array of (c, c) matrices. Products of few channels are
    slow, and wide blocks make them fast; with many channels b is 1.
    """
    c, past = len(mean), w - 1
    b = max(1, min(w // 2, BLOCK_WIDTH // c))
    products = torch.zeros(-(-past // b) + 1, b * c, b * c, dtype=torch.float64, device=mean.device)
    for samples, newest in _pieces(trials, mean, past):
        late, early = (torch.nn.functional.pad(x, (0, 0, 0, -len(x) % b)).view(-1, b * c) for x in (newest, samples))
        for q, product in enumerate(products[: len(late)]):
            product += late[q:].T @ early[: len(early) - q]
    # row i of q holds the lags from q b + i down to q b + i - b + 1: in order, and shifted by i, they stand in columns
    rows = products.view(-1, b, c, b, c).transpose(2, 3).flip(2)
    shifted = torch.nn.functional.pad(rows, (0, 0, 0, 0, 0, b)).flatten(1, 2)[:, : b * (2 * b - 1)]
    sums = shifted.view(-1, b, 2 * b - 1, c, c).sum(1)
    lagged = sums[:, b - 1 :].flatten(0, 1)  # lags from q b
    lagged[: len(lagged) - b].view(-1, b, c, c)[:, 1:] += sums[1:, : b - 1]  # and those below, of the next q
    return lagged[:w]


def _pieces(trials: list[Tensor], mean: Tensor, past: int, numbers: int = 1 << 17) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of about ``numbers`` values of concatenated trials: the centred samples, and a copy with zeros.

    The copy is 0 for the first ``past`` samples of each trial, so that its products with the shifted samples never
    cross from one trial into another.
    """
    length = max(past + 1, numbers // len(mean))
    views = [trial[start : start + length + past] for trial in trials for start in range(0, len(trial) - past, length)]
    pack: list[Tensor] = []
    starts: list[int] = []
    filled = 0
    for k, view in enumerate(views):
        pack.append(view)
        starts.append(filled)
        filled += len(view)
        if k + 1 == len(views) or filled + len(views[k + 1]) > length + past:
            samples = torch.cat([v.double() for v in pack]) - mean
            newest = samples.clone()
            for start in starts:
                newest[start : start + past] = 0
            yield samples, newest
            pack, starts, filled = [], [], 0


def _leading(gram: Tensor, n_values: int) -> tuple[Tensor, Tensor]:
    """Square roots of the largest eigenvalues, descending, and the eigenvectors as columns."""
    from scipy.sparse.linalg import ArpackError, eigsh

    n_values = min(n_values, len(gram))
    if gram.device.type == "cpu" and 4 * n_values < len(gram):
        try:
            start = torch.randn(len(gram), generator=torch.Generator().manual_seed(0), dtype=gram.dtype)
            w, U = map(torch.from_numpy, eigsh(gram.numpy(), k=n_values, which="LA", v0=start.numpy()))
        except ArpackError:  # it may not converge if many eigenvalues are 0
            w, U = torch.linalg.eigh(gram)
    else:
        w, U = torch.linalg.eigh(gram)
    order = w.argsort(descending=True)[:n_values]
    return w[order].clamp_min(0).sqrt(), U[:, order]


def _second_pass(
    trials: list[Tensor], mean: Tensor, p: EmbeddingParameters, U: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """S, U and V from windows projected on the span of U: without squaring, small directions keep their digits."""
    Y = torch.cat([project(trial.double() - mean, p, U) for trial in trials])
    V, S, rotation = torch.linalg.svd(Y, full_matrices=False)
    return S, U @ rotation.T, V


def project(trial: Tensor, p: EmbeddingParameters, U: Tensor) -> Tensor:
    """Windows of a centred trial times U, (n_windows, columns of U), one delay at a time."""
    blocks = U.unflatten(0, (p.n_delays, -1))
    return reduce(torch.add, (trial[part] @ b for part, b in zip(_delays(len(trial), p), blocks, strict=True)))


def _decompose_short(trials: list[Tensor], mean: Tensor, p: EmbeddingParameters) -> tuple[Tensor, Tensor, Tensor]:
    """S, U and V of few windows, from their products with each other and a second pass over the samples."""
    V = _leading(_window_products(trials, mean, p), p.rank + SPARE)[1]
    parts = V.split([len(trial) - p.window + 1 for trial in trials])
    products = (
        torch.cat([(trial[part].double() - mean).T @ v for part in _delays(len(trial), p)])
        for trial, v in zip(trials, parts, strict=True)
    )
    U, S, rotation = torch.linalg.svd(reduce(torch.add, products), full_matrices=False)
    return S, U, V @ rotation.T


def _window_products(trials: list[Tensor], mean: Tensor, p: EmbeddingParameters) -> Tensor:
    """Products of all windows with each other, (n_windows, n_windows)."""
    shifted = zip(*([trial[part] for part in _delays(len(trial), p)] for trial in trials), strict=True)
    copies = (torch.cat(copy).double() - mean for copy in shifted)
    return reduce(torch.add, (copy @ copy.T for copy in copies))


def _delays(n_times: int, p: EmbeddingParameters) -> list[slice]:
    """Slices of a trial that contain the newest, second newest, ... sample of each window."""
    oldest = range(p.window - 1, -1, -p.delay_interval)
    return [slice(start, start + n_times - p.window + 1) for start in oldest]


def _own_products(trials: list[Tensor], mean: Tensor, p: EmbeddingParameters) -> Tensor:
    """Products of the delays of each channel with each other over all windows, (n_channels, n_delays, n_delays)."""
    total = mean.new_zeros(len(mean), p.n_delays, p.n_delays)
    for trial in trials:
        samples = trial.double() - mean
        for i, newer in enumerate(_delays(len(trial), p)):
            for j, older in enumerate(_delays(len(trial), p)):
                total[:, i, j] += (samples[newer] * samples[older]).sum(0)
    return total


def _noise_floor(own: Tensor, n_windows: int) -> Tensor:
    """Variance of white noise in each channel: the median of the lower half of the variances along all directions.

    White noise has the same variance in all directions of a channel's windows, but a signal is only in the first ones.
    ``own`` holds the products of each channel's delays, (n_channels, n_delays, n_delays).
    """
    lower = torch.linalg.eigvalsh(own)[:, : own.shape[-1] // 2]
    if not lower.shape[1]:
        return torch.full_like(own[:, 0, 0], torch.nan)
    return lower.quantile(0.5, dim=1).clamp_min(0) / n_windows


def _n_usable(S: Tensor, trials: list[Tensor], p: EmbeddingParameters) -> int:
    """Number of directions that the precision of the data and the number of transitions allow."""
    n_resolved = int((resolution(trials[0].dtype) * S[0] <= S).sum())
    return min(n_resolved, _n_windows(trials, p) - len(trials) * p.steps_ahead)


def resolution(dtype: torch.dtype) -> float:
    """Smallest singular value, relative to the first, that data of this precision resolve."""
    return 1e-8 if dtype == torch.float64 else 1e-6


def _signs(U: Tensor) -> Tensor:
    return torch.where(U.gather(0, U.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0).to(U)


def _mean(trials: list[Tensor], center: bool) -> Tensor:
    total = reduce(torch.add, (trial.sum(0, dtype=torch.float64) for trial in trials))
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
        nearer = shortest - p.window  # number of samples ahead that would fit
        remedy = f"at most n_delays = {longest} fits" if longest > 0 else "not even n_delays = 1 fits"
        if p.steps_ahead > 1 and nearer > 0:
            remedy = f"at most {nearer} samples ahead fit (steps_ahead, or horizon as a time)"
        raise DataError(
            f"n_delays = {p.n_delays} with delay_interval = {p.delay_interval} needs trials of at least {needed} "
            f"samples ({p.window} for one window, {p.steps_ahead} more to predict), but system {name!r}, {where} "
            f"{'has' if len(short) == 1 else 'have as few as'} {shortest}; {remedy}, or leave the short trials out by "
            f"omit_trials(systems, shorter_than={needed})"
        )


def refuse_memory(size: int, p: EmbeddingParameters, trial: Tensor, name: str) -> None:
    needed = 4 * 8 * size**2  # the matrix, its lag products and the edge terms, in float64
    if trial.is_cuda:
        present: float = torch.cuda.mem_get_info(trial.device)[0]
    else:
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf
    if needed > present:
        raise DataError(
            f"system {name!r}: the lag covariances need {needed / 1e9:.1f} GB (n_delays {p.n_delays}, {trial.shape[1]} "
            f"channels), {present / 1e9:.1f} GB are there; lower n_delays or reduce the channels"
        )
