"""Explanations: shares add up, fall on the mode that was changed, and know time and frequency."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import block_diag

from dsa_analysis import DataError, align, compare, explain
from dsa_analysis.plotting import plot_explanation


def turning(angle: float, size: float) -> np.ndarray:
    return size * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def haar(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


@pytest.fixture
def pair():
    """Two systems with a common mode and one that turns faster in the second, each in coordinates of its own."""
    common, changed = turning(0.3, 0.98), [turning(angle, 0.9) for angle in (0.8, 1.1)]
    Q = haar(4, 0)
    return compare({"a": block_diag(common, changed[0]), "b": Q @ block_diag(common, changed[1]) @ Q.T}, progress=False)


def test_the_whole_difference_is_found_in_the_mode_that_was_changed(pair):
    modes = explain(pair, "a", "b", dt=1.0).modes
    assert modes["system"].tolist() == ["a", "a", "b", "b"]
    np.testing.assert_allclose(modes["share"], [0, 1, 0, 1], atol=1e-6)  # the optimum is reached to 1e-9 in slope


def test_modes_have_their_time_constant_in_ms_and_frequency_in_hz(pair):
    modes = explain(pair, "a", "b", dt=10.0).modes
    np.testing.assert_allclose(modes["time_constant"], [-10 / math.log(0.98), -10 / math.log(0.9)] * 2)
    np.testing.assert_allclose(modes["frequency"] * 2 * math.pi * 0.010, [0.3, 0.8, 0.3, 1.1])
    np.testing.assert_allclose(modes["eigenvalue"].abs(), [0.98, 0.9] * 2)


@pytest.mark.parametrize(
    ("unit", "scale", "shown"),
    [("s", 1.0, "Hz"), ("model time", 1.0, "per model time"), (None, 1.0, "per unit of dt"), ("ms", 1000.0, "Hz")],
)
def test_frequencies_are_per_unit_of_the_comparison_unless_it_is_named(pair, unit, scale, shown):
    """The dt of a comparison may be in seconds or in model time: no unit is guessed."""
    timed = replace(pair, comparison=pair.comparison.override(dt=0.01))
    found = explain(timed, "a", "b", unit=unit)
    np.testing.assert_allclose(found.modes["frequency"] * 2 * math.pi * 0.01, scale * np.array([0.3, 0.8, 0.3, 1.1]))
    np.testing.assert_allclose(found.modes["time_constant"], [-0.01 / math.log(0.98), -0.01 / math.log(0.9)] * 2)
    assert found.frequency_unit == shown
    assert f" {shown}, " in repr(found)
    figure, axes = plt.subplots(1, 4)
    plot_explanation(found, axes)
    assert axes[3].get_ylabel() == f"frequency ({shown})"
    assert axes[3].get_xlabel() == f"time constant ({unit or 'unit of dt'})"
    plt.close(figure)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("remove_trace", [False, True])
def test_shares_add_up_and_operators_are_the_aligned_ones(n, remove_trace):
    if n == 1 and remove_trace:
        pytest.skip("without its trace nothing is left of a number")
    generator = np.random.default_rng(n)
    systems = {name: generator.standard_normal((n, n)) for name in "ab"}  # far from normal
    similarity = compare(systems, n_starts=8, remove_trace=remove_trace, progress=False)
    if similarity.distances[0, 1] == 0:  # two numbers of one sign
        assert explain(similarity, "a", "b", dt=1.0).modes["share"].isna().all()
        return
    found = explain(similarity, "a", "b", dt=1.0)
    assert found.modes.groupby("system")["share"].sum().tolist() == pytest.approx([1, 1])
    assert (found.modes["share"] >= 0).all()
    assert found.first.norm() == pytest.approx(1)
    assert found.second.norm() == pytest.approx(1)
    # the law of cosines for unit operators
    assert (found.first - found.second).norm() == pytest.approx(2 * math.sin(similarity.distances[0, 1] / 2), abs=1e-9)
    assert found.distance == pytest.approx(similarity.distances[0, 1], abs=1e-12)


def test_common_coordinates_are_the_modes_of_the_first_system(pair):
    found = explain(pair, "a", "b", dt=1.0)
    blocks = block_diag(turning(-0.3, 0.98), turning(-0.8, 0.9))  # the sense of rotation is that of the axes chosen
    expected = blocks / np.linalg.norm(blocks)
    np.testing.assert_allclose(found.first.abs().numpy(), np.abs(expected), atol=1e-12)


def test_swapping_the_systems_swaps_their_modes():
    generator = np.random.default_rng(0)
    similarity = compare({name: generator.standard_normal((5, 5)) for name in "ab"}, progress=False)
    there, back = (explain(similarity, *names, dt=1.0).modes.set_index("system") for names in ("ab", "ba"))
    for name in "ab":
        # the transform of one order is the transpose of the other's, to the slope at which climbs end
        np.testing.assert_allclose(there.loc[name, "share"], back.loc[name, "share"], atol=1e-7)


def test_other_systems_and_steps_ahead_are_known(generator):
    trials = torch.randn(5, 60, 3, generator=generator).cumsum(1)
    similarity = compare({"a": trials}, {"b": trials.flip(1)}, n_delays=2, rank=3, steps_ahead=2, progress=False)
    modes = explain(similarity, "a", "b", dt=5.0).modes
    expected = similarity.operators["a"].time_constants(5.0)
    assert modes.loc[modes["system"] == "a", "time_constant"].iloc[0] == pytest.approx(float(expected[0]))
    distance = align(similarity.operators["a"], similarity.other_operators["b"]).distance
    assert float(distance) == explain(similarity, "a", "b", dt=5.0).distance


def test_window_is_explained_as_if_its_pieces_had_been_compared(generator):
    systems, settings = torch.randn(3, 4, 60, 3, generator=generator).cumsum(2).unbind(), {"n_delays": 1, "rank": 3}
    windows = {"early": (0, 30), "late": (30, 60)}
    pieces = compare(systems[:2], systems[2:], windows=windows, progress=False, **settings)
    alone = compare([x[:, 30:] for x in systems[:2]], [x[:, 30:] for x in systems[2:]], progress=False, **settings)
    found, expected = explain(pieces, "1", "0", dt=5.0, window="late"), explain(alone, "1", "0", dt=5.0)
    pd.testing.assert_frame_equal(found.modes, expected.modes)
    assert found.distance == pytest.approx(pieces.by_window[1, 1, 0], abs=1e-12)


def test_figure_shows_operators_and_all_modes(pair):
    figure, axes = plt.subplots(1, 4)
    plot_explanation(explain(pair, "a", "b", dt=10.0), axes)
    assert [panel.get_title() for panel in axes] == ["a", "b", "difference", "area: share of difference"]
    assert axes[3].get_xlabel() == "time constant (ms)"
    assert [len(points.get_offsets()) for points in axes[3].collections] == [2, 2]
    plt.close(figure)


def test_what_cannot_be_explained_is_refused(pair, generator):
    with pytest.raises(DataError, match=r"second = 'bb' is none of 'a', 'b'; did you mean 'b'\?"):
        explain(pair, "a", "bb", dt=1.0)
    with pytest.raises(DataError, match="dt = 0 is not a time above 0"):
        explain(pair, "a", "b", dt=0)
    with pytest.raises(DataError, match="the sampling interval is not known: give dt in ms here, or compare with dt"):
        explain(pair, "a", "b")
    with pytest.raises(DataError, match="window = 'late' came, but whole trials were compared; leave window out"):
        explain(pair, "a", "b", dt=1.0, window="late")
    pieces = compare(
        torch.randn(2, 4, 30, 3, generator=generator).unbind(), n_delays=1, rank=3, windows=[(0, 20), (9, 30)]
    )
    with pytest.raises(DataError, match="compared window by window; give window as one of '0:20', '9:30'"):
        explain(pieces, "0", "1", dt=1.0)
    with pytest.raises(DataError, match="window = '0:2' is none of '0:20', '9:30'; did you mean '0:20'"):
        explain(pieces, "0", "1", dt=1.0, window="0:2")
    static = compare(torch.randn(2, 4, 30, 3, generator=generator).unbind(), metric="cka")
    with pytest.raises(DataError, match="metric = 'cka' aligns no operators, so there is nothing to explain"):
        explain(static, "0", "1", dt=1.0)
