"""Performance of a network after lesions of clusters of units.

The lesion of a cluster silences all its units. Its cost in a rule is the decrease in performance. As a control,
clusters of the same sizes are drawn at random from the same units; they show the effect of the number of units alone.
All lesions of a network are evaluated as one ensemble on the same trials.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306; the controls are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from multitask.activity import Clusters
from multitask.evaluation import evaluate
from multitask.network import LeakyRNN
from multitask.tasks.base import Task
from multitask.trials import MultitaskError, check_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Lesions:
    """Decrease in performance after lesions of the clusters of one network.

    Attributes
    ----------
    rules : tuple of str
    sizes : (n_clusters,), int
        Number of units in each cluster.
    intact : (n_rules,)
        Performance of the intact network, in [0, 1].
    cost : (n_clusters, n_rules)
        Performance of the intact network minus performance without the cluster.
    control : (n_controls, n_clusters, n_rules)
        The same for equally many units drawn at random from all clusters.
    """

    rules: tuple[str, ...]
    sizes: np.ndarray
    intact: np.ndarray
    cost: np.ndarray
    control: np.ndarray

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per cluster and rule: ``cluster``, ``n_units``, ``rule``, ``cost``, and the mean ``control``."""
        import pandas as pd

        cluster, rule = np.indices(self.cost.shape)
        return pd.DataFrame(
            {
                "cluster": cluster.ravel(),
                "n_units": self.sizes[cluster.ravel()],
                "rule": np.array(self.rules)[rule.ravel()],
                "cost": self.cost.ravel(),
                "control": self.control.mean(0).ravel(),
            }
        )


def lesion_clusters(
    network: LeakyRNN,
    clusters: Clusters,
    rules: Sequence[str | Task],
    *,
    n_controls: int = 5,
    n_trials: int = 512,
    noise: float = 0.01,
    easiness: float = 0.0,
    loss: str | None = None,
    seed: int = 0,
) -> Lesions:
    """Silence the clusters of one network one at a time, and measure the decrease in performance in each rule.

    Parameters
    ----------
    network : LeakyRNN
        An ensemble of one network, such as ``ensemble.subset([0])``.
    clusters : Clusters
        Clusters of its units.
    rules : sequence of str or Task, at least one
    n_controls : int >= 1
        Number of random clusters for each cluster.
    n_trials, noise, easiness, loss
        As in `evaluate`.
    seed : int >= 0
        Seed of the trials and of the random clusters.

    Returns
    -------
    Lesions

    Raises
    ------
    MultitaskError
        If the ensemble has more than one network, or if another argument is out of range.
    """
    if network.n_networks != 1:
        raise MultitaskError(
            f"network is an ensemble of {network.n_networks}, but clusters belong to one: use network.subset([0])"
        )
    check_whole("n_controls", n_controls, 1)
    generator, n_units = np.random.default_rng(seed), network.parameters.n_rnn
    groups = [clusters, *(clusters.shuffled(generator) for _ in range(n_controls))]
    masks = np.concatenate([np.zeros((1, n_units), dtype=bool), *(group.masks(n_units) for group in groups)])
    lesioned = network.subset([0] * len(masks)).lesion(torch.from_numpy(masks))
    found = evaluate(lesioned, rules, n_trials=n_trials, noise=noise, easiness=easiness, loss=loss, seed=seed)
    performance = found.performance
    cost = (performance[0] - performance[1:]).reshape(1 + n_controls, clusters.n_clusters, len(found.rules))
    return Lesions(found.rules, masks[1 : 1 + clusters.n_clusters].sum(-1), performance[0], cost[0], cost[1:])
