"""Draws results: each function draws one result on given axes and returns them. Nothing is saved.

Names of systems are drawn as they are: a dollar sign in a name starts no formula.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from torch import Tensor

from dsa_analysis import metrics
from dsa_analysis.cells import DECORRELATED
from dsa_analysis.data import DataError
from dsa_analysis.inference import mean_interval
from dsa_analysis.labels import shortened, write_names

if TYPE_CHECKING:  # Similarity itself draws with these functions
    import pandas as pd

    from dsa_analysis.choose import EmbeddingChoice
    from dsa_analysis.explain import Explanation
    from dsa_analysis.nulls import Nulls
    from dsa_analysis.plan import Plan
    from dsa_analysis.similarity import Similarity
    from dsa_analysis.stability import Stability

COLORS = (  # "colorblind" of seaborn
    "#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC", "#CA9161", "#FBAFE4", "#949494", "#ECE133", "#56B4E9",
)  # fmt: skip
DISTANCES = "magma_r"  # colour map of distances
NUMBERED = 10  # systems up to which cells of a matrix show their numbers
NAMED = "name: "  # begins the ids of artists that stand for a system


def group_colors(groups: Sequence[str]) -> dict[str, Any]:
    """One colour for each group, in order of appearance, safe for colour-blind readers. Use it in all figures.

    After ten groups, colours repeat.
    """
    return {name: to_rgb(color) for name, color in zip(dict.fromkeys(groups), cycle(COLORS), strict=False)}


def new_axes(size: tuple[float, float]) -> Axes:
    """Axes of a new figure of a size in inches, which a notebook shows."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def tree(similarity: "Similarity") -> np.ndarray:
    """Average linkage of systems among themselves, as `scipy.cluster.hierarchy` describes it, (k - 1, 4).

    Raises
    ------
    DataError
        Two sets of systems, or a single system.
    """
    from scipy.cluster.hierarchy import linkage

    return linkage(similarity.condensed(), "average", optimal_ordering=True)


def _leaves(similarity: "Similarity") -> np.ndarray:
    """Systems in the order of their tree."""
    if len(similarity.labels) <= 2:
        return np.arange(len(similarity.labels))
    from scipy.cluster.hierarchy import leaves_list

    return leaves_list(tree(similarity))


def _heat(axes: Axes, values: np.ndarray, cmap: str, limits: tuple[float, float], label: str = "") -> None:
    """Heat map with the first row on top; NaN is left white. A colour bar if there is a ``label``."""
    mesh = axes.pcolormesh(values, cmap=cmap, vmin=limits[0], vmax=limits[1], rasterized=True)
    axes.set(xlim=(0, values.shape[1]), ylim=(values.shape[0], 0), xticks=[], yticks=[])
    if label:
        axes.figure.colorbar(mesh, ax=axes, label=label, shrink=0.8)


def plot_distances(
    similarity: "Similarity",
    axes: Axes,
    groups: Sequence[str] | None = None,
    colors: Mapping[str, Any] | None = None,
    below: str | None = None,
    floor: float | np.ndarray | None = None,
    names: bool | None = None,
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
    names : bool, optional
        Write the names of the systems. By default they are written if there are no ``groups``.

    Returns
    -------
    Axes
    """
    order = _leaves(similarity)
    shown, k = similarity.distances[np.ix_(order, order)].copy(), len(order)
    title = metrics.title(similarity.measure)
    if below == "lower_bounds":
        lower = np.tril_indices(k, -1)
        shown[lower] = similarity.lower_bounds[np.ix_(order, order)][lower]
        title += ", below the diagonal its lower bound"
    top = float(shown.max()) or 1.0
    _heat(axes, shown, DISTANCES, (0, top), f"distance ({similarity.unit})")
    axes.set_aspect("equal")
    if k <= NUMBERED:
        for row, column in zip(*np.nonzero(~np.eye(k, dtype=bool)), strict=True):
            color = "0.1" if shown[row, column] < 0.4 * top else "white"
            text = f"{shown[row, column]:.2g}"
            axes.text(column + 0.5, row + 0.3, text, color=color, ha="center", va="center", fontsize=8)
    if floor is not None:
        limits = np.broadcast_to(floor, shown.shape)[np.ix_(order, order)]
        rows, columns = np.nonzero((shown < limits) & ~np.eye(k, dtype=bool))
        size = np.clip(60 / k, 2, 8)
        axes.plot(columns + 0.5, rows + 0.5, ".", color="0.4", markersize=size, rasterized=True)
    if groups is not None:
        colors, width = colors or group_colors(groups), 0.025 * k
        for place, index in enumerate(order):
            for x, y, across, down in ((place, -1.2 * width, 1, width), (-1.2 * width, place, width, 1)):
                axes.add_patch(
                    Rectangle((x, y), across, down, color=colors[groups[index]], linewidth=0, antialiased=False)
                )
        axes.spines[:].set_visible(False)
        axes.set(xlim=(-1.4 * width, k), ylim=(k, -1.4 * width))
    if names or (names is None and groups is None):
        for axis, turned in ((axes.xaxis, 90), (axes.yaxis, 0)):
            _write_labels(axis, similarity, order, _fitting(axes, k), turned)
        axes.tick_params(length=0)
    axes.set_title(title)
    return axes


def _write_labels(axis: Axis, similarity: "Similarity", order: np.ndarray, size: float, rotation: float = 0) -> None:
    """Names along an axis, long ones shortened. Pages show the whole name of an artist from its id."""
    font: dict[str, Any] = {"fontsize": size, "parse_math": False, "rotation": rotation}
    short = shortened(similarity.labels)
    axis.set_ticks(np.arange(len(order)) + 0.5, [short[index] for index in order], **font)
    for label, index in zip(axis.get_ticklabels(), order, strict=True):
        label.set_gid(NAMED + similarity.labels[index])


def _fitting(axes: Axes, k: int) -> float:
    """Size of k names beside each other, in points."""
    return float(np.clip(0.8 * axes.bbox.height * 72 / axes.figure.dpi / k, 4, 10))


def _fitting_width(axes: Axes, text: str) -> float:
    """Size of a text as wide as the axes, in points."""
    return float(np.clip(axes.bbox.width * 72 / axes.figure.dpi / (0.62 * len(text)), 6, 12))


def plot_map(
    places: np.ndarray,
    stress: float,
    groups: Sequence[str],
    axes: Axes,
    colors: Mapping[str, Any] | None = None,
    unit: str = "rad",
    names: Sequence[str] | None = None,
) -> Axes:
    """Map of systems from ``Similarity.to_plane``. If the stress is below 0.1, distances on the map are faithful.

    ``names`` are written beside the points, far ones with a line. Where there is no room, a number stands for the name
    and a list below the axes says which; the title counts names that have room for neither.
    """
    colors = colors or group_colors(groups)
    for name, color in colors.items():
        chosen = [group == name for group in groups]
        axes.plot(*places[chosen].T, "o", color=color, label=name, alpha=0.8, markeredgecolor="white")
    axes.set(xlabel=f"MDS 1 ({unit})", ylabel=f"MDS 2 ({unit})", title=f"stress {stress:.2f}")
    axes.margins(0.1 if names is None else 0.2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.locator_params(nbins=5)
    if names is not None:
        for name, place in zip(names, places, strict=True):
            axes.plot(*place, "o", alpha=0, gid=NAMED + name)  # seen by the mouse alone, in a page
        write_names(axes, places, shortened(names))
    return axes


def plot_tree(
    similarity: "Similarity",
    axes: Axes,
    groups: Sequence[str] | None = None,
    colors: Mapping[str, Any] | None = None,
    floor: float | None = None,
) -> Axes:
    """Tree of the systems by average linkage: two branches join at the mean distance between their systems.

    Parameters
    ----------
    similarity : Similarity
        Of two or more systems among themselves.
    axes : matplotlib Axes
    groups : k labels, optional
        Names have the colour of their group.
    colors : mapping from group to colour, optional
        By default `group_colors`.
    floor : float, optional
        Noise floor, shown as a line: branches that join below it cannot be told apart with these data.

    Returns
    -------
    Axes
    """
    from scipy.cluster.hierarchy import dendrogram

    drawn, k = dendrogram(tree(similarity), no_plot=True), len(similarity.labels)
    for heights, sides in zip(drawn["dcoord"], drawn["icoord"], strict=True):
        axes.plot(heights, np.divide(sides, 10), color="0.5", linewidth=1.2)  # leaves are at 5, 15, 25, ...
    order = drawn["leaves"]
    _write_labels(axes.yaxis, similarity, order, _fitting(axes, k))
    if groups is not None:
        colors = colors or group_colors(groups)
        for label, index in zip(axes.get_yticklabels(), order, strict=True):
            label.set_color(colors[groups[index]])
    if floor is not None:
        axes.axvline(floor, color="crimson", linestyle="--", linewidth=1)
    axes.set(ylim=(k, 0), xlabel=f"mean distance of the branches ({similarity.unit})")
    axes.set_xlim(0, 1.05 * float(np.max(drawn["dcoord"])) or 1.0)
    axes.tick_params("y", length=0)
    axes.spines[["left", "right", "top"]].set_visible(False)
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
    least, many = 1.0, len(singular_values) > NUMBERED  # as pixels they take a tenth of the space
    for name, values in singular_values.items():
        shown = (values / values[0])[:n].cpu().numpy()
        least = min(least, shown.min())
        axes.semilogy(
            np.arange(1, len(shown) + 1), shown, ".-", color=colors[name], label=name, linewidth=1, rasterized=many
        )
    axes.axvline(rank + 0.5, color="0.3", linestyle="--", linewidth=1)
    axes.set(xlabel="singular value", ylabel="relative to the first", ylim=(max(1e-9, 0.3 * least), 2))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    return axes


def plot_cells(choice: "EmbeddingChoice", axes: Axes, value: str | None = None) -> Axes:
    """Heat map of a column of ``choice.table`` over rank and n_delays. Admissible cells have a dot.

    The chosen cell has a frame, and cells without a value are white. By default ``value`` is what decided: "auroc" for
    identifiability, otherwise "gap".
    """
    value = value or ("auroc" if choice.method == "identifiability" else "gap")
    table = choice.table
    if table.index.nlevels == 3:
        table = table.xs(choice.horizon, level=2)
    shown = table[value].unstack("rank")
    finite = shown.where(np.isfinite(shown)).to_numpy(float)
    limits = (np.nanmin(finite), np.nanmax(finite)) if np.isfinite(finite).any() else (0.0, 1.0)
    _heat(axes, finite, "viridis", limits, value.replace("_", " "))
    axes.set_xticks(np.arange(shown.shape[1]) + 0.5, shown.columns)
    axes.set_yticks(np.arange(shown.shape[0]) + 0.5, shown.index)
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


def plot_horizons(choice: "EmbeddingChoice", axes: Axes) -> Axes:
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


def plot_stability(found: "Stability", axes: Axes) -> Axes:
    """Rank correlation of the distances in any two cells of a grid. The reference cell is framed."""
    cells = found.cells.index
    labels = [", ".join(map(str, cell)) for cell in cells]
    _heat(axes, found.correlations, "RdBu_r", (-1, 1), "rank correlation of distances")
    if len(labels) <= 40:
        places = np.arange(len(labels)) + 0.5
        axes.set_xticks(places, labels, rotation=90)
        axes.set_yticks(places, labels)
    axes.set_aspect("equal")
    place = list(cells).index(found.reference)
    for corner, width, height in (((0, place), len(labels), 1), ((place, 0), 1, len(labels))):
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="black", linewidth=1.5))
    axes.tick_params(labelsize=7)
    axes.set(xlabel=", ".join(cells.names), ylabel=", ".join(cells.names), title=found.verdict.split(":")[0])
    return axes


def plot_nulls(nulls: "Nulls", axes: Axes, unit: str = "") -> Axes:
    """Distances of all pairs, the nearest first, over the middle 95 % of their null distances."""
    pairs = np.triu_indices(len(nulls.labels), 1)
    order = nulls.observed[pairs].argsort(kind="stable")
    low, middle, high = np.quantile(nulls.distances[:, *pairs], [0.025, 0.5, 0.975], axis=0)[:, order]
    place = np.arange(len(order))
    axes.fill_between(place, low, high, step="mid", color="0.8", label="null, 95 %", linewidth=0)
    axes.plot(place, middle, drawstyle="steps-mid", color="0.5", linewidth=1, label="null, median")
    axes.plot(place, nulls.observed[pairs][order], ".", color="C0", markersize=5, label="distance")
    if len(place) <= 15:
        names = [f"{nulls.labels[pairs[0][k]]}, {nulls.labels[pairs[1][k]]}" for k in order]
        axes.set_xticks(place, names, rotation=30, ha="right", fontsize=8)
    else:
        axes.set_xlabel("pair, the nearest first")
    axes.set(ylabel=f"distance ({unit})" if unit else "distance", ylim=(0, None), xlim=(-0.6, len(order) - 0.4))
    axes.legend(frameon=False, fontsize=8)
    return axes


def plot_plan(found: "Plan", axes: Axes) -> Axes:
    """Noise floors to expect over the number of trials, or their length, with intervals."""
    over = (
        "trial_length" if found.table["n_trials"].nunique() == 1 < found.table["trial_length"].nunique() else "n_trials"
    )
    apart = [name for name in ("n_trials", "trial_length", "n_delays", "rank") if found.table[name].nunique() > 1]
    apart = ["system", *(name for name in apart if name != over)]
    for k, (values, own) in enumerate(found.table.groupby(apart, sort=False)):
        named = [f"{name} = {value:g}" for name, value in zip(apart[1:], values[1:], strict=True)]
        axes.fill_between(own[over], own["low"], own["high"], color=f"C{k % 10}", alpha=0.15, linewidth=0)
        axes.loglog(own[over], own["floor"], "-", color=f"C{k % 10}", label=", ".join([*shortened(values[:1]), *named]))
        for filled, some in own.groupby("measured"):
            inside = f"C{k % 10}" if filled else "white"
            axes.plot(some[over], some["floor"], "o", color=f"C{k % 10}", markerfacecolor=inside)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xticks(sorted(found.table[over].unique()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(
        xlabel=over.replace("_", " ") + " (samples)" * (over == "trial_length"), ylabel=f"noise floor ({found.unit})",
        title=f"measured (filled), extrapolated (open), {found.confidence:.0%} intervals",
    )  # fmt: skip
    axes.legend(frameon=False)
    return axes


def plot_windows(similarity: "Similarity", system: str, other: str | None, axes: Axes) -> Axes:
    """Distance of every window of a system to every window of another (of itself, if ``other`` is None).

    See `Similarity.between_windows`. Low values off the diagonal: one system does later what the other does now.
    """
    found = similarity.between_windows(system, other)
    mesh = axes.pcolormesh(found.values, cmap=DISTANCES, vmin=0)
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
        axes.plot(
            points.real, points.imag, "o", color=colors[name], label=name, markersize=4, alpha=0.8,
            rasterized=len(eigenvalues) > NUMBERED,
        )  # fmt: skip
    axes.add_artist(
        Circle((0, 0), 1, fill=False, color="0.7", linewidth=0.8, zorder=0)
    )  # an artist, so that the limits do not change
    axes.margins(0.15)
    axes.set(xlabel="real part", ylabel="imaginary part")
    axes.set_aspect("equal", adjustable="datalim")
    return axes


def plot_scores(
    scores: "pd.DataFrame", value: str, axes: Axes, by: str = "metric", colors: Mapping[str, Any] | None = None
) -> Axes:
    """One column for each value of ``by``: repetitions as dots, and their mean with Student's 95% interval."""
    import seaborn as sns

    sns.stripplot(scores, x=by, y=value, hue=by, ax=axes, palette=colors, size=4, alpha=0.7, legend=False)
    sns.pointplot(
        scores, x=by, y=value, hue=by, ax=axes, palette=colors, markersize=5,
        errorbar=lambda values: mean_interval(values)[1:3], capsize=0.15, linestyle="none", legend=False,
    )  # fmt: skip
    axes.set_xlabel("")
    return axes


def plot_intervals(values: "pd.DataFrame", axes: Axes, **settings: Any) -> Axes:
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


def plot_explanation(explanation: "Explanation", axes: Sequence[Axes], colors: Mapping[str, Any] | None = None) -> None:
    """Four panels: the aligned operators in the modes of the first system, their difference, and the modes of both.

    In the last panel, each mode is at its time constant and frequency, and its area is its share of the squared
    difference. Modes that do not decay are at the right margin.
    """
    colors = colors or group_colors(explanation.names)
    first, second = (matrix.numpy() for matrix in (explanation.first, explanation.second))
    panels = first, second, first - second
    limit = max(np.abs(panel).max() for panel in panels)
    short = shortened(explanation.names)
    titles = [*short, "difference"]
    for panel, title, matrix in zip(axes, titles, panels, strict=False):
        _heat(panel, matrix, "RdBu_r", (-limit, limit), "entry (unit norm)" if panel is axes[2] else "")
        panel.set_aspect("equal")
        panel.set_title(title, parse_math=False, fontsize=_fitting_width(panel, title))
        panel.set_xlabel("modes of the first")
    decaying = np.isfinite(explanation.modes["time_constant"]) & (explanation.modes["time_constant"] > 0)
    margin = 3 * explanation.modes["time_constant"][decaying].max() if decaying.any() else 1.0
    for label, (name, modes) in zip(short, explanation.modes.groupby("system", sort=False), strict=False):
        place = modes["time_constant"].where(decaying[modes.index], margin)
        axes[3].scatter(
            place, modes["frequency"], s=20 + 400 * modes["share"], color=colors[str(name)], alpha=0.6, label=label
        )
    axes[3].set(
        xscale="log",
        xlabel=f"time constant ({explanation.unit})",
        ylabel=f"frequency ({explanation.frequency_unit})",
        title="area: share of difference",
    )
    axes[3].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    low, high = axes[3].get_xlim()
    if high < 30 * low:  # powers of ten alone may leave one tick or none
        axes[3].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[3].xaxis.set_minor_locator(NullLocator())
