"""Figures: axes have labels with units, and show the values of the result."""

from collections.abc import Iterator

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from multitask import plotting
from multitask.activity import TaskVariance, cluster_units, principal_components, record_activity
from multitask.evaluation import PsychometricCurve
from multitask.fixed_points import find_fixed_points
from multitask.network import LeakyRNN, NetworkParameters
from multitask.tasks import RULES
from multitask.trials import MultitaskError

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def activity():
    return record_activity(LeakyRNN(NetworkParameters(n_rnn=8, dt=50.0)), "delaygo")


@pytest.fixture(scope="module")
def clusters():
    profiles = np.repeat(np.eye(2), 5, 0) + 0.05 * np.random.default_rng(0).random((10, 2))
    return cluster_units(TaskVariance(profiles[None], ("dm1", "fdgo")), n_clusters=2)


def test_trial_shows_targets_and_outputs_over_milliseconds(activity):
    _, axes = plt.subplots(5)
    plotting.plot_trial(axes, activity.batch, 3, activity.outputs[0])
    assert axes[-1].get_xlabel() == "time (ms)"
    assert axes[0].get_xlim() == (0, 2500)
    assert axes[0].get_title() == "Dly Go"
    target, output = (ax.images[0].get_array() for ax in axes[3:])
    np.testing.assert_array_equal(target, activity.batch.targets[3, :, 1:].T)
    np.testing.assert_array_equal(output, activity.outputs[0, 3, :, 1:].T)
    assert len(axes[1].lines) == 3  # borders of four periods


def test_trial_needs_an_axis_for_each_panel(activity):
    _, axes = plt.subplots(3)
    with pytest.raises(MultitaskError, match="axes has 3 axes: a trial of 'delaygo' requires 4"):
        plotting.plot_trial(axes, activity.batch)


def test_units_have_a_line_for_each_trial(activity):
    _, axes = plt.subplots(2, 1, squeeze=False)
    plotting.plot_units(axes, [activity], [0, 5])
    assert [len(ax.collections[0].get_segments()) for ax in axes[:, 0]] == [40, 40]
    assert "unit 5" in axes[1, 0].get_ylabel()
    few = plotting.plot_units(plt.figure().add_subplot(), [activity], [5], colours=["red"], n_lines=3)
    assert [line[0, 1] for line in few.collections[0].get_segments()] == activity.hidden[0, [0, 20, 39], 0, 5].tolist()
    assert few.yaxis.label.get_color() == "red"
    assert axes[1, 0].get_xlabel() == "time (ms)"


def test_matrices_show_rules_by_their_titles(clusters):
    for plot, shape in ((plotting.plot_task_variance, (2, 10)), (plotting.plot_clusters_by_rule, (2, 2))):
        ax = plot(plt.figure().add_subplot(), clusters)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["DM 1", "Go"]
        assert ax.images[0].get_array().shape == shape
        assert "task variance" in ax.figure.axes[1].get_ylabel()  # of the colour bar


def test_curves_and_histograms_show_their_numbers(clusters):
    ax = plotting.plot_silhouettes(plt.figure().add_subplot(), clusters)
    assert ax.lines[0].get_ydata() == list(clusters.silhouettes.values())
    fractions = [np.array([-1.0, 1.0, 1.0, 0.99]), np.array([1.0])]
    ax = plotting.plot_fractional_variance(plt.figure().add_subplot(), fractions, "dm1", "fdgo")
    assert [bar.get_height() for bar in (ax.patches[0], ax.patches[-1])] == pytest.approx([0.125, 0.875])
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(1)
    spans = [segment[:, 1].tolist() for segment in ax.collections[0].get_segments()]
    assert (spans[0], spans[-1]) == ([0, 0.25], [0.75, 1])
    assert ax.get_xlabel() == "FTV(DM 1, Go)"
    curve = PsychometricCurve("dm1", np.array([-0.1, 0.1]), np.array([[1, 9], [2, 8]]), np.array([[9, 1], [8, 2]]))
    ax = plotting.plot_psychometric(plt.figure().add_subplot(), curve)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.15, 0.85])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.1, 0.9)


@pytest.mark.parametrize("projection", [None, "3d"])
def test_trajectories_are_labelled_with_their_share_of_the_variance(activity, projection):
    ax = plt.figure().add_subplot(projection=projection)
    pca = principal_components(activity.during("stim1", "delay1"))
    plotting.plot_trajectories(ax, pca, activity.conditions["direction"])
    assert ax.get_ylabel() == f"component 2 ({100 * pca.explained[0, 1]:.0f} %)"
    assert len(ax.lines) == 2 * 40
    np.testing.assert_array_equal(ax.lines[0].get_data()[1], pca.scores[0, 0, :, 1])
    other = plt.figure().add_subplot(projection=projection)
    plotting.plot_trajectories(other, pca, "red", pca.project(activity.hidden), marker="^")
    assert {line.get_color() for line in other.lines} == {"red"}
    assert len(other.lines[0].get_data()[0]) == activity.batch.n_times
    if projection:
        few = principal_components(activity.hidden, 2)
        with pytest.raises(MultitaskError, match="ax shows 3 components, but there are only 2"):
            plotting.plot_trajectories(ax, few, activity.conditions["direction"])


def test_learning_has_a_line_for_each_rule():
    rows = [(s, r, n, s / 100) for s in (0, 50, 100) for r in ("dm1", "fdgo") for n in (0, 1)]
    log = pd.DataFrame(rows, columns=["step", "rule", "network", "performance"])
    ax = plotting.plot_learning(plt.figure().add_subplot(), log)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["DM 1", "Go"]
    assert ax.get_ylabel() == "share of right trials"
    assert set(log["rule"]) == {"dm1", "fdgo"}  # unchanged


def test_lesions_and_profiles_have_clusters_in_their_colours(clusters):
    cost = np.array([[0.5, 0.0], [-0.1, 0.2], [0.0, 0.0]])
    ax = plotting.plot_lesions(plt.figure().add_subplot(), cost, ["dm1", "fdgo"])
    np.testing.assert_array_equal(ax.images[0].get_array(), cost.T)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
    assert [label.get_color() for label in ax.get_xticklabels()] == plotting.cluster_colours(3)[:3]
    assert ax.figure.axes[1].get_ylabel() == "performance lost"
    ax = plotting.plot_clusters_by_rule(plt.figure().add_subplot(), clusters, bar=False)
    assert len(ax.figure.axes) == 1


def test_slow_points_lie_where_the_states_do():
    network = LeakyRNN(NetworkParameters(n_rnn=8, dt=50.0), n_networks=2)
    activity = record_activity(network, "delaygo")
    points = find_fixed_points(network, activity.batch.inputs[0, 25], activity.during("delay1").flatten(1, 2)[:, ::100])
    pca = principal_components(activity.during("delay1"))
    ax = plotting.plot_slow_points(plt.figure().add_subplot(), points, pca, network=1)
    shown = np.concatenate([np.column_stack(line.get_data()) for line in ax.lines])
    own = points.hidden[points.network == 1]
    expected = pca.project(own.expand(2, 1, -1, -1))[1, 0, :, :2]
    np.testing.assert_allclose(np.sort(shown, 0), np.sort(expected, 0), atol=1e-12)  # float64
    assert [line.get_label() for line in ax.lines] == ["all modes decay", "a mode grows"]
    ax = plotting.plot_time_constants(plt.figure().add_subplot(), points, n_modes=3)
    heights = np.concatenate([line.get_ydata() for line in ax.lines])
    np.testing.assert_allclose(np.sort(heights), np.sort(points.time_constants[:, :3].abs().flatten()))
    assert (ax.get_ylabel(), ax.get_yscale()) == ("time constant (ms)", "log")


def test_rules_and_clusters_have_distinct_colours():
    for n in (6, 20):
        assert len(set(plotting.rule_colours(RULES[:n]).values())) == n
    for n in (2, 8, 29):
        assert len(set(plotting.cluster_colours(n)[:n])) == n


def test_wheel_shows_each_direction_in_the_colour_of_its_trials():
    ax = plotting.plot_direction_wheel(plt.figure().add_subplot(projection="polar"))
    mesh = ax.collections[0]
    assert (mesh.norm, mesh.cmap.name) == (plotting.DIRECTIONS, plotting.CIRCLE.name)
    np.testing.assert_allclose(np.ravel(mesh.get_array())[[0, -1]], [np.pi / 180, 359 * np.pi / 180])


def test_colours_of_directions_close_the_circle():
    colours = plotting.ScalarMappable(plotting.DIRECTIONS, plotting.CIRCLE).to_rgba(
        torch.tensor([0.0, 2 * np.pi]).numpy()
    )
    np.testing.assert_allclose(colours[0], colours[1], atol=0.02)  # neighbouring entries of the colour map
