"""All pairs: systems -> operators -> distances with their lower bounds, labelled, in one object that goes to disk and back."""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.manifold import MDS
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.alignment import N_STARTS, align_pairs, as_operators
from dsa_analysis.baselines import BASELINES, static_distances
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice, check_count
from dsa_analysis.dmd import EmbeddingParameters, Operator, fit
from dsa_analysis.spectra import spectral_distance

METRICS = ("angular", "euclidean", "spectral", *BASELINES)
FORMAT = 1  # of the files written by Similarity.save


@dataclass(frozen=True)
class ComparisonParameters(EmbeddingParameters):
    """How systems are compared: the embedding, and the budget and group of the alignment; see `compare`."""

    n_starts: int = N_STARTS
    group: str = "O"
    remove_trace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_starts", self.n_starts)
        check_choice("group", self.group, ("O", "SO"))


@dataclass(frozen=True)
class Similarity:
    """Distances between systems, and what they rest on.

    Attributes
    ----------
    distances : (k, k), or (k, l) where ``others`` were given
        In radians for "angular", "cka" and "procrustes"; without unit for "euclidean" and "spectral".
    lower_bounds : same shape
        What no transform can beat; NaN for metrics without bound ("cka", "procrustes" and "spectral" are solved exactly).
    agreement : same shape
        Share of finished climbs that ended at the distance; 1 for exact metrics.
    converged : same shape, bool
    labels, other_labels : tuples of str
        Of rows and columns; the same tuple where systems were compared among themselves.
    operators, other_operators : dict
        Label -> `Operator`, or the matrix where one came in; empty for "cka" and "procrustes".
    metric : str
    settings : dict
        Every argument of the comparison.
    """

    distances: np.ndarray
    lower_bounds: np.ndarray
    agreement: np.ndarray
    converged: np.ndarray
    labels: tuple[str, ...]
    other_labels: tuple[str, ...]
    metric: str
    operators: dict[str, Any] = field(default_factory=dict, repr=False)
    other_operators: dict[str, Any] = field(default_factory=dict, repr=False)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a pair (each unordered pair once): system_a, system_b, distance, lower_bound, agreement, converged."""
        if self._square:
            rows, columns = np.triu_indices(len(self.labels), 1)
        else:
            rows, columns = (index.ravel() for index in np.indices(self.distances.shape))
        return pd.DataFrame(
            {
                "system_a": np.array(self.labels, dtype=object)[rows],
                "system_b": np.array(self.other_labels, dtype=object)[columns],
                "distance": self.distances[rows, columns],
                "lower_bound": self.lower_bounds[rows, columns],
                "agreement": self.agreement[rows, columns],
                "converged": self.converged[rows, columns],
            }
        )

    def to_xarray(self) -> xr.Dataset:
        """The four matrices with labelled axes ("system", "other"), the settings as attributes."""
        axes = ("system", "other")
        return xr.Dataset(
            {name: (axes, getattr(self, name)) for name in ("distances", "lower_bounds", "agreement", "converged")},
            coords={"system": list(self.labels), "other": list(self.other_labels)},
            attrs={"metric": self.metric, "settings": json.dumps(self.settings), "format": FORMAT},
        )

    def to_plane(self, seed: int = 0) -> tuple[np.ndarray, float]:
        """Places (k, 2) whose distances resemble those of the systems, and the stress of that map in [0, 1] (Kruskal's, below .1 is good).

        Metric multidimensional scaling from the classical solution. Needs systems compared among themselves.
        """
        if not self._square:
            raise DataError("a map needs the distances of systems among themselves; others were given here")
        mds = MDS(2, metric="precomputed", init="classical_mds", n_init=1, normalized_stress=True, random_state=seed)
        places = mds.fit_transform(self.distances)
        return places, float(mds.stress_)

    def save(self, path: str | Path) -> Path:
        """Write everything to one netCDF file, complete or not at all; returns the path. `load` reads it back."""
        path = Path(path)
        dataset = self.to_xarray()
        for axis, labels, operators in self._sides():
            if operators:
                dataset = dataset.merge(_operators_to_xarray([operators[label] for label in labels], axis))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            dataset.to_netcdf(temporary, engine="h5netcdf")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Similarity":
        """Read what `save` wrote.

        Raises
        ------
        DataError
            No such file, or one that is damaged or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path} is no file ({path.absolute()}); give one written by Similarity.save")
        try:
            with xr.open_dataset(path, engine="h5netcdf") as file:
                dataset = file.load()
            matrices = [dataset[name].values for name in ("distances", "lower_bounds", "agreement", "converged")]
            labels, other_labels = (tuple(map(str, dataset[axis].values)) for axis in ("system", "other"))
            operators, other_operators = (
                dict(zip(names, _operators_from_xarray(dataset, axis), strict=True))
                if f"{axis}_matrix" in dataset
                else {}
                for axis, names in (("system", labels), ("other", other_labels))
            )
            metric, settings = str(dataset.attrs["metric"]), json.loads(dataset.attrs["settings"])
        except Exception as problem:  # h5py and xarray raise a dozen kinds for damaged files
            raise DataError(
                f"{path} is damaged, or not written by Similarity.save ({type(problem).__name__}: {problem}); compute it again"
            ) from problem
        if labels == other_labels:
            other_operators = operators
        return cls(*matrices, labels, other_labels, metric, operators, other_operators, settings)

    @property
    def _square(self) -> bool:
        return self.labels == self.other_labels

    def _sides(self) -> list[tuple[str, tuple[str, ...], dict[str, Any]]]:
        sides = [("system", self.labels, self.operators), ("other", self.other_labels, self.other_operators)]
        return sides[:1] if self._square else sides


def compare(
    systems: Any,
    others: Any = None,
    *,
    n_delays: int | None = None,
    rank: int | None = None,
    delay_interval: int = 1,
    steps_ahead: int = 1,
    ridge: float = 1e-8,
    center: bool = True,
    estimator: str = "least_squares",
    metric: str = "angular",
    n_starts: int = N_STARTS,
    group: str = "O",
    remove_trace: bool = False,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Similarity:
    """Compare all systems with each other, or all ``systems`` with all ``others``; each unordered pair is solved once.

    Parameters
    ----------
    systems, others : mapping from name to system, or sequence of systems
        A system is an array or a list of trials as in `fit_operator`, or, in place of data, an `Operator` or a square matrix (a
        single trial with as many samples as channels has to come in a list, to be read as data).
    n_delays, rank, delay_interval, steps_ahead, ridge, center, estimator
        As in `fit_operator`, the same for all systems. Not needed where all are operators, nor for "cka" and "procrustes".
    metric : str
        "angular": angle between operators after the best alignment, in radians. "euclidean": the chord of that angle, |A - C B C^T| of operators of unit
        norm. "spectral": matched eigenvalues. "cka", "procrustes": angles between the recordings themselves, trials matched sample by sample.
    n_starts, group, remove_trace, seed
        As in `align`.
    device : str or torch.device, optional
        Where everything is computed; by default the CPU or, if all data are on one other device, there. "auto" takes CUDA where there is one.
    progress : bool
        Show bars on stderr for what takes more than two seconds.

    Raises
    ------
    DataError
        Naming system, trial, channel or argument.
    """
    check_choice("metric", metric, METRICS)
    settings = {
        "n_delays": n_delays, "rank": rank, "delay_interval": delay_interval, "steps_ahead": steps_ahead, "ridge": ridge, "center": center,
        "estimator": estimator, "metric": metric, "n_starts": n_starts, "group": group, "remove_trace": remove_trace, "seed": seed,
    }  # fmt: skip
    wanted = as_device(device)
    groups = [as_systems(systems)] + ([as_systems(others)] if others is not None else [])
    labels, other_labels = tuple(groups[0]), tuple(groups[-1])
    k, l = len(labels), len(other_labels)

    if metric in BASELINES:
        trials = [_all_trials(group, metric, wanted) for group in groups]
        distances = static_distances(trials[0], trials[-1], metric).cpu().numpy()
        if others is None:
            np.fill_diagonal(distances, 0.0)
        exact = np.ones((k, l))
        return Similarity(
            distances, np.full((k, l), np.nan), exact, exact > 0, labels, other_labels, metric, settings=settings
        )

    embedding = (
        None
        if n_delays is None or rank is None
        else EmbeddingParameters(n_delays, rank, delay_interval, steps_ahead, ridge, center, estimator)
    )
    operators = all_operators(groups, embedding, wanted, progress)
    stacked = as_operators([operator for group in operators for operator in group.values()], "operators", wanted)
    if others is None:
        first, second = torch.triu_indices(k, k, 1, device=stacked.device)
    else:
        first = torch.arange(k, device=stacked.device).repeat_interleave(l)
        second = k + torch.arange(l, device=stacked.device).repeat(k)

    distance, bound, agreement, converged = solve_pairs(
        stacked, first, second, metric, n_starts=n_starts, group=group, remove_trace=remove_trace, seed=seed, progress=progress
    )  # fmt: skip
    if not bool(converged.all()):
        count = f"{int((~converged).sum())} of {len(converged)}"
        warnings.warn(
            f"{count} alignments stopped before their gradient vanished; see Similarity.converged", stacklevel=2
        )

    def matrix(values: Tensor, diagonal: float) -> np.ndarray:
        full = np.full((k, l), diagonal, dtype=values.cpu().numpy().dtype)
        rows, columns = first.cpu().numpy(), second.cpu().numpy() - (0 if others is None else k)
        full[rows, columns] = values.cpu().numpy()
        if others is None:
            full[columns, rows] = values.cpu().numpy()
        return full

    return Similarity(
        distances=matrix(distance, 0.0),
        lower_bounds=matrix(bound, torch.nan if metric == "spectral" else 0.0),
        agreement=matrix(agreement, 1.0),
        converged=matrix(converged, True),
        labels=labels,
        other_labels=other_labels,
        metric=metric,
        operators=operators[0],
        other_operators=operators[-1],
        settings=settings,
    )


def solve_pairs(
    operators: Tensor, first: Tensor, second: Tensor, metric: str, **budget: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distance, lower bound, agreement and convergence, each (P,), of the operators (N, n, n) at ``first`` and ``second``.

    ``budget`` as in `align`; matched eigenvalues need none.
    """
    if metric == "spectral":
        eigenvalues = torch.linalg.eigvals(operators)
        distance = spectral_distance(eigenvalues[first], eigenvalues[second])
        exact = torch.ones_like(distance)
        return distance, torch.full_like(distance, torch.nan), exact, exact > 0
    aligned = align_pairs(operators, first, second, **budget)
    angles = aligned.distance, aligned.lower_bound
    distance, bound = angles if metric == "angular" else (2 * (angle / 2).sin() for angle in angles)
    return distance, bound, aligned.agreement, aligned.converged


def _all_trials(systems: Mapping[str, Any], metric: str, device: torch.device | None) -> dict[str, list[Tensor]]:
    for name, system in systems.items():
        if isinstance(system, Operator):
            raise DataError(f"metric = {metric!r} compares recordings, but system {name!r} came as an operator")
    return {name: as_trials(system, name, device) for name, system in systems.items()}


def all_operators(
    groups: list[dict[str, Any]], embedding: EmbeddingParameters | None, device: torch.device | None, progress: bool
) -> list[dict[str, Any]]:
    """Operators of all systems by label: fitted, or as they came. What `fit` is concerned about is said once for all."""
    concerns: dict[str, list[str]] = {}
    result = []
    with tqdm(
        total=sum(map(len, groups)), desc="fitting", unit="system", delay=2, leave=False, disable=not progress
    ) as bar:
        for group in groups:
            fitted = {}
            for name, system in group.items():
                if isinstance(system, Operator):
                    fitted[name] = system
                elif _is_matrix(system):
                    fitted[name] = as_operators(system, f"system {name!r}", device)
                elif embedding is None:
                    raise DataError(f"n_delays and rank are needed to fit an operator to system {name!r}")
                else:
                    fitted[name], found = fit(as_trials(system, name, device), embedding, name)
                    for concern in found:
                        concerns.setdefault(concern.split("(")[0], []).append(f"{name!r}")
                bar.update()
            result.append(fitted)
    sizes = {name: len(getattr(operator, "matrix", operator)) for group in result for name, operator in group.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        raise DataError(f"operators of different size cannot be aligned: {listed}; fit all systems at one rank")
    for concern, names in concerns.items():
        shown = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        warnings.warn(
            f"{len(names)} of {len(sizes)} systems ({shown}): {concern.strip()}; see singular_spectrum", stacklevel=3
        )
    return result


def _is_matrix(system: Any) -> bool:
    shape = np.shape(system) if not isinstance(system, (list, tuple)) else ()
    return len(shape) == 2 and shape[0] == shape[1]


def _operators_to_xarray(operators: list[Any], axis: str) -> xr.Dataset:
    """Operators along ``axis``; bases and means of unequal channel counts lie one below the other, ``n_channels`` rows each."""
    matrices = np.stack([getattr(operator, "matrix", operator).cpu().numpy() for operator in operators])
    variables: dict[str, Any] = {f"{axis}_matrix": ((axis, "row", "column"), matrices)}
    if all(isinstance(operator, Operator) for operator in operators):
        p = [json.dumps(vars(operator.parameters)) for operator in operators]
        variables |= {
            f"{axis}_singular_values": ((axis, "row"), np.stack([o.singular_values.cpu().numpy() for o in operators])),
            f"{axis}_basis": ((f"{axis}_entry", "row"), np.concatenate([o.basis.cpu().numpy() for o in operators])),
            f"{axis}_mean": (f"{axis}_channel", np.concatenate([o.mean.cpu().numpy() for o in operators])),
            f"{axis}_n_channels": (axis, np.array([o.n_channels for o in operators])),
            f"{axis}_gap": (axis, np.array([o.gap for o in operators])),
            f"{axis}_n_transitions": (axis, np.array([o.n_transitions for o in operators])),
            f"{axis}_parameters": (axis, np.array(p, dtype=object)),
        }
    return xr.Dataset(variables)


def _operators_from_xarray(dataset: xr.Dataset, axis: str) -> list[Any]:
    def tensors(name: str) -> Tensor:
        return torch.from_numpy(dataset[f"{axis}_{name}"].values)

    matrices = list(tensors("matrix"))
    if f"{axis}_basis" not in dataset:
        return matrices
    parameters = [EmbeddingParameters(**json.loads(str(p))) for p in dataset[f"{axis}_parameters"].values]
    n_channels = dataset[f"{axis}_n_channels"].values.tolist()
    bases = tensors("basis").split([n * p.n_delays for n, p in zip(n_channels, parameters, strict=True)])
    means = tensors("mean").split(n_channels)
    gaps, counts = dataset[f"{axis}_gap"].values.tolist(), dataset[f"{axis}_n_transitions"].values.tolist()
    columns = (matrices, tensors("singular_values"), bases, means, gaps, counts, parameters)
    return [Operator(*fields) for fields in zip(*columns, strict=True)]
