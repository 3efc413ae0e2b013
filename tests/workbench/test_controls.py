"""Several measures on one control: which are shown, that they are those of `compare`, and scores in closed form."""

import numpy as np
import pandas as pd
import pytest
import torch

from dsa_analysis import Comparison, DataError, compare, trajectories
from workbench.controls import ONE_SAMPLE, beside, compare_all, nearest_neighbour, scores
from workbench.plotting import plot_measures


@pytest.fixture(scope="module")
def systems() -> dict[str, torch.Tensor]:
    """Two slow and two fast cycles."""
    return {
        f"{name} {k}": trajectories("ring", 6, 40, omega=omega, noise=0.1, seed=10 * k)
        for name, omega in (("slow", 0.5), ("fast", 3.0))
        for k in range(2)
    }


GROUPS = ("slow", "slow", "fast", "fast")
DSA = Comparison(n_delays=2, rank=2, horizon=0.5, n_starts=2, metric="frobenius")


def test_measures_shown_beside_a_comparison_keep_its_embedding():
    measures = beside(DSA)
    assert list(measures) == [
        "DSA", ONE_SAMPLE, "DSA (size kept)", "matched eigenvalues", "CKA", "Procrustes", "principal variances",
        "autocorrelations of units",
    ]  # fmt: skip
    assert measures["DSA"].metric.name == "angular"
    assert {measures[name].horizon for name in ("DSA", "DSA (size kept)", "matched eigenvalues")} == {0.5}
    assert (measures[ONE_SAMPLE].steps_ahead, measures[ONE_SAMPLE].horizon) == (1, None)
    assert {how.rank for how in measures.values() if how.metric.needs != "trials"} == {2}


def test_one_sample_ahead_is_not_shown_twice():
    assert ONE_SAMPLE not in beside(Comparison(n_delays=2, rank=2))
    assert ONE_SAMPLE not in beside(Comparison(n_delays=2, rank=2, steps_ahead=1))
    assert ONE_SAMPLE in beside(Comparison(n_delays=2, rank=2, steps_ahead=2))


def test_shared_operators_give_what_each_comparison_gives_alone(systems):
    measures = beside(DSA)
    found = compare_all(systems, measures, dt=0.05, seed=3)
    assert list(found) == list(measures)
    for name, how in measures.items():
        alone = compare(systems, how=how.override(dt=0.05, seed=3), progress=False)
        np.testing.assert_allclose(found[name].distances, alone.distances, rtol=0, atol=1e-12)


def test_scores_have_one_row_for_each_measure(systems):
    found = compare_all(systems, {"DSA": beside(DSA)["DSA"]}, dt=0.05)
    table = scores(found, GROUPS, seed=4)
    assert list(table.columns) == ["measure", "seed", "AUROC", "silhouette", "nearest"]
    assert table.iloc[0].tolist()[:3] == ["DSA", 4, 1.0]
    assert table.nearest[0] == 1.0


def test_nearest_neighbour_counts_systems_next_to_their_own_kind():
    places = np.array([0.0, 1.0, 3.0, 3.5])
    distances = np.abs(places[:, None] - places)
    assert nearest_neighbour(distances, ["a", "a", "b", "b"]) == 1.0
    assert nearest_neighbour(distances, ["a", "b", "b", "b"]) == 0.5  # of 0 and 1 each is next to the other kind
    assert nearest_neighbour(distances, ["a", "b", "c", "d"]) == 0.0


def test_nearest_neighbour_refuses_what_does_not_fit():
    with pytest.raises(DataError, match=r"3 groups were given for distances of shape \(2, 2\)"):
        nearest_neighbour(np.zeros((2, 2)), ["a", "b", "c"])
    with pytest.raises(DataError, match="one system has no neighbour; give at least 2"):
        nearest_neighbour(np.zeros((1, 1)), ["a"])


def test_plot_has_a_row_for_each_measure_with_its_seeds():
    import matplotlib.pyplot as plt

    table = pd.DataFrame({"measure": ["x", "x", "y", "y"], "AUROC": [0.5, 0.7, 0.9, 1.0]})
    figure, axes = plt.subplots()
    plot_measures(table, "AUROC", axes, {"x": "red", "none": "green", "y": "blue"}, chance=0.5)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "none", "y"]
    assert axes.get_xlabel() == "AUROC"
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [sorted(line.get_xdata()) for line in dots] == [[0.5, 0.7], [0.9, 1.0]]
    plt.close(figure)
