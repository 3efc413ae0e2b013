"""What a network can no longer do without some of its units.

A lesion of a cluster silences all its units; its cost in a rule is the performance that is lost. Clusters of the same
sizes drawn at random from the same units are the control: they tell what the number of units alone costs. All lesions
of a network are evaluated as one ensemble, on the same trials.

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
from multitask.trials import MultitaskError, check_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Lesions:
    """Performance lost by silencing the clusters of one network.

    Attributes
    ----------
    rules : tuple of str
    sizes : (n_clusters,), int
        Units silenced.
    intact : (n_rules,)
        Performance of the whole network, in [0, 1].
    cost : (n_clusters, n_rules)
        Performance of the whole network less that without the cluster.
    control : (n_controls, n_clusters, n_rules)
        The same for as many units drawn at random from all clusters.
    """

    rules: tuple[str, ...]
    sizes: np.ndarray
    intact: np.ndarray
    cost: np.ndarray
    control: np.ndarray

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a cluster and rule: ``cluster``, ``n_units``, ``rule``, ``cost``, and the mean ``control``."""
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
    rules: Sequence[str],
    *,
    n_controls: int = 5,
    n_trials: int = 512,
    noise: float = 0.01,
    easiness: float = 0.0,
    loss: str = "lsq",
    seed: int = 0,
) -> Lesions:
    """Silence the clusters of one network in turn, and measure what that costs in each rule.

    Parameters
    ----------
    network : LeakyRNN of one network, such as ``ensemble.subset([0])``
    clusters : Clusters of its units
    rules : names, at least one
    n_controls : int >= 1
        Random groups of units for each cluster.
    n_trials, noise, easiness, loss, seed
        As in `evaluate`; the controls are drawn with ``seed`` too.
    """
    if network.n_networks != 1:
        raise MultitaskError(
            f"network is an ensemble of {network.n_networks}, but clusters belong to one: pass network.subset([0])"
        )
    check_whole("n_controls", n_controls, 1)
    generator, n_units = np.random.default_rng(seed), network.parameters.n_rnn
    groups = [clusters, *(clusters.shuffled(generator) for _ in range(n_controls))]
    masks = np.concatenate([np.zeros((1, n_units), dtype=bool), *(group.masks(n_units) for group in groups)])
    lesioned = network.subset([0] * len(masks)).lesion(torch.from_numpy(masks))
    performance = evaluate(
        lesioned, rules, n_trials=n_trials, noise=noise, easiness=easiness, loss=loss, seed=seed
    ).performance
    cost = (performance[0] - performance[1:]).reshape(1 + n_controls, clusters.n_clusters, len(rules))
    return Lesions(tuple(rules), masks[1 : 1 + clusters.n_clusters].sum(-1), performance[0], cost[0], cost[1:])
