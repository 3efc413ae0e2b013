"""Figures show the numbers they are given, on the axes they are given, and change neither numbers nor files."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from dsa_analysis import Similarity, lorenz
from dsa_analysis.nulls import Nulls
from dsa_analysis.plotting import (
    group_colors,
    group_legend,
    plot_distances,
    plot_eigenvalues,
    plot_intervals,
    plot_map,
    plot_nulls,
    plot_scores,
    plot_spectrum,
    plot_trajectories,
    shortened,
)

GROUPS = ["a", "b", "a", "b", "a"]


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


@pytest.fixture
def similarity() -> Similarity:
    points = np.random.default_rng(0).normal(size=(5, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    labels = tuple(f"system {k}" for k in range(5))
    return Similarity(distances, distances / 2, np.ones((5, 5)), np.ones((5, 5), bool), labels, labels)


@pytest.mark.parametrize(
    "names",
    [
        [f"mouse_{k:03d}_session_2026-03-01_region_V1" for k in range(30)],  # apart at the start
        [f"mouse_session_2026-03-01_probe_A_unit_{k:03d}" for k in range(30)],  # at the end
        [f"animal_12_session_{k:02d}_probe_A_region_V1_left" for k in range(30)],  # before the middle
        [f"the_same_beginning_of_all_{k:03d}_and_the_same_end_of_all" for k in range(30)],  # nowhere near an end
        ["short", "a name of thirty-two characters!", "short"],  # equal names stay equal
    ],
)
def test_long_names_are_cut_and_stay_apart(names):
    found = shortened(names)
    assert max(map(len, found)) <= 28
    assert len(set(found)) == len(set(names))
    assert all((short == name) == (len(name) <= 28) for short, name in zip(found, names, strict=True))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["mouse_014_session_2026-03-11_probe_A_CA1", "mouse_015_session_2026-03-11_probe_B_V1"],
            ["…014…A_CA1", "…015…B_V1"],
        ),
        (
            ["a_common_beginning_x_and_end_of_all_names", "a_common_beginning_y_z_and_end_of_all_names"],
            ["…x…", "…y_z…"],  # names of unequal lengths
        ),
    ],
)
def test_long_names_lose_the_words_that_all_share_and_keep_the_others(names, expected):
    assert shortened(names) == expected


def test_alike_names_stay_whole_if_they_are_short():
    names = [f"mouse_{k}_V1" for k in range(3)]
    assert shortened(names) == names


def shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.collections[0].get_array()).reshape(5, 5)


def test_heat_map_shows_every_distance_under_its_label(axes, similarity):
    assert plot_distances(similarity, axes) is axes
    order = [similarity.labels.index(label.get_text()) for label in axes.get_xticklabels()]
    np.testing.assert_array_equal(shown(axes), similarity.distances[np.ix_(order, order)])
    assert [label.get_text() for label in axes.get_yticklabels()] == [similarity.labels[k] for k in order]
    assert "DSA" in axes.get_title()


def test_heat_map_can_show_bounds_below_the_diagonal(axes, similarity):
    before = similarity.distances.copy()
    plot_distances(similarity, axes, below="lower_bounds")
    values = shown(axes)
    np.testing.assert_allclose(values[np.tril_indices(5, -1)], values.T[np.tril_indices(5, -1)] / 2)
    np.testing.assert_array_equal(similarity.distances, before)


def test_heat_map_marks_groups_and_what_lies_under_the_floor(axes, similarity):
    floor = float(np.median(similarity.distances[np.triu_indices(5, 1)]))
    plot_distances(similarity, axes, groups=GROUPS, floor=floor)
    assert len(axes.lines[0].get_xdata()) == (similarity.distances < floor).sum() - 5
    assert len(axes.patches) == 10  # two margins


def test_one_colour_a_group_in_order_of_appearance():
    colors = group_colors(GROUPS)
    assert list(colors) == ["a", "b"]
    assert colors["a"] != colors["b"]


def test_map_puts_each_system_at_its_place(axes, similarity):
    places, stress = similarity.to_plane()
    plot_map(places, stress, GROUPS, axes)
    for line, group in zip(axes.lines, ("a", "b"), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), places[[g == group for g in GROUPS]])
    assert f"{stress:.2f}" in axes.get_title()
    assert "rad" in axes.get_xlabel()


@pytest.mark.parametrize("seed", range(3))
def test_names_on_a_map_cover_no_point_no_other_name_and_no_line(axes, seed):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(4, 2))
    places = np.repeat(centres, 5, 0) + 0.05 * generator.normal(size=(20, 2))
    axes.figure.set_size_inches(9, 7)
    plot_map(places, 0.1, ["g"] * 20, axes, names=[f"name_{index:02d}" for index in range(20)])
    axes.figure.draw_without_rendering()
    texts = [text for text in axes.texts if text.get_text()]
    assert len(texts) == 20
    assert "no room" not in axes.get_title()
    boxes = [text.get_window_extent() for text in texts]
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    points = axes.transData.transform(places)
    for one, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:one])
        assert not any(box.contains(*point) for point in points)
        for line in (text.arrow_patch for text in axes.texts if text.arrow_patch is not None):
            ends = line.get_path().vertices[[0, -1]]
            way = ends[0] + np.linspace(0, 1, 50)[:, None] * (ends[1] - ends[0])
            inside = np.abs(way - (box.min + box.max) / 2) < [0.45 * box.width, 0.3 * box.height]
            assert not inside.all(1).any()


def test_names_without_room_on_a_map_are_numbers_in_a_list_below_it():
    generator = np.random.default_rng(0)
    places = np.repeat(generator.normal(size=(4, 2)), 8, 0) + 0.1 * generator.normal(size=(32, 2))
    names = [f"Recording {k:02d} from Amsterdam" for k in range(32)]
    figure = Figure((6.2, 4.8), layout="constrained")
    axes = figure.subplots()
    plot_map(places, 0.1, ["g"] * 32, axes, names=names)
    figure.draw_without_rendering()
    lists = [text for text in axes.texts if text.get_text().startswith("[") and " " in text.get_text()]
    listed = [line.split("] ") for text in lists for line in text.get_text().splitlines()]
    written = {text.get_text() for text in axes.texts} - {""}
    assert listed  # otherwise nothing is tested
    assert {name for _, name in listed} == set(names) - written
    assert {f"{number}]" for number, _ in listed} <= written
    assert "no room" not in axes.get_title()
    label = axes.xaxis.label.get_window_extent()
    for text in lists:
        box = text.get_window_extent()
        assert box.y1 < label.y0
        assert figure.bbox.contains(*box.min)
        assert figure.bbox.contains(*box.max)


def test_a_map_counts_the_names_for_which_there_is_no_room(axes):
    names = [f"a name of some length, the {k}th" for k in range(90)]
    plot_map(np.zeros((90, 2)), 0.0, ["g"] * 90, axes, names=names)
    written = sum(bool(text.get_text()) and "] " not in text.get_text() for text in axes.texts)
    assert 1 < written < 90
    assert axes.get_title() == f"stress 0.00, no room for {90 - written} names"


def test_trajectories_are_drawn_in_the_dimensions_asked(axes):
    x = lorenz(7, 20, seed=0)
    plot_trajectories(x, axes, "C0", n_trials=2, dims=(1, 2))
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), x[0][:, [1, 2]])
    assert len(axes.lines) == 4  # two trials and their starts
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("y", "z")


def test_spectrum_is_relative_to_its_first_value_with_the_cut_behind_rank(axes):
    plot_spectrum({"s": torch.tensor([4.0, 2.0, 1.0])}, 2, axes, {"s": "C0"})
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 1], [2, 0.5], [3, 0.25]])
    assert axes.lines[1].get_xdata()[0] == 2.5


def test_eigenvalues_lie_in_the_plane_with_the_unit_circle(axes):
    plot_eigenvalues({"s": torch.tensor([0.5 + 0.5j, 0.5 - 0.5j])}, axes, {"s": "C0"})
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0.5, 0.5], [0.5, -0.5]])
    (circle,) = (patch for patch in axes.get_children() if isinstance(patch, Circle))
    assert (circle.center, circle.radius) == ((0, 0), 1)
    axes.figure.draw_without_rendering()
    assert axes.get_ylim()[1] < 1  # the view stays at the eigenvalues


def test_scores_show_every_repetition(axes):
    scores = pd.DataFrame({"metric": ["DSA", "CKA"] * 3, "auroc": [0.9, 0.5, 0.8, 0.6, 1.0, 0.4]})
    plot_scores(scores, "auroc", axes)
    drawn = np.concatenate([dots.get_offsets()[:, 1] for dots in axes.collections if len(dots.get_offsets())])
    assert sorted(drawn) == pytest.approx(sorted(scores.auroc))


def test_intervals_lie_around_the_means_of_columns(axes):
    values = pd.DataFrame({0.1: [1.0, 2.0, 3.0], 0.5: [4.0, 4.0, 4.0]})
    plot_intervals(values, axes, label="DSA", linestyle="--")
    (line, _, (bars,)) = axes.containers[0]
    assert line.get_xdata() == pytest.approx([0.1, 0.5])
    assert line.get_ydata() == pytest.approx([2.0, 4.0])
    limits = np.array([segment[:, 1] for segment in bars.get_segments()])
    half = 4.302652729911275 / 3**0.5  # Student's t of 2 degrees of freedom, times the standard error
    assert limits == pytest.approx(np.array([[2 - half, 2 + half], [4, 4]]))


def test_nulls_are_drawn_behind_the_distances_the_nearest_pair_first(axes):
    draws = np.random.default_rng(0).uniform(1, 2, (40, 3, 3))
    observed = np.array([[0.0, 0.3, 0.1], [0.3, 0.0, 0.2], [0.1, 0.2, 0.0]])
    ones = np.ones((3, 3))
    plot_nulls(Nulls("phase", ("a", "b", "c"), draws, observed, ones, ones), axes, "rad")
    middle, distances = axes.lines
    assert distances.get_ydata() == pytest.approx([0.1, 0.2, 0.3])
    assert middle.get_ydata() == pytest.approx(np.median(draws[:, [0, 1, 0], [2, 2, 1]], 0))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a, c", "b, c", "a, b"]
    assert axes.get_ylabel() == "distance (rad)"


def test_legend_names_each_group(axes):
    group_legend(axes, group_colors(GROUPS))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_nothing_is_written(axes, similarity, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plot_distances(similarity, axes)
    assert list(tmp_path.iterdir()) == []
