"""Plots of trials, units, clusters, choices and learning.

Each function draws a result on given axes and returns the axes. It saves nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from torch import Tensor

from multitask.activity import Activity, Clusters, PrincipalComponents
from multitask.evaluation import PsychometricCurve
from multitask.fixed_points import FixedPoints
from multitask.tasks import TASKS
from multitask.trials import N_PER_RING, MultitaskError, TrialBatch

HEAT = "magma"
CIRCLE = sns.color_palette("husl", as_cmap=True)  # cyclic colour map for directions
DIRECTIONS = Normalize(0, 2 * np.pi)
Colour = tuple[float, float, float]


def title_of(column: str) -> str:
    """Title of a rule in figures, or of a column ``"rule period"`` with the period after the title."""
    rule, *period = column.split(" ")
    return " ".join([TASKS[rule].title if rule in TASKS else rule, *period])


def rule_colours(rules: Sequence[str]) -> dict[str, Colour]:
    """A colour for each rule. The same sequence of rules always has the same colours."""
    return dict(zip(rules, sns.color_palette("tab10" if len(rules) <= 10 else "tab20", len(rules)), strict=True))


def cluster_colours(n_clusters: int) -> list[Colour]:
    """A colour for each cluster of units."""
    return list(sns.color_palette("Dark2") if n_clusters <= 8 else sns.husl_palette(n_clusters, s=0.6, l=0.5))


def plot_trial(
    axes: Sequence[Axes], batch: TrialBatch, trial: int = 0, outputs: Tensor | None = None
) -> Sequence[Axes]:
    """Plot one trial over time: fixation, input rings, target ring and, if given, output ring.

    Parameters
    ----------
    axes : sequence of Axes
        One for fixation, one for each input ring, one for the target and, with ``outputs``, one for the output.
    batch : TrialBatch
    trial : int
        Index of the trial.
    outputs : Tensor, (n_trials, n_times, 33), optional
        Outputs of one network, such as ``activity.outputs[0]``.

    Returns
    -------
    sequence of Axes

    Raises
    ------
    MultitaskError
        If the number of axes is wrong.
    """
    n_rings = (batch.inputs.shape[-1] - 1) // N_PER_RING
    rings = batch.inputs[trial, :, 1 : 1 + n_rings * N_PER_RING].cpu().unflatten(1, (n_rings, N_PER_RING)).unbind(1)
    panels = {f"input, ring {k + 1}": ring for k, ring in enumerate(rings)}
    panels["target"] = batch.targets[trial, :, 1:].cpu()
    if outputs is not None:
        panels["output"] = outputs[trial, :, 1:].detach().cpu()
    if len(axes) != 1 + len(panels):
        raise MultitaskError(f"axes has {len(axes)} axes: a trial of {batch.rule!r} requires {1 + len(panels)}")
    time = batch.dt * np.arange(batch.n_times)
    axes[0].plot(time, batch.inputs[trial, :, 0].cpu(), label="cue", color="0.6")
    axes[0].plot(time, batch.targets[trial, :, 0].cpu(), label="target", color="black", linestyle="--")
    if outputs is not None:
        axes[0].plot(time, outputs[trial, :, 0].detach().cpu(), label="output", color="tab:red")
    axes[0].set(ylabel="fixation", ylim=(-0.1, 1.2), title=title_of(batch.rule))
    axes[0].legend(loc="lower left", fontsize="small", frameon=False)
    for ax, (name, ring) in zip(axes[1:], panels.items(), strict=True):
        ax.imshow(
            ring.numpy().T, aspect="auto", origin="lower", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest",
            extent=(0, batch.dt * batch.n_times, 0, 360),
        )  # fmt: skip
        ax.set(ylabel=f"{name}\npreferred (deg)", yticks=(0, 180, 360))
    for ax in axes:
        ax.set_xlim(0, batch.dt * batch.n_times)
        _mark_periods(ax, batch)
    axes[-1].set_xlabel("time (ms)")
    return axes


def plot_units(
    axes: np.ndarray,
    activities: Sequence[Activity],
    units: Sequence[int],
    network: int = 0,
    colours: Sequence[Colour | str] | None = None,
    n_lines: int = 100,
) -> np.ndarray:
    """Plot hidden states of units (rows) in rules (columns), one line per trial, coloured by its (first) direction.

    Parameters
    ----------
    axes : ndarray of Axes, len(units) * len(activities) of them
    activities : sequence of Activity
    units : sequence of int
        Indices of the units.
    network : int
        Index of the network.
    colours : sequence of colours, optional
        Colour of the label of each unit, such as the colour of its cluster.
    n_lines : int >= 1
        Maximum number of trials shown; they are evenly spaced among all trials.

    Returns
    -------
    ndarray of Axes
    """
    grid = np.asarray(axes).reshape(len(units), len(activities))
    for column, activity in enumerate(activities):
        batch = activity.batch
        direction = batch.conditions["direction" if "direction" in batch.conditions else "direction1"]
        time = batch.dt * np.arange(batch.n_times)
        trials = np.linspace(0, batch.n_trials - 1, min(n_lines, batch.n_trials)).round().astype(int)
        for ax, unit in zip(grid[:, column], units, strict=True):
            states = activity.hidden[network, :, :, unit].cpu().numpy()
            lines = [np.column_stack([time, states[trial]]) for trial in trials]
            ax.add_collection(
                LineCollection(lines, array=direction.numpy()[trials], cmap=CIRCLE, norm=DIRECTIONS, linewidths=0.5)
            )
            ax.autoscale()
            ax.set_xlim(0, batch.dt * batch.n_times)
            _mark_periods(ax, batch)
            ax.set_ylabel(f"unit {unit}\nactivity (a.u.)" if column == 0 else "")
        grid[0, column].set_title(title_of(batch.rule))
        grid[-1, column].set_xlabel("time (ms)")
    for ax, colour in zip(grid[:, 0], colours or ("black",) * len(units), strict=False):
        ax.yaxis.label.set_color(colour)
    return axes


def plot_task_variance(ax: Axes, clusters: Clusters) -> Axes:
    """Plot the profiles of all active units (columns, sorted by cluster) over the rules (rows).

    Parameters
    ----------
    ax : Axes
    clusters : Clusters

    Returns
    -------
    Axes
    """
    image = ax.imshow(clusters.profiles.T, aspect="auto", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    borders = np.flatnonzero(np.diff(clusters.labels)) + 0.5
    ax.vlines(borders, -0.5, len(clusters.columns) - 0.5, color="white", linewidth=1)
    edges = np.concatenate([[-0.5], borders, [len(clusters.labels) - 0.5]])
    colours, below = cluster_colours(clusters.n_clusters), ax.get_xaxis_transform()
    for k, (left, right) in enumerate(pairwise(edges)):
        strip = Rectangle((left, -0.06), right - left, 0.05, color=colours[k], lw=0, transform=below, clip_on=False)
        ax.add_patch(strip)
        ax.text((left + right) / 2, -0.08, str(k + 1), ha="center", va="top", fontsize="small", transform=below)
    ax.set_xticks([])
    ax.set_xlabel("units, by cluster", labelpad=24)
    _label_rules(ax, clusters.columns)
    ax.figure.colorbar(image, ax=ax, label="normalised task variance")
    return ax


def plot_clusters_by_rule(ax: Axes, clusters: Clusters, bar: bool = True) -> Axes:
    """Plot the mean profile of each cluster (columns) over the rules (rows).

    Parameters
    ----------
    ax : Axes
    clusters : Clusters
    bar : bool
        Whether to add a colour bar.

    Returns
    -------
    Axes
    """
    label = "mean normalised\ntask variance" if bar else ""
    return _by_cluster(ax, clusters.by_rule(), clusters.columns, label, HEAT, (0, 1))


def plot_lesions(ax: Axes, cost: np.ndarray, rules: Sequence[str], bar: bool = True) -> Axes:
    """Plot the decrease in performance after the lesion of each cluster (columns) in each rule (rows).

    Parameters
    ----------
    ax : Axes
    cost : ndarray, (n_clusters, n_rules)
        Such as ``lesions.cost`` or ``lesions.control.mean(0)``.
    rules : sequence of str
    bar : bool
        Whether to add a colour bar.

    Returns
    -------
    Axes
    """
    return _by_cluster(ax, cost, rules, "performance lost" if bar else "", "RdBu_r", (-1, 1))


def plot_silhouettes(ax: Axes, clusters: Clusters) -> Axes:
    """Plot the mean silhouette over the number of clusters; a circle marks the number that is used.

    Parameters
    ----------
    ax : Axes
    clusters : Clusters

    Returns
    -------
    Axes
    """
    numbers, values = zip(*clusters.silhouettes.items(), strict=True)
    ax.plot(numbers, values, "o-", color="0.5", markersize=2, linewidth=0.8)
    used = clusters.n_clusters
    ax.plot(used, clusters.silhouettes[used], "o", color="tab:red", markerfacecolor="none", markersize=8)
    ax.set(xlabel="number of clusters", ylabel="mean silhouette")
    return ax


def plot_fractional_variance(ax: Axes, fractions: Sequence[np.ndarray], a: str, b: str) -> Axes:
    """Plot a histogram of the fractional task variance of units.

    Bars are means over networks, and lines show the range from smallest to largest.

    Parameters
    ----------
    ax : Axes
    fractions : sequence of ndarray, (n_active,) each
        One array per network, from `fractional_variance`: 1 for units that vary only in rule ``a``, -1 for units that
        vary only in rule ``b``.
    a, b : str
        The two rules.

    Returns
    -------
    Axes
    """
    edges = np.linspace(-1, 1, 21)
    shares = np.stack([np.histogram(network, edges)[0] / max(len(network), 1) for network in fractions])
    centres, mean = (edges[1:] + edges[:-1]) / 2, shares.mean(0)
    ax.bar(centres, mean, width=edges[1] - edges[0], color="0.6", edgecolor="white")
    ax.vlines(centres, shares.min(0), shares.max(0), color="black", linewidth=0.8)
    ax.set(xlim=(-1, 1), xlabel=f"FTV({title_of(a)}, {title_of(b)})", ylabel="share of units")
    return ax


def plot_psychometric(ax: Axes, curve: PsychometricCurve, label: str = "", colour: str | Colour = "black") -> Axes:
    """Plot the fraction of choices of the first stimulus over the coherence.

    The line is the mean over networks, and the band shows the range from smallest to largest.

    Parameters
    ----------
    ax : Axes
    curve : PsychometricCurve
    label : str
        Label for a legend.
    colour : colour

    Returns
    -------
    Axes
    """
    share = curve.proportion
    ax.plot(curve.coherences, share.mean(0), "o-", color=colour, markersize=3, label=label)
    ax.fill_between(curve.coherences, share.min(0), share.max(0), color=colour, alpha=0.15, linewidth=0)
    ax.axhline(0.5, color="0.8", linewidth=0.7, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.7, zorder=0)
    ax.set(xlabel="coherence", ylabel="share of first choices", ylim=(-0.03, 1.03), title=title_of(curve.rule))
    return ax


def plot_trajectories(
    ax: Axes,
    components: PrincipalComponents,
    colours: Tensor | Colour | str,
    scores: Tensor | None = None,
    network: int = 0,
    marker: str = "o",
) -> Axes:
    """Plot trials on the first principal components of one network, with a marker at the start of each trial.

    Parameters
    ----------
    ax : Axes
        Two components are shown, or three on axes with ``projection="3d"``.
    components : PrincipalComponents
    colours : colour, or Tensor, (n_trials,), rad
        One colour for all trials, or the direction of each trial.
    scores : Tensor, (n_networks, n_trials, n_times, n_components), optional
        Other states on the same components, from ``components.project``.
    network : int
        Index of the network.
    marker : str
        Marker at the start.

    Returns
    -------
    Axes

    Raises
    ------
    MultitaskError
        If there are too few components for the axes.
    """
    n = 3 if ax.name == "3d" else 2
    states = (components.scores if scores is None else scores)[network, :, :, :n].cpu().numpy()
    if states.shape[-1] < n:
        raise MultitaskError(f"ax shows {n} components, but there are only {states.shape[-1]}: increase n_components")
    each: Sequence[Any] = [colours] * len(states)
    if isinstance(colours, Tensor):
        each = list(ScalarMappable(DIRECTIONS, CIRCLE).to_rgba(colours.cpu().numpy()))
    for trial, colour in zip(states, each, strict=True):
        ax.plot(*trial.T, color=colour, linewidth=0.8)
        ax.plot(*trial[:1].T, marker, color=colour, markersize=4)
    shares = 100 * components.explained[network]
    for axis, share in zip("xyz"[:n], shares.tolist(), strict=False):
        getattr(ax, f"set_{axis}label")(f"component {'xyz'.index(axis) + 1} ({share:.0f} %)")
    return ax


def plot_slow_points(ax: Axes, points: FixedPoints, components: PrincipalComponents, network: int = 0) -> Axes:
    """Plot slow points of one network on its first two principal components.

    Markers are filled if all modes decay, and open if a mode grows.

    Parameters
    ----------
    ax : Axes
    points : FixedPoints
    components : PrincipalComponents
        Components of the whole ensemble.
    network : int
        Index of the network.

    Returns
    -------
    Axes
    """
    of_network = points.network == network
    states = points.hidden[of_network]
    scores = ((states.to(components.axes) - components.mean[network]) @ components.axes[network]).cpu().numpy()
    unstable = (points.n_unstable[of_network] > 0).cpu().numpy()
    for where, face, label in ((~unstable, "black", "all modes decay"), (unstable, "white", "a mode grows")):
        ax.plot(*scores[where, :2].T, "o", color="black", markerfacecolor=face, markersize=5, zorder=3, label=label)
    return ax


def plot_time_constants(ax: Axes, points: FixedPoints, n_modes: int = 12) -> Axes:
    """Plot the time constants of the slowest modes at slow points, side by side for the networks.

    Markers are open if the mode grows.

    Parameters
    ----------
    ax : Axes
    points : FixedPoints
    n_modes : int >= 1
        Number of modes at each point.

    Returns
    -------
    Axes
    """
    times = points.time_constants[:, :n_modes].cpu().numpy()
    networks = points.network.cpu().numpy()
    n_networks = networks.max(initial=0) + 1
    greys = sns.color_palette("Greys", n_networks + 2)[2:]
    for network, colour in enumerate(greys):
        own = times[networks == network]
        mode = np.broadcast_to(np.arange(1, own.shape[1] + 1) + 0.7 * ((network + 0.5) / n_networks - 0.5), own.shape)
        for where, face in ((own > 0, colour), (own < 0, "white")):
            ax.plot(mode[where], np.abs(own[where]), "o", color=colour, markerfacecolor=face, markersize=3)
    ax.set(yscale="log", xlabel="mode, slowest first", ylabel="time constant (ms)", xlim=(0.4, times.shape[1] + 0.6))
    return ax


def plot_learning(ax: Axes, log: pd.DataFrame, value: str = "performance") -> Axes:
    """Plot a column of a training log over the steps, one line per rule.

    Lines are means over networks, and bands show the range from smallest to largest.

    Parameters
    ----------
    ax : Axes
    log : DataFrame
        ``log`` of a `Run`.
    value : str
        Column, such as "performance" or "loss".

    Returns
    -------
    Axes
    """
    colours = {title_of(rule): colour for rule, colour in rule_colours(list(dict.fromkeys(log["rule"]))).items()}
    named = log.assign(rule=log["rule"].map(title_of))
    sns.lineplot(named, x="step", y=value, hue="rule", errorbar=("pi", 100), palette=colours, ax=ax)
    unit = {"performance": "share of right trials", "loss": "loss (a.u.)", "gradient_norm": "gradient norm (a.u.)"}
    ax.set(xlabel="steps of training", ylabel=unit.get(value, value))
    ax.legend(fontsize="small", frameon=False)
    return ax


def plot_direction_wheel(ax: Axes) -> Axes:
    """Plot the colours of directions on axes with ``projection="polar"``; returns the axes."""
    angles = np.linspace(0, 2 * np.pi, 181)
    ax.pcolormesh(angles, [0.6, 1], [(angles[1:] + angles[:-1]) / 2], cmap=CIRCLE, norm=DIRECTIONS)
    ax.set(ylim=(0, 1), yticks=[], xticks=np.pi / 2 * np.arange(4))
    ax.tick_params(labelsize="x-small", pad=-2)
    ax.spines["polar"].set_visible(False)
    ax.grid(False)
    return ax


def _mark_periods(ax: Axes, batch: TrialBatch) -> None:
    for start, _ in list(batch.periods.values())[1:]:
        ax.axvline(batch.dt * start, color="0.7", linewidth=0.7)


def _label_rules(ax: Axes, columns: Sequence[str]) -> None:
    ax.set_yticks(range(len(columns)), [title_of(column) for column in columns])


def _by_cluster(
    ax: Axes, values: np.ndarray, columns: Sequence[str], label: str, cmap: str, limits: tuple[float, float]
) -> Axes:
    """Heat map of clusters (columns, with coloured labels) and rules (rows)."""
    image = ax.imshow(values.T, aspect="auto", cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    _label_rules(ax, columns)
    ax.set_xticks(range(len(values)), [str(k + 1) for k in range(len(values))], fontsize="small")
    for tick, colour in zip(ax.get_xticklabels(), cluster_colours(len(values)), strict=False):
        tick.set(color=colour, fontweight="bold")
    ax.set_xlabel("cluster")
    if label:
        ax.figure.colorbar(image, ax=ax, label=label)
    return ax
