"""Results -> axes: each function draws one result onto the axes it is given and returns them; nothing is computed or saved."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from dsa_analysis.compare import Similarity

UNITS = {"angular": "rad", "cka": "rad", "procrustes": "rad", "euclidean": "chord", "spectral": "eigenvalue gap"}
NAMES = {
    "angular": "DSA",
    "euclidean": "DSA (chord)",
    "spectral": "matched eigenvalues",
    "cka": "CKA",
    "procrustes": "Procrustes",
}


def group_colors(groups: Sequence[str]) -> dict[str, Any]:
    """One colour a group, in order of appearance, safe for colour-blind readers: use the same mapping in all figures."""
    names = list(dict.fromkeys(groups))
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def plot_distances(
    similarity: Similarity,
    axes: Axes,
    groups: Sequence[str] | None = None,
    colors: Mapping[str, Any] | None = None,
    below: str | None = None,
    floor: float | None = None,
) -> Axes:
    """Heat map of all distances, systems ordered by average linkage, groups as coloured margins.

    ``below="lower_bounds"`` shows the lower bounds under the diagonal in place of the mirrored distances. Distances under ``floor`` are marked
    with a dot: these data do not tell the two systems apart.
    """
    order = leaves_list(linkage(squareform(similarity.distances, checks=False), "average", optimal_ordering=True))
    shown = similarity.distances[np.ix_(order, order)].copy()
    title = NAMES[similarity.metric]
    if below == "lower_bounds":
        lower = np.tril_indices(len(shown), -1)
        shown[lower] = similarity.lower_bounds[np.ix_(order, order)][lower]
        title += ", below the diagonal its lower bound"
    sns.heatmap(
        shown, ax=axes, square=True, cmap="rocket_r", vmin=0, xticklabels=False, yticklabels=False,
        cbar_kws={"label": f"distance ({UNITS[similarity.metric]})", "shrink": 0.8},
    )  # fmt: skip
    if floor is not None:
        rows, columns = np.nonzero((shown < floor) & ~np.eye(len(shown), dtype=bool))
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
    """Map of systems from ``Similarity.to_plane``: distances on paper resemble the distances, the closer the smaller the stress."""
    colors = colors or group_colors(groups)
    for name, color in colors.items():
        chosen = [group == name for group in groups]
        axes.plot(*places[chosen].T, "o", color=color, label=name, alpha=0.8, markeredgecolor="white")
    axes.set(xlabel=f"MDS 1 ({unit})", ylabel=f"MDS 2 ({unit})", title=f"stress {stress:.2f}", aspect="equal")
    axes.margins(0.1)
    return axes


def plot_trajectories(
    trials: Tensor, axes: Axes, color: Any, n_trials: int = 5, dims: tuple[int, ...] = (0, 2)
) -> Axes:
    """Some trials of (n_trials, n_times, n_channels) in the plane (or, on 3-D axes, the space) of ``dims``; starts as dots."""
    for trial in trials[:n_trials].cpu().numpy():
        axes.plot(*trial[:, list(dims)].T, color=color, linewidth=0.7, alpha=0.8)
        axes.plot(*trial[:1, list(dims)].T, "o", color=color, markersize=3)
    names = "xyz" if trials.shape[-1] == 3 else [f"channel {dim}" for dim in range(trials.shape[-1])]
    axes.set(xlabel=names[dims[0]], ylabel=names[dims[1]])
    return axes


def plot_spectrum(
    singular_values: Mapping[str, Tensor], rank: int, axes: Axes, colors: Mapping[str, Any], n: int = 20
) -> Axes:
    """Singular values of each system relative to the first; the line is the cut, a large step across it a clear one."""
    for name, values in singular_values.items():
        shown = (values / values[0])[:n].cpu().numpy()
        axes.semilogy(np.arange(1, len(shown) + 1), shown, ".-", color=colors[name], label=name, linewidth=1)
    axes.axvline(rank + 0.5, color="0.3", linestyle="--", linewidth=1)
    axes.set(xlabel="singular value", ylabel="relative to the first", ylim=(1e-9, 2))
    return axes


def plot_eigenvalues(eigenvalues: Mapping[str, Tensor], axes: Axes, colors: Mapping[str, Any]) -> Axes:
    """Eigenvalues per sample step in the complex plane with the unit circle: on it modes last, inside they decay."""
    angle = np.linspace(0, 2 * np.pi, 400)
    axes.plot(np.cos(angle), np.sin(angle), color="0.7", linewidth=0.8)
    for name, values in eigenvalues.items():
        values = values.cpu().numpy()
        axes.plot(values.real, values.imag, "o", color=colors[name], label=name, markersize=4, alpha=0.8)
    axes.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    return axes


def plot_scores(
    scores: pd.DataFrame, value: str, axes: Axes, by: str = "metric", colors: Mapping[str, Any] | None = None
) -> Axes:
    """One column for each ``by``: every repetition as a dot, mean and 95 % interval beside them."""
    sns.stripplot(scores, x=by, y=value, hue=by, ax=axes, palette=colors, size=4, alpha=0.7, legend=False)
    sns.pointplot(
        scores, x=by, y=value, hue=by, ax=axes, palette=colors, errorbar=("ci", 95), seed=0, markersize=5, capsize=0.15, linestyle="none",
        legend=False,
    )  # fmt: skip
    axes.set_xlabel("")
    return axes


def group_legend(axes: Axes, colors: Mapping[str, Any], **settings: Any) -> Axes:
    """A legend of coloured patches, one a group."""
    axes.legend(handles=[Patch(color=color, label=name) for name, color in colors.items()], frameon=False, **settings)
    return axes
