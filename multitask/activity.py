"""Activity of units: hidden states by rule, condition and period, task variance, clusters, principal components.

The task variance of a unit in a rule is the variance of its state over the conditions of the test grid at each time,
averaged over time after fixation, without noise. The profile of a unit is its task variance in all rules, divided by
the largest. Units whose task variances sum to 1e-3 or less are inactive and are left out. Profiles are clustered by
k-means; the number of clusters maximises the silhouette.

The fractional task variance of a pair of rules is FTV(a, b) = (v_a - v_b) / (v_a + v_b). It is 1 for a unit that varies
only in a, and -1 for a unit that varies only in b.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from multitask.display import Card, Shown, periods_in_ms
from multitask.evaluation import check_rules, generators, read_out
from multitask.network import LeakyRNN
from multitask.tasks import RULES, generate_trials
from multitask.tasks.base import Rule, Task, as_task, check_fit, draw_trials
from multitask.trials import MultitaskError, TrialBatch, check_whole, circular_distance, unknown

if TYPE_CHECKING:
    import xarray as xr

ACTIVE = 1e-3  # the task variances of an active unit sum to more than this
MOST_CLUSTERS = 29


@dataclass(frozen=True, eq=False, repr=False)
class Activity(Shown):
    """Hidden states and outputs of an ensemble in one batch of trials.

    Attributes
    ----------
    hidden : Tensor, (n_networks, n_trials, n_times, n_units)
    outputs : Tensor, (n_networks, n_trials, n_times, 33)
        Sigmoid outputs.
    batch : TrialBatch
        The trials. Their ``periods``, ``conditions`` and ``rule`` are also available as attributes of the activity.
    """

    hidden: Tensor
    outputs: Tensor
    batch: TrialBatch

    @property
    def periods(self) -> dict[str, tuple[int, int]]:
        """Time steps [start, stop) of each period."""
        return self.batch.periods

    @property
    def conditions(self) -> dict[str, Tensor]:
        """Conditions of the trials, (n_trials,) each."""
        return self.batch.conditions

    @property
    def rule(self) -> str:
        """Rule of the trials."""
        return self.batch.rule

    def _card(self) -> Card:
        n_networks, n_trials, n_times, n_units = self.hidden.shape
        rows = {
            "hidden": f"{n_networks} networks x {n_trials} trials x {n_times} steps x {n_units} units",
            "time": f"steps of {self.batch.dt:g} ms",
            "periods": periods_in_ms(self.periods, self.batch.dt),
            "conditions": ", ".join(self.conditions),
        }
        doors = f".hidden, .during({next(iter(self.periods), 'period')!r}), .after_fixation(), .conditions"
        return Card(f"Activity in the rule {self.rule}", rows, doors)

    def during(self, *periods: str) -> Tensor:
        """Hidden states from the first to the last of the named periods.

        Parameters
        ----------
        *periods : str
            Names of periods, such as "stim1".

        Returns
        -------
        Tensor, (n_networks, n_trials, n_steps, n_units)

        Raises
        ------
        MultitaskError
            If the rule has no period of this name.
        """
        for name in periods:
            if name not in self.periods:
                raise unknown(f"period of {self.rule!r}", name, self.periods)
        spans = [self.periods[name] for name in periods]
        return self.hidden[:, :, min(start for start, _ in spans) : max(stop for _, stop in spans)]

    def after_fixation(self) -> Tensor:
        """Hidden states from the end of ``fix1`` to the end of the trial, (n_networks, n_trials, n_steps, n_units)."""
        return self.hidden[:, :, self.periods.get("fix1", (0, 0))[1] :]


@torch.no_grad()
def record_activity(
    network: LeakyRNN,
    rule: str | Task,
    n_trials: int | None = None,
    *,
    mode: str = "test",
    noise: float = 0.0,
    private_noise: bool = False,
    conditions: Mapping[str, Any] | None = None,
    rule_input: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Activity:
    """Run an ensemble on one batch of trials of a rule and return its hidden states, by default without noise.

    Parameters
    ----------
    network : LeakyRNN
    rule : str or Task
        Name of a rule, a task, or "module:name" of a task.
    n_trials, mode, conditions, rule_input
        As in `generate_trials`; the default is the fixed grid of conditions. A task that is no rule draws ``n_trials``
        random trials in either mode ("test" or "random"), and takes no conditions and no rule input.
    noise : float >= 0
        Input noise, sigma_x.
    private_noise : bool
        Whether units have private noise, with sigma_rec of the network.
    seed : int >= 0
        Seed of trials and noise, combined with the rule as in `evaluate`.

    Returns
    -------
    Activity

    Raises
    ------
    MultitaskError
        If the rule is unknown, for arguments that `generate_trials` or a task does not accept, or if a task does not
        fit the network.

    Examples
    --------
    >>> from multitask.network import LeakyRNN, NetworkParameters
    >>> activity = record_activity(LeakyRNN(NetworkParameters(n_rnn=8), n_networks=2), "delaygo")
    >>> activity.hidden.shape  # 20 directions on 2 rings, 2.5 s
    torch.Size([2, 40, 125, 8])
    """
    task = as_task(rule)
    trials, private = generators(seed, task.name, network.device)
    if not isinstance(task, Rule):
        for key, given in {"conditions": conditions, "rule_input": rule_input}.items():
            if given is not None:
                raise MultitaskError(f"{key}: task {task.name!r} draws its own; only rules take them: leave it out")
        if mode not in ("test", "random"):
            raise MultitaskError(f"mode = {mode!r}: task {task.name!r} draws random trials; only rules have this mode")
        batch = _of_task(task, network, n_trials, noise, trials)
        logits, hidden = network.logits(batch.inputs, generator=private if private_noise else None)
        return Activity(hidden, read_out(logits, task.losses[0]), batch)
    batch = generate_trials(
        task.name,
        n_trials,
        mode=mode,
        dt=network.parameters.dt,
        tau=network.parameters.tau,
        noise=noise,
        generator=trials,
        conditions=conditions,
        rule_input=rule_input,
        device=network.device,
    )
    outputs, hidden = network(batch.inputs, generator=private if private_noise else None)
    return Activity(hidden, outputs, batch)


def _of_task(task: Task, network: LeakyRNN, n_trials: int | None, noise: float, draw: torch.Generator) -> TrialBatch:
    check_fit(task, network.parameters)
    p, n_trials = network.parameters, check_whole(f"n_trials of task {task.name!r}", n_trials, 1)
    return draw_trials(
        task, n_trials, dt=p.dt, tau=p.tau, noise=noise, generator=draw, loss=task.losses[0], easiness=0.0,
        device=network.device,
    )  # fmt: skip


# ---- task variance -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TaskVariance:
    """Variance of each unit in each rule, or in each period of each rule.

    Attributes
    ----------
    variance : (n_networks, n_units, n_columns), float64
    columns : tuple of str
        Names of the columns: ``"rule"``, or ``"rule period"``.
    """

    variance: np.ndarray
    columns: tuple[str, ...]

    def of(self, column: str) -> np.ndarray:
        """Variance in one column, (n_networks, n_units); raises a `MultitaskError` if there is no such column."""
        if column not in self.columns:
            raise unknown("column of the task variance", column, self.columns)
        return self.variance[..., self.columns.index(column)]

    def to_xarray(self) -> "xr.DataArray":
        """The variances with the axes ``network``, ``unit`` and ``rule``."""
        import xarray as xr

        return xr.DataArray(self.variance, dims=("network", "unit", "rule"), coords={"rule": list(self.columns)})


def task_variance(
    network: LeakyRNN,
    rules: Sequence[str | Task] = RULES,
    *,
    by_period: bool = False,
    mode: str = "test",
    n_trials: int | None = None,
) -> TaskVariance:
    """Variance of each unit over the conditions of each rule, averaged over time after fixation, without noise.

    Parameters
    ----------
    network : LeakyRNN
    rules : sequence of str or Task, at least one
    by_period : bool
        Return one column for each period after ``fix1`` of each rule, instead of one column for each rule.
    mode, n_trials
        Conditions of the trials, as in `generate_trials`. The default is the fixed grid, as in Yang et al. (2019).

    Returns
    -------
    TaskVariance

    Raises
    ------
    MultitaskError
        If ``rules`` is empty or contains an unknown rule.
    """
    check_rules(rules)
    columns: dict[str, np.ndarray] = {}
    for rule in rules:
        activity = record_activity(network, rule, n_trials, mode=mode)
        name_of = activity.rule
        if by_period:
            columns |= {
                f"{name_of} {name}": variance_over_trials(activity.during(name))
                for name in activity.periods
                if name != "fix1"
            }
        else:
            columns[name_of] = variance_over_trials(activity.after_fixation())
    return TaskVariance(np.stack(list(columns.values()), -1), tuple(columns))


def variance_over_trials(hidden: Tensor) -> np.ndarray:
    """Variance over trials at each time, averaged over time: (network, trial, time, unit) -> (network, unit)."""
    return hidden.double().var(1, correction=0).mean(1).cpu().numpy()


def fractional_variance(variance: TaskVariance, a: str, b: str) -> list[np.ndarray]:
    """Fractional task variance FTV(a, b) = (v_a - v_b) / (v_a + v_b) of the active units of each network.

    A unit is active if v_a + v_b > 1e-3.

    Parameters
    ----------
    variance : TaskVariance
    a, b : str
        Names of two columns.

    Returns
    -------
    list of ndarray, (n_active,) each, in [-1, 1]
        One array per network; the number of active units differs between networks.

    Raises
    ------
    MultitaskError
        If there is no such column.
    """
    v_a, v_b = variance.of(a), variance.of(b)
    return [(x - y)[x + y > ACTIVE] / (x + y)[x + y > ACTIVE] for x, y in zip(v_a, v_b, strict=True)]


# ---- clusters ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of the active units of one network.

    Units are sorted by cluster. Clusters are sorted by the rule in which their variance is largest.

    Attributes
    ----------
    units : (n_active,), int
        Indices of the units in the network.
    labels : (n_active,), int
        Cluster of each unit, in ascending order from 0.
    profiles : (n_active, n_columns)
        Task variance of each unit, divided by its largest value.
    columns : tuple of str
    silhouettes : dict of number of clusters -> mean silhouette
        For every number of clusters that was tried.
    """

    units: np.ndarray
    labels: np.ndarray
    profiles: np.ndarray
    columns: tuple[str, ...]
    silhouettes: dict[int, float]

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1

    def by_rule(self) -> np.ndarray:
        """Mean profile of each cluster, (n_clusters, n_columns)."""
        return np.stack([self.profiles[self.labels == k].mean(0) for k in range(self.n_clusters)])

    def typical_units(self) -> np.ndarray:
        """Index of the unit nearest to the mean profile of each cluster, (n_clusters,), int."""
        distances = np.linalg.norm(self.profiles - self.by_rule()[self.labels], axis=-1)
        members = [np.flatnonzero(self.labels == k) for k in range(self.n_clusters)]
        return self.units[[inside[distances[inside].argmin()] for inside in members]]

    def masks(self, n_units: int) -> np.ndarray:
        """Members of each cluster among the ``n_units`` units of the network, (n_clusters, n_units), bool."""
        masks = np.zeros((self.n_clusters, n_units), dtype=bool)
        masks[self.labels, self.units] = True
        return masks

    def shuffled(self, generator: np.random.Generator) -> "Clusters":
        """The same units, assigned at random to clusters of the same sizes, as a control."""
        return replace(self, labels=generator.permutation(self.labels))


def cluster_units(
    variance: TaskVariance, network: int = 0, *, n_clusters: int | None = None, seed: int = 0
) -> Clusters:
    """Cluster the active units of one network by their task variance profiles (k-means, the best of 20 starts).

    Parameters
    ----------
    variance : TaskVariance
    network : int
        Index of the network in the ensemble.
    n_clusters : int >= 2, or None
        Number of clusters. None chooses the number from 2 to 29 with the largest mean silhouette. The range ends
        earlier if there are fewer units or distinct profiles.
    seed : int
        Seed of k-means.

    Returns
    -------
    Clusters

    Raises
    ------
    MultitaskError
        If the network does not exist, has fewer than three active units or fewer than two distinct profiles, or if
        ``n_clusters`` is out of range.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if not 0 <= network < len(variance.variance):
        raise MultitaskError(
            f"network = {network} does not exist: the ensemble has {len(variance.variance)} networks, counted from 0"
        )
    units = np.flatnonzero(variance.variance[network].sum(-1) > ACTIVE)
    profiles = variance.variance[network, units]
    profiles = profiles / profiles.max(-1, keepdims=True)
    # profiles that differ by less than 1e-6 are equal up to rounding: hidden states are float32
    n_most = min(MOST_CLUSTERS, len(units) - 1, len(np.unique(profiles.round(6), axis=0)))
    if n_most < 2:
        raise MultitaskError(
            f"network {network} has {len(units)} active units (task variances that sum to more than {ACTIVE:g}): "
            f"clustering requires at least three active units with two distinct profiles"
        )
    if n_clusters is not None and not 2 <= n_clusters <= n_most:
        raise MultitaskError(f"n_clusters = {n_clusters!r}: must be between 2 and {n_most} for network {network}")
    tried = range(2, n_most + 1) if n_clusters is None else [n_clusters]
    labels = {k: KMeans(k, n_init=20, random_state=seed).fit_predict(profiles) for k in tried}
    silhouettes = {k: float(silhouette_score(profiles, labels[k])) for k in tried}
    best = labels[max(silhouettes, key=lambda k: silhouettes[k])]
    preferred = [profiles[best == k].sum(0).argmax() for k in range(best.max() + 1)]
    rank = np.argsort(np.argsort(preferred, kind="stable"))  # cluster -> place in order of the preferred rule
    order = np.argsort(rank[best], kind="stable")
    return Clusters(units[order], rank[best][order], profiles[order], variance.columns, silhouettes)


# ---- distances between states ---------------------------------------------------------------------------------------

SAME = 1e-3  # rad; directions are float32 sums of multiples of pi


def matched_distance(a: Tensor, b: Tensor, directions_a: Tensor, directions_b: Tensor) -> np.ndarray:
    """Mean distance between states of two sets of trials with the same direction.

    It is small if both sets of states represent this direction alike.

    Parameters
    ----------
    a, b : Tensor, (n_networks, n_trials_a, n_units) and (n_networks, n_trials_b, n_units)
        States, such as the last states of the delay under two rules.
    directions_a, directions_b : Tensor, (n_trials_a,) and (n_trials_b,), rad
        Directions to match, such as those of stimuli or of responses.

    Returns
    -------
    ndarray, (n_networks,)
        Euclidean distance.

    Raises
    ------
    MultitaskError
        If no direction occurs in both sets.
    """
    same = circular_distance(directions_a[:, None], directions_b[None]) < SAME
    if not same.any():
        raise MultitaskError("no direction occurs in both sets of trials: use trials of the same grid")
    return torch.cdist(a.double(), b.double())[:, same].mean(1).cpu().numpy()


# ---- principal components --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Principal components of the hidden states of each network.

    Attributes
    ----------
    scores : Tensor, (n_networks, n_trials, n_times, n_components)
    axes : Tensor, (n_networks, n_units, n_components)
        Orthonormal columns; the entry of largest magnitude of each is positive.
    mean : Tensor, (n_networks, n_units)
        Mean state, subtracted before projection.
    explained : Tensor, (n_networks, n_components)
        Fraction of the variance, in [0, 1].
    """

    scores: Tensor
    axes: Tensor
    mean: Tensor
    explained: Tensor

    def project(self, hidden: Tensor) -> Tensor:
        """Project other states on the same axes: (n_networks, n_trials, n_times, n_units) -> (..., n_components)."""
        centred = hidden.to(self.axes) - self.mean[:, None, None]
        return torch.einsum("ebtn,enk->ebtk", centred, self.axes)


def principal_components(hidden: Tensor, n_components: int = 3) -> PrincipalComponents:
    """Principal components of hidden states over all their trials and times, in float64.

    Parameters
    ----------
    hidden : Tensor, (n_networks, n_trials, n_times, n_units)
        ``activity.hidden``, or a part of it such as ``activity.during("stim1")``.
    n_components : int in [1, n_units]

    Returns
    -------
    PrincipalComponents

    Raises
    ------
    MultitaskError
        If ``n_components`` is out of range, or if the states of a network do not vary.
    """
    if not 1 <= n_components <= hidden.shape[-1]:
        raise MultitaskError(
            f"n_components = {n_components}: must be between 1 and {hidden.shape[-1]}, the number of units"
        )
    states = hidden.double().flatten(1, 2)  # (network, sample, unit)
    mean = states.mean(1)
    centred = states - mean[:, None]
    variances, axes = torch.linalg.eigh(centred.mT @ centred / states.shape[1])  # ascending
    if not (variances.sum(-1) > 0).all():
        raise MultitaskError("hidden states do not vary, so there are no principal components")
    axes = axes.flip(-1)[..., :n_components]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * largest.sign()
    explained = variances.flip(-1)[:, :n_components].clamp_min(0) / variances.sum(-1, keepdim=True)
    scores = (centred @ axes).unflatten(1, hidden.shape[1:3])
    return PrincipalComponents(scores, axes, mean, explained)
