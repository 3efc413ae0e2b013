"""Fits linear operators to driven trajectories: delay-embedded dynamic mode decomposition with control.

If a driven linear system x(t + 1) = F x(t) + G u(t) is fitted without its inputs, their effect is taken for dynamics.
If the inputs are known exactly, the whitened coordinates v = S^-1 U^T h of windows h = [x(t), x(t - d), ...,
x(t - (m-1) d)], the same as in `fit_operator`, are regressed on themselves and on the inputs:

    v(t + 1) ~ A v(t) + B w(t) + b,      w(t) = [u(t), u(t - 1), ..., u(t - (m-1) d)].

The choice of inputs in w. With m = 1 a window is one sample and w = u. This is DMD with control (Proctor, Brunton and
Kutz 2016, SIAM J Appl Dyn Syst 15, 142-161), with v = M x and A = M F M^-1 up to rounding. With more delays, h(t)
depends on all inputs since its oldest sample x(t0), t0 = t - (m-1) d. With matrices O and T that follow from F, G and
the observed channels,

    v(t) = S^-1 U^T (O x(t0) + T [u(t0), ..., u(t-1)])    and so    v(t + 1) = M F M^-1 v(t) + B [u(t0), ..., u(t)]

for M = S^-1 U^T O, if M is invertible, which needs a rank equal to the number of dimensions of x. So w needs *every*
input from the oldest sample of the window to the present, in steps of one sample for any d. Then A has the eigenvalues
of F, even if only few channels of x are observed. Subspace identification separates state from input in this way (Van
Overschee and De Moor 1996). HAVOK (Brunton et al. 2017, Nat Commun 8, 19) has the same form, with the last coordinate
as an unknown input.

Variance that v and w share is attributed to w: A is the regression of the residuals of v(t + 1) on the residuals of
v(t), after both were regressed on w (Frisch, Waugh and Lovell). If the rank exceeds the dimension of x, the inputs
determine part of v completely. A is 0 there, and its other eigenvalues are still those of F. If the rank is smaller,
the directions that were cut off are missing, as in `fit_operator`. Unknown noise that drives x averages out with m = 1.
Longer windows contain its effects, which are taken for dynamics.

``center`` also fits the offset b, because the mean over all samples is not a rest state of a driven system or of short
trials. A constant input cannot be told from the offset.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import covariances, dmd, spectra
from dsa_analysis.data import DataError, as_device, as_trials, check_count
from dsa_analysis.display import Card, Shown
from dsa_analysis.dmd import Operator, described
from dsa_analysis.embedding import EmbeddingParameters

INPUT_RESOLUTION = 1e-6  # relative to the first principal direction of the inputs; smaller ones are taken for zero
LEAST_REMAINDER = 1e-6  # fraction of a direction's variance; with less, the inputs determine it


@dataclass(frozen=True, repr=False)
class DrivenOperator(Shown):
    """Fitted map v(t + 1) = A v(t) + B w(t) + b of whitened coordinates of windows; w holds the inputs of a window.

    Samples are x(t) = C v(t) + D w(t) + c: if windows are longer than a sample, v alone does not determine the newest.

    Attributes
    ----------
    matrix : (rank, rank) float64
        A: the system's own dynamics.
    input_matrix : (rank, window * n_inputs)
        B. The first ``n_inputs`` columns belong to the present input, the next to that of the sample before, and so on.
        If inputs are collinear, it is the smallest of all matrices that fit equally well (for inputs of unit root mean
        square).
    offset : (rank,)
        b; zeros if ``center`` is false.
    readout, feedthrough, level : (n_channels, rank), (n_channels, window * n_inputs), (n_channels,)
        C, D and c.
    n_input_directions : int
        Dimensions of w and the offset in these data: principal directions above 1e-6 of the first.
    remainder : (rank,)
        Fractions in [0, 1] of the variance of v(t) that w does not determine, along the directions in which they are
        extreme, descending. A is fitted to this remainder. Zeros mean that ``rank`` exceeds the dimension of the
        system's own dynamics.
    plain : Operator
        The operator fitted without inputs, in the same coordinates (``plain.basis``, ``plain.mean`` and so on).
    """

    matrix: Tensor
    input_matrix: Tensor
    offset: Tensor
    readout: Tensor
    feedthrough: Tensor
    level: Tensor
    n_input_directions: int
    remainder: Tensor
    plain: Operator

    def __repr__(self) -> str:
        return f"<Driven{repr(self.plain)[1:-1]}, {self.n_inputs} inputs>"

    def _card(self) -> Card:
        own, least = f"{self.n_inputs} inputs, {self.n_input_directions} directions", float(self.remainder.min())
        rows = {"inputs": own, "own variance": f"{least:.2g} at least, of each direction (0: the rank is too large)"}
        doors = ".eigenvalues, .time_constants(dt), .predict(trials, inputs), .plain, compare({name: operator})"
        return Card(f"DrivenOperator of rank {self.rank}", described(self) | rows, doors)

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
        """(rank,) S, of the matrix of all windows, descending."""
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
        """Predict samples ``horizon`` steps ahead of each window, given the inputs up to there.

        Parameters
        ----------
        trials, inputs : as in `fit_driven_operator`
            With the channels and inputs that the operator was fitted to.
        horizon : int >= 1, in samples

        Returns
        -------
        Tensor, (n_trials, n_times - past, n_channels), or a list of (n_times_i - past, n_channels) if you gave a list
            Row t predicts sample t + past, with past = (n_delays - 1) * delay_interval + horizon.

        Raises
        ------
        DataError
            Another number of channels or inputs, trials that are too short, or trials and inputs that do not match.
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
                    f"trial {k} has {len(x)} samples; to predict {horizon} ahead, {p.window + horizon} are needed"
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
    """Fit the linear dynamics of one system in delay coordinates, given its inputs.

    Parameters
    ----------
    trials : as in `fit_operator`
    inputs : (n_trials, n_times, n_inputs), (n_times, n_inputs), or a list of (n_times_i, n_inputs)
        u(t), the input that acts between sample t and sample t + 1. Each trial has one for each sample; the last has no
        effect. If the state of a network at t already depends on its input at t, give ``hidden[:, :-1]`` and
        ``inputs[:, 1:]``. Inputs may be constant or collinear.
    n_delays, rank, delay_interval, ridge, center, device, name
        As in `fit_operator`. The ridge applies to A only. To get the eigenvalues of a linear system, set ``rank`` to
        its number of dimensions; a larger rank adds zeros. With ``center`` an offset is fitted as well.

    Returns
    -------
    DrivenOperator
        `compare` and `align` take it in place of data. Its coordinates are whitened by the whole recording, including
        the effect of the inputs.

    Raises
    ------
    DataError
        Trials and inputs that do not match, too few transitions for the inputs of a window, or anything that
        `fit_operator` refuses.

    Warns
    -----
    UserWarning
        As `fit_operator`, or if the inputs determine some of the directions.

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
    # scaled to unit size, so that the tolerance means the same for each; the offset is an input that is always 1
    scale = _root_mean_square(drives)
    drives = [torch.cat([u / scale, torch.ones_like(scale).expand(len(u), -1)[:, :1]][: 1 + center], 1) for u in drives]
    basis = _principal(drives, p)
    n_dims = rank + basis.shape[1]
    if plain.n_transitions < n_dims:
        raise DataError(
            f"system {name!r}: {plain.n_transitions} transitions cannot tell rank = {rank} from {basis.shape[1]} "
            f"directions of the inputs in windows of {p.window} samples; lower n_delays or delay_interval, or "
            f"record more trials"
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
            f"inputs determine {rank - n_own} of rank = {rank} directions, where the operator is 0: rank = {n_own} is "
            f"enough for the system's own dynamics"
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
    """Regress v(t + 1) and x(t) on v(t) and the k directions of the inputs.

    Returns A over C (rank + n_channels, rank), B over D (rank + n_channels, k), and the fractions of v(t) that the
    inputs do not determine (rank,).
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
    # directions that the inputs determine contain only rounding errors: 0 there, with a ridge and without
    inverse = torch.linalg.pinv(left[past, past] + p.ridge * eye, atol=1e-12, hermitian=True)
    on_state = (inverse @ left[past, targets]).T
    on_inputs = onto[:, targets].T - on_state @ onto[:, past].T
    fractions = torch.linalg.eigvals(torch.linalg.solve(moments[past, past], left[past, past])).real
    return on_state, on_inputs, fractions.clamp_min(0).sort(descending=True).values


def _coordinates(trial: Tensor, plain: Operator) -> Tensor:
    """v of all windows of a trial, (n_windows, rank)."""
    return covariances.project(trial.double() - plain.mean, plain.parameters, plain.basis) / plain.singular_values


def _matched(trials: Any, inputs: Any, name: str, device: torch.device | None) -> tuple[list[Tensor], list[Tensor]]:
    """Checked trials and their inputs, on one device."""
    states = as_trials(trials, name, device)
    drives = as_trials(inputs, f"inputs of {name}", states[0].device, constant=True)
    if len(states) != len(drives):
        raise DataError(
            f"system {name!r} has {len(states)} trials, and inputs came for {len(drives)}; give inputs for each"
        )
    for k, (x, u) in enumerate(zip(states, drives, strict=True)):
        if len(x) != len(u):
            raise DataError(
                f"system {name!r}, trial {k} has {len(x)} samples and its inputs {len(u)}; the numbers must agree"
            )
    return states, drives


def _every_sample(p: EmbeddingParameters) -> EmbeddingParameters:
    """Windows of the same length as those of ``p``, with every sample."""
    return replace(p, n_delays=p.window, delay_interval=1)


def _principal(drives: list[Tensor], p: EmbeddingParameters) -> Tensor:
    """Principal directions of the inputs in windows that have a successor: (window * n_inputs, k), of unit variance."""
    gram = covariances.lag_gram([u[:-1] for u in drives], torch.zeros_like(drives[0][0]), p.window)
    variances, directions = torch.linalg.eigh(gram.flatten(2).flatten(0, 1))
    kept = variances > INPUT_RESOLUTION**2 * variances[-1]
    return directions[:, kept] / variances[kept].sqrt()


def _root_mean_square(drives: list[Tensor]) -> Tensor:
    """Root mean square of each input over all samples, (n_inputs,) float64; 1 for an input that is always 0."""
    squares = sum(
        (u.double().square().sum(0) for u in drives), start=torch.zeros_like(drives[0][0], dtype=torch.float64)
    )
    return torch.where(squares > 0, squares / sum(map(len, drives)), torch.ones_like(squares)).sqrt()
