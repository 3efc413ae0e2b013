"""Results show what they are in a few lines, without the numbers of an array, and with users' names escaped."""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import multitask.display
from dsa_analysis import (
    DataError,
    Similarity,
    choose_embedding,
    compare,
    explain,
    fit_driven_operator,
    lorenz,
    noise_floor,
)
from dsa_analysis.display import Card, bars_go_to, digits, listed

NAMES = ("<b>chaos</b>", "chaos & more", "two $x$ fixed $y$ points", "slow_1")


@pytest.fixture(scope="module")
def systems() -> dict[str, torch.Tensor]:
    regimes = zip(NAMES, (28, 28, 10, 14), strict=True)
    return {name: lorenz(6, 120, rho=rho, seed=k) for k, (name, rho) in enumerate(regimes)}


@pytest.fixture(scope="module")
def similarity(systems) -> Similarity:
    return compare(systems, n_delays=3, rank=3, dt=10, horizon=50, progress=False)


@pytest.fixture(scope="module")
def results(systems, similarity) -> dict[str, object]:
    inputs = torch.randn(6, 120, 2, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few trials, and a horizon that folds frequencies
        choice = choose_embedding(systems, n_delays=[2, 3], rank=[2, 3], progress=False)
        explanation = explain(similarity, NAMES[0], NAMES[2], dt=10)
    return {
        "Similarity of 4 systems, 6 pairs, by DSA": similarity,
        "Operator of rank 3": similarity.operators[NAMES[0]],
        "DrivenOperator of rank 2": fit_driven_operator(systems[NAMES[0]], inputs, n_delays=1, rank=2),
        "What sets <b>chaos</b> and two $x$ fixed $y$ points apart": explanation,
        "EmbeddingChoice: n_delays = ": choice,
    }


def test_results_show_their_size_and_what_to_do_next(results):
    for title, result in results.items():
        text, page = repr(result), result._repr_html_()
        assert title.split(":")[0].split(",")[0].split(" of rank")[0] in text
        assert text.count("\n") < 12
        assert max(map(len, text.splitlines())) < 160
        assert "tensor(" not in text
        assert "array(" not in text
        assert "next" in page
        assert "<b>chaos" not in page  # users' names are text
    page = results["Similarity of 4 systems, 6 pairs, by DSA"]._repr_html_()
    assert "&lt;b&gt;chaos&lt;/b&gt;" in page
    assert "horizon = 50" in page


def test_operators_show_on_one_line_because_they_stand_in_dictionaries(similarity):
    shown = repr(similarity.operators)
    assert "\n" not in shown
    assert "<Operator of rank 3: n_delays = 3, 3 channels, steps_ahead = 5, " in shown


def test_two_sets_and_single_systems_show_themselves(systems, similarity):
    crossed = repr(compare(systems, systems, how=similarity.comparison, progress=False))
    assert "Similarity of 4 x 4 systems, 16 pairs" in crossed
    assert ".plot()" not in crossed
    assert "0 pairs" in repr(similarity.sel([NAMES[0]]))
    assert "CKA" in repr(compare(systems, metric="cka", progress=False))


def test_alignments_that_did_not_converge_are_counted(similarity):
    stopped = similarity.converged.copy()
    stopped[0, 1] = stopped[1, 0] = False
    fields = {name: getattr(similarity, name) for name in Similarity.__dataclass_fields__}
    assert "not converged  1 of 6 pairs; increase n_starts" in repr(Similarity(**fields | {"converged": stopped}))


def test_long_lists_of_names_are_cut():
    assert listed("abc") == "a, b, c"
    assert listed(map(str, range(60))) == "0, 1, 2, 3, 4, ... (55 more)"
    assert Card("t", {"empty": "", "full": "x"}, "n").text() == "t\n  full  x\n  next  n"


# ---- subsets ---------------------------------------------------------------------------------------------------------


def test_subsets_keep_distances_operators_and_windows(systems):
    whole = compare(systems, n_delays=2, rank=2, windows=[(0, 60), (60, 120)], progress=False)
    part = whole.sel([NAMES[3], NAMES[0]])
    assert part.labels == part.other_labels == (NAMES[3], NAMES[0])
    np.testing.assert_array_equal(part.distances, whole.distances[np.ix_([3, 0], [3, 0])])
    np.testing.assert_array_equal(part.by_window, whole.by_window[:, [3, 0]][:, :, [3, 0]])
    assert part.operators == {name: whole.operators[name] for name in part.labels}
    crossed = whole.sel("*chaos*", [NAMES[2]])
    assert (crossed.labels, crossed.other_labels, crossed.two_sided) == (NAMES[:2], (NAMES[2],), True)
    np.testing.assert_array_equal(crossed.distances, whole.distances[:2, 2:3])
    assert crossed.sel(NAMES[0]).distances.shape == (1, 1)
    assert crossed.other_operators.keys() == {NAMES[2]}


def test_subsets_are_stored_and_read(similarity, tmp_path):
    part = similarity.sel([NAMES[0]], NAMES[1:])
    read = Similarity.load(part.save(tmp_path / "part.nc"))
    np.testing.assert_array_equal(read.distances, part.distances)
    assert read.other_operators.keys() == set(NAMES[1:])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["slow_2"], "names = 'slow_2' is none of .*did you mean 'slow_1'"),
        ("x_*", "names = 'x_\\*' is none of"),
        ([], r"names = \[\] does not name one or more systems, each once"),
        (["slow_1", "slow_1"], "each once"),
    ],
)
def test_systems_that_are_not_there_are_refused(similarity, names, message):
    with pytest.raises(DataError, match=message):
        similarity.sel(names)


def test_condensed_is_in_the_order_of_the_table(similarity):
    np.testing.assert_array_equal(similarity.condensed(), similarity.to_dataframe()["distance"])
    with pytest.raises(DataError, match="this comparison has others"):
        similarity.sel([NAMES[0]], [NAMES[1]]).condensed()


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_are_drawn_on_given_axes_or_new_ones(systems, similarity):
    floor = noise_floor(systems, similarity.comparison, n_splits=1, progress=False)
    figure, axes = plt.subplots(1, 3)
    groups = dict(zip(NAMES, "aabb", strict=True))
    with plt.rc_context({"savefig.format": "svg"}):
        assert similarity.plot(axes[0], floor=floor, groups=groups) is axes[0]
        assert similarity.plot_map(axes[1], groups=groups) is axes[1]
        assert similarity.plot_tree(axes[2], floor=floor, groups=groups) is axes[2]
        figure.draw_without_rendering()
    for drawn in (similarity.plot(), similarity.plot_map(), similarity.plot_tree()):
        assert drawn.figure not in (None, figure)
    for one in (axes[0], axes[2]):
        assert sorted(label.get_text() for label in one.get_yticklabels()) == sorted(NAMES)
        assert not any(label.get_parse_math() for label in one.get_yticklabels())
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["a", "b"]
    plt.close("all")


def test_matrix_marks_pairs_below_the_mean_floor_of_their_systems(similarity):
    between = np.sort(similarity.condensed())[:2].mean()
    values = pd.Series(between, index=list(NAMES))
    axes = similarity.plot(floor=values)
    assert len(axes.lines[0].get_xdata()) == 2  # one pair, on both sides
    np.testing.assert_allclose(similarity.pair_floors(values), between)
    np.testing.assert_allclose(similarity.pair_floors([0.0, 0.2, 0.4, 0.6])[1], [0.1, 0.2, 0.3, 0.4])
    plt.close("all")


def test_tree_joins_the_nearest_first(similarity):
    axes = similarity.plot_tree()
    order = [label.get_text() for label in axes.get_yticklabels()]
    table = similarity.to_dataframe()
    nearest = table.loc[table["distance"].idxmin()]
    assert abs(order.index(nearest["system_a"]) - order.index(nearest["system_b"])) == 1
    assert min(line.get_xdata().max() for line in axes.lines) == pytest.approx(nearest["distance"])
    plt.close("all")


def test_names_on_a_map_cover_neither_points_nor_each_other():
    points = np.random.default_rng(0).normal(size=(30, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    names = tuple(f"system {k}" for k in range(30))
    ones = np.ones_like(distances)
    axes = Similarity(distances, distances, ones, ones > 0, names, names).plot_map()
    axes.figure.set_layout_engine("none")  # names were placed for these axes
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 15
    overlaps = sum(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert overlaps <= 1  # widths of names are estimated
    plt.close("all")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.sel(NAMES[:2]).plot_map(), "a map needs at least 3 systems, but this comparison has 2"),
        (lambda s: s.sel([NAMES[0]]).plot_tree(), "a tree needs at least 2 systems, but this comparison has 1"),
        (lambda s: s.sel([NAMES[0]], [NAMES[1]]).plot(), "a clustered matrix needs .* this comparison has others"),
        (lambda s: s.plot(groups=["a", "b"]), "does not name a group for each of 4 systems"),
        (lambda s: s.plot(groups={"slow_1": "a"}), "groups of system = '<b>chaos</b>' is none of"),
        (lambda s: s.plot(floor=[1.0, 2.0]), r"floor has shape \(2,\); give a number, \(4,\), \(4, 4\)"),
        (lambda s: s.plot(floor=pd.Series({"slow_1": 1.0})), "floor of system = '<b>chaos</b>' is none of 'slow_1'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(similarity, call, message):
    with pytest.raises(DataError, match=message):
        call(similarity)
    plt.close("all")


def test_warnings_name_the_line_of_the_caller():
    generator = np.random.default_rng(0)
    systems = list(generator.normal(size=(2, 10, 100, 3)).cumsum(2))
    for call in (compare, noise_floor):
        with pytest.warns(UserWarning, match="the cut at rank = 4 goes through a cluster") as caught:
            call(systems, n_delays=3, rank=4)
        assert {warning.filename for warning in caught} == {__file__}


def test_bars_go_to_stderr_and_in_jupyter_to_stdout(monkeypatch):
    assert bars_go_to() is sys.stderr
    monkeypatch.setattr(sys, "stderr", type("OutStream", (), {"__module__": "ipykernel.iostream"})())
    assert bars_go_to() is sys.stdout
    assert multitask.display.bars_go_to() is sys.stdout


@pytest.mark.parametrize(
    ("value", "shown"), [(1040.4, "1040"), (0.001234, "0.00123"), (999.4, "999"), (-2500.0, "-2500"), (2e9, "2e+09")]
)
def test_times_of_seconds_in_milliseconds_have_no_exponent(value, shown):
    assert digits(value) == shown
