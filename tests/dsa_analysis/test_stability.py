"""The order of distances over a grid of choices: what agrees, what the verdict says, and what is refused."""

import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from dsa_analysis import Comparison, DataError, Stability, compare, fit_operator, stability
from dsa_analysis.motifs import add_noise
from dsa_analysis.plotting import plot_stability
from dsa_analysis.systems import linear

HOW = Comparison(n_delays=2, rank=4, steps_ahead=3, n_starts=2)
OVER: dict[str, Any] = {"n_delays": [1, 2, 4], "rank": [4, 3], "steps_ahead": [3, 5]}
QUICK: dict[str, Any] = {"n_resamples": 100, "progress": False}


def turning(n_trials: int = 12, n_channels: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """Systems with a rotation that gets faster from one to the next, each seen in the same channels."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(n_channels, 4, generator=generator, dtype=torch.float64))[0].T
    return {
        f"{frequency}": linear([-0.5 + frequency * 1j, -0.5 + 12j], n_trials, 80, generator=generator) @ basis
        for frequency in (2.0, 3.0, 5.0, 7.0, 10.0)
    }


def white(seed: int = 0, n_systems: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"{k}": torch.randn(10, 100, 4, generator=generator, dtype=torch.float64) for k in range(n_systems)}


@pytest.fixture(scope="module")
def found() -> Stability:
    return stability(turning(), HOW, over=OVER, groups=["slow", "slow", "slow", "fast", "fast"], **QUICK)


def test_distances_of_each_cell_are_those_of_compare(found):
    for cell in [(1, 3, 5), (4, 4, 3)]:
        n_delays, rank, steps_ahead = cell
        expected = compare(turning(), how=HOW, n_delays=n_delays, rank=rank, steps_ahead=steps_ahead, progress=False)
        place = list(found.cells.index).index(cell)
        np.testing.assert_allclose(found.distances[place], expected.distances, atol=1e-7)  # rounding of the fits


def test_correlations_are_those_of_scipy_over_pairs(found):
    pairs = np.triu_indices(5, 1)
    for a, b in [(0, 3), (2, 7)]:
        expected = spearmanr(found.distances[a][pairs], found.distances[b][pairs]).statistic
        assert found.correlations[a, b] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(found.correlations.diagonal(), 1, atol=1e-12)
    place = list(found.cells.index).index(found.reference)
    np.testing.assert_allclose(found.cells["correlation"], found.correlations[place], atol=1e-12)
    assert (found.cells["low"] <= found.cells["correlation"]).all()
    assert (found.cells["correlation"] <= found.cells["high"]).all()


def test_neighbours_halves_and_groups_are_those_of_each_cell(found):
    place = list(found.cells.index).index(found.reference)
    nearest = [(matrix + np.diag([np.inf] * 5)).argmin(1) for matrix in found.distances]
    expected = [np.mean(own == nearest[place]) for own in nearest]
    np.testing.assert_allclose(found.cells["neighbours"], expected)
    even, odd = (compare({k: x[start::2] for k, x in turning().items()}, how=HOW, progress=False) for start in (0, 1))
    pairs = np.triu_indices(5, 1)
    halves = spearmanr(even.distances[pairs], odd.distances[pairs]).statistic
    assert found.cells["halves"].iloc[place] == pytest.approx(halves, abs=1e-9)
    assert found.cells["silhouette"].between(-1, 1).all()
    assert found.cells["r_squared"].between(0, 1).all()


def test_cells_stand_in_the_order_of_the_grid_and_are_labelled(found):
    assert found.axes == {"n_delays": [1, 2, 4], "rank": [4, 3], "steps_ahead": [3, 5]}
    assert found.reference == (2, 4, 3)
    assert list(found.cells.index[:3]) == [(1, 4, 3), (1, 4, 5), (1, 3, 3)]
    array = found.to_xarray()
    assert array.sizes == {"cell": 12, "system": 5, "other": 5}
    assert array.coords["rank"].values.tolist()[:3] == ["4", "4", "3"]
    assert "5 systems over 12 cells (3 n_delays x 2 rank x 2 steps_ahead)" in repr(found)
    assert found.verdict in repr(found)


def test_order_of_a_clean_family_is_stable():
    result = stability(turning(), HOW, over={"n_delays": [1, 2, 4], "steps_ahead": [2, 3]}, **QUICK)
    assert result.stable
    assert result.verdict.startswith("stable: 100% of the 5 other cells")
    assert result.depends_on == ()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_white_noise_has_no_order(seed):
    result = stability(white(seed), HOW, over={"n_delays": [2, 3], "rank": [3, 4]}, **QUICK)
    assert result.verdict.startswith("unstable: the distances from the two halves of the trials")
    assert not result.stable


def test_order_depends_on_the_choice_that_changes_it():
    """Systems alike over one sample in one rotation, and over ten in another: the horizon decides which is seen."""
    generator = torch.Generator().manual_seed(0)
    systems = {}
    for k, (fast, slow) in enumerate(zip((10.0, 12.0, 14.0, 16.0, 18.0), (1.5, 2.6, 1.2, 2.9, 1.9), strict=True)):
        x = linear([-8 + fast * 1j, -0.2 + slow * 1j], 30, 100, generator=generator)
        systems[f"{k}"] = add_noise(x, 0.1, generator=generator)
    over = {"n_delays": [1, 2, 3], "steps_ahead": [1, 40]}
    result = stability(systems, HOW.override(n_delays=1, steps_ahead=1), over=over, **QUICK)
    assert result.depends_on == ("steps_ahead",)
    assert "cells with the same steps_ahead agree" in result.verdict


def test_trials_are_cut_reduced_and_drawn():
    over: dict[str, Any] = {"reduction": ["all", 4], "trial_length": ["all", 60], "n_trials": ["all", 6]}
    systems = turning()
    how = HOW.override(n_starts=32)  # two starts may end at another optimum where rounding differs
    result = stability(systems, how, over=over, **QUICK)
    place = list(result.cells.index).index(("all", 60, 6))
    kept = np.sort(np.random.default_rng(how.seed).permutation(12)[:6])
    expected = compare({k: x[kept, :60] for k, x in systems.items()}, how=how, progress=False).distances
    np.testing.assert_allclose(result.distances[place], expected, atol=1e-7)  # rounding of the fits
    # four components hold all that these four-dimensional systems do in their common channels
    reduced = list(result.cells.index).index((4, "all", "all"))
    whole = list(result.cells.index).index(("all", "all", "all"))
    np.testing.assert_allclose(result.distances[reduced], result.distances[whole], atol=1e-6)


def test_metrics_of_trials_and_metrics_as_an_axis():
    by_metric = stability(turning(), HOW, over={"metric": ["angular", "spectral", "frobenius"]}, **QUICK)
    assert by_metric.reference == ("angular",)
    static = stability(turning(), over={"trial_length": ["all", 40, 60]}, metric="procrustes", **QUICK)
    expected = compare(turning(), metric="procrustes", progress=False).distances
    np.testing.assert_allclose(static.distances[0], expected, atol=1e-12)


def test_cells_that_no_system_carries_are_named_and_left_out_on_request():
    over = {"rank": [4, 13]}  # two delays of six channels make twelve entries
    with pytest.raises(DataError, match=r"cell rank = 13: .*leave_out=True leaves such cells out"):
        stability(turning(), HOW, over=over, **QUICK)
    result = stability(turning(), HOW, over=over, leave_out=True, **QUICK)
    assert len(result.cells) == 1
    assert [cell for cell, _ in result.left_out] == [(13,)]
    with pytest.raises(DataError, match="the reference cell is left out"):
        stability(turning(), HOW.override(rank=13), over=over, leave_out=True, **QUICK)


@pytest.mark.parametrize(
    ("over", "settings", "message"),
    [
        ({}, {}, "over is empty; give at least one axis"),
        ({"rnak": [4]}, {}, "axis of over = 'rnak' is none of"),
        ({"rank": []}, {}, "over['rank'] = [] is not a list of at least one value"),
        ({"rank": 4}, {}, "over['rank'] = 4 is not a list"),
        ({"rank": [4, 4]}, {}, "over['rank'] = [4, 4] holds a value twice"),
        ({"rank": [5, 6]}, {}, "over['rank'] = [5, 6] lacks the value of the reference, 4; add it"),
        ({"reduction": [2]}, {}, "over['reduction'] = [2] lacks the value of the reference, 'all'"),
        ({"rank": [4]}, {"rank": "auto"}, "rank = 'auto' has to be chosen first"),
        ({"rank": [4]}, {"metric": "cka"}, "over['rank'] has no effect with metric = 'cka'"),
        ({"rank": [4]}, {"windows": [(0, 40)]}, "stability compares whole trials: leave windows out"),
        ({"rank": [4]}, {"groups": ["a", "b"]}, "groups has 2 labels for 5 systems; give one for each"),
        ({"rank": [4]}, {"groups": ["a"] * 5}, "1 groups of 5 systems came; at least two groups are needed"),
        ({"rank": [4]}, {"groups": list("abcde")}, "5 groups of 5 systems came; at least two groups are needed"),
        ({"rank": [4]}, {"n_resamples": 10}, "n_resamples = 10 is not a whole number of at least 100"),
        ({"rank": [4]}, {"stable_at": 1.5}, "stable_at = 1.5 is not between 0 and 1"),
        ({"trial_length": ["all", 90]}, {}, "trial_length = 90, but system '2.0' has a trial of 80 samples"),
        ({"n_trials": ["all", 20]}, {}, "n_trials = 20, but system '2.0' has 12"),
        ({"n_trials": ["all", 1]}, {}, "n_trials = 1 is not a whole number of at least 2"),
        ({"reduction": ["all", 7]}, {}, "reduction = 7 needs systems with the same channels, at least as many"),
    ],
)
def test_impossible_grids_are_refused(over, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        stability(turning(), HOW, over=over, **QUICK | settings)


def test_few_systems_and_operators_are_refused():
    three = dict(list(turning().items())[:3])
    with pytest.raises(DataError, match="at least 4 systems of at least 2 trials each; 3 came, with 12 trials"):
        stability(three, HOW, over=OVER)
    with pytest.raises(DataError, match=r"stability compares data, but system '2\.0' came as an operator"):
        stability({**turning(), "2.0": fit_operator(turning()["2.0"], HOW)}, HOW, over=OVER)


def test_intervals_can_be_left_out(found):
    without = stability(turning(), HOW, over=OVER, n_resamples=0, progress=False)
    assert without.cells["low"].drop(without.reference).isna().all()
    np.testing.assert_array_equal(without.cells["correlation"], found.cells["correlation"])
    assert without.verdict == found.verdict


def test_trials_are_not_changed():
    systems = turning()
    before = {name: x.clone() for name, x in systems.items()}
    stability(systems, HOW, over={"reduction": ["all", 4], "trial_length": ["all", 40]}, **QUICK)
    assert all(torch.equal(systems[name], before[name]) for name in systems)


def test_correlations_are_drawn_with_the_reference_framed(found):
    axes = plot_stability(found, plt.figure().subplots())
    assert axes.get_title() == found.verdict.split(":")[0]
    assert axes.get_xlabel() == "n_delays, rank, steps_ahead"
    assert [patch.get_xy() for patch in axes.patches] == [(0, 4), (4, 0)]  # the row and the column of (2, 4, 3)
    plt.close("all")
