"""The cost of silencing clusters of units, compared with single lesions."""

import numpy as np
import pytest
import torch

from multitask.activity import Clusters
from multitask.evaluation import evaluate
from multitask.lesions import lesion_clusters
from multitask.network import LeakyRNN, NetworkParameters
from multitask.trials import MultitaskError

RULES = ("dmsgo", "fdgo")


@pytest.fixture
def network() -> LeakyRNN:
    """Unit 0 always signals fixation, units 1 to 3 are silent: correct only in dmsgo trials that do not match."""
    one = LeakyRNN(NetworkParameters(n_rnn=4, activation="relu", dt=50.0, sigma_rec=0.0))
    weights = {name: torch.zeros_like(weight) for name, weight in one.weights.items()}
    weights["b"][0, 0, 0], weights["w_out"][0, 0, 0], weights["b_out"][0, 0, 0] = 1.0, 20.0, -10.0
    return one.with_weights(weights)


@pytest.fixture
def clusters() -> Clusters:
    return Clusters(np.array([0, 2, 3]), np.array([0, 1, 1]), np.ones((3, 2)), RULES, {2: 0.5})


def test_lesion_of_the_fixation_unit_costs_the_trials_without_response(network, clusters):
    lesions = lesion_clusters(network, clusters, RULES, n_trials=64, noise=0.0)
    intact = evaluate(network, RULES, n_trials=64, noise=0.0).performance[0]
    np.testing.assert_array_equal(lesions.intact, intact)
    assert 0.3 < intact[0] < 0.7  # half of the trials do not match; 64 draws
    assert intact[1] == 0
    np.testing.assert_array_equal(lesions.sizes, [1, 2])
    assert lesions.cost[0, 0] > 0.2  # without fixation only the matching trials may be right, a fifth of them by chance
    np.testing.assert_array_equal(lesions.cost[1], 0)


def test_lesions_together_cost_what_each_costs_alone(clusters):
    network = LeakyRNN(NetworkParameters(n_rnn=4, activation="relu", dt=50.0, sigma_rec=0.0), seed=3)
    how = {"n_trials": 64, "noise": 0.01, "easiness": 1.0, "seed": 5}
    lesions = lesion_clusters(network, clusters, RULES, **how)
    whole = evaluate(network, RULES, **how).performance[0]
    for units, cost in zip(([0], [2, 3]), lesions.cost, strict=True):
        np.testing.assert_allclose(
            cost, whole - evaluate(network.lesion(units), RULES, **how).performance[0], atol=1e-12
        )


def test_controls_silence_as_many_of_the_same_units_and_follow_the_seed(network, clusters):
    lesions = lesion_clusters(network, clusters, RULES, n_controls=20, n_trials=16, noise=0.0, seed=1)
    assert lesions.control.shape == (20, 2, 2)
    hit = lesions.control[:, :, 0] != 0  # the cluster with unit 0 in it
    np.testing.assert_array_equal(hit.sum(1), 1)  # always one, since unit 0 is active
    assert 0 < hit[:, 0].sum() < 20  # it falls into the cluster of one, and into the cluster of two
    again = lesion_clusters(network, clusters, RULES, n_controls=20, n_trials=16, noise=0.0, seed=1)
    np.testing.assert_array_equal(again.control, lesions.control)


def test_table_has_a_row_for_each_cluster_and_rule(network, clusters):
    table = lesion_clusters(network, clusters, RULES, n_controls=1, n_trials=8).to_dataframe()
    assert list(table.columns) == ["cluster", "n_units", "rule", "cost", "control"]
    assert list(zip(table["cluster"], table["n_units"], table["rule"], strict=True)) == [
        (0, 1, "dmsgo"), (0, 1, "fdgo"), (1, 2, "dmsgo"), (1, 2, "fdgo"),
    ]  # fmt: skip


def test_ensembles_and_missing_controls_are_refused(network, clusters):
    with pytest.raises(MultitaskError, match=r"an ensemble of 2, .* use network.subset\(\[0\]\)"):
        lesion_clusters(network.subset([0, 0]), clusters, RULES)
    with pytest.raises(MultitaskError, match="n_controls = 0"):
        lesion_clusters(network, clusters, RULES, n_controls=0)
