"""Fits linear operators to driven trajectories: delay-embedded dynamic mode decomposition with control.

If a driven linear system x(t + 1) = F x(t) + G u(t) is fitted without its inputs, their effect is taken for dynamics.
If the inputs are known exactly, the whitened coordinates v = S^-1 U^T h of windows h = [x(t), x(t - d), ...,
x(t - (m-1) d)], the same as in `fit_operator`, are regressed on themselves and on the inputs:

    v(t + 1) ~ A v(t) + B w(t) + b,      w(t) = [u(t), u(t - 1), ..., u(t - (m-1) d)].

`subspace` has the other estimator, with states in place of windows.

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

from dsa_analysis import covariances, dmd, subspace
from dsa_analysis.covariances import Directions
from dsa_analysis.data import DataError, as_device, check_choice, check_count
from dsa_analysis.display import Card
from dsa_analysis.dmd import Operator, described
from dsa_analysis.embedding import DRIVEN_ESTIMATORS, EmbeddingParameters
from dsa_analysis.inputs import RESOLUTION, Excitation, excitation, largest_window, match
from dsa_analysis.state_space import DrivenOperator, FittedDriven

__all__ = ["DrivenOperator", "WindowOperator", "fit", "fit_driven_operator", "prepare"]

LEAST_REMAINDER = 1e-6  # fraction of a direction's variance; with less, the inputs determine it


@dataclass(frozen=True, repr=False)
class WindowOperator(FittedDriven):
    """Fitted map v(t + 1) = A v(t) + B w(t) + b of whitened coordinates of windows; w holds the inputs of a window.

    Samples are x(t) = C v(t) + D w(t) + c: if windows are longer than a sample, v alone does not determine the newest.
    ``input_matrix`` is (rank, window * n_inputs). The first ``n_inputs`` columns belong to the present input, the next
    to that of the sample before, and so on. If inputs are collinear, it is the smallest of all matrices that fit
    equally well (for inputs of unit root mean square).

    Attributes
    ----------
    n_input_directions : int
        Dimensions of w and the offset in these data: principal directions above 1e-6 of the first.
    remainder : (rank,)
        Fractions in [0, 1] of the variance of v(t) that w does not determine, along the directions in which they are
        extreme, descending. A is fitted to this remainder. Zeros mean that ``rank`` exceeds the dimension of the
        system's own dynamics.
    plain : Operator
        The operator fitted without inputs, in the same coordinates (``plain.basis``, ``plain.mean`` and so on).
    """

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
    def drive(self) -> Tensor:
        """(rank, window * n_inputs) B for coordinates of unit variance: those of `matrix` have 1 / n_windows."""
        return self.input_matrix * self.plain.n_windows**0.5

    @property
    def singular_values(self) -> Tensor:
        """(rank,) S, of the matrix of all windows, descending."""
        return self.plain.singular_values

    def _predict(self, x: Tensor, u: Tensor, horizon: int) -> Tensor:
        v, w = _coordinates(x[: len(x) - horizon], self.plain), _every_sample(self.parameters)
        drive = covariances.project(u, w, self.input_matrix.T) + self.offset
        for step in range(horizon):
            v = v @ self.matrix.T + drive[step : step + len(v)]
        return v @ self.readout.T + covariances.project(u[horizon:], w, self.feedthrough.T) + self.level


def fit_driven_operator(
    trials: Any,
    inputs: Any,
    *,
    n_delays: int,
    rank: int,
    delay_interval: int = 1,
    ridge: float = 1e-8,
    center: bool = True,
    estimator: str = "least_squares",
    n_future: int | None = None,
    device: str | torch.device | None = None,
    name: str = "system",
) -> FittedDriven:
    """Fit the linear dynamics of one system in delay coordinates, given its inputs.

    Parameters
    ----------
    trials : as in `fit_operator`
    inputs : (n_trials, n_times, n_inputs), (n_times, n_inputs), or a list of (n_times_i, n_inputs)
        u(t), the input that acts between sample t and sample t + 1. Each trial has one for each sample; the last has no
        effect. If the state of a network at t already depends on its input at t, give ``hidden[:, :-1]`` and
        ``inputs[:, 1:]``. With "least_squares" they may be constant or collinear: A is then the same as without them,
        and B is not determined, as ``excitation`` says.
    n_delays, rank, delay_interval, ridge, center, device, name
        As in `fit_operator`. The ridge applies to A only. To get the eigenvalues of a linear system, set ``rank`` to
        its number of dimensions; a larger rank adds zeros. With ``center`` an offset is fitted as well.
    estimator : "least_squares" or "subspace"
        "least_squares": coordinates of windows, whitened by the whole recording including the effect of the inputs,
        with a B for all inputs in a window. "subspace": states from the past, in units of the channels, with a B for
        the present input; for systems of which few channels are seen. See the top of `subspace`.
    n_future : int >= 1, in samples
        With "subspace", how far states have to predict; by default ``n_delays``, which is the length of their past.
        The rank is at most (n_future - 1) * n_channels.

    Returns
    -------
    FittedDriven
        A `WindowOperator`, or a `SubspaceOperator` with "subspace"; both are a `DrivenOperator`, which `compare` and
        `align` take in place of data.

    Raises
    ------
    DataError
        Trials and inputs that do not match, too few transitions for the inputs of a window (the message names the
        longest window that fits), or anything that `fit_operator` refuses. With "subspace" also inputs that are
        constant, collinear or vary in too few directions; the message names them.

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
    p = EmbeddingParameters(n_delays, rank, delay_interval, ridge=ridge, center=center, estimator=estimator)
    operator, concerns = fit(trials, inputs, p, n_future=n_future, device=as_device(device), name=name)
    for concern in concerns:
        warnings.warn(f"system {name!r}: {concern}", stacklevel=2)
    return operator


def fit(
    trials: Any, inputs: Any, p: EmbeddingParameters, *, n_future: int | None, device: torch.device | None, name: str
) -> tuple[FittedDriven, list[str]]:
    """The operator of a driven system, and a list of warnings about it (empty if there are none)."""
    found = prepare(trials, inputs, p, n_future=n_future, device=device, name=name)
    if found.largest < p.rank:
        raise DataError(f"system {name!r}: {found.why_not(found.largest)}")
    return found.operator(p.rank)


def prepare(
    trials: Any, inputs: Any, p: EmbeddingParameters, *, n_future: int | None, device: torch.device | None, name: str
) -> "WindowFit | subspace.SubspaceFit":
    """What driven operators of any rank up to that of ``p`` are computed from; as `fit_driven_operator`."""
    check_choice("estimator of operators with inputs", p.estimator, DRIVEN_ESTIMATORS)
    if n_future is not None:
        check_count("n_future", n_future)
        if p.estimator != "subspace":
            raise DataError(f"n_future = {n_future} has no effect with estimator = {p.estimator!r}; leave it out")
    states, drives = match(trials, inputs, name, device)
    if p.estimator == "subspace":
        return subspace.prepare(states, drives, p, n_future, name)
    _refuse_few(states, drives[0].shape[1], p, name)
    return WindowFit(states, drives, p, name, covariances.directions(states, p, name))


@dataclass(frozen=True)
class WindowFit:
    """What `WindowOperator` of any rank are computed from."""

    states: list[Tensor]
    drives: list[Tensor]
    p: EmbeddingParameters
    name: str
    found: Directions

    @property
    def largest(self) -> int:
        """Largest rank, up to that asked for, that the data resolve."""
        return dmd.largest_rank(self.found, self.p, self.found.floor)

    def why_not(self, largest: int) -> str:
        """Why the rank asked for is too large."""
        return dmd.why_not(self.found, self.p, largest)

    def operator(self, rank: int) -> tuple[WindowOperator, list[str]]:
        """The operator of that rank, and warnings about it."""
        p, center = replace(self.p, rank=rank), self.p.center
        plain = dmd.solve(self.found, p, self.found.floor)
        concerns = dmd.concerns(plain, self.found)
        # scaled to unit size, so that the tolerance means the same for each; the offset is an input that is always 1
        scale = _root_mean_square(self.drives)
        drives = [torch.cat([u / scale, torch.ones_like(u[:, :1])][: 1 + center], 1) for u in self.drives]
        basis = _principal(drives, p)
        n_dims = rank + basis.shape[1]
        if plain.n_transitions < n_dims:
            raise DataError(
                f"system {self.name!r}: {plain.n_transitions} transitions cannot tell rank = {rank} from "
                f"{basis.shape[1]} directions of the inputs in windows of {p.window} samples; lower n_delays or "
                f"delay_interval{_longest(self.states, self.drives[0].shape[1], p)}, or record more trials"
            )
        if 10 * rank <= plain.n_transitions < 10 * n_dims:
            concerns.append(
                f"{plain.n_transitions} transitions for rank = {rank} and {basis.shape[1]} directions of the inputs: "
                f"fewer than 10 for each dimension"
            )
        on_state, on_inputs, remainder = _regress(self.states, drives, basis, plain)
        n_own = int((remainder > LEAST_REMAINDER).sum())
        if n_own < rank:
            concerns.append(
                f"inputs determine {rank - n_own} of rank = {rank} directions, where the operator is 0: rank = {n_own} "
                f"is enough for the system's own dynamics"
            )
        by_sample = (on_inputs @ basis.T).unflatten(1, (p.window, -1))
        input_matrix, feedthrough = (by_sample[..., : len(scale)] / scale).flatten(1).split([rank, plain.n_channels])
        offset, level = by_sample[..., len(scale) :].sum((1, 2)).split([rank, plain.n_channels])
        operator = WindowOperator(
            matrix=on_state[:rank].contiguous(),
            input_matrix=input_matrix,
            offset=offset,
            readout=on_state[rank:].contiguous(),
            feedthrough=feedthrough,
            level=level + plain.mean,
            parameters=p,
            n_inputs=len(scale),
            excitation=self._excitation,
            n_input_directions=basis.shape[1],
            remainder=remainder,
            plain=plain,
        )
        return operator, concerns

    @property
    def _excitation(self) -> Excitation:
        return excitation([u[:-1] for u in self.drives], self.p.window, self.p.center)


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


def _every_sample(p: EmbeddingParameters) -> EmbeddingParameters:
    """Windows of the same length as those of ``p``, with every sample."""
    return replace(p, n_delays=p.window, delay_interval=1)


def _principal(drives: list[Tensor], p: EmbeddingParameters) -> Tensor:
    """Principal directions of the inputs in windows that have a successor: (window * n_inputs, k), of unit variance."""
    gram = covariances.lag_gram([u[:-1] for u in drives], torch.zeros_like(drives[0][0]), p.window)
    variances, directions = torch.linalg.eigh(gram.flatten(2).flatten(0, 1))
    kept = variances > RESOLUTION**2 * variances[-1]
    return directions[:, kept] / variances[kept].sqrt()


def _root_mean_square(drives: list[Tensor]) -> Tensor:
    """Root mean square of each input over all samples, (n_inputs,) float64; 1 for an input that is always 0."""
    squares = sum(
        (u.double().square().sum(0) for u in drives), start=torch.zeros_like(drives[0][0], dtype=torch.float64)
    )
    return torch.where(squares > 0, squares / sum(map(len, drives)), torch.ones_like(squares)).sqrt()


def _refuse_few(states: list[Tensor], n_inputs: int, p: EmbeddingParameters, name: str) -> None:
    """Refuse trials that are too short for a window, naming the longest that also leaves transitions enough."""
    needed = p.window + 1
    short = [k for k, x in enumerate(states) if len(x) < needed]
    if short:
        where = f"trial{'s' * (len(short) > 1)} {', '.join(map(str, short[:10]))}{', ...' * (len(short) > 10)}"
        raise DataError(
            f"n_delays = {p.n_delays} with delay_interval = {p.delay_interval} needs trials of at least {needed} "
            f"samples ({p.window} for one window, 1 more to predict), but system {name!r}, {where} "
            f"{'has' if len(short) == 1 else 'have as few as'} {min(map(len, states))}"
            f"{_longest(states, n_inputs, p)}, or leave the short trials out by "
            f"omit_trials(systems, shorter_than={needed})"
        )


def _longest(states: list[Tensor], n_inputs: int, p: EmbeddingParameters) -> str:
    """The largest number of delays for which there are more transitions than unknowns, in words."""

    def fits(n_delays: int) -> bool:
        window = (n_delays - 1) * p.delay_interval + 1
        n_transitions = sum(len(x) - window for x in states)
        return min(map(len, states)) > window and n_transitions >= p.rank + window * n_inputs + p.center

    longest = largest_window(fits, p.n_delays)
    return f"; at most n_delays = {longest} fits" if longest else f"; no n_delays fits rank = {p.rank}"
