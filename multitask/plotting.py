"""Trials, units, clusters, choices and learning on axes.

Computes nothing and saves nothing: axes and a result go in, the axes come back.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from torch import Tensor

from multitask.activity import Activity, Clusters, PrincipalComponents
from multitask.evaluation import PsychometricCurve
from multitask.tasks import TASKS
from multitask.trials import N_PER_RING, MultitaskError, TrialBatch

HEAT = "magma"
CIRCLE = sns.color_palette("husl", as_cmap=True)  # directions: the colours close the circle
DIRECTIONS = Normalize(0, 2 * np.pi)


def title_of(column: str) -> str:
    """A rule as it is called in figures, with the period behind it if there is one."""
    rule, *period = column.split(" ")
    return " ".join([TASKS[rule].title if rule in TASKS else rule, *period])


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


def plot_units(axes: np.ndarray, activities: Sequence[Activity], units: Sequence[int], network: int = 0) -> np.ndarray:
    """Hidden states of units (rows) in rules (columns), a line a trial in the colour of its (first) direction."""
    grid = np.asarray(axes).reshape(len(units), len(activities))
    for column, activity in enumerate(activities):
        batch = activity.batch
        direction = batch.conditions["direction" if "direction" in batch.conditions else "direction1"]
        time = batch.dt * np.arange(batch.n_times)
        for ax, unit in zip(grid[:, column], units, strict=True):
            lines = [np.column_stack([time, trial]) for trial in activity.hidden[network, :, :, unit].cpu().numpy()]
            ax.add_collection(
                LineCollection(lines, array=direction.numpy(), cmap=CIRCLE, norm=DIRECTIONS, linewidths=0.7)
            )
            ax.autoscale()
            _mark_periods(ax, batch)
            ax.set_ylabel(f"unit {unit}\nactivity (a.u.)" if column == 0 else "")
        grid[0, column].set_title(title_of(batch.rule))
        grid[-1, column].set_xlabel("time (ms)")
    return axes


def plot_task_variance(ax: Axes, clusters: Clusters) -> Axes:
    """Profiles of all active units (columns), sorted by cluster, over the rules (rows)."""
    image = ax.imshow(clusters.profiles.T, aspect="auto", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    borders = np.flatnonzero(np.diff(clusters.labels)) + 0.5
    ax.vlines(borders, -0.5, len(clusters.columns) - 0.5, color="white", linewidth=0.7)
    _label_rules(ax, clusters.columns)
    ax.set_xlabel("units, by cluster")
    ax.figure.colorbar(image, ax=ax, label="normalised task variance")
    return ax


def plot_clusters_by_rule(ax: Axes, clusters: Clusters) -> Axes:
    """Mean profile of each cluster (columns) over the rules (rows)."""
    image = ax.imshow(clusters.by_rule().T, aspect="auto", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    _label_rules(ax, clusters.columns)
    ax.set_xticks(range(clusters.n_clusters), [str(k + 1) for k in range(clusters.n_clusters)], fontsize="x-small")
    ax.set_xlabel("cluster")
    ax.figure.colorbar(image, ax=ax, label="mean normalised task variance")
    return ax


def plot_silhouettes(ax: Axes, clusters: Clusters) -> Axes:
    """Mean silhouette over the numbers of clusters that were tried; the one in use is marked."""
    numbers, values = zip(*clusters.silhouettes.items(), strict=True)
    ax.plot(numbers, values, "o-", color="black", markersize=3)
    ax.axvline(clusters.n_clusters, color="tab:red", linewidth=0.8)
    ax.set(xlabel="number of clusters", ylabel="mean silhouette")
    return ax


def plot_fractional_variance(ax: Axes, fractions: np.ndarray, a: str, b: str) -> Axes:
    """Histogram of the fractional task variance of one network's units: -1 those of rule b alone, 1 those of a."""
    ax.hist(fractions, bins=20, range=(-1, 1), weights=np.full(len(fractions), 1 / len(fractions)), color="tab:blue")
    ax.set(xlim=(-1, 1), xlabel=f"FTV({title_of(a)}, {title_of(b)})", ylabel="share of units")
    return ax


def plot_psychometric(ax: Axes, curve: PsychometricCurve) -> Axes:
    """Share of choices of the first stimulus over the coherence, a line a network."""
    ax.plot(curve.coherences, curve.proportion.T, "o-", color="black", alpha=0.5, markersize=3)
    ax.axhline(0.5, color="0.7", linewidth=0.7, zorder=0)
    ax.axvline(0, color="0.7", linewidth=0.7, zorder=0)
    ax.set(xlabel="coherence", ylabel="share of first choices", ylim=(-0.03, 1.03), title=title_of(curve.rule))
    return ax


def plot_trajectories(ax: Axes, components: PrincipalComponents, direction: Tensor, network: int = 0) -> Axes:
    """Trials on the first components of one network, in the colour of their direction (rad), each with a dot where it
    starts.

    Two components on flat axes, three on axes with ``projection="3d"``.
    """
    n = 3 if ax.name == "3d" else 2
    scores = components.scores[network, :, :, :n].cpu().numpy()
    if scores.shape[-1] < n:
        raise MultitaskError(f"these axes show {n} components, but there are {scores.shape[-1]}")
    colours = ScalarMappable(DIRECTIONS, CIRCLE).to_rgba(direction.cpu().numpy())
    for trial, colour in zip(scores, colours, strict=True):
        ax.plot(*trial.T, color=colour, linewidth=0.8)
        ax.plot(*trial[:1].T, "o", color=colour, markersize=3)
    shares = 100 * components.explained[network]
    for axis, share in zip("xyz"[:n], shares.tolist(), strict=False):
        getattr(ax, f"set_{axis}label")(f"component {'xyz'.index(axis) + 1} ({share:.0f} %)")
    return ax


def plot_learning(ax: Axes, log: pd.DataFrame, value: str = "performance") -> Axes:
    """A column of a training log, a line a rule: mean over networks, with a band from the worst to the best."""
    named = log.assign(rule=log["rule"].map(title_of))
    sns.lineplot(named, x="step", y=value, hue="rule", errorbar=("pi", 100), ax=ax)
    unit = {"performance": "share of right trials", "loss": "loss (a.u.)", "gradient_norm": "gradient norm (a.u.)"}
    ax.set(xlabel="steps of training", ylabel=unit.get(value, value))
    ax.legend(fontsize="small", frameon=False)
    return ax


def _mark_periods(ax: Axes, batch: TrialBatch) -> None:
    for start, _ in list(batch.periods.values())[1:]:
        ax.axvline(batch.dt * start, color="0.7", linewidth=0.7)


def _label_rules(ax: Axes, columns: Sequence[str]) -> None:
    ax.set_yticks(range(len(columns)), [title_of(column) for column in columns])
