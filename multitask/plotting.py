"""Trials, units, clusters, choices and learning on axes.

Computes nothing and saves nothing: axes and a result go in, the axes come back.
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
CIRCLE = sns.color_palette("husl", as_cmap=True)  # directions: the colours close the circle
DIRECTIONS = Normalize(0, 2 * np.pi)
Colour = tuple[float, float, float]


def title_of(column: str) -> str:
    """A rule as it is called in figures, with the period behind it if there is one."""
    rule, *period = column.split(" ")
    return " ".join([TASKS[rule].title if rule in TASKS else rule, *period])


def rule_colours(rules: Sequence[str]) -> dict[str, Colour]:
    """A colour for each rule, to be the same in all figures that show these rules."""
    return dict(zip(rules, sns.color_palette("tab10" if len(rules) <= 10 else "tab20", len(rules)), strict=True))


def cluster_colours(n_clusters: int) -> list[Colour]:
    """A colour for each cluster of units."""
    return list(sns.color_palette("Dark2") if n_clusters <= 8 else sns.husl_palette(n_clusters, s=0.6, l=0.5))


def plot_trial(
    axes: Sequence[Axes], batch: TrialBatch, trial: int = 0, outputs: Tensor | None = None
) -> Sequence[Axes]:
    """One trial over time: fixation, a heat map for each ring, the target ring, and the output ring if there are
    outputs.

    Parameters
    ----------
    axes : one for fixation, one for each input ring, one for the target and, with ``outputs``, one for the output
    batch : TrialBatch
    trial : int
    outputs : (n_trials, n_times, 33), of one network, such as ``activity.outputs[0]``
    """
    n_rings = (batch.inputs.shape[-1] - 1) // N_PER_RING
    rings = batch.inputs[trial, :, 1 : 1 + n_rings * N_PER_RING].cpu().unflatten(1, (n_rings, N_PER_RING)).unbind(1)
    panels = {f"input, ring {k + 1}": ring for k, ring in enumerate(rings)}
    panels["target"] = batch.targets[trial, :, 1:].cpu()
    if outputs is not None:
        panels["output"] = outputs[trial, :, 1:].detach().cpu()
    if len(axes) != 1 + len(panels):
        raise MultitaskError(f"a trial of {batch.rule!r} needs {1 + len(panels)} axes, but {len(axes)} came")
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
    """Hidden states of units (rows) in rules (columns), a line a trial in the colour of its (first) direction.

    ``colours`` are those of the units' names, such as those of their clusters. Of more than ``n_lines`` trials, so many
    are shown, evenly spread.
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
    """Profiles of all active units (columns), sorted by cluster, over the rules (rows); the clusters in their colours
    below."""
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
    """Mean profile of each cluster (columns) over the rules (rows); without ``bar`` no colour bar."""
    label = "mean normalised\ntask variance" if bar else ""
    return _by_cluster(ax, clusters.by_rule(), clusters.columns, label, HEAT, (0, 1))


def plot_lesions(ax: Axes, cost: np.ndarray, rules: Sequence[str], bar: bool = True) -> Axes:
    """What the lesion of each cluster (columns) costs in each rule (rows); without ``bar`` no colour bar.

    Parameters
    ----------
    cost : (n_clusters, n_rules), such as ``lesions.cost`` or ``lesions.control.mean(0)``
    """
    return _by_cluster(ax, cost, rules, "performance lost" if bar else "", "RdBu_r", (-1, 1))


def plot_silhouettes(ax: Axes, clusters: Clusters) -> Axes:
    """Mean silhouette over the numbers of clusters that were tried; the one in use has a ring."""
    numbers, values = zip(*clusters.silhouettes.items(), strict=True)
    ax.plot(numbers, values, "o-", color="0.5", markersize=2, linewidth=0.8)
    used = clusters.n_clusters
    ax.plot(used, clusters.silhouettes[used], "o", color="tab:red", markerfacecolor="none", markersize=8)
    ax.set(xlabel="number of clusters", ylabel="mean silhouette")
    return ax


def plot_fractional_variance(ax: Axes, fractions: Sequence[np.ndarray], a: str, b: str) -> Axes:
    """Histogram of the fractional task variance of units: -1 those of rule b alone, 1 those of rule a alone.

    Bars are the mean over networks (one array each, as of `fractional_variance`), lines the span from least to most.
    """
    edges = np.linspace(-1, 1, 21)
    shares = np.stack([np.histogram(network, edges)[0] / max(len(network), 1) for network in fractions])
    centres, mean = (edges[1:] + edges[:-1]) / 2, shares.mean(0)
    ax.bar(centres, mean, width=edges[1] - edges[0], color="0.6", edgecolor="white")
    ax.vlines(centres, shares.min(0), shares.max(0), color="black", linewidth=0.8)
    ax.set(xlim=(-1, 1), xlabel=f"FTV({title_of(a)}, {title_of(b)})", ylabel="share of units")
    return ax


def plot_psychometric(ax: Axes, curve: PsychometricCurve, label: str = "", colour: str | Colour = "black") -> Axes:
    """Share of choices of the first stimulus over the coherence: mean over networks, with a band from the least to the
    most."""
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
    """Trials on the first components of one network, each with a dot where it starts.

    Parameters
    ----------
    ax : flat axes for two components, axes with ``projection="3d"`` for three
    components : PrincipalComponents
    colours : one colour, or the direction of each trial, (n_trials,), rad
    scores : (n_networks, n_trials, n_times, n_components), optional
        Other states on the same axes, of ``components.project``.
    network : int
    marker : of the start
    """
    n = 3 if ax.name == "3d" else 2
    states = (components.scores if scores is None else scores)[network, :, :, :n].cpu().numpy()
    if states.shape[-1] < n:
        raise MultitaskError(f"these axes show {n} components, but there are {states.shape[-1]}")
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
    """Slow points of one network on flat axes of its components: filled where all modes decay, open where one grows.

    ``components`` are those of the whole ensemble.
    """
    of_network = points.network == network
    states = points.hidden[of_network]
    scores = ((states.to(components.axes) - components.mean[network]) @ components.axes[network]).cpu().numpy()
    unstable = (points.n_unstable[of_network] > 0).cpu().numpy()
    for where, face, label in ((~unstable, "black", "all modes decay"), (unstable, "white", "a mode grows")):
        ax.plot(*scores[where, :2].T, "o", color="black", markerfacecolor=face, markersize=5, zorder=3, label=label)
    return ax


def plot_time_constants(ax: Axes, points: FixedPoints, n_modes: int = 12) -> Axes:
    """Time constants of the leading modes at slow points, a dot each, dodged by network; open where the mode grows."""
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
    """A column of a training log, a line a rule: mean over networks, with a band from the worst to the best."""
    colours = {title_of(rule): colour for rule, colour in rule_colours(list(dict.fromkeys(log["rule"]))).items()}
    named = log.assign(rule=log["rule"].map(title_of))
    sns.lineplot(named, x="step", y=value, hue="rule", errorbar=("pi", 100), palette=colours, ax=ax)
    unit = {"performance": "share of right trials", "loss": "loss (a.u.)", "gradient_norm": "gradient norm (a.u.)"}
    ax.set(xlabel="steps of training", ylabel=unit.get(value, value))
    ax.legend(fontsize="small", frameon=False)
    return ax


def plot_direction_wheel(ax: Axes) -> Axes:
    """The colours of directions, on axes with ``projection="polar"``."""
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
    """A matrix of clusters (columns, in their colours) and rules (rows)."""
    image = ax.imshow(values.T, aspect="auto", cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    _label_rules(ax, columns)
    ax.set_xticks(range(len(values)), [str(k + 1) for k in range(len(values))], fontsize="small")
    for tick, colour in zip(ax.get_xticklabels(), cluster_colours(len(values)), strict=False):
        tick.set(color=colour, fontweight="bold")
    ax.set_xlabel("cluster")
    if label:
        ax.figure.colorbar(image, ax=ax, label=label)
    return ax
