"""Draws results: each function draws one result on given axes and returns them. Nothing is saved."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from dsa_analysis import metrics
from dsa_analysis.cells import DECORRELATED
from dsa_analysis.choose import EmbeddingChoice
from dsa_analysis.data import DataError
from dsa_analysis.explain import Explanation
from dsa_analysis.inference import mean_interval
from dsa_analysis.similarity import Similarity
from dsa_analysis.stability import Stability


def group_colors(groups: Sequence[str]) -> dict[str, Any]:
    """One colour for each group, in order of appearance, safe for colour-blind readers. Use it in all figures."""
    names = list(dict.fromkeys(groups))
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def plot_distances(
    similarity: Similarity,
    axes: Axes,
    groups: Sequence[str] | None = None,
    colors: Mapping[str, Any] | None = None,
    below: str | None = None,
    floor: float | np.ndarray | None = None,
) -> Axes:
    """Heat map of all distances, with systems ordered by average linkage.

    Parameters
    ----------
    similarity : Similarity
        Of systems among themselves.
    axes : matplotlib Axes
    groups : k labels, optional
        Shown as coloured margins.
    colors : mapping from group to colour, optional
        By default `group_colors`.
    below : "lower_bounds", optional
        Show the lower bounds below the diagonal, instead of the same distances again.
    floor : float or (k, k), optional
        Noise floor. Distances below it are marked with a dot: with these data the two systems cannot be told apart.

    Returns
    -------
    Axes
    """
    order = leaves_list(linkage(squareform(similarity.distances, checks=False), "average", optimal_ordering=True))
    shown = similarity.distances[np.ix_(order, order)].copy()
    title = metrics.title(similarity.measure)
    if below == "lower_bounds":
        lower = np.tril_indices(len(shown), -1)
        shown[lower] = similarity.lower_bounds[np.ix_(order, order)][lower]
        title += ", below the diagonal its lower bound"
    sns.heatmap(
        shown, ax=axes, square=True, cmap="rocket_r", vmin=0, xticklabels=False, yticklabels=False,
        cbar_kws={"label": f"distance ({similarity.unit})", "shrink": 0.8},
    )  # fmt: skip
    if floor is not None:
        limits = np.broadcast_to(floor, shown.shape)[np.ix_(order, order)]
        rows, columns = np.nonzero((shown < limits) & ~np.eye(len(shown), dtype=bool))
        axes.plot(columns + 0.5, rows + 0.5, ".", color="0.4", markersize=2)
    if groups is not None:
        colors = colors or group_colors(groups)
        for place, index in enumerate(order):
            for corner in ((place, -1.2), (-1.2, place)):
                axes.add_patch(Rectangle(corner, 1, 1, color=colors[groups[index]], linewidth=0))
        axes.set(xlim=(-1.4, len(order)), ylim=(len(order), -1.4))
    else:
        names = [similarity.labels[index] for index in order]
        axes.set_xticks(np.arange(len(order)) + 0.5, names, rotation=90)
        axes.set_yticks(np.arange(len(order)) + 0.5, names, rotation=0)
    axes.set_title(title)
    return axes


def plot_map(
    places: np.ndarray,
    stress: float,
    groups: Sequence[str],
    axes: Axes,
    colors: Mapping[str, Any] | None = None,
    unit: str = "rad",
) -> Axes:
    """Map of systems from ``Similarity.to_plane``. If the stress is below 0.1, distances on the map are faithful."""
    colors = colors or group_colors(groups)
    for name, color in colors.items():
        chosen = [group == name for group in groups]
        axes.plot(*places[chosen].T, "o", color=color, label=name, alpha=0.8, markeredgecolor="white")
    axes.set(xlabel=f"MDS 1 ({unit})", ylabel=f"MDS 2 ({unit})", title=f"stress {stress:.2f}")
    axes.margins(0.1)
    axes.set_aspect("equal", adjustable="datalim")
    axes.locator_params(nbins=5)
    return axes


def plot_trajectories(
    trials: Tensor, axes: Axes, color: Any, n_trials: int = 5, dims: tuple[int, ...] = (0, 2)
) -> Axes:
    """Some trials of (n_trials, n_times, n_channels) in the plane of two channels (3-D axes: three); starts as dots."""
    for trial in trials[:n_trials].cpu().numpy():
        axes.plot(*trial[:, list(dims)].T, color=color, linewidth=0.7, alpha=0.8)
        axes.plot(*trial[:1, list(dims)].T, "o", color=color, markersize=3)
    names = "xyz" if trials.shape[-1] == 3 else [f"channel {dim}" for dim in range(trials.shape[-1])]
    axes.set(xlabel=names[dims[0]], ylabel=names[dims[1]])
    return axes


def plot_spectrum(
    singular_values: Mapping[str, Tensor], rank: int, axes: Axes, colors: Mapping[str, Any], n: int = 20
) -> Axes:
    """Singular values of each system relative to the first. The line is the cut; a large step across it is clear."""
    for name, values in singular_values.items():
        shown = (values / values[0])[:n].cpu().numpy()
        axes.semilogy(np.arange(1, len(shown) + 1), shown, ".-", color=colors[name], label=name, linewidth=1)
    axes.axvline(rank + 0.5, color="0.3", linestyle="--", linewidth=1)
    axes.set(xlabel="singular value", ylabel="relative to the first", ylim=(1e-9, 2))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def plot_cells(choice: EmbeddingChoice, axes: Axes, value: str | None = None) -> Axes:
    """Heat map of a column of ``choice.table`` over rank and n_delays. Admissible cells have a dot.

    The chosen cell has a frame, and cells without a value are white. By default ``value`` is what decided: "auroc" for
    identifiability, otherwise "gap".
    """
    value = value or ("auroc" if choice.method == "identifiability" else "gap")
    table = choice.table
    if table.index.nlevels == 3:
        table = table.xs(choice.horizon, level=2)
    shown = table[value].unstack("rank")
    finite = shown.where(np.isfinite(shown))
    sns.heatmap(finite, ax=axes, cmap="viridis", cbar_kws={"label": value.replace("_", " ")}, linewidths=0.5)
    places = {cell: (shown.columns.get_loc(cell[1]), shown.index.get_loc(cell[0])) for cell in table.index}
    dots = np.array([places[cell] for cell in table.index[table["admissible"]]]).reshape(-1, 2) + 0.5
    axes.plot(*dots.T, ".", color="0.6", markersize=4)
    chosen = places[choice.n_delays, choice.rank]
    axes.add_patch(Rectangle(chosen, 1, 1, fill=False, edgecolor="crimson", linewidth=2))
    ahead = "" if choice.horizon is None else f", {choice.table.index.names[2]} = {choice.horizon:g}"
    axes.set(
        xlabel="rank", ylabel="n_delays", title=f"chosen: n_delays = {choice.n_delays}, rank = {choice.rank}{ahead}"
    )
    return axes


def plot_horizons(choice: EmbeddingChoice, axes: Axes) -> Axes:
    """Memory that is left over each horizon, for the chosen n_delays, and the AUROC of halves at its neighbours."""
    if choice.horizon is None:
        raise DataError("only one horizon was considered; choose with horizon='auto', or give several")
    axis = choice.table.index.names[2]
    own = choice.table.xs((choice.n_delays, choice.rank), level=(0, 1))
    axes.plot(own.index, own["memory"], "o-", color="0.4", markersize=4, label="memory left")
    axes.axhline(DECORRELATED, color="0.4", linestyle=":", linewidth=1, label="1 / e")
    compared = own["auroc"].dropna()
    if len(compared):
        axes.plot(compared.index, compared, "s-", color="crimson", markersize=4, label="AUROC of halves")
    axes.axvline(choice.horizon, color="crimson", linestyle="--", linewidth=1, label="chosen")
    unit = "samples" if axis == "steps_ahead" else "unit of dt"
    axes.set(xscale="log", xlabel=f"horizon ({unit})", ylabel="memory left, AUROC")
    axes.legend(frameon=False, fontsize=8)
    return axes


def plot_stability(found: Stability, axes: Axes) -> Axes:
    """Rank correlation of the distances in any two cells of a grid. The reference cell is framed."""
    cells = found.cells.index
    labels = [", ".join(map(str, cell)) for cell in cells]
    shown = pd.DataFrame(found.correlations, labels, labels)
    sns.heatmap(
        shown, ax=axes, vmin=-1, vmax=1, cmap="RdBu_r", square=True, xticklabels=len(labels) <= 40,
        yticklabels=len(labels) <= 40, cbar_kws={"label": "rank correlation of distances"},
    )  # fmt: skip
    place = list(cells).index(found.reference)
    for corner, width, height in (((0, place), len(labels), 1), ((place, 0), 1, len(labels))):
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="black", linewidth=1.5))
    axes.tick_params(labelsize=7)
    axes.set(xlabel=", ".join(cells.names), ylabel=", ".join(cells.names), title=found.verdict.split(":")[0])
    return axes


def plot_windows(similarity: "Similarity", system: str, other: str | None, axes: Axes) -> Axes:
    """Distance of every window of a system to every window of another (of itself, if ``other`` is None).

    See `Similarity.between_windows`. Low values off the diagonal: one system does later what the other does now.
    """
    found = similarity.between_windows(system, other)
    mesh = axes.pcolormesh(found.values, cmap="magma_r", vmin=0)
    axes.figure.colorbar(mesh, ax=axes, label=f"distance ({similarity.unit})", shrink=0.8)
    middles = np.arange(len(similarity.across)) + 0.5
    axes.set_xticks(middles, similarity.across, rotation=90)
    axes.set_yticks(middles, similarity.across)
    axes.set(
        xlabel=f"window of {found.attrs['other']}", ylabel=f"window of {system}", ylim=(len(middles), 0),
        title=metrics.title(similarity.measure),
    )  # fmt: skip
    axes.set_aspect("equal")
    return axes


def plot_eigenvalues(eigenvalues: Mapping[str, Tensor], axes: Axes, colors: Mapping[str, Any]) -> Axes:
    """Eigenvalues per sample step in the complex plane. Modes on the unit circle persist, modes inside it decay."""
    for name, values in eigenvalues.items():
        points = values.cpu().numpy()
        axes.plot(points.real, points.imag, "o", color=colors[name], label=name, markersize=4, alpha=0.8)
    axes.add_artist(
        Circle((0, 0), 1, fill=False, color="0.7", linewidth=0.8, zorder=0)
    )  # an artist, so that the limits do not change
    axes.margins(0.15)
    axes.set(xlabel="real part", ylabel="imaginary part")
    axes.set_aspect("equal", adjustable="datalim")
    return axes


def plot_scores(
    scores: pd.DataFrame, value: str, axes: Axes, by: str = "metric", colors: Mapping[str, Any] | None = None
) -> Axes:
    """One column for each value of ``by``: repetitions as dots, and their mean with Student's 95% interval."""
    sns.stripplot(scores, x=by, y=value, hue=by, ax=axes, palette=colors, size=4, alpha=0.7, legend=False)
    sns.pointplot(
        scores, x=by, y=value, hue=by, ax=axes, palette=colors, markersize=5,
        errorbar=lambda values: mean_interval(values)[1:3], capsize=0.15, linestyle="none", legend=False,
    )  # fmt: skip
    axes.set_xlabel("")
    return axes


def plot_intervals(values: pd.DataFrame, axes: Axes, **settings: Any) -> Axes:
    """Mean of each column of ``values`` against its name (a number), with Student's 95% interval over rows.

    ``values`` has one row for each repetition, such as a seed. ``settings`` are passed to ``Axes.errorbar``.
    """
    means, low, high, _ = zip(*(mean_interval(values[column]) for column in values), strict=True)
    reach = np.subtract(means, low), np.subtract(high, means)
    axes.errorbar(values.columns, means, reach, **{"marker": ".", "linewidth": 1.2, "capsize": 2, **settings})
    return axes


def group_legend(axes: Axes | Figure, colors: Mapping[str, Any], **settings: Any) -> Axes | Figure:
    """A legend of coloured patches, one for each group, on axes or a figure."""
    axes.legend(handles=[Patch(color=color, label=name) for name, color in colors.items()], frameon=False, **settings)
    return axes


def plot_explanation(explanation: Explanation, axes: Sequence[Axes], colors: Mapping[str, Any] | None = None) -> None:
    """Four panels: the aligned operators in the modes of the first system, their difference, and the modes of both.

    In the last panel, each mode is at its time constant and frequency, and its area is its share of the squared
    difference. Modes that do not decay are at the right margin.
    """
    colors = colors or group_colors(explanation.names)
    first, second = (matrix.numpy() for matrix in (explanation.first, explanation.second))
    panels = dict(zip((*explanation.names, "difference"), (first, second, first - second), strict=True))
    limit = max(np.abs(panel).max() for panel in panels.values())
    for panel, (title, matrix) in zip(axes, panels.items(), strict=False):
        sns.heatmap(
            matrix, ax=panel, square=True, cmap="vlag", vmin=-limit, vmax=limit, xticklabels=False, yticklabels=False,
            cbar=panel is axes[2], cbar_kws={"label": "entry (unit norm)", "shrink": 0.8},
        )  # fmt: skip
        panel.set(title=title, xlabel=f"modes of {explanation.names[0]}")
    decaying = np.isfinite(explanation.modes["time_constant"]) & (explanation.modes["time_constant"] > 0)
    margin = 3 * explanation.modes["time_constant"][decaying].max() if decaying.any() else 1.0
    for name, modes in explanation.modes.groupby("system", sort=False):
        place = modes["time_constant"].where(decaying[modes.index], margin)
        axes[3].scatter(
            place, modes["frequency"], s=20 + 400 * modes["share"], color=colors[str(name)], alpha=0.6, label=name
        )
    axes[3].set(xscale="log", xlabel="time constant (ms)", ylabel="frequency (Hz)", title="area: share of difference")
