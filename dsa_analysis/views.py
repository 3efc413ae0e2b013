"""What a `Similarity` shows: a few lines of text, a matrix, a map and a tree. The drawing itself is in `plotting`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis import metrics
from dsa_analysis.data import DataError, check_choice, shown
from dsa_analysis.display import Card, Shown, listed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from dsa_analysis.comparison import Comparison
    from dsa_analysis.metrics import Metric

CHOICES = ("n_delays", "window", "delay_interval", "rank", "horizon", "steps_ahead", "dt", "estimator")  # in the text


class Views(Shown):
    """The part of `Similarity` that shows it."""

    labels: tuple[str, ...]
    other_labels: tuple[str, ...]
    two_sided: bool
    comparison: "Comparison"
    if TYPE_CHECKING:

        @property
        def measure(self) -> "Metric": ...

        @property
        def unit(self) -> str: ...

        def to_dataframe(self) -> "pd.DataFrame": ...

        def to_plane(self, seed: int = 0) -> tuple[np.ndarray, float]: ...

    def plot(
        self,
        axes: "Axes | None" = None,
        *,
        groups: Sequence[str] | Mapping[str, str] | None = None,
        floor: Any = None,
        bounds: bool = True,
        names: bool = True,
        colors: Mapping[str, Any] | None = None,
    ) -> "Axes":
        """Draw the distances as a matrix, similar systems side by side.

        Parameters
        ----------
        axes : matplotlib Axes, optional
            By default those of a new figure.
        groups : k labels, or mapping from system to group, optional
            Shown as coloured margins.
        floor : Series from `noise_floor`, number, (k,) or (k, k), optional
            Pairs whose distance is below it get a dot: with these data they cannot be told apart. The floor of a pair
            is the mean of the floors of its systems.
        bounds : bool
            Show the lower bounds below the diagonal, if the metric has any.
        names : bool
            Write the names of the systems.
        colors : mapping from group to colour, optional

        Raises
        ------
        DataError
            Two sets of systems, groups or a floor that do not fit the systems.
        """
        from dsa_analysis import plotting

        self._refuse_two_sided("a clustered matrix")
        size = 4.5 + 0.2 * len(self.labels)
        return plotting.plot_distances(
            self,  # type: ignore[arg-type]
            plotting.new_axes((size + 1.5, size)) if axes is None else axes,
            self._groups(groups),
            colors,
            below="lower_bounds" if bounds and self.measure.bounded else None,
            floor=None if floor is None else self.pair_floors(floor),
            names=names,
        )

    def plot_map(
        self,
        axes: "Axes | None" = None,
        *,
        groups: Sequence[str] | Mapping[str, str] | None = None,
        names: bool = True,
        colors: Mapping[str, Any] | None = None,
    ) -> "Axes":
        """Draw the systems as points whose distances are as similar as possible to theirs; see `to_plane`.

        Parameters
        ----------
        axes, groups, names, colors
            As in `plot`. Groups have one colour each. Names do not cover each other; the title counts those that find
            no room.

        Raises
        ------
        DataError
            Two sets of systems, fewer than 3 systems, or groups that do not fit them.
        """
        from dsa_analysis import plotting

        self._refuse_two_sided("a map")
        if len(self.labels) < 3:
            raise DataError(f"a map needs at least 3 systems, but this comparison has {len(self.labels)}")
        known = self._groups(groups)
        axes = plotting.new_axes((6.5, 5)) if axes is None else axes
        drawn = known or ["systems"] * len(self.labels)
        plotting.plot_map(*self.to_plane(), drawn, axes, colors, self.unit, self.labels if names else None)
        if known:
            axes.legend(frameon=False)
        return axes

    def plot_tree(
        self,
        axes: "Axes | None" = None,
        *,
        groups: Sequence[str] | Mapping[str, str] | None = None,
        floor: Any = None,
        colors: Mapping[str, Any] | None = None,
    ) -> "Axes":
        """Draw the tree of the systems (average linkage).

        Parameters
        ----------
        axes, groups, colors
            As in `plot`. Names have the colour of their group.
        floor
            As in `plot`. The median over pairs is a dashed line.

        Raises
        ------
        DataError
            Two sets of systems, a single system, or groups or a floor that do not fit them.
        """
        from dsa_analysis import plotting

        self._refuse_two_sided("a tree")
        if len(self.labels) < 2:
            raise DataError("a tree needs at least 2 systems, but this comparison has 1")
        line = None
        if floor is not None:
            line = float(np.median(self.pair_floors(floor)[np.triu_indices(len(self.labels), 1)]))
        axes = plotting.new_axes((6.5, 1.5 + 0.22 * len(self.labels))) if axes is None else axes
        return plotting.plot_tree(self, axes, self._groups(groups), colors, line)  # type: ignore[arg-type]

    def pair_floors(self, floor: Any) -> np.ndarray:
        """The noise floor of each pair, (k, k): the mean of those of its two systems.

        Parameters
        ----------
        floor : Series from `noise_floor`, mapping from system to number, number, (k,) or (k, k)

        Raises
        ------
        DataError
            A floor without some of the systems, or of another size.
        """
        k, named = len(self.labels), hasattr(floor, "keys")
        if named:
            for label in self.labels:
                check_choice("floor of system", label, list(map(str, floor.keys())))
            floor = [floor[label] for label in self.labels]
        values = np.asarray(floor, dtype=float)
        if values.shape not in ((), (k,), (k, k)):
            raise DataError(f"floor has shape {values.shape}; give a number, ({k},), ({k}, {k}), or one by system")
        return (values[:, None] + values) / 2 if values.ndim == 1 else np.broadcast_to(values, (k, k))

    def _groups(self, groups: Sequence[str] | Mapping[str, str] | None) -> list[str] | None:
        if groups is None:
            return None
        if isinstance(groups, Mapping):
            for label in self.labels:
                check_choice("groups of system", label, groups)
            groups = [groups[label] for label in self.labels]
        if isinstance(groups, str) or len(groups) != len(self.labels):
            raise DataError(f"groups = {shown(groups)} does not name a group for each of {len(self.labels)} systems")
        return list(map(str, groups))

    def _refuse_two_sided(self, what: str) -> None:
        if self.two_sided:
            raise DataError(f"{what} needs the distances of systems among themselves, but this comparison has others")

    def _card(self) -> Card:
        table, how = self.to_dataframe(), self.comparison
        n = len(table)
        rows = {"systems": listed(self.labels)}
        if self.two_sided:
            rows["others"] = listed(self.other_labels)
        if n:
            ends = (table.loc[at()] for at in (table["distance"].idxmin, table["distance"].idxmax))
            near, far = (f"{one['system_a']}, {one['system_b']} ({one['distance']:.3g} {self.unit})" for one in ends)
            rows |= {"nearest": near, "farthest": far if n > 1 else ""}
        if n and self.measure.bounded:
            positive = table[table["distance"] > 0]
            share = (positive["lower_bound"] / positive["distance"]).median() if len(positive) else 1.0
            proven = f"; {table['certified'].sum()} of {n} pairs certified" if table["certified"].any() else ""
            rows["lower bound"] = f"{share:.0%} of the distance (median){proven}"
        if n and not table["converged"].all():
            rows["not converged"] = f"{int((~table['converged']).sum())} of {n} pairs; increase n_starts"
        told = {name: getattr(how, name) for name in CHOICES if self.measure.needs != "trials"}
        told = {name: value for name, value in told.items() if value is not None and not isinstance(value, Mapping)}
        rows["settings"] = ", ".join(f"{name} = {value}" for name, value in told.items())
        size = f"{len(self.labels)} x {len(self.other_labels)}" if self.two_sided else f"{len(self.labels)}"
        title = f"Similarity of {size} systems, {n} pairs, by {metrics.title(self.measure)} ({self.unit})"
        doors = ".to_dataframe(), .save(path)"
        if not self.two_sided:
            doors = f".plot(), .plot_map(), .plot_tree(), .sel(names), {doors}, noise_floor(systems, .comparison)"
        return Card(title, rows, doors)
