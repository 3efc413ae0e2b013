"""Figures of groups of networks and of controls: each function draws a table on given axes, and saves nothing."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from dsa_analysis import mean_interval, plotting
from dsa_analysis.labels import write_names
from workbench.networks.families import FAMILIES


def family_colours() -> dict[str, Any]:
    """Colours of the families of groups, by name."""
    return plotting.group_colors(FAMILIES)


def plot_between(distances: pd.DataFrame, families: Mapping[str, str], axes: Axes, unit: str = "rad") -> Axes:
    """Heat map of mean distances between groups, from `between_groups`. Names have the colours of their families."""
    sns.heatmap(
        distances, ax=axes, square=True, cmap=plotting.DISTANCES, vmin=0, cbar_kws={"label": f"distance ({unit})"}
    )
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for label in labels:
            label.set(color=family_colours()[families[label.get_text()]], fontsize="x-small")
    axes.set(xlabel="", ylabel="")
    return axes


def plot_map(
    places: np.ndarray, stress: float, groups: list[str], families: Mapping[str, str], axes: Axes, unit: str = "rad"
) -> Axes:
    """Map of all networks from ``Similarity.to_plane``, coloured by family, with each group's name near its centre."""
    plotting.plot_map(places, stress, [families[group] for group in groups], axes, family_colours(), unit)
    names = list(dict.fromkeys(groups))
    centres = np.stack([places[[group == name for group in groups]].mean(0) for name in names])
    write_names(axes, centres, names, others=places, size=6)
    return axes


def plot_against(table: pd.DataFrame, column: str, axes: Axes, floor: float | None = None, unit: str = "rad") -> Axes:
    """Distance of every network to the reference against a column of `GroupStudy.to_reference`.

    Circles are means of groups, bars reach from the nearest to the farthest network. ``floor`` is drawn as a line.
    """
    for family, own in table.groupby("family", sort=False):
        colour = family_colours()[family]
        axes.plot(own[column], own["distance"], ".", color=colour, alpha=0.5, markersize=4)
        means = own.groupby("group", sort=False)[[column, "distance"]].agg(["mean", "min", "max"])
        x, y = means[column]["mean"], means["distance"]
        spread = np.stack([y["mean"] - y["min"], y["max"] - y["mean"]])
        axes.errorbar(x, y["mean"], spread, fmt="o", color=colour, markersize=5, linewidth=0.8, label=family)
    if floor is not None:
        axes.axhline(floor, color="0.5", linestyle=":", linewidth=1, label="noise floor (halves of trials)")
    names = {"performance": "performance on the master rule", "shared": "parts of the master rule learnt"}
    axes.set(xlabel=names.get(column, column), ylabel=f"distance to the reference ({unit})", ylim=(0, None))
    return axes


def plot_over_learning(learning: pd.DataFrame, column: str, axes: Axes, unit: str = "rad") -> Axes:
    """Distance to the reference over learning, against a column of `GroupStudy.over_learning`.

    Thick lines are means of groups, thin lines are networks.
    """
    colours = sns.color_palette("colorblind", learning["group"].nunique())
    for (group, own), colour in zip(learning.groupby("group", sort=False), colours, strict=True):
        for _, run in own.groupby("network"):
            axes.plot(run[column], run["distance"], color=colour, linewidth=0.5, alpha=0.4)
        means = own.groupby("step")[[column, "distance"]].mean()
        axes.plot(means[column], means["distance"], "o-", color=colour, markersize=3, linewidth=1.5, label=group)
    names = {"performance": "performance on the master rule", "progress": "fraction of the steps"}
    axes.set(xlabel=names.get(column, column), ylabel=f"distance to the reference ({unit})", ylim=(0, None))
    return axes


def plot_scores(scores: pd.DataFrame, question: str, axes: Axes, of: str = "networks") -> Axes:
    """Spearman's rho of each measure for one question, with its 95 % interval, from `pooled_scores`.

    ``of`` says what ``n`` of the table counts. Measures without limits are drawn as points.
    """
    asked = scores.xs(question, level="question")[::-1]
    y = np.arange(len(asked))
    axes.errorbar(
        asked["rho"], y, xerr=[asked["rho"] - asked["low"], asked["high"] - asked["rho"]], fmt="o", color="black",
        markersize=4, linewidth=1,
    )  # fmt: skip
    axes.axvline(0, color="0.7", linewidth=0.8)
    axes.set_yticks(y, asked.index)
    axes.set(
        xlim=(-1.02, 1.02),
        xlabel="rho of the distance (95 % interval)",
        title=f"{question}\nn = {asked['n'].iloc[0]:.0f} {of}",
    )
    return axes


def plot_within(within: pd.DataFrame, axes: Axes, unit: str = "rad") -> Axes:
    """Heat map of distances between checkpoints of a run, averaged over runs, from `GroupStudy.within_runs`."""
    means = within.pivot_table(index="step", columns="other_step", values="distance")
    sns.heatmap(means, ax=axes, square=True, cmap=plotting.DISTANCES, vmin=0, cbar_kws={"label": f"distance ({unit})"})
    axes.set(xlabel="step", ylabel="step")
    return axes


def plot_modes(modes: pd.DataFrame, axes: Axes) -> Axes:
    """Time constants of operators fitted near fixed points against those of the Jacobians, one colour for each mode."""
    order = modes.groupby("point").cumcount()
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, order.nunique()))
    for mode, colour in enumerate(colours):
        own = modes[order == mode]
        axes.loglog(
            own["expected_time_constant"].abs(), own["time_constant"].abs(), "o", color=colour, markersize=4,
            label=f"mode {mode + 1}",
        )  # fmt: skip
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=0)
    axes.set(xlabel="time constant of the Jacobian (ms)", ylabel="time constant of the operator (ms)")
    return axes


def plot_pairs(pairs: pd.DataFrame, axes: Axes) -> Axes:
    """Distances between operators against distances between Jacobians, for all pairs of fixed points."""
    axes.plot(pairs["jacobians"], pairs["operators"], ".", color="black", alpha=0.4, markersize=4)
    axes.set(
        xlabel="distance between Jacobians (rad)",
        ylabel="distance between operators (rad)",
        xlim=(0, None),
        ylim=(0, None),
    )
    return axes


def plot_measures(
    scores: pd.DataFrame, value: str, axes: Axes, colors: Mapping[str, Any], chance: float | None = None
) -> Axes:
    """One row for each measure in ``colors``: seeds as dots, their mean with its 95 % interval, on an axis from 0 to 1.

    ``scores`` come from `workbench.controls.scores`; a measure that is not among them has an empty row. A dashed line
    marks ``chance``.
    """
    for place, (name, color) in enumerate(colors.items()):
        values = scores[value][scores["measure"] == name].to_numpy()
        if not len(values):
            continue
        mean, low, high, _ = mean_interval(values)
        axes.plot(values, np.full(len(values), place + 0.18), ".", color=color, markersize=4, alpha=0.6)
        axes.plot([low, high], [place - 0.12] * 2, color=color, linewidth=1.5)
        axes.plot([mean], [place - 0.12], "o", color=color, markersize=5)
    if chance is not None:
        axes.axvline(chance, color="0.6", linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(colors)), list(colors))
    axes.set(xlabel=value, xlim=(0, 1.03), ylim=(len(colors) - 0.5, -0.5))
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    return axes
