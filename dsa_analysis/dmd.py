"""Fits linear operators to trajectories: Hankel dynamic mode decomposition (HAVOK), also for noisy recordings.

H stacks the windows h(t) = [x(t), x(t - d), ..., x(t - (m-1) d)] of all trials, and H = V S U^T is its singular value
decomposition, cut at ``rank``. The operator A predicts the whitened coordinates v(t) = S^-1 U^T h(t) from themselves:
v(t + s) ~ A v(t). V- holds all rows of V that have a successor s samples later in their trial, and V+ holds these
successors. With P = V-^T V-, Q = V-^T V+ and F = V+^T V+, the estimators are

    least_squares         A^T = P^-1 Q                  Brunton et al. 2017, HAVOK; Ostrow et al. 2023, section 3
    noise_compensated     A^T = (P - N0)^-1 (Q - N1)    Dawson et al. 2016, section 2.2
    signal_weighted       A^T = P^-1 (Q - N1)
    total_least_squares   A = W2 W1^-1,  [W1; W2] the leading eigenvectors of [[P, Q], [Q^T, F]]    Hemati et al. 2017

Measurement noise adds N0 to P. It adds N1 to Q, because a window and its successor share samples. The published
estimator, "least_squares", takes both for dynamics: its operators differ more between noise levels than between
systems. "noise_compensated" subtracts both, and is refused if little signal is left. "signal_weighted" leaves the noise
in P: it predicts the next window of the *signal* from a noisy window (a Wiener filter in whitened coordinates).
Directions are weighted by the signal that they hold, and directions of pure noise get no weight. Nothing is divided by
a small number, so a rank that is too large does no harm. Without noise the result is that of least squares. Its
disadvantage is that distances also depend on the signal-to-noise ratio.

Over one sample, slow dynamics hardly change the state, so the operators of different systems are almost the same. With
``steps_ahead`` of about one window they differ clearly with every estimator, and windows so far apart share no noise.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import covariances, spectra
from dsa_analysis.comparison import Comparison, as_comparison
from dsa_analysis.covariances import Directions
from dsa_analysis.data import DataError, as_device, as_trials, check_count
from dsa_analysis.display import Card, Shown, samples
from dsa_analysis.embedding import NOISE_ESTIMATORS, EmbeddingParameters, delay_embed

LEAST_SIGNAL = 0.05  # with a smaller fraction of signal, compensation would divide by the error of its estimate


@dataclass(frozen=True, repr=False)
class Operator(Shown):
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
        What was subtracted from every sample; zeros if ``center`` is false.
    gap : float
        S_rank / S_(rank + 1). If it is near 1, the cut goes through a cluster of singular values, and the operator
        changes with the noise. Infinite if no direction is left out.
    n_transitions : int
        Pairs of windows that the regression used.
    parameters : EmbeddingParameters
    noise_variance : (n_channels,)
        Variance of white measurement noise, given or estimated. NaN if it was not given and a window is one sample.
    n_windows : int
        Windows of all trials.
    """

    matrix: Tensor
    singular_values: Tensor
    basis: Tensor
    mean: Tensor
    gap: float
    n_transitions: int
    parameters: EmbeddingParameters
    noise_variance: Tensor
    n_windows: int

    def __repr__(self) -> str:
        p = self.parameters
        return (
            f"<Operator of rank {p.rank}: n_delays = {p.n_delays}, {self.n_channels} channels, steps_ahead = "
            f"{p.steps_ahead}, {self.n_transitions} transitions, gap {self.gap:.3g}>"
        )

    def _card(self) -> Card:
        return Card(
            f"Operator of rank {self.rank}",
            described(self) | {"transitions": f"{self.n_transitions} (pairs of windows)"},
            ".eigenvalues, .time_constants(dt), .frequencies(dt), .predict(trials, horizon), compare({name: operator})",
        )

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
        """(rank,) S_k / S_(k + 1): large if a cut after direction k is clear, near 1 inside a cluster."""
        S = self.singular_values
        return torch.cat([S[:-1] / S[1:], S.new_tensor([self.gap])])

    @property
    def condition(self) -> float:
        """S_1 / S_rank: its decimal logarithm is the number of digits that are lost in the smallest direction."""
        return float(self.singular_values[0] / self.singular_values[-1])

    @property
    def signal_fraction(self) -> Tensor:
        """(rank,) fraction of each direction's variance that is not measurement noise; NaN if the noise is unknown."""
        noise = self.basis.unflatten(0, (-1, self.n_channels)).square()
        return 1 - self.n_windows * torch.einsum("ick,c->k", noise, self.noise_variance) / self.singular_values**2

    def time_constants(self, dt: float) -> Tensor:
        """(rank,) time constants of the modes in the unit of the sampling interval ``dt``."""
        return spectra.time_constants(self.eigenvalues, dt * self.parameters.steps_ahead)

    def frequencies(self, dt: float) -> Tensor:
        """(rank,) frequencies of the modes in cycles per unit of the sampling interval ``dt``."""
        return spectra.frequencies(self.eigenvalues, dt * self.parameters.steps_ahead)

    def predict(self, trials: Any, horizon: int = 1) -> Tensor | list[Tensor]:
        """Predict samples by applying A ``horizon`` times to each window.

        Parameters
        ----------
        trials : as in `fit_operator`
            With the channels that the operator was fitted to.
        horizon : int >= 1
            Applications of A, each of ``steps_ahead`` samples.

        Returns
        -------
        Tensor, (n_trials, n_times - past, n_channels), or a list of (n_times_i - past, n_channels) if you gave a list
            Row t predicts sample t + past, with past = (n_delays - 1) * delay_interval + horizon * steps_ahead. Compare
            it with ``trials[:, past:]``.

        Raises
        ------
        DataError
            Another number of channels, or trials that are too short.
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
                    f"trial {k} has {len(trial)} samples; to predict {ahead} ahead, {p.window + ahead} are needed"
                )
        power = torch.linalg.matrix_power(self.matrix, horizon)
        newest = self.singular_values[:, None] * self.basis[: self.n_channels].T  # from v back to the newest sample
        predictions = []
        for trial in tensors:
            windows = delay_embed(trial[: len(trial) - ahead].double() - self.mean, p.n_delays, p.delay_interval)
            predictions.append((windows @ self.basis) / self.singular_values @ power.T @ newest + self.mean)
        return predictions if isinstance(trials, (list, tuple)) else torch.stack(predictions)

    def prediction_error(self, trials: Any, horizon: int = 1) -> float:
        """Mean squared error of `predict`, relative to predicting ``mean``: 0 is perfect, 1 is no better than the mean.

        Use held-out trials and a horizon of at least one window. At shorter horizons, superfluous directions predict
        the noise that a window and its successor share.

        Parameters
        ----------
        trials, horizon
            As in `predict`.

        Returns
        -------
        float >= 0
        """
        tensors = as_trials(trials, device=self.matrix.device)
        predictions = self.predict(tensors, horizon)
        later = [trial[-len(predicted) :].double() for trial, predicted in zip(tensors, predictions, strict=True)]
        missed = [(x - y).square().sum() for x, y in zip(later, predictions, strict=True)]
        return float(torch.stack(missed).sum() / torch.stack([(x - self.mean).square().sum() for x in later]).sum())


def described(operator: Any) -> dict[str, str]:
    """Rows for the display of an operator, fitted with or without inputs."""
    p, size = operator.parameters, operator.eigenvalues.abs()
    spaced = f", {samples(p.delay_interval)} apart" if p.n_delays > 1 else ""
    plain = getattr(operator, "plain", operator)
    return {
        "window": f"n_delays = {p.n_delays}{spaced}, {plain.n_channels} channels",
        "steps ahead": samples(p.steps_ahead),
        "estimator": p.estimator,
        "modes": f"moduli of the eigenvalues {float(size.min()):.3g} to {float(size.max()):.3g}",
        "cut": f"the last singular value kept is {plain.gap:.3g} times the next",
    }


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
        The embedding and the estimator. Other fields are not used here.
    device : str or torch.device, optional
        Where the operator is computed; by default where the data are. Arithmetic is float64.
    name : str
        Name of the system in messages.
    **choices
        Fields of `Comparison`, which override those of ``how``. ``n_delays`` and ``rank`` are required.
        ``delay_interval``, ``steps_ahead`` or ``horizon`` with ``dt``, ``ridge``, ``center``, ``estimator`` (see the
        equations at the top of the module) and ``noise_variance`` have defaults.

    Returns
    -------
    Operator

    Raises
    ------
    DataError
        Trials that are too short for a window and its successor; a rank that is too large for the data or, with
        "noise_compensated", for the signal (the message names the largest possible rank); noise that cannot be told
        from signal; more memory than available; or data that are not finite real trials.

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
    """Singular values of the matrix of all windows, whose gaps show which ranks are clear cuts.

    Parameters
    ----------
    trials : as in `fit_operator`
    n_delays : int >= 1
        Copies of a sample in a window, including the present one.
    delay_interval : int >= 1, in samples
        Spacing of the copies.
    center : bool
        Subtract each channel's mean over all samples.
    name : str
        Name of the system in messages.

    Returns
    -------
    Tensor, (n_delays * n_channels,) float64, or (n_windows,) if there are fewer windows
        Descending. Values below 1e-8 of the first are rounding errors.

    Raises
    ------
    DataError
        Trials that are too short for a window and its successor, more memory than available, or data that are not
        finite real trials.
    """
    parameters = EmbeddingParameters(n_delays, 1, delay_interval, center=center)
    return covariances.spectrum(as_trials(trials, name), parameters, name)


def repeat_variance(trials: Any, conditions: Sequence[Any]) -> Tensor:
    """Noise variance of each channel, from repeats of the same condition.

    Everything that differs between repeats counts as noise. This suits responses that are the same in each repeat, but
    not chaotic or spontaneous activity. Give the result as ``noise_variance``.

    Parameters
    ----------
    trials : as in `fit_operator`
        Trials of one condition have equal lengths.
    conditions : sequence of n_trials labels
        Condition of each trial. At least one condition has two trials.

    Returns
    -------
    Tensor, (n_channels,) float64
        Unbiased variance about the mean of each condition, in squared units of the data.

    Raises
    ------
    DataError
        Another number of conditions than trials, trials of one condition with unequal lengths, or no repeats.
    """
    tensors = as_trials(trials)
    if len(conditions) != len(tensors):
        raise DataError(f"conditions has {len(conditions)} labels for {len(tensors)} trials; give one for each")
    squares, freedom = torch.zeros_like(tensors[0][0], dtype=torch.float64), 0
    for condition in dict.fromkeys(conditions):
        repeats = [trial for trial, own in zip(tensors, conditions, strict=True) if own == condition]
        if len({len(trial) for trial in repeats}) > 1:
            raise DataError(f"trials of condition {condition!r} differ in length; repeats must match sample by sample")
        stack = torch.stack(repeats).double()
        squares += (stack - stack.mean(0)).square().sum((0, 1))
        freedom += (len(repeats) - 1) * len(repeats[0])
    if not freedom:
        raise DataError("no condition has two trials: without repeats, noise cannot be told from signal")
    return squares / freedom


def common_weights(operators: Mapping[str, Operator]) -> dict[str, Operator]:
    """Give the same weights to the directions of all operators, those of the noisiest system.

    A signal-weighted operator shrinks its entry for directions k and l by sqrt(d_k d_l), where d is the
    `Operator.signal_fraction` of its own recording. Recordings that only differ in noise then have different operators.
    Here

        A_kl  <-  A_kl sqrt(w_k w_l),        w_k = (smallest d_k in the set) / (own d_k),

    and a direction in which some system has no signal (d <= 0) gets weight 0 in all. Give the result to `compare` in
    place of the data.

    Use it if recordings differ in noise. If they do not, it loses detail and gains nothing. Predict about one window
    ahead: one sample ahead, the remaining noise is larger than the differences between systems. For Lorenz recordings
    at 20, 10, 5, 0 and -6 dB in one set (rank 8, 20 delays, 20 steps ahead), the regimes were told apart with an AUROC
    of 1.00 instead of 0.96, and rho 28, 35, 45 with 0.97 instead of 0.61 (500 samples; rho 35, 40, 45 with 0.82 instead
    of 0.55).

    Parameters
    ----------
    operators : mapping from name to Operator
        Fitted with estimator = "signal_weighted", all of the same rank.

    Returns
    -------
    dict from name to Operator
        With weighted matrices; everything else is unchanged.

    Raises
    ------
    DataError
        Operators of another estimator or of different ranks, or no operators.
    """
    if not operators:
        raise DataError("no operators came; at least one is needed")
    ranks = {name: operator.rank for name, operator in operators.items()}
    for name, operator in operators.items():
        if operator.parameters.estimator != "signal_weighted":
            raise DataError(
                f"operator {name!r} was fitted with estimator = {operator.parameters.estimator!r}, which does not "
                f"weight directions by their signal; fit it with 'signal_weighted'"
            )
    if len(set(ranks.values())) > 1:
        listed = ", ".join(f"{name!r} {rank}" for name, rank in ranks.items())
        raise DataError(f"operators have different ranks: {listed}; common weights need one rank for all systems")
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
    """The operator of checked trials, and a list of warnings about it (empty if there are none)."""
    found = covariances.directions(trials, parameters, name)
    noise_variance = as_noise_variance(noise_variance, found, parameters, name)
    largest = largest_rank(found, parameters, noise_variance)
    if parameters.rank > largest:
        raise DataError(f"system {name!r}: {why_not(found, parameters, largest)}")
    operator = solve(found, parameters, noise_variance)
    return operator, concerns(operator, found)


def solve(found: Directions, p: EmbeddingParameters, noise_variance: Tensor) -> Operator:
    """Fit the operator of ``p.rank`` and ``p.estimator`` along the first of the given directions."""
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
    """Noise variance of each channel, (n_channels,): the given one, checked, or the estimate if it is None."""
    if value is None:
        if p.estimator in NOISE_ESTIMATORS and bool(found.floor.isnan().any()):
            raise DataError(
                f"system {name!r}: with n_delays = 1 noise cannot be told from signal; estimator = {p.estimator!r} "
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
    """Largest rank, up to ``p.rank``, at which this estimator can be solved; 0 if there is none."""
    largest = min(p.rank, found.rank)
    if p.estimator != "noise_compensated":
        return largest
    signal = found.past - found.noise(noise_variance)
    while largest and float(torch.linalg.eigvalsh(signal[:largest, :largest])[0]) < LEAST_SIGNAL:
        largest -= 1
    return largest


def why_not(found: Directions, p: EmbeddingParameters, largest: int) -> str:
    """A message: why ``p.rank`` is too large, and the largest possible rank."""
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
    remedy = f"use at most rank = {largest}, or" if largest else "use"
    return (
        f"{reach}a direction has less than {LEAST_SIGNAL:.0%} signal, too little to compensate the noise: "
        f"{remedy} estimator = 'signal_weighted'"
    )


def concerns(operator: Operator, found: Directions) -> list[str]:
    """Warnings about a fitted operator."""
    said, rank, S = [], operator.rank, found.singular_values
    # directions of noise have no weight in a signal-weighted operator, so a cut among them does no harm
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
