"""What the units do: hidden states by rule, condition and period, task variance, clusters of units, principal
components.

Task variance of a unit in a rule: the variance of its state over the conditions of the test grid at each time, averaged
over time after fixation, without noise. Normalised by the largest over rules it is the unit's profile; units whose
variances sum to 1e-3 or less over all rules are left out as inactive. K-means clusters the profiles, with as many
clusters as maximise the silhouette.

Fractional variance of a pair of rules: FTV(a, b) = (v_a - v_b) / (v_a + v_b), -1 for a unit that varies in b alone, 1
in a alone.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from multitask.evaluation import check_rules, generators
from multitask.network import LeakyRNN
from multitask.tasks import RULES, generate_trials
from multitask.trials import MultitaskError, TrialBatch, circular_distance, unknown

if TYPE_CHECKING:
    import xarray as xr

ACTIVE = 1e-3  # least sum of task variances of an active unit
MOST_CLUSTERS = 29


@dataclass(frozen=True, eq=False)
class Activity:
    """What an ensemble did in one batch of trials.

    Attributes
    ----------
    hidden : Tensor, (n_networks, n_trials, n_times, n_units)
    outputs : Tensor, (n_networks, n_trials, n_times, 33)
        Sigmoid outputs.
    batch : TrialBatch
        The trials; ``periods``, ``conditions`` and ``rule`` of them stand here too.
    """

    hidden: Tensor
    outputs: Tensor
    batch: TrialBatch

    @property
    def periods(self) -> dict[str, tuple[int, int]]:
        return self.batch.periods

    @property
    def conditions(self) -> dict[str, Tensor]:
        return self.batch.conditions

    @property
    def rule(self) -> str:
        return self.batch.rule

    def during(self, *periods: str) -> Tensor:
        """Hidden states from the first to the last of the named periods, (n_networks, n_trials, n_steps, n_units)."""
        for name in periods:
            if name not in self.periods:
                raise unknown(f"period of {self.rule!r}", name, self.periods)
        spans = [self.periods[name] for name in periods]
        return self.hidden[:, :, min(start for start, _ in spans) : max(stop for _, stop in spans)]

    def after_fixation(self) -> Tensor:
        """Hidden states from the end of ``fix1`` to the end of the trial."""
        return self.hidden[:, :, self.periods["fix1"][1] :]


@torch.no_grad()
def record_activity(
    network: LeakyRNN,
    rule: str,
    n_trials: int | None = None,
    *,
    mode: str = "test",
    noise: float = 0.0,
    private_noise: bool = False,
    conditions: Mapping[str, Any] | None = None,
    rule_input: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Activity:
    """Run an ensemble on one batch of trials of a rule and keep its hidden states. Without noise unless asked for.

    Parameters
    ----------
    network : LeakyRNN
    rule, n_trials, mode, conditions, rule_input
        As in `generate_trials`; the default is the fixed grid of conditions.
    noise : >= 0
        sigma_x, of the inputs.
    private_noise : bool
        The units' own noise, of the network's sigma_rec.
    seed : int >= 0
        Belongs to the rule, as in `evaluate`.

    Examples
    --------
    >>> from multitask.network import LeakyRNN, NetworkParameters
    >>> activity = record_activity(LeakyRNN(NetworkParameters(n_rnn=8), n_networks=2), "delaygo")
    >>> activity.hidden.shape  # 20 directions on 2 rings, 2.5 s
    torch.Size([2, 40, 125, 8])
    """
    check_rules([rule])
    trials, private = generators(seed, rule, network.device)
    batch = generate_trials(
        rule,
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


# ---- task variance -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TaskVariance:
    """Variance of each unit in each rule (or each period of each rule).

    Attributes
    ----------
    variance : (n_networks, n_units, n_columns), float64
    columns : tuple of str
        Rules, or ``"rule period"``.
    """

    variance: np.ndarray
    columns: tuple[str, ...]

    def of(self, column: str) -> np.ndarray:
        """Variances in one rule, (n_networks, n_units)."""
        if column not in self.columns:
            raise unknown("column of the task variance", column, self.columns)
        return self.variance[..., self.columns.index(column)]

    def to_xarray(self) -> "xr.DataArray":
        """The variances with the axes ``network``, ``unit`` and ``rule``."""
        import xarray as xr

        return xr.DataArray(self.variance, dims=("network", "unit", "rule"), coords={"rule": list(self.columns)})


def task_variance(
    network: LeakyRNN,
    rules: Sequence[str] = RULES,
    *,
    by_period: bool = False,
    mode: str = "test",
    n_trials: int | None = None,
) -> TaskVariance:
    """Variance of each unit over the conditions of each rule, averaged over time after fixation, without noise.

    Parameters
    ----------
    network : LeakyRNN
    rules : names, at least one
    by_period : bool
        One column for each period after ``fix1`` of each rule, instead of one for the rule.
    mode, n_trials
        Where the conditions come from, as in `generate_trials`; the fixed grid by default, as in the paper.
    """
    check_rules(rules)
    columns: dict[str, np.ndarray] = {}
    for rule in rules:
        activity = record_activity(network, rule, n_trials, mode=mode)
        if by_period:
            columns |= {
                f"{rule} {name}": variance_over_trials(activity.during(name))
                for name in activity.periods
                if name != "fix1"
            }
        else:
            columns[rule] = variance_over_trials(activity.after_fixation())
    return TaskVariance(np.stack(list(columns.values()), -1), tuple(columns))


def variance_over_trials(hidden: Tensor) -> np.ndarray:
    """Variance over trials at each time, averaged over time: (network, trial, time, unit) -> (network, unit)."""
    return hidden.double().var(1, correction=0).mean(1).cpu().numpy()


def fractional_variance(variance: TaskVariance, a: str, b: str) -> list[np.ndarray]:
    """FTV(a, b) = (v_a - v_b) / (v_a + v_b) of the units of each network that are active in the pair, in [-1, 1].

    A unit is active if v_a + v_b > 1e-3; networks differ in how many are.
    """
    v_a, v_b = variance.of(a), variance.of(b)
    return [(x - y)[x + y > ACTIVE] / (x + y)[x + y > ACTIVE] for x, y in zip(v_a, v_b, strict=True)]


# ---- clusters ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Clusters:
    """Active units of one network, sorted by cluster; clusters are sorted by the rule in which they vary most.

    Attributes
    ----------
    units : (n_active,), int
        Numbers of the units in the network.
    labels : (n_active,), int
        Cluster of each, 0, 1, ... in order.
    profiles : (n_active, n_columns)
        Task variance of each, divided by its largest.
    columns : tuple of str
    silhouettes : dict of number of clusters -> mean silhouette
        Of every number tried.
    """

    units: np.ndarray
    labels: np.ndarray
    profiles: np.ndarray
    columns: tuple[str, ...]
    silhouettes: dict[int, float]

    @property
    def n_clusters(self) -> int:
        return int(self.labels.max()) + 1

    def by_rule(self) -> np.ndarray:
        """Mean profile of each cluster, (n_clusters, n_columns)."""
        return np.stack([self.profiles[self.labels == k].mean(0) for k in range(self.n_clusters)])

    def typical_units(self) -> np.ndarray:
        """The unit of each cluster whose profile is nearest to the cluster's mean, (n_clusters,), int."""
        distances = np.linalg.norm(self.profiles - self.by_rule()[self.labels], axis=-1)
        members = [np.flatnonzero(self.labels == k) for k in range(self.n_clusters)]
        return self.units[[inside[distances[inside].argmin()] for inside in members]]

    def masks(self, n_units: int) -> np.ndarray:
        """Which of a network's units belong to each cluster, (n_clusters, n_units), bool."""
        masks = np.zeros((self.n_clusters, n_units), dtype=bool)
        masks[self.labels, self.units] = True
        return masks

    def shuffled(self, generator: np.random.Generator) -> "Clusters":
        """The same units in clusters of the same sizes, drawn at random: a control without any meaning."""
        return replace(self, labels=generator.permutation(self.labels))


def cluster_units(
    variance: TaskVariance, network: int = 0, *, n_clusters: int | None = None, seed: int = 0
) -> Clusters:
    """Cluster the units of one network by their profiles of task variance (k-means, the best of 20 starts).

    Parameters
    ----------
    variance : TaskVariance
    network : int
        Which network of the ensemble.
    n_clusters : int >= 2, or None
        None takes the number with the largest mean silhouette, of 2 to 29 (as far as there are units, and distinct
        profiles, for it).
    seed : int
        Of the starts of k-means.

    Raises
    ------
    MultitaskError
        Fewer than three active units, or fewer than two distinct profiles: nothing to cluster.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if not 0 <= network < len(variance.variance):
        raise MultitaskError(
            f"network = {network} does not exist: the ensemble has {len(variance.variance)}, counted from 0"
        )
    units = np.flatnonzero(variance.variance[network].sum(-1) > ACTIVE)
    profiles = variance.variance[network, units]
    profiles = profiles / profiles.max(-1, keepdims=True)
    # finer differences than 1e-6 are rounding of equal profiles: hidden states are float32
    n_most = min(MOST_CLUSTERS, len(units) - 1, len(np.unique(profiles.round(6), axis=0)))
    if n_most < 2:
        raise MultitaskError(
            f"network {network} has {len(units)} active units (task variances that sum to more than {ACTIVE:g}), "
            f"too few or too alike to cluster: at least three units with two distinct profiles are needed"
        )
    if n_clusters is not None and not 2 <= n_clusters <= n_most:
        raise MultitaskError(
            f"n_clusters = {n_clusters!r} does not fit the units of network {network}: choose 2 to {n_most}"
        )
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
    """Mean distance between states of trials with the same direction, (n_networks,): small where the direction is what
    the states of both hold.

    Parameters
    ----------
    a, b : (n_networks, n_trials_a, n_units), (n_networks, n_trials_b, n_units)
        States of two sets of trials, such as the last of a delay under two rules.
    directions_a, directions_b : (n_trials_a,), (n_trials_b,), rad
        Of the stimuli, or of the responses, or of whatever should match.
    """
    same = circular_distance(directions_a[:, None], directions_b[None]) < SAME
    if not same.any():
        raise MultitaskError("no direction is in both sets of trials: choose trials of the same grid")
    return torch.cdist(a.double(), b.double())[:, same].mean(1).cpu().numpy()


# ---- principal components --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Hidden states on the axes along which they vary most, for each network on its own.

    Attributes
    ----------
    scores : Tensor, (n_networks, n_trials, n_times, n_components)
    axes : Tensor, (n_networks, n_units, n_components)
        Orthonormal columns; the largest entry of each is positive.
    mean : Tensor, (n_networks, n_units)
    explained : Tensor, (n_networks, n_components)
        Share of the variance.
    """

    scores: Tensor
    axes: Tensor
    mean: Tensor
    explained: Tensor

    def project(self, hidden: Tensor) -> Tensor:
        """Other states on the same axes: (n_networks, n_trials, n_times, n_units) -> (..., n_components)."""
        centred = hidden.to(self.axes) - self.mean[:, None, None]
        return torch.einsum("ebtn,enk->ebtk", centred, self.axes)


def principal_components(hidden: Tensor, n_components: int = 3) -> PrincipalComponents:
    """Principal components of hidden states over all their trials and times, in float64.

    Parameters
    ----------
    hidden : (n_networks, n_trials, n_times, n_units)
        ``activity.hidden``, or a part of it such as ``activity.during("stim1")``.
    n_components : int, at most the number of units
    """
    if not 1 <= n_components <= hidden.shape[-1]:
        raise MultitaskError(f"n_components = {n_components} does not fit {hidden.shape[-1]} units")
    states = hidden.double().flatten(1, 2)  # (network, sample, unit)
    mean = states.mean(1)
    centred = states - mean[:, None]
    variances, axes = torch.linalg.eigh(centred.mT @ centred / states.shape[1])  # ascending
    if not (variances.sum(-1) > 0).all():
        raise MultitaskError("hidden states do not vary: there are no components")
    axes = axes.flip(-1)[..., :n_components]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * largest.sign()
    explained = variances.flip(-1)[:, :n_components].clamp_min(0) / variances.sum(-1, keepdim=True)
    scores = (centred @ axes).unflatten(1, hidden.shape[1:3])
    return PrincipalComponents(scores, axes, mean, explained)
