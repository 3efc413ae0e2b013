"""The result of a comparison: distances between systems, how they were computed, and a file to store them."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dsa_analysis import metrics
from dsa_analysis.certificate import CERTIFIED
from dsa_analysis.comparison import Comparison
from dsa_analysis.data import DataError, check_choice, shown
from dsa_analysis.dmd import Operator
from dsa_analysis.embedding import EmbeddingParameters
from dsa_analysis.metrics import Metric, as_metric
from dsa_analysis.recordings.readers import CIRCUMSTANCES
from dsa_analysis.state_space import DrivenOperator
from dsa_analysis.views import Views
from dsa_analysis.windows import piece_label

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

MATRICES = ("distances", "lower_bounds", "agreement", "converged")
SEAL = b"compute-alike sha256"  # and the hash of all bytes before it, at the end of a file, which HDF5 ignores
FORMAT = 3  # of the files written by Similarity.save; 2 can be read too


@dataclass(frozen=True, repr=False)
class Similarity(Views):
    """Distances between systems, and how they were computed.

    Attributes
    ----------
    distances : (k, k), or (k, l) if ``others`` were given
        In the unit of the metric.
    lower_bounds : same shape
        No alignment can give a smaller distance. NaN for metrics without bounds.
    agreement : same shape
        Fraction of completed starts of the alignment that reached the distance; 1 for exact metrics.
    converged : same shape, bool
        Whether the alignment converged.
    gap : same shape
        ``distances - lower_bounds``: the distance after the best alignment is smaller than the one found by at most
        this.
    certified : same shape, bool
        Whether the gap is below 1e-6: no alignment gives a smaller distance.
    labels, other_labels : tuples of str
        Labels of rows and columns.
    comparison : Comparison
        How the systems were compared, including the values that were chosen or lowered.
    metric, unit : str
        Name and unit of the metric.
    operators, other_operators : dict
        From label to `Operator` or `DrivenOperator`, to a matrix if one was given, or to a tuple with an operator for
        each window. Empty for metrics that compare trials.
    settings : dict
        The comparison as plain values, and where they come from: "chosen" says which were ``"auto"``, and
        "lowered_from" is the rank that was requested.
    by_window : (n_windows, k, k) or (n_windows, k, l), or None
        The distance in each window, if systems were compared window by window. ``distances`` and ``lower_bounds`` are
        then means over windows, ``agreement`` is the minimum, and ``converged`` is true if all windows converged.
    across : tuple of str
        Names of the windows, if every window was compared with every window; each is then a system of its own.
    two_sided : bool
        Whether rows and columns are two sets of systems (``others`` were given).
    """

    distances: np.ndarray
    lower_bounds: np.ndarray
    agreement: np.ndarray
    converged: np.ndarray
    labels: tuple[str, ...]
    other_labels: tuple[str, ...]
    comparison: Comparison = field(default_factory=Comparison)
    operators: dict[str, Any] = field(default_factory=dict)
    other_operators: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    by_window: np.ndarray | None = None
    two_sided: bool = False
    across: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        return self.measure.name

    @property
    def unit(self) -> str:
        return self.measure.unit

    @property
    def measure(self) -> Metric:
        """The metric object. If it was read from a file and is not in `METRICS`, it can be shown but not computed."""
        return as_metric(self.comparison.metric)  # type: ignore[no-any-return]

    @property
    def gap(self) -> np.ndarray:
        return self.distances - self.lower_bounds

    @property
    def certified(self) -> np.ndarray:
        return self.gap < CERTIFIED

    def to_dataframe(self) -> "pd.DataFrame":
        """One row for each pair: system_a, system_b, distance, lower_bound, agreement, converged.

        Metrics with lower bounds have a further column, certified. Each unordered pair of one set of systems is listed
        once. For two sets, all pairs are listed.
        """
        import pandas as pd

        if self.two_sided:
            rows, columns = (index.ravel() for index in np.indices(self.distances.shape))
        else:
            rows, columns = np.triu_indices(len(self.labels), 1)
        names = {"distance": "distances", "lower_bound": "lower_bounds", "agreement": "agreement"}
        names |= {"converged": "converged"} | ({"certified": "certified"} if self.measure.bounded else {})
        return pd.DataFrame(
            {
                "system_a": np.array(self.labels, dtype=object)[rows],
                "system_b": np.array(self.other_labels, dtype=object)[columns],
                **{name: getattr(self, values)[rows, columns] for name, values in names.items()},
            }
        )

    def to_xarray(self) -> "xr.Dataset":
        """The matrices with labelled axes "system", "other" and "window" (if there are any), settings as attributes."""
        import xarray as xr

        axes = ("system", "other")
        variables: dict[str, Any] = {name: (axes, getattr(self, name)) for name in MATRICES}
        coordinates = {"system": list(self.labels), "other": list(self.other_labels)}
        if self.by_window is not None:
            variables["by_window"] = (("window", *axes), self.by_window)
            coordinates["window"] = list(self.comparison.windows)
        described = {"title": metrics.title(self.measure)}
        described |= {name: getattr(self.measure, name) for name in ("unit", "needs", "bounded")}
        return xr.Dataset(
            variables,
            coords=coordinates,
            attrs={
                "metric": self.metric,
                "metric_is": json.dumps(described),
                "comparison": json.dumps(self.comparison.to_dict()),
                "settings": json.dumps(self.settings),
                "two_sided": int(self.two_sided),
                "across": json.dumps(self.across),
                "format": FORMAT,
            },
        )

    def condensed(self) -> np.ndarray:
        """The distances of all pairs as one row, (k (k - 1) / 2,), in the order of `to_dataframe`.

        `scipy.cluster.hierarchy.linkage` takes it as it is, and ``rsatoolbox.rdm.RDMs`` in a list. Where a function
        has ``metric="precomputed"``, as in scikit-learn, give it ``distances``.

        Raises
        ------
        DataError
            Two sets of systems.
        """
        if self.two_sided:
            raise DataError("condensed needs the distances of systems among themselves, but this comparison has others")
        return np.ascontiguousarray(self.distances[np.triu_indices(len(self.labels), 1)])

    def sel(self, names: Sequence[str] | str, others: Sequence[str] | str | None = None) -> "Similarity":
        """The comparison of some of the systems, in the order in which you name them. Nothing is computed again.

        Parameters
        ----------
        names : labels, or a pattern such as "slow_*"
            Systems to keep: rows, and columns too unless ``others`` is given.
        others : labels or a pattern, optional
            Columns to keep. If the comparison has two sets of systems, all are kept by default.

        Raises
        ------
        DataError
            A label that is not there (the nearest one is named) or is given twice, or a pattern without a match.
        """
        rows = _chosen("names", names, self.labels)
        both = self.two_sided or others is not None
        columns = rows if not both else range(len(self.other_labels))
        if others is not None:
            columns = _chosen("others", others, self.other_labels)
        labels = tuple(self.labels[row] for row in rows)
        other_labels = tuple(self.other_labels[column] for column in columns)
        place, by_window = np.ix_(rows, columns), self.by_window
        operators = {label: self.operators[label] for label in labels if self.operators}
        return replace(
            self,
            **{name: getattr(self, name)[place] for name in MATRICES},
            labels=labels,
            other_labels=other_labels,
            operators=operators,
            other_operators={label: self.other_operators[label] for label in other_labels if self.other_operators}
            if both
            else operators,
            by_window=None if by_window is None else np.stack([matrix[place] for matrix in by_window]),
            two_sided=both,
            across=(),  # not all windows may be left
        )

    def between_windows(self, system: str, other: str | None = None) -> "xr.DataArray":
        """Distance of every window of a system to every window of another, from ``compare(..., across=True)``.

        Parameters
        ----------
        system, other : str
            Names of systems, without windows. By default ``other`` is ``system``.

        Returns
        -------
        DataArray, (window, other_window)
            In the unit of the metric; ``attrs`` hold unit and names.

        Raises
        ------
        DataError
            A comparison that was not made with ``across=True``, or an unknown system.
        """
        import xarray as xr

        if not self.across:
            raise DataError("windows were not compared with each other; use compare(..., windows=..., across=True)")
        other = system if other is None else other
        places = [self._places_of(*side) for side in ((system, self.labels), (other, self.other_labels))]
        return xr.DataArray(
            self.distances[np.ix_(*places)],
            dims=("window", "other_window"),
            coords={"window": list(self.across), "other_window": list(self.across)},
            name="distance",
            attrs={"unit": self.unit, "system": system, "other": other},
        )

    def _places_of(self, system: str, labels: tuple[str, ...]) -> list[int]:
        """Places of the windows of a system, if each is a system of its own."""
        own = [piece_label(system, window) for window in self.across]
        if own[0] not in labels:
            known = [label.removesuffix(piece_label("", self.across[0])) for label in labels[:: len(self.across)]]
            raise DataError(f"no system is called {system!r}; there are {', '.join(map(repr, known))}")
        return [labels.index(label) for label in own]

    def to_plane(self, seed: int = 0) -> tuple[np.ndarray, float]:
        """Map of the systems in a plane, by metric multidimensional scaling.

        Parameters
        ----------
        seed : int >= 0
            Random state. The scaling starts from the classical solution, so it only matters for ties.

        Returns
        -------
        places : (k, 2)
            Points whose distances approximate those of the systems, in the unit of the metric.
        stress : float in [0, 1]
            Low stress (below 0.1) means that distances on the map are faithful (Kruskal 1964).

        Raises
        ------
        DataError
            Two sets of systems. A map needs the distances between the systems of one set.
        """
        from sklearn.manifold import MDS

        if self.two_sided:
            raise DataError("a map needs the distances of systems among themselves, but this comparison has others")
        mds = MDS(2, metric="precomputed", init="classical_mds", n_init=1, normalized_stress=True, random_state=seed)
        places = mds.fit_transform(self.distances)
        return places, float(mds.stress_)

    def scaled(self, floor: Any, null: Any) -> "pd.DataFrame":
        """Distances on a scale from 0, two recordings of one system, to 1, the null.

            scaled = (distance - floor) / (null - floor)

        Parameters
        ----------
        floor : Series of `noise_floor`, or number
            That of a pair is the mean of its two systems.
        null : Nulls, (n, k, k) draws, (k, k), or number
            Such as `null_distances` of kind "shuffle_times".

        Returns
        -------
        DataFrame
            One row for each pair: ``system_a``, ``system_b``, ``distance``, ``floor``, ``null``, ``scaled``, and
            ``low`` to ``high``, the central 95% of the scaled values over the draws of the null (NaN if it has no
            draws). Where the null is not above the floor, there is no scale and all three are NaN.

        Raises
        ------
        DataError
            Two sets of systems, systems without a floor, or a null of another shape.
        """
        from dsa_analysis.scale import scaled

        return scaled(self, floor, null)

    def save(self, path: str | Path) -> Path:
        """Write everything to one netCDF file and return its path.

        An interrupted call leaves no partial file. If the file cannot be written, the OSError names it, and an earlier
        file is left as it was.
        """
        path = Path(path)
        dataset = self.to_xarray()
        for axis, labels, operators in self._sides():
            if operators:
                listed = [operators[label] for label in labels]
                if self.by_window is not None:
                    listed, axis = [piece for pieces in listed for piece in pieces], f"{axis}_piece"
                dataset = dataset.merge(_operators_to_xarray(listed, axis))
        dataset.attrs["checksum"] = _checksum(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            # written in memory first: HDF5 aborts the interpreter if a disk is full
            data = bytes(dataset.to_netcdf(engine="h5netcdf"))
            temporary.write_bytes(data + SEAL + hashlib.sha256(data).digest())
            os.replace(temporary, path)
        except OSError as error:  # its own text does not say where
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Similarity":
        """Read a file that `save` wrote, in this version or in 0.1.

        Raises
        ------
        DataError
            A file that does not exist, is damaged, or was not written by `save`.
        """
        import xarray as xr

        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path} is not a file ({path.absolute()}); give one written by Similarity.save")
        try:
            _check_seal(path)
            with xr.open_dataset(path, engine="h5netcdf") as file:
                dataset = file.load()
            if dataset.attrs.pop("checksum") != _checksum(dataset):
                raise ValueError("its contents do not match its checksum")
            matrices = {name: dataset[name].values for name in MATRICES}
            by_window = dataset["by_window"].values if "by_window" in dataset else None
            labels, other_labels = (tuple(map(str, dataset[axis].values)) for axis in ("system", "other"))
            operators, other_operators = (
                _labelled_operators(dataset, axis, names)
                for axis, names in (("system", labels), ("other", other_labels))
            )
            across = tuple(json.loads(dataset.attrs.get("across", "[]")))
            comparison, settings, two_sided = _read_attributes(dataset.attrs, labels != other_labels)
        except Exception as problem:  # h5py and xarray raise many kinds of errors for damaged files
            if isinstance(problem, OSError) and problem.errno in CIRCUMSTANCES:
                raise DataError(f"{path} {CIRCUMSTANCES[problem.errno]} ({problem})") from problem
            raise DataError(
                f"{path} is damaged, or not written by Similarity.save ({type(problem).__name__}: {problem}); "
                f"compute it again"
            ) from problem
        return cls(
            **matrices,
            labels=labels,
            other_labels=other_labels,
            comparison=comparison,
            operators=operators,
            other_operators=other_operators if two_sided else operators,
            settings=settings,
            by_window=by_window,
            two_sided=two_sided,
            across=across,
        )

    def _sides(self) -> list[tuple[str, tuple[str, ...], dict[str, Any]]]:
        sides = [("system", self.labels, self.operators), ("other", self.other_labels, self.other_operators)]
        return sides if self.two_sided else sides[:1]


def _chosen(what: str, names: Sequence[str] | str, labels: tuple[str, ...]) -> list[int]:
    """Places of the named labels; a string that is no label is a pattern."""
    if isinstance(names, str) and names not in labels:
        found = [place for place, label in enumerate(labels) if fnmatchcase(label, names)]
        if not found:
            check_choice(what, names, labels)
        return found
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        check_choice(what, name, labels)
    if not names or len(set(names)) < len(names):
        raise DataError(f"{what} = {shown(names)} does not name one or more systems, each once")
    return [labels.index(name) for name in names]


def _read_attributes(attributes: Any, names_differ: bool) -> tuple[Comparison, dict[str, Any], bool]:
    settings = json.loads(attributes["settings"])
    if "comparison" not in attributes:  # version 0.1
        return Comparison.from_dict(settings | {"metric": str(attributes["metric"])}), settings, names_differ
    described = json.loads(attributes["metric_is"])
    comparison = Comparison.from_dict(json.loads(attributes["comparison"]), described)
    return comparison, settings, bool(attributes["two_sided"])


def _check_seal(path: Path) -> None:
    """Refuse a file whose bytes are not those that were written: HDF5 can search damaged ones without end.

    The flags by which HDF5 marks a file that is open for writing are left out: they say nothing about the contents.
    Files of version 0.1 have no seal, and are checked once they are read.
    """
    data = bytearray(path.read_bytes())
    version = data[8:9]  # of the superblock, which says where the flags are
    flags = slice(20, 24) if version < b"\2" else slice(11, 12)
    data[flags] = bytes(len(data[flags]))
    end = len(data) - hashlib.sha256().digest_size
    sealed = data[max(0, end - len(SEAL)) : end] == SEAL
    if sealed and hashlib.sha256(data[: end - len(SEAL)]).digest() != data[end:]:
        raise ValueError("its contents do not match its checksum")


def _checksum(dataset: "xr.Dataset") -> str:
    """SHA-256 of all names, values and attributes, because HDF5 itself does not notice a changed byte."""
    digest = hashlib.sha256(repr(sorted((key, str(value)) for key, value in dataset.attrs.items())).encode())
    for name, variable in sorted(dataset.variables.items(), key=lambda item: str(item[0])):
        values = variable.values
        digest.update(f"{name} {variable.dims} {variable.shape}".encode())
        digest.update(values.tobytes() if values.dtype.kind in "biuf" else "\0".join(map(str, values)).encode())
    return digest.hexdigest()


def _labelled_operators(dataset: "xr.Dataset", axis: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """Operators by label, or tuples of the operators of all windows."""
    if f"{axis}_matrix" in dataset:
        return dict(zip(labels, _operators_from_xarray(dataset, axis), strict=True))
    if f"{axis}_piece_matrix" in dataset:
        pieces = _operators_from_xarray(dataset, f"{axis}_piece")
        n = len(pieces) // len(labels)
        return {label: tuple(pieces[n * at : n * (at + 1)]) for at, label in enumerate(labels)}
    return {}


def _operators_to_xarray(operators: list[Any], axis: str) -> "xr.Dataset":
    """Operators along ``axis``; bases and means are concatenated, because channel counts may differ."""
    import xarray as xr

    matrices = np.stack([getattr(operator, "matrix", operator).cpu().numpy() for operator in operators])
    variables: dict[str, Any] = {f"{axis}_matrix": ((axis, "row", "column"), matrices)}
    drives = [operator.drive.cpu().numpy() for operator in operators if isinstance(operator, DrivenOperator)]
    if len(drives) == len(operators) and len({drive.shape for drive in drives}) == 1:
        variables[f"{axis}_drive"] = (axis, "row", "input"), np.stack(drives)
    if all(isinstance(operator, Operator) for operator in operators):
        p = [json.dumps(vars(operator.parameters)) for operator in operators]
        variables |= {
            f"{axis}_singular_values": ((axis, "row"), np.stack([o.singular_values.cpu().numpy() for o in operators])),
            f"{axis}_basis": ((f"{axis}_entry", "row"), np.concatenate([o.basis.cpu().numpy() for o in operators])),
            f"{axis}_mean": (f"{axis}_channel", np.concatenate([o.mean.cpu().numpy() for o in operators])),
            f"{axis}_noise_variance": (
                f"{axis}_channel",
                np.concatenate([o.noise_variance.cpu().numpy() for o in operators]),
            ),
            f"{axis}_n_windows": (axis, np.array([o.n_windows for o in operators])),
            f"{axis}_n_channels": (axis, np.array([o.n_channels for o in operators])),
            f"{axis}_gap": (axis, np.array([o.gap for o in operators])),
            f"{axis}_n_transitions": (axis, np.array([o.n_transitions for o in operators])),
            f"{axis}_parameters": (axis, np.array(p, dtype=object)),
        }
    return xr.Dataset(variables)


def _operators_from_xarray(dataset: "xr.Dataset", axis: str) -> list[Any]:
    def tensors(name: str) -> Tensor:
        return torch.from_numpy(dataset[f"{axis}_{name}"].values)

    matrices = list(tensors("matrix"))
    if f"{axis}_drive" in dataset:
        return [DrivenOperator(A, B) for A, B in zip(matrices, tensors("drive"), strict=True)]
    if f"{axis}_basis" not in dataset:
        return matrices
    parameters = [EmbeddingParameters(**json.loads(str(p))) for p in dataset[f"{axis}_parameters"].values]
    n_channels = dataset[f"{axis}_n_channels"].values.tolist()
    bases = tensors("basis").split([n * p.n_delays for n, p in zip(n_channels, parameters, strict=True)])
    means = tensors("mean").split(n_channels)
    gaps, counts = dataset[f"{axis}_gap"].values.tolist(), dataset[f"{axis}_n_transitions"].values.tolist()
    noise, windows = tensors("noise_variance").split(n_channels), dataset[f"{axis}_n_windows"].values.tolist()
    columns = (matrices, tensors("singular_values"), bases, means, gaps, counts, parameters, noise, windows)
    return [Operator(*fields) for fields in zip(*columns, strict=True)]
