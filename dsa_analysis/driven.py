"""Trajectories and what drove them -> linear operator: delay-embedded dynamic mode decomposition with control.

A driven linear system x(t + 1) = F x(t) + G u(t), fitted as if it ran by itself, takes what its inputs do for dynamics.
Where the inputs are known exactly, the whitened coordinates v = S^-1 U^T h of windows h = [x(t), x(t - d), ...,
x(t - (m-1) d)], the same as those of `fit_operator`, are regressed on themselves and on the inputs,

    v(t + 1) ~ A v(t) + B w(t) + b,      w(t) = [u(t), u(t - 1), ..., u(t - (m-1) d)].

Which inputs belong into w. With m = 1 a window is a sample and w = u: DMD with control (Proctor, Brunton and Kutz 2016,
SIAM J Appl Dyn Syst 15, 142-161), v = M x and A = M F M^-1 to rounding. With more delays h(t) holds traces of all
inputs since its oldest sample x(t0), t0 = t - (m-1) d: with O and T known from F, G and what is observed,

    v(t) = S^-1 U^T (O x(t0) + T [u(t0), ..., u(t-1)])    and so    v(t + 1) = M F M^-1 v(t) + B [u(t0), ..., u(t)]

for M = S^-1 U^T O, if M is invertible: rank = the number of dimensions of x. So w needs *every* input from the oldest
sample of the window to the present, in steps of one whatever d; then A has the eigenvalues of F, also where few
channels of x are seen. This is how subspace identification separates state from input (Van Overschee and De Moor 1996);
HAVOK (Brunton et al. 2017, Nat Commun 8, 19) has the same form with an unknown input, the last coordinate.

What v and w share is given to w: A is the regression of what w leaves of v(t + 1) on what it leaves of v(t) (Frisch,
Waugh and Lovell). At a rank above the dimension of x the inputs determine part of v outright; there A is 0, and its
other eigenvalues are still those of F. Below it the directions that were cut off are missed, as in `fit_operator`.
Unknown noise that drives x averages out with m = 1; longer windows hold traces of it that are taken for dynamics.

The offset b belongs to ``center``: the mean over all samples is no rest state of a driven system, nor of short trials.
A constant input is one with the offset and cannot be told from it.
"""

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import covariances, dmd, spectra
from dsa_analysis.data import DataError, as_device, as_trials, check_count
from dsa_analysis.dmd import Operator
from dsa_analysis.embedding import EmbeddingParameters

INPUT_RESOLUTION = 1e-6  # of the first principal direction of the inputs; less is taken for none
LEAST_REMAINDER = 1e-6  # share of a direction's variance; of less the inputs leave nothing


@dataclass(frozen=True)
class DrivenOperator:
    """Fitted map v(t + 1) = A v(t) + B w(t) + b of whitened coordinates of windows, w the inputs since their start.

    Samples are x(t) = C v(t) + D w(t) + c: where windows are longer than a sample, v alone does not hold the newest.

    Attributes
    ----------
    matrix : (rank, rank) float64
        A: what the system does by itself.
    input_matrix : (rank, window * n_inputs)
        B, the present input in the first ``n_inputs`` columns, then that of the sample before, and so on. Of all that
        fit equally well where inputs are collinear, the smallest (for inputs of unit root mean square).
    offset : (rank,)
        b; zeros where ``center`` is off.
    readout, feedthrough, level : (n_channels, rank), (n_channels, window * n_inputs), (n_channels,)
        C, D and c.
    n_input_directions : int
        Dimensions of w, and of the offset, that were there: principal directions above 1e-6 of the first.
    remainder : (rank,)
        Share in [0, 1] of the variance of v(t), along the directions in which it is extreme, that w does not determine,
        descending: A rests on it. Zeros tell that ``rank`` exceeds what the system has of its own.
    plain : Operator
        Fitted without the inputs, in the same coordinates: ``plain.basis``, ``plain.mean`` and so on are theirs.
    """

    matrix: Tensor = field(repr=False)
    input_matrix: Tensor = field(repr=False)
    offset: Tensor = field(repr=False)
    readout: Tensor = field(repr=False)
    feedthrough: Tensor = field(repr=False)
    level: Tensor = field(repr=False)
    n_input_directions: int
    remainder: Tensor = field(repr=False)
    plain: Operator

    @property
    def parameters(self) -> EmbeddingParameters:
        return self.plain.parameters

    @property
    def rank(self) -> int:
        return self.parameters.rank

    @property
    def n_inputs(self) -> int:
        return self.input_matrix.shape[1] // self.parameters.window

    @property
    def singular_values(self) -> Tensor:
        """(rank,) S, of the stack of all windows, descending."""
        return self.plain.singular_values

    @property
    def eigenvalues(self) -> Tensor:
        """(rank,) complex, of A, in the order of `Operator.eigenvalues`."""
        return spectra.eigenvalues(self.matrix)

    def time_constants(self, dt: float) -> Tensor:
        """(rank,) time constants of the modes in the unit of the sampling interval ``dt``."""
        return spectra.time_constants(self.eigenvalues, dt)

    def frequencies(self, dt: float) -> Tensor:
        """(rank,) frequencies of the modes in cycles per unit of the sampling interval ``dt``."""
        return spectra.frequencies(self.eigenvalues, dt)

    def predict(self, trials: Any, inputs: Any, horizon: int = 1) -> Tensor | list[Tensor]:
        """Samples ``horizon`` steps ahead of each window that has such a sample, under the inputs on the way there.

        Returns
        -------
        Tensor, (n_trials, n_times - past, n_channels), or a list of (n_times_i - past, n_channels) where a list came in
            Row t predicts sample t + past, past = (n_delays - 1) * delay_interval + horizon.
        """
        check_count("horizon", horizon)
        plain, p = self.plain, self.parameters
        states, drives = _matched(trials, inputs, "system", self.matrix.device)
        for k, (x, u) in enumerate(zip(states, drives, strict=True)):
            for what, found, fitted in (
                ("channels", x.shape[1], plain.n_channels),
                ("inputs", u.shape[1], self.n_inputs),
            ):
                if found != fitted:
                    raise DataError(f"trial {k} has {found} {what}; the operator was fitted to {fitted}")
            if len(x) < p.window + horizon:
                raise DataError(
                    f"trial {k} has {len(x)} samples; a window and {horizon} ahead are {p.window + horizon}"
                )
        predictions = []
        for x, u in zip(states, drives, strict=True):
            v = _coordinates(x[: len(x) - horizon], plain)
            w = _every_sample(p)
            drive = covariances.project(u.double(), w, self.input_matrix.T) + self.offset
            for step in range(horizon):
                v = v @ self.matrix.T + drive[step : step + len(v)]
            through = covariances.project(u[horizon:].double(), w, self.feedthrough.T) + self.level
            predictions.append(v @ self.readout.T + through)
        return predictions if isinstance(trials, (list, tuple)) else torch.stack(predictions)


def fit_driven_operator(
    trials: Any,
    inputs: Any,
    *,
    n_delays: int,
    rank: int,
    delay_interval: int = 1,
    ridge: float = 1e-8,
    center: bool = True,
    device: str | torch.device | None = None,
    name: str = "system",
) -> DrivenOperator:
    """Fit the linear dynamics of one system in delay coordinates, its inputs being known.

    Parameters
    ----------
    trials : as in `fit_operator`
    inputs : (n_trials, n_times, n_inputs), (n_times, n_inputs), or a list of (n_times_i, n_inputs)
        u(t), what acts on the way from sample t to sample t + 1, for each trial as many as samples (the last has no
        effect). A network whose state at t has already seen its input at t takes ``hidden[:, :-1], inputs[:, 1:]``.
        Constant and collinear inputs are welcome.
    n_delays, rank, delay_interval, ridge, center, device, name
        As in `fit_operator`; the ridge is on A alone. For the eigenvalues of a linear system rank is the number of its
        dimensions; more than the recording carries by itself adds zeros. With ``center`` an offset is fitted as well.

    Returns
    -------
    DrivenOperator
        `compare` and `align` take it in place of data. Its coordinates are whitened by all that the recording does,
        inputs included.

    Raises
    ------
    DataError
        Trials and inputs that do not match, too few transitions for the inputs of a window, and whatever `fit_operator`
        refuses.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> u = torch.randn(20, 30, 1, generator=generator, dtype=torch.float64)
    >>> x = torch.zeros(20, 30, 1, dtype=torch.float64)
    >>> for t in range(29):
    ...     x[:, t + 1] = 0.9 * x[:, t] + u[:, t]
    >>> fit_driven_operator(x, u, n_delays=1, rank=1).matrix
    tensor([[0.9000]], dtype=torch.float64)
    """
    p = EmbeddingParameters(n_delays, rank, delay_interval, ridge=ridge, center=center)
    states, drives = _matched(trials, inputs, name, as_device(device))
    plain, concerns = dmd.fit(states, p, name)
    # in units of their own, for the tolerance to mean the same for each; the offset is an input that is always 1
    scale = _root_mean_square(drives)
    drives = [torch.cat([u / scale, torch.ones_like(scale).expand(len(u), -1)[:, :1]][: 1 + center], 1) for u in drives]
    basis = _principal(drives, p)
    n_dims = rank + basis.shape[1]
    if plain.n_transitions < n_dims:
        raise DataError(
            f"system {name!r}: {plain.n_transitions} transitions cannot tell rank = {rank} from {basis.shape[1]} "
            f"directions of the inputs in windows of {p.window} samples; lower n_delays or delay_interval, or bring "
            f"more trials"
        )
    if 10 * rank <= plain.n_transitions < 10 * n_dims:
        concerns.append(
            f"{plain.n_transitions} transitions for rank = {rank} and {basis.shape[1]} directions of the inputs: fewer "
            f"than 10 for each dimension"
        )
    on_state, on_inputs, remainder = _regress(states, drives, basis, plain)
    n_own = int((remainder > LEAST_REMAINDER).sum())
    if n_own < rank:
        concerns.append(
            f"inputs determine {rank - n_own} of rank = {rank} directions, where the operator is 0: rank = {n_own} "
            f"holds all that the system does by itself"
        )
    for concern in concerns:
        warnings.warn(f"system {name!r}: {concern}", stacklevel=2)
    by_sample = (on_inputs @ basis.T).unflatten(1, (p.window, -1))
    input_matrix, feedthrough = (by_sample[..., : len(scale)] / scale).flatten(1).split([rank, plain.n_channels])
    offset, level = by_sample[..., len(scale) :].sum((1, 2)).split([rank, plain.n_channels])
    return DrivenOperator(
        matrix=on_state[:rank].contiguous(),
        input_matrix=input_matrix,
        offset=offset,
        readout=on_state[rank:].contiguous(),
        feedthrough=feedthrough,
        level=level + plain.mean,
        n_input_directions=basis.shape[1],
        remainder=remainder,
        plain=plain,
    )


def _regress(
    states: list[Tensor], drives: list[Tensor], basis: Tensor, plain: Operator
) -> tuple[Tensor, Tensor, Tensor]:
    """Regression of v(t + 1) and x(t) on v(t) and the k directions of the inputs, and what these leave of v(t).

    A over C (rank + n_channels, rank), B over D (rank + n_channels, k), and the shares (rank,).
    """
    p, k = plain.parameters, basis.shape[1]
    past, targets = slice(k, k + p.rank), slice(k + p.rank, None)
    moments = basis.new_zeros(k + 2 * p.rank + plain.n_channels, k + 2 * p.rank + plain.n_channels)
    for x, u in zip(states, drives, strict=True):
        v, w = _coordinates(x, plain), covariances.project(u, _every_sample(p), basis)
        row = torch.cat([w[:-1], v[:-1], v[1:], x[p.window - 1 : -1].double() - plain.mean], 1)
        moments += row.T @ row
    onto = torch.linalg.solve(moments[:k, :k], moments[:k])  # regression of all on the inputs
    left = moments - moments[:k].T @ onto
    eye = torch.eye(p.rank, dtype=basis.dtype, device=basis.device)
    # directions that the inputs determine hold rounding alone: 0 there, with a ridge and without
    inverse = torch.linalg.pinv(left[past, past] + p.ridge * eye, atol=1e-12, hermitian=True)
    on_state = (inverse @ left[past, targets]).T
    on_inputs = onto[:, targets].T - on_state @ onto[:, past].T
    shares = torch.linalg.eigvals(torch.linalg.solve(moments[past, past], left[past, past])).real
    return on_state, on_inputs, shares.clamp_min(0).sort(descending=True).values


def _coordinates(trial: Tensor, plain: Operator) -> Tensor:
    """v of all windows of a trial, (n_windows, rank)."""
    return covariances.project(trial.double() - plain.mean, plain.parameters, plain.basis) / plain.singular_values


def _matched(trials: Any, inputs: Any, name: str, device: torch.device | None) -> tuple[list[Tensor], list[Tensor]]:
    """Checked trials and their inputs, on one device."""
    states = as_trials(trials, name, device)
    drives = as_trials(inputs, f"inputs of {name}", states[0].device, constant=True)
    if len(states) != len(drives):
        raise DataError(
            f"system {name!r} has {len(states)} trials, and inputs came for {len(drives)}; each needs its own"
        )
    for k, (x, u) in enumerate(zip(states, drives, strict=True)):
        if len(x) != len(u):
            raise DataError(
                f"system {name!r}, trial {k} has {len(x)} samples and its inputs {len(u)}; as many are needed"
            )
    return states, drives


def _every_sample(p: EmbeddingParameters) -> EmbeddingParameters:
    """The windows of ``p`` without holes."""
    return replace(p, n_delays=p.window, delay_interval=1)


def _principal(drives: list[Tensor], p: EmbeddingParameters) -> Tensor:
    """Principal directions, scaled to unit variance, of the inputs since the start of each window that has a successor:
    (window * n_inputs, k)."""
    gram = covariances.lag_gram([u[:-1] for u in drives], torch.zeros_like(drives[0][0]), p.window)
    variances, directions = torch.linalg.eigh(gram.flatten(2).flatten(0, 1))
    kept = variances > INPUT_RESOLUTION**2 * variances[-1]
    return directions[:, kept] / variances[kept].sqrt()


def _root_mean_square(drives: list[Tensor]) -> Tensor:
    """Of each input over all samples, (n_inputs,) float64; 1 where it is always 0."""
    squares = sum(
        (u.double().square().sum(0) for u in drives), start=torch.zeros_like(drives[0][0], dtype=torch.float64)
    )
    return torch.where(squares > 0, squares / sum(map(len, drives)), torch.ones_like(squares)).sqrt()
