"""Subspace identification: states of a driven system of which few channels are seen, their dynamics and their inputs.

    x(t + 1) = A x(t) + B u(t) + b,      y(t) = C x(t) + c,      up to noise in both.

Samples from t on depend on what happened before through the state x(t) alone, and on the inputs since:

    y_f(t) = Gamma x(t) + H u_f(t) + noise,      Gamma = [C; C A; ...; C A^(f-1)],

with y_f(t) = [y(t), ..., y(t+f-1)], u_f(t) = [u(t), ..., u(t+f-2)]. The past z_p(t) = [y, u](t-1), ..., [y, u](t-p)
determines x(t), up to noise that fades with p. So one regression of y_f on z_p and u_f has both parts in it, and its
part in the past, L z_p, is the oblique projection of the future on the past along the inputs that come between (N4SID;
Van Overschee and De Moor 1994, 1996). What u_f explains is left out when the leading directions are taken, so that they
are those of Gamma whatever the inputs are (PO-MOESP; Verhaegen 1994):

    L R = U S V^T for R R^T = Cov(z_p | u_f),      x(t) = U_r^T L z_p(t).

Here Gamma = U_r has orthonormal columns. Coordinates in which the future of the outputs has the size of the state do
not depend on B or on the inputs: two systems with the same A and C have the same operator, and the columns of B have
the size of the response to an input, in units of the channels. (Coordinates of unit variance, as in `driven`, depend on
what drives the system, and lose this size.)

C is the first block of Gamma, and A maps it one block down: Gamma without its last block, times A, is Gamma without
its first (shift invariance). B and b are the regression of x(t + 1) - A x(t) on u(t). Noise enters the states, not
Gamma, so A needs no long past to be unbiased. All follow from the lag products of windows of p + f samples, which never
cross from one trial into another.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dsa_analysis import covariances
from dsa_analysis.data import DataError
from dsa_analysis.embedding import EmbeddingParameters
from dsa_analysis.inputs import Excitation, excitation, largest_window, window_products
from dsa_analysis.state_space import FittedDriven

RESOLVED = 1e-7  # of the first singular value: products of samples resolve no smaller ones
PAST_RESOLUTION = 1e-12  # of the largest variance of the past, for the same reason


@dataclass(frozen=True, repr=False)
class SubspaceOperator(FittedDriven):
    """States x(t) from past samples and inputs, and x(t + 1) = A x(t) + B u(t) + b between them; see `subspace`.

    ``input_matrix`` is (rank, n_inputs), in units of the channels per unit of each input. ``feedthrough`` is 0: an
    input acts on the next sample.

    Attributes
    ----------
    n_future : int
        f, samples that a state has to predict. The past has ``parameters.n_delays``.
    singular_values : (n,)
        S: how much of the future each direction of the past predicts, root mean square over windows, in units of the
        channels, descending; all that the data resolve. A gap after the rank speaks for it.
    observer, origin : (n_delays * (n_channels + n_inputs), rank), (rank,)
        State of a window [y, u](t-1), ..., [y, u](t-p): window @ observer - origin.
    n_windows : int
    """

    n_future: int
    singular_values: Tensor = field(repr=False)
    observer: Tensor = field(repr=False)
    origin: Tensor = field(repr=False)
    n_windows: int

    @property
    def kind(self) -> str:
        return f"{super().kind}, n_future = {self.n_future}"

    @property
    def gap(self) -> float:
        """S_rank / S_(rank + 1); infinite if no direction is left out."""
        S = self.singular_values
        return float(S[self.rank - 1] / S[self.rank]) if len(S) > self.rank else float("inf")

    def _predict(self, x: Tensor, u: Tensor, horizon: int) -> Tensor:
        window = replace(self.parameters, delay_interval=1)
        both = torch.cat([x, u], 1)[: len(x) - horizon]
        state = covariances.project(both, window, self.observer) - self.origin
        for step in range(self.parameters.n_delays, self.parameters.n_delays + horizon - 1):
            state = state @ self.matrix.T + u[step : step + len(state)] @ self.input_matrix.T + self.offset
        return state @ self.readout.T + self.level


@dataclass(frozen=True)
class SubspaceFit:
    """What operators of any rank are computed from: products of windows, and the directions of their past."""

    p: EmbeddingParameters
    name: str
    n_future: int
    n_channels: int
    excitation: Excitation
    products: Tensor  # (p + f, c + m, p + f, c + m), covariances of windows in units of ``scale``, newest sample first
    means: Tensor  # (p + f, c + m), in the units of the data
    scale: Tensor  # (c + m,)
    n_windows: int
    singular_values: Tensor  # (k,) in units of the channels
    future: Tensor  # (f c, k): U, oldest sample first
    past: Tensor  # (p (c + m), k): its projections of a past are states over S

    @property
    def largest(self) -> int:
        """Largest rank, up to that asked for, that the data resolve."""
        return min(self.p.rank, len(self.singular_values), (self.n_future - 1) * self.n_channels)

    def why_not(self, largest: int) -> str:
        """Why the rank asked for is too large."""
        entries = (self.n_future - 1) * self.n_channels
        if self.p.rank > entries:
            return (
                f"rank = {self.p.rank} is out of reach; n_future = {self.n_future} samples of {self.n_channels} "
                f"channels show at most {entries} dimensions, (n_future - 1) x channels"
            )
        return (
            f"rank = {self.p.rank} is out of reach: the past predicts the future in {largest} directions that the data "
            f"resolve; use at most rank = {largest}"
        )

    def operator(self, rank: int) -> tuple[SubspaceOperator, list[str]]:
        """The operator of that rank, and warnings about it."""
        f, c, p = self.n_future, self.n_channels, replace(self.p, rank=rank)
        J, entry = self.products.flatten(2).flatten(0, 1), _entries(self.products)
        past, next_past, present = entry[f:].flatten(), entry[f - 1 : -1].flatten(), entry[f - 1, c:]
        gamma = self.future[:, :rank]
        upper, lower = gamma[:-c], gamma[c:]
        eye = torch.eye(rank, dtype=gamma.dtype, device=gamma.device)
        A = torch.linalg.solve(upper.T @ upper + p.ridge * eye, upper.T @ lower)
        K = self.past[:, :rank] * self.singular_values[:rank] / self.scale[0]
        with_inputs = K.T @ J[next_past][:, present] - A @ K.T @ J[past][:, present]
        B = torch.linalg.solve(J[present][:, present], with_inputs.T).T * self.scale[0] / self.scale[c:]
        observer = K * self.scale[0] / self.scale.repeat(p.n_delays)[:, None]
        mean, next_mean = (part.flatten() @ observer for part in (self.means[f:], self.means[f - 1 : -1]))
        operator = SubspaceOperator(
            matrix=A,
            input_matrix=B,
            offset=next_mean - mean - B @ self.means[f - 1, c:],
            readout=gamma[:c].contiguous(),
            feedthrough=B.new_zeros(c, B.shape[1]),
            level=self.means[f - 1, :c],
            parameters=p,
            n_inputs=B.shape[1],
            excitation=self.excitation,
            n_future=f,
            singular_values=self.singular_values,
            observer=observer,
            origin=mean,
            n_windows=self.n_windows,
        )
        return operator, _concerns(operator)


def prepare(
    states: list[Tensor], drives: list[Tensor], p: EmbeddingParameters, n_future: int | None, name: str
) -> SubspaceFit:
    """Products of windows of matched trials and inputs, and the directions of their past, for any rank.

    Raises
    ------
    DataError
        Trials that are too short or too few for the windows, spaced delays, inputs that do not vary enough, or more
        memory than available.
    """
    f, c, m = n_future or p.n_delays, states[0].shape[1], drives[0].shape[1]
    if p.delay_interval != 1:
        raise DataError(
            f"delay_interval = {p.delay_interval} has no effect with estimator = 'subspace', whose states depend on "
            f"every sample and input of the past; leave it out"
        )
    _refuse_short(states, m, p.n_delays, n_future, name)
    covariances.refuse_memory((p.n_delays + f) * (c + m), p, states[0], name)
    excited = excitation(drives, p.n_delays + f, p.center)
    if excited.lacking:
        raise DataError(f"system {name!r}: {excited.lacking}")
    both = [torch.cat([x.double(), u.double()], 1) for x, u in zip(states, drives, strict=True)]
    everything = torch.cat(both)
    mean = everything.mean(0) if p.center else torch.zeros_like(everything[0])
    spread = (everything - mean).square().mean(0)
    scale = torch.cat([spread[:c].mean().expand(c), spread[c:]]).sqrt()  # one for all channels, whose units count
    products, means, n_windows = window_products([(x - mean) / scale for x in both], p.n_delays + f, p.center)
    products = products / n_windows
    S, U, K = _directions(products, f, c)
    return SubspaceFit(p, name, f, c, excited, products, means * scale + mean, scale, n_windows, S * scale[0], U, K)


def _directions(products: Tensor, f: int, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """S, U (f c, k) and directions of the past (p (c + m), k) that have unit variance given the inputs."""
    J, entry = products.flatten(2).flatten(0, 1), _entries(products)
    past, future, between = entry[f:].flatten(), entry[:f, :c].flip(0).flatten(), entry[1:f, c:].flatten()
    given = J[past][:, past], J[future][:, past]
    if len(between):
        lower = torch.linalg.cholesky(J[between][:, between])
        by_past, by_future = (
            torch.linalg.solve_triangular(lower, J[between][:, some], upper=False) for some in (past, future)
        )
        given = given[0] - by_past.T @ by_past, given[1] - by_future.T @ by_past
    variances, E = torch.linalg.eigh(given[0])
    kept = variances > PAST_RESOLUTION * variances[-1]
    white = E[:, kept] / variances[kept].sqrt()
    U, S, Vh = torch.linalg.svd(given[1] @ white, full_matrices=False)
    resolved = RESOLVED * S[0] < S
    signs = torch.where(U.gather(0, U.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0).to(U)
    return S[resolved], (U * signs)[:, resolved], (white @ Vh.T * signs)[:, resolved]


def _entries(products: Tensor) -> Tensor:
    """Index of each entry of a window, (samples, channels and inputs)."""
    return torch.arange(products.shape[0] * products.shape[1], device=products.device).view(products.shape[:2])


def _concerns(operator: SubspaceOperator) -> list[str]:
    p, said = operator.parameters, []
    n_regressors = len(operator.observer) + (operator.n_future - 1) * operator.n_inputs
    if operator.gap < 1.1:
        S = operator.singular_values
        clear = [r for r in range(1, len(S)) if S[r - 1] >= 1.3 * S[r]][:10]
        said.append(
            f"the cut at rank = {p.rank} goes through a cluster of singular values (S_{p.rank} / S_{p.rank + 1} = "
            f"{operator.gap:.2f}): the distance will be unstable; clear gaps are at "
            f"{', '.join(map(str, clear)) or 'no rank'}"
        )
    if operator.n_windows < 2 * n_regressors:
        said.append(
            f"{operator.n_windows} windows for {n_regressors} samples of past and inputs: fewer than 2 for each; use "
            f"shorter windows"
        )
    return said


def _refuse_short(states: list[Tensor], n_inputs: int, n_past: int, n_future: int | None, name: str) -> None:
    """Refuse trials that are too short or too few for windows of past and future, naming the longest that fit."""
    lengths, c = [len(x) for x in states], states[0].shape[1]

    def future(past: int) -> int:
        return n_future or past

    def n_windows(past: int) -> int:
        return sum(n - past - future(past) + 1 for n in lengths)

    def n_regressors(past: int) -> int:
        return past * (c + n_inputs) + (future(past) - 1) * n_inputs + 1

    def fits(past: int) -> bool:
        return min(lengths) >= past + future(past) and n_windows(past) > n_regressors(past)

    if fits(n_past):
        return
    longest = largest_window(fits, n_past)
    future_of = " (and as many samples of future)" if n_future is None else f" with n_future = {n_future}"
    remedy = f"at most n_delays = {longest} fits{future_of}" if longest else f"no n_delays fits{future_of}"
    needed = n_past + future(n_past)
    if min(lengths) < needed:
        short = [k for k, n in enumerate(lengths) if n < needed]
        where = f"trial{'s' * (len(short) > 1)} {', '.join(map(str, short[:10]))}{', ...' * (len(short) > 10)}"
        raise DataError(
            f"n_delays = {n_past} and n_future = {future(n_past)} need trials of at least {needed} samples, but system "
            f"{name!r}, {where} {'has' if len(short) == 1 else 'have as few as'} {min(lengths)}; {remedy}"
        )
    raise DataError(
        f"system {name!r}: {n_windows(n_past)} windows of {needed} samples cannot tell {n_regressors(n_past)} entries "
        f"of past samples and inputs apart; {remedy}, or record more"
    )
