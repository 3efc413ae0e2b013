"""Operators of pieces of trials: order becomes visible; and sets of systems that cannot all carry a rank."""

import itertools
import re
import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor

from dsa_analysis import Comparison, DataError, Operator, Similarity, compare, fit_operator, sliding_windows
from dsa_analysis.plotting import plot_windows
from dsa_analysis.systems import linear
from dsa_analysis.windows import as_windows, cut

pytestmark = pytest.mark.filterwarnings("ignore:.*(cut at rank|transitions for rank):UserWarning")

MOTIFS = {"slow": [-0.1 + 1j, -1.0], "fast": [-0.1 + 4j, -1.0]}  # eigenvalues per unit of time


def sequence(motifs: tuple[str, ...], seed: int, n_trials: int = 6, n_times: int = 60) -> Tensor:
    """Motifs one after the other, each from new starts and in the same coordinates."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [linear(MOTIFS[name], n_trials, n_times, generator=generator, noise=0.1) for name in motifs]
    return torch.cat(pieces, 1)


def test_order_is_seen_piece_by_piece_and_not_in_whole_trials():
    systems = {"slow, fast": sequence(("slow", "fast"), 0), "fast, slow": sequence(("fast", "slow"), 1)}
    settings: dict[str, Any] = {"n_delays": 3, "rank": 3, "progress": False}
    whole = compare(systems, **settings).distances[0, 1]
    pieces = compare(systems, windows={"first": (0, 60), "second": (60, 120)}, **settings).distances[0, 1]
    # measured over ten seeds: .005 to .03 against .1 and more
    assert pieces > 3 * whole


def test_distance_is_the_mean_over_pieces_of_their_own_distances():
    systems = {f"{k}": sequence(("slow", "fast"), k) for k in range(3)}
    settings: dict[str, Any] = {"n_delays": 3, "rank": 3, "progress": False}
    borders = [(0, 50), (30, 80), (80, 120)]
    result = compare(systems, windows=borders, **settings)
    alone = [compare({k: x[:, start:stop] for k, x in systems.items()}, **settings) for start, stop in borders]
    # one unit in the last place: in a larger set a sum may be taken in another order
    np.testing.assert_allclose(result.by_window, [one.distances for one in alone], rtol=3e-16)
    np.testing.assert_allclose(result.distances, np.mean([one.distances for one in alone], 0), rtol=1e-12)
    np.testing.assert_allclose(result.lower_bounds, np.mean([one.lower_bounds for one in alone], 0), rtol=1e-12)
    np.testing.assert_array_equal(result.agreement, np.min([one.agreement for one in alone], 0))
    np.testing.assert_array_equal(result.converged, np.all([one.converged for one in alone], 0))
    assert result.settings["windows"] == {"0:50": [0, 50], "30:80": [30, 80], "80:120": [80, 120]}
    for k, one in itertools.product(systems, range(3)):
        assert torch.equal(result.operators[k][one].matrix, alone[one].operators[k].matrix)


@pytest.mark.parametrize("metric", ["cka", "procrustes", "spectral", "euclidean"])
def test_every_metric_goes_piece_by_piece(metric):
    systems, others = ([sequence(("slow", "fast"), k) for k in seeds] for seeds in ((0, 1), (2, 3, 4)))
    how = Comparison(n_delays=3, rank=3).override(metric=metric)
    result = compare(systems, others, how, windows=[(0, 60), (60, 120)], progress=False)
    alone = [
        compare([x[:, part] for x in systems], [x[:, part] for x in others], how, progress=False)
        for part in (slice(0, 60), slice(60, 120))
    ]
    assert result.by_window is not None
    assert result.by_window.shape == (2, 2, 3)
    np.testing.assert_allclose(result.by_window, [one.distances for one in alone], rtol=1e-12)
    np.testing.assert_allclose(result.distances, result.by_window.mean(0), rtol=1e-12)


def test_one_window_over_all_is_no_window():
    systems = [sequence(("slow",), k) for k in (0, 1)]
    settings: dict[str, Any] = {"n_delays": 2, "rank": 3, "progress": False}
    with_one, without = compare(systems, windows=[(0, 60)], **settings), compare(systems, **settings)
    np.testing.assert_array_equal(with_one.distances, without.distances)
    assert without.by_window is None
    assert isinstance(without.operators["0"], Operator)


@pytest.mark.parametrize("with_others", [False, True])
def test_pieces_are_written_and_read_back(tmp_path, with_others):
    systems = {"a": sequence(("slow", "fast"), 0), "b": sequence(("fast", "slow"), 1)[..., :2]}
    others = {"c": sequence(("fast", "slow"), 2)} if with_others else None
    result = compare(systems, others, n_delays=3, rank=3, windows=[(0, 60), (60, 120)], progress=False)
    read = Similarity.load(result.save(tmp_path / "pieces.nc"))
    np.testing.assert_array_equal(read.by_window, result.by_window)
    assert list(read.settings["windows"]) == list(result.settings["windows"])
    for mine, theirs in ((result.operators, read.operators), (result.other_operators, read.other_operators)):
        assert list(mine) == list(theirs)
        for label in mine:
            assert len(theirs[label]) == 2
            for a, b in zip(mine[label], theirs[label], strict=True):
                assert torch.equal(a.matrix, b.matrix)
                assert torch.equal(a.basis, b.basis)
                assert torch.equal(a.noise_variance, b.noise_variance)
                assert (a.n_windows, a.gap, a.parameters) == (b.n_windows, b.gap, b.parameters)
    assert result.to_xarray()["by_window"].dims == ("window", "system", "other")


def test_noise_variance_goes_to_the_system_it_is_named_for():
    systems = {"a": sequence(("slow", "fast"), 0), "b": sequence(("fast", "slow"), 1)}
    settings: dict[str, Any] = {"n_delays": 3, "rank": 3, "estimator": "signal_weighted"}
    result = compare(systems, noise_variance={"a": 1e-4}, windows=[(0, 60), (60, 120)], progress=False, **settings)
    assert all(piece.noise_variance.tolist() == [1e-4] * 3 for piece in result.operators["a"])
    estimated = fit_operator(systems["b"][:, 60:], **settings)
    assert torch.equal(result.operators["b"][1].matrix, estimated.matrix)
    with pytest.raises(DataError, match="system of noise_variance = 'c' is none of 'a', 'b'"):
        compare(systems, noise_variance={"c": 1e-4}, **settings)


def test_cut_gives_views_of_trials():
    trials = [torch.arange(20.0).view(10, 2), torch.arange(16.0).view(8, 2)]
    pieces = cut(trials, as_windows({"early": (0, 3), "late": (5, 8)}))
    assert [list(map(len, parts)) for parts in pieces.values()] == [[3, 3], [3, 3]]
    assert torch.equal(pieces["late"][1], trials[1][5:8])
    assert pieces["late"][1].data_ptr() == trials[1][5:].data_ptr()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((10, 4, 3), [(0, 4), (3, 7), (6, 10)]), ((10, 4), [(0, 4), (4, 8)]), ((4, 4, 9), [(0, 4)])],
)
def test_sliding_windows_lie_within_the_trial(arguments, expected):
    assert sliding_windows(*arguments) == expected


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([], "windows is empty; at least one (start, stop) is needed"),
        (60, "windows came as int; give pairs (start, stop) in samples, or a mapping from name to pair"),
        ((0, 60), "windows = (0, 60) is not a list of pairs (start, stop) in samples, such as sliding_windows gives"),
        ([(0, 60), (0, 60)], "windows holds the same window twice"),
        ({"a": (0, 60, 80)}, "window 'a' = (0, 60, 80) is not a pair (start, stop)"),
        ([(30, 30)], "stop of window '30:30' = 30 is not a whole number of at least 31"),
        ([(-5, 30)], "start of window '-5:30' = -5 is not a whole number of at least 0"),
        ([(0, 130)], "window '0:130' ends at sample 130, but system '0', trial 0 has 120; shorten the window, or"),
        (
            [(0, 3)],
            "needs trials of at least 4 samples (3 for one window, 1 more to predict), but system '0, window 0:3'",
        ),
    ],
)
def test_impossible_windows_are_refused(windows, message):
    systems = [sequence(("slow", "fast"), k) for k in (0, 1)]
    with pytest.raises(DataError, match=re.escape(message)):
        compare(systems, n_delays=3, rank=3, windows=windows)


def test_operators_have_no_trials_to_cut():
    with pytest.raises(DataError, match="windows are cut from trials, but system '0' came as an operator"):
        compare([np.eye(3)], windows=[(0, 10)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((10, 11), "length = 11 does not fit into n_times = 10"), ((10, 4, 0), "step = 0 is not a whole number")],
)
def test_impossible_sliding_windows_are_refused(arguments, message):
    with pytest.raises(DataError, match=re.escape(message)):
        sliding_windows(*arguments)


def unequal() -> dict[str, Tensor]:
    """Two systems of three channels and one that has but two dimensions in them."""
    flat = linear([-0.1 + 2j], 6, 60, seed=5) @ torch.randn(2, 3, generator=torch.Generator().manual_seed(6)).double()
    return {"a": sequence(("slow",), 0), "flat": flat - flat.mean((0, 1)), "b": sequence(("fast",), 1)}


def test_all_are_fitted_at_the_rank_that_all_carry_with_the_poorest_named():
    with pytest.warns(
        UserWarning,
        match=r"all systems are compared at rank = 2 instead of 3, which is too large for 1 of 3 \('flat'\)",
    ):
        result = compare(unequal(), n_delays=1, rank=3, center=False, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = compare(unequal(), n_delays=1, rank=2, center=False, progress=False)
    # 1e-6: the same directions from a decomposition asked for one more
    np.testing.assert_allclose(result.distances, expected.distances, atol=1e-6)
    assert all(len(operator.matrix) == 2 for operator in result.operators.values())
    assert (result.settings["rank"], result.settings["lowered_from"]) == (2, 3)
    assert "lowered_from" not in expected.settings


def test_unequal_ranks_are_refused_where_that_is_asked_for():
    with pytest.raises(DataError, match=r"system 'flat': rank = 3 is out of reach; .* at most rank = 2$"):
        compare(unequal(), n_delays=1, rank=3, center=False, on_rank="error", progress=False)
    with pytest.raises(DataError, match=r"on_rank = 'pad' is none of 'lower', 'error'"):
        compare(unequal(), n_delays=1, rank=3, on_rank="pad")


def test_a_rank_that_no_system_carries_is_refused():
    with pytest.raises(DataError, match=r"rank = 40 is out of reach"):
        compare(unequal(), n_delays=1, rank=40, progress=False)


def test_an_operator_is_never_lowered_to_the_rank_of_others():
    with pytest.warns(UserWarning, match="compared at rank = 2"), pytest.raises(DataError, match="of different size"):
        compare(unequal() | {"given": np.eye(3)}, n_delays=1, rank=3, center=False, progress=False)


# ---- every window with every window ----------------------------------------------------------------------------------

PARTS = {"early": (0, 60), "late": (60, 120)}
QUICK: dict[str, Any] = {"n_delays": 3, "rank": 3, "windows": PARTS, "progress": False}


@pytest.mark.parametrize("metric", ["angular", "spectral", "cka"])
def test_each_pair_of_windows_has_the_distance_of_its_pieces(metric):
    systems = {name: sequence(("slow", "fast"), seed) for seed, name in enumerate("ab")}
    how = Comparison(n_delays=3, rank=3).override(metric=metric)
    found = compare(systems, how=how, windows=PARTS, across=True, progress=False)
    assert found.labels == ("a, early", "a, late", "b, early", "b, late")
    between = found.between_windows("a", "b")
    assert between.dims == ("window", "other_window")
    assert between.attrs == {"unit": found.unit, "system": "a", "other": "b"}
    for (window, first), (other, second) in itertools.product(PARTS.items(), PARTS.items()):
        pair = [systems["a"][:, slice(*first)], systems["b"][:, slice(*second)]]
        expected = compare(pair, how=how, progress=False).distances[0, 1]
        assert float(between.sel(window=window, other_window=other)) == pytest.approx(expected, abs=1e-12)
    same = compare(systems, how=how, windows=PARTS, progress=False).by_window[:, 0, 1]
    np.testing.assert_allclose(between.values.diagonal(), same, atol=1e-12)
    own = found.between_windows("a").values
    np.testing.assert_array_equal(own, own.T)
    assert not own.diagonal().any()


def test_what_one_system_does_later_is_found_off_the_diagonal():
    systems = {"a": sequence(("slow", "fast"), 0), "b": sequence(("fast", "slow"), 1)}
    between = compare(systems, across=True, **QUICK).between_windows("a", "b").values
    assert between[[0, 1], [1, 0]].max() < between[[0, 1], [0, 1]].min() / 3  # as above for pieces of equal order


def test_windows_of_two_sets_of_systems_and_of_a_single_one():
    systems, others = ({name: sequence(("slow", "fast"), seed) for name in names} for seed, names in enumerate("ab"))
    found = compare(systems, others, across=True, **QUICK)
    assert found.distances.shape == (2, 2)
    np.testing.assert_array_equal(found.between_windows("a", "b").values, found.distances)
    alone = compare({"a": systems["a"]}, across=True, **QUICK)
    np.testing.assert_array_equal(alone.between_windows("a").values, alone.distances)
    assert alone.distances[0, 1] > 0


def test_compared_windows_are_written_and_read_back(tmp_path):
    found = compare({"a": sequence(("slow", "fast"), 0)}, across=True, **QUICK)
    read = Similarity.load(found.save(tmp_path / "across.nc"))
    assert read.across == found.across == ("early", "late")
    assert read.between_windows("a").equals(found.between_windows("a"))
    assert read.settings["windows"] == {"early": [0, 60], "late": [60, 120]}


def test_choices_of_each_system_go_to_its_windows():
    systems = {"a": sequence(("slow", "fast"), 0), "b": sequence(("fast", "slow"), 1)}
    settings = QUICK | {"n_delays": None, "window": 6.0, "horizon": 2.0, "estimator": "signal_weighted"}
    found = compare(systems, dt={"a": 1.0, "b": 2.0}, noise_variance={"a": 1e-4}, across=True, **settings)
    assert [found.operators[label].n_delays for label in found.labels] == [6, 6, 3, 3]
    assert [o.noise_variance[0].item() == 1e-4 for o in found.operators.values()] == [True, True, False, False]
    assert found.comparison.interval("b, late") == 2.0


def test_windows_that_cannot_be_compared_with_each_other_are_refused():
    systems = {"a": sequence(("slow", "fast"), 0), "b": sequence(("fast", "slow"), 1)}
    with pytest.raises(DataError, match="across=True compares every window with every window; give windows"):
        compare(systems, across=True, n_delays=3, rank=3)
    with pytest.raises(DataError, match=r"windows are cut from trials, but system 'a' came as an operator"):
        compare({"a": fit_operator(systems["a"], n_delays=3, rank=3)}, across=True, **QUICK)
    equal = {"a": systems["a"], "a, b": systems["b"]}
    ambiguous = {"c": (0, 60), "b, c": (60, 120)}
    with pytest.raises(DataError, match=r"two pieces would be called 'a, b, c'; rename system 'a, b' or window 'c'"):
        compare(equal, across=True, **QUICK | {"windows": ambiguous})
    with pytest.raises(DataError, match="system of noise_variance = 'c' is none of 'a', 'b'"):
        compare(systems, noise_variance={"c": 1.0}, across=True, **QUICK | {"estimator": "signal_weighted"})
    with pytest.raises(DataError, match=r"needs trials of at least 4 samples .* but system 'a, early', trials 0, 1"):
        compare(systems, across=True, **QUICK | {"windows": {"early": (0, 2)}})
    found = compare(systems, across=True, **QUICK)
    with pytest.raises(DataError, match="no system is called 'c'; there are 'a', 'b'"):
        found.between_windows("a", "c")
    with pytest.raises(DataError, match=r"use compare\(..., windows=..., across=True\)"):
        compare(systems, **QUICK).between_windows("a", "b")


def test_windows_of_two_systems_are_drawn():
    systems = {"a": sequence(("slow", "fast"), 0), "b": sequence(("fast", "slow"), 1)}
    found = compare(systems, across=True, **QUICK)
    axes = plot_windows(found, "a", "b", plt.figure().subplots())
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("window of a", "window of b")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["early", "late"]
    drawn = axes.collections[0].get_array()
    np.testing.assert_array_equal(np.reshape(drawn, (2, 2)), found.between_windows("a", "b").values)
    plt.close("all")
