"""Trajectories -> linear operator: Hankel dynamic mode decomposition (HAVOK), also where the recording is noisy.

With windows h(t) = [x(t), x(t - d), ..., x(t - (m-1) d)], H their stack over all trials and H = V S U^T its singular
value decomposition cut at ``rank``, the operator is a regression of the whitened coordinates v(t) = S^-1 U^T h(t) on
themselves, v(t + s) ~ A v(t). With P = V-^T V-, Q = V-^T V+, F = V+^T V+, V- all rows that have a successor s samples
later in their trial and V+ those successors, it is one of

    least_squares         A^T = P^-1 Q                  Brunton et al. 2017, HAVOK; Ostrow et al. 2023, section 3
    noise_compensated     A^T = (P - N0)^-1 (Q - N1)    Dawson et al. 2016, section 2.2
    signal_weighted       A^T = P^-1 (Q - N1)
    total_least_squares   A = W2 W1^-1,  [W1; W2] the leading eigenvectors of [[P, Q], [Q^T, F]]    Hemati et al. 2017

Noise of the measurement adds N0 to P, and N1 to Q, since a window and its successor share samples. The published
estimator reads both as dynamics: its operators differ more between levels of noise than between systems. Compensation
takes both away, and is refused where little is left. The signal-weighted operator leaves the noise in P: it predicts
the next window of the *signal* from a noisy one (Wiener's filter in whitened coordinates), so a direction counts as far
as it holds signal, a direction of noise counts nothing, and nothing small is divided by: surplus rank does no harm.
Without noise it is the operator of least squares. Its price: distances also see the ratio of signal to noise.

Over one sample slow dynamics hardly differ from standing still, and the operators of unlike systems from each other;
``steps_ahead`` of about a window shows them plainly, to every estimator, and windows that far apart share no noise.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import covariances, spectra
from dsa_analysis.comparison import Comparison, as_comparison
from dsa_analysis.covariances import Directions
from dsa_analysis.data import DataError, as_device, as_trials, check_count
from dsa_analysis.embedding import NOISE_ESTIMATORS, EmbeddingParameters, delay_embed

LEAST_SIGNAL = 0.05  # share of signal below which compensating the rest would divide by the error of its estimate


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
        U, orthonormal columns, the newest sample in the first ``n_channels`` rows. Signs are such that each column's
        largest entry is positive.
    mean : (n_channels,)
        What was subtracted from every sample; zeros where ``center`` is off.
    gap : float
        S_rank / S_(rank + 1): how clearly the cut separates; near 1 it goes through a cluster, and the operator turns
        with the noise. Infinite where nothing is left.
    n_transitions : int
        Pairs of windows the regression saw.
    parameters : EmbeddingParameters
    noise_variance : (n_channels,)
        Of white measurement noise, given or estimated; NaN where it was not given and a window is a single sample.
    n_windows : int
    """

    matrix: Tensor = field(repr=False)
    singular_values: Tensor = field(repr=False)
    basis: Tensor = field(repr=False)
    mean: Tensor = field(repr=False)
    gap: float
    n_transitions: int
    parameters: EmbeddingParameters
    noise_variance: Tensor = field(repr=False)
    n_windows: int

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
        return spectra.eigenvalues(self.matrix)

    @property
    def gaps(self) -> Tensor:
        """(rank,) S_k / S_(k + 1): large where a cut after direction k separates, near 1 inside a cluster."""
        S = self.singular_values
        return torch.cat([S[:-1] / S[1:], S.new_tensor([self.gap])])

    @property
    def condition(self) -> float:
        """S_1 / S_rank: how many digits of the data the smallest direction has lost."""
        return float(self.singular_values[0] / self.singular_values[-1])

    @property
    def signal_fraction(self) -> Tensor:
        """(rank,) share of each direction's variance that is not measurement noise; NaN where that is not known."""
        noise = self.basis.unflatten(0, (-1, self.n_channels)).square()
        return 1 - self.n_windows * torch.einsum("ick,c->k", noise, self.noise_variance) / self.singular_values**2

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
            Row t predicts sample t + past, past = (n_delays - 1) * delay_interval + horizon * steps_ahead: compare with
            ``trials[:, past:]``.
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

    def prediction_error(self, trials: Any, horizon: int = 1) -> float:
        """Mean squared error of `predict` on ``trials``, relative to predicting ``mean``: 0 is perfect, 1 is useless.

        Held-out trials tell how well the operator predicts. A horizon of a window or more is the honest one: less far
        ahead, surplus directions predict the noise that a window and its successor share.
        """
        tensors = as_trials(trials, device=self.matrix.device)
        predictions = self.predict(tensors, horizon)
        later = [trial[-len(predicted) :].double() for trial, predicted in zip(tensors, predictions, strict=True)]
        missed = [(x - y).square().sum() for x, y in zip(later, predictions, strict=True)]
        return float(torch.stack(missed).sum() / torch.stack([(x - self.mean).square().sum() for x in later]).sum())


def fit_operator(
    trials: Any,
    how: Comparison | None = None,
    *,
    device: str | torch.device | None = None,
    name: str = "system",
    **choices: Any,
) -> Operator:
    """Fit the linear dynamics of one system in delay coordinates.

    Parameters
    ----------
    trials : (n_trials, n_times, n_channels), (n_times, n_channels), or a list of (n_times_i, n_channels)
        Real and finite. No window crosses from one trial into another.
    how : Comparison, optional
        The embedding and the estimator, and what else a comparison has, which plays no part here.
    device : str or torch.device, optional
        Where the work is done; by default where the data are. Arithmetic is float64.
    name : str
        What messages call the system.
    **choices
        Fields of `Comparison`, which override those of ``how``: ``n_delays`` and ``rank`` are needed;
        ``delay_interval``, ``steps_ahead`` or ``horizon`` with ``dt``, ``ridge``, ``center``, ``estimator`` (the
        equations are at the top of the module) and ``noise_variance`` have defaults.

    Returns
    -------
    Operator

    Raises
    ------
    DataError
        Trials too short for a window and its successor, a rank beyond what the data carry or, compensated, beyond the
        signal (the largest admissible is named), noise that cannot be told from signal, or more memory than there is;
        and whatever `as_trials` refuses.

    Warns
    -----
    UserWarning
        If the cut goes through a cluster of singular values, or if there are few transitions.
    """
    how = as_comparison(how, choices)
    operator, concerns = fit(as_trials(trials, name, as_device(device)), how.embedding(name), name, how.noise_of(name))
    for concern in concerns:
        warnings.warn(f"system {name!r}: {concern}", stacklevel=2)
    return operator


def singular_spectrum(
    trials: Any, *, n_delays: int, delay_interval: int = 1, center: bool = True, name: str = "system"
) -> Tensor:
    """Singular values of all windows in one stack, descending: (n_delays * n_channels,), or fewer if windows are few.

    Their gaps show at which ranks a system can be cut. Values below 1e-8 of the first are rounding.
    """
    parameters = EmbeddingParameters(n_delays, 1, delay_interval, center=center)
    return covariances.spectrum(as_trials(trials, name), parameters, name)


def repeat_variance(trials: Any, conditions: Sequence[Any]) -> Tensor:
    """Variance of each channel among repeats of the same condition, (n_channels,): noise known without a model of it.

    ``conditions`` names that of each trial; trials of one condition have equal lengths. All that differs from repeat to
    repeat counts as noise, so this suits responses that are the same each time, not chaos or free-running activity.
    """
    tensors = as_trials(trials)
    if len(conditions) != len(tensors):
        raise DataError(f"{len(conditions)} conditions came for {len(tensors)} trials")
    squares, freedom = torch.zeros_like(tensors[0][0], dtype=torch.float64), 0
    for condition in dict.fromkeys(conditions):
        repeats = [trial for trial, own in zip(tensors, conditions, strict=True) if own == condition]
        if len({len(trial) for trial in repeats}) > 1:
            raise DataError(f"trials of condition {condition!r} have unequal lengths; repeats match sample by sample")
        stack = torch.stack(repeats).double()
        squares += (stack - stack.mean(0)).square().sum((0, 1))
        freedom += (len(repeats) - 1) * len(repeats[0])
    if not freedom:
        raise DataError("no condition has two trials: without repeats nothing tells noise from signal")
    return squares / freedom


def common_weights(operators: Mapping[str, Operator]) -> dict[str, Operator]:
    """The same operators with the directions of all weighted alike, by the share of signal in the noisiest system.

    A signal-weighted operator shrinks what it says of directions k and l by sqrt(d_k d_l), d being the
    `Operator.signal_fraction` of its own recording. Recordings of unlike noise differ in that alone, so here

        A_kl  <-  A_kl sqrt(w_k w_l),        w_k = (smallest d_k in the set) / (own d_k),

    and a direction in which some system holds no signal (d <= 0) counts in none. Hand the outcome to `compare` in place
    of the data.

    For sets whose recordings differ in noise; where they do not, it costs detail and gains nothing. Predict about a
    window ahead: one sample ahead what is left of the noise outweighs what systems differ in. Of Lorenz recordings at
    20, 10, 5, 0 and -6 dB in one set (rank 8, 20 delays, 20 steps ahead) the regimes were told apart with an AUROC of
    1.00 in place of .96, and rho 28, 35, 45 with .97 in place of .61 (500 samples; .82 for .55 of rho 35, 40, 45).

    Parameters
    ----------
    operators : mapping from name to Operator
        As fitted with estimator = "signal_weighted", all of one rank.

    Raises
    ------
    DataError
        Operators of another estimator or of unequal rank, or none.
    """
    if not operators:
        raise DataError("no operators came; at least one is needed")
    ranks = {name: operator.rank for name, operator in operators.items()}
    for name, operator in operators.items():
        if operator.parameters.estimator != "signal_weighted":
            raise DataError(
                f"operator {name!r} was fitted with estimator = {operator.parameters.estimator!r}, which weights no "
                f"direction by its signal; fit it with 'signal_weighted'"
            )
    if len(set(ranks.values())) > 1:
        listed = ", ".join(f"{name!r} {rank}" for name, rank in ranks.items())
        raise DataError(f"operators of unequal rank share no weights: {listed}; fit all systems at one rank")
    least = torch.stack([operator.signal_fraction.cpu() for operator in operators.values()]).amin(0)
    weighted = {}
    for name, operator in operators.items():
        own = operator.signal_fraction
        root = torch.where(least.to(own) > 0, least.to(own) / own, 0.0).sqrt()
        weighted[name] = replace(operator, matrix=operator.matrix * root[:, None] * root)
    return weighted


def fit(
    trials: list[Tensor], parameters: EmbeddingParameters, name: str = "system", noise_variance: Any = None
) -> tuple[Operator, list[str]]:
    """The operator of checked trials, and what a reader of it should know (empty if nothing)."""
    found = covariances.directions(trials, parameters, name)
    noise_variance = as_noise_variance(noise_variance, found, parameters, name)
    largest = largest_rank(found, parameters, noise_variance)
    if parameters.rank > largest:
        raise DataError(f"system {name!r}: {why_not(found, parameters, largest)}")
    operator = solve(found, parameters, noise_variance)
    return operator, concerns(operator, found)


def solve(found: Directions, p: EmbeddingParameters, noise_variance: Tensor) -> Operator:
    """The operator of ``p.rank`` and ``p.estimator`` along directions, of which there may be more."""
    r = p.rank
    eye = torch.eye(r, dtype=torch.float64, device=found.past.device)
    past, cross, future = (moment[:r, :r] for moment in (found.past, found.cross, found.future))
    if p.estimator == "total_least_squares":
        joint = torch.cat([torch.cat([past, cross], 1), torch.cat([cross.T, future], 1)])
        W = torch.linalg.eigh(joint)[1][:, r:]
        matrix = torch.linalg.solve(W[:r].T, W[r:].T).T
    else:
        if p.estimator == "noise_compensated":
            past = past - found.noise(noise_variance)[:r, :r]
        if p.estimator in NOISE_ESTIMATORS and p.steps_ahead % p.delay_interval == 0:
            cross = cross - found.noise(noise_variance, p.steps_ahead // p.delay_interval)[:r, :r]
        matrix = torch.linalg.solve(past + p.ridge * eye, cross).T
    return Operator(
        matrix=matrix.contiguous(),
        singular_values=found.singular_values[:r],
        basis=found.basis[:, :r].contiguous(),
        mean=found.mean,
        gap=found.gap(r),
        n_transitions=found.n_transitions,
        parameters=p,
        noise_variance=noise_variance,
        n_windows=found.n_windows,
    )


def as_noise_variance(value: Any, found: Directions, p: EmbeddingParameters, name: str = "system") -> Tensor:
    """Noise variance of each channel, (n_channels,): what came, or the estimate."""
    if value is None:
        if p.estimator in NOISE_ESTIMATORS and bool(found.floor.isnan().any()):
            raise DataError(
                f"system {name!r}: with n_delays = 1 nothing tells noise from signal; estimator = {p.estimator!r} "
                f"needs noise_variance, or n_delays of at least 2"
            )
        return found.floor
    variance = torch.as_tensor(value, dtype=torch.float64, device=found.mean.device).detach()
    if variance.ndim > 1 or (variance.ndim == 1 and len(variance) != len(found.mean)):
        raise DataError(
            f"system {name!r}: noise_variance has shape {tuple(variance.shape)}; a number, or one for each of "
            f"{len(found.mean)} channels, is needed"
        )
    if not bool((variance.isfinite() & (variance >= 0)).all()):
        raise DataError(f"system {name!r}: noise_variance = {value!r} is not finite and at least 0")
    return variance.expand(len(found.mean)).clone()


def largest_rank(found: Directions, p: EmbeddingParameters, noise_variance: Tensor) -> int:
    """Largest rank, up to ``p.rank``, at which this estimator can be solved."""
    largest = min(p.rank, found.rank)
    if p.estimator != "noise_compensated":
        return largest
    signal = found.past - found.noise(noise_variance)
    while largest and float(torch.linalg.eigvalsh(signal[:largest, :largest])[0]) < LEAST_SIGNAL:
        largest -= 1
    return largest


def why_not(found: Directions, p: EmbeddingParameters, largest: int) -> str:
    """Why ``p.rank`` is out of reach, and what is not."""
    size, S, rank = len(found.basis), found.singular_values, p.rank
    reach = f"rank = {rank} is out of reach; "
    if rank > min(size, found.n_transitions):
        return (
            f"{reach}{size} entries in a window (n_delays {p.n_delays} x {len(found.mean)} channels) and "
            f"{found.n_transitions} transitions allow at most {min(size, found.n_transitions)}"
        )
    if rank > found.rank:
        return (
            f"{reach}singular value {rank} is {float(S[rank - 1] / S[0]):.0e} of the first, and {found.dtype} data "
            f"resolve {covariances.resolution(found.dtype):.0e}: at most rank = {largest}"
        ).replace("torch.", "")
    remedy = f"take at most rank = {largest}, or" if largest else "take"
    return (
        f"{reach}some direction of it holds less than {LEAST_SIGNAL:.0%} signal, too little to compensate the noise: "
        f"{remedy} estimator = 'signal_weighted'"
    )


def concerns(operator: Operator, found: Directions) -> list[str]:
    """What a reader of an operator should know."""
    said, rank, S = [], operator.rank, found.singular_values
    # a direction of noise carries no weight in a signal-weighted operator, so where the cut falls does not matter
    weighted = operator.parameters.estimator == "signal_weighted" and float(operator.signal_fraction[-1]) < 0.5
    if operator.gap < 1.1 and not weighted:
        ratios = S[:-1] / S[1:]
        clear = [r for r in range(1, len(S)) if ratios[r - 1] >= 1.3]
        said.append(
            f"the cut at rank = {rank} goes through a cluster of singular values (S_{rank} / S_{rank + 1} = "
            f"{operator.gap:.2f}): the distance will be unstable; clear gaps are at "
            f"{', '.join(map(str, clear)) or 'no smaller rank'}"
        )
    if operator.n_transitions < 10 * rank:
        said.append(f"{operator.n_transitions} transitions for rank = {rank}: fewer than 10 for each dimension kept")
    return said
