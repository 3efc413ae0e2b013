"""All pairs: systems -> operators -> distances with lower bounds, in one labelled object that goes to disk and back."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.manifold import MDS
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.alignment import as_operators, check_starts
from dsa_analysis.baselines import BASELINES, static_distances
from dsa_analysis.choose import choose_embedding
from dsa_analysis.covariances import Directions, directions
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice
from dsa_analysis.dmd import Operator, as_noise_variance, concerns, largest_rank, solve, why_not
from dsa_analysis.driven import DrivenOperator
from dsa_analysis.embedding import EmbeddingParameters
from dsa_analysis.pairs import solve_pairs
from dsa_analysis.windows import as_windows, cut

MATRICES = ("distances", "lower_bounds", "agreement", "converged")
METRICS = ("angular", "euclidean", "spectral", *BASELINES)
FORMAT = 2  # of the files written by Similarity.save


@dataclass(frozen=True)
class ComparisonParameters(EmbeddingParameters):
    """How systems are compared: the embedding, and the budget and group of the alignment; see `compare`."""

    n_starts: int | str = "auto"
    group: str = "O"
    remove_trace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_starts(self.n_starts)
        check_choice("group", self.group, ("O", "SO"))


@dataclass(frozen=True)
class Similarity:
    """Distances between systems, and what they rest on.

    Attributes
    ----------
    distances : (k, k), or (k, l) where ``others`` were given
        In radians for "angular", "cka" and "procrustes"; without unit for "euclidean" and "spectral".
    lower_bounds : same shape
        What no transform can beat; NaN for metrics without bound ("cka", "procrustes" and "spectral" are solved
        exactly).
    agreement : same shape
        Share of finished climbs that ended at the distance; 1 for exact metrics.
    converged : same shape, bool
    gap : same shape
        ``distances - lower_bounds``: by how much the true distances can be smaller than those found, at most.
    labels, other_labels : tuples of str
        Of rows and columns; the same tuple where systems were compared among themselves.
    operators, other_operators : dict
        Label -> `Operator`, or the matrix where one came in, or a tuple of operators, one for each window; empty for
        "cka" and "procrustes".
    metric : str
    settings : dict
        Every argument of the comparison. Where n_delays or rank were chosen or lowered, what they became; "chosen" and
        "lowered_from" tell the rest.
    by_window : (n_windows, k, k) or (n_windows, k, l), or None
        The distance in each window, where systems were compared window by window: ``distances`` and ``lower_bounds``
        are means over windows, ``agreement`` is the lowest, ``converged`` tells of all.
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
    by_window: np.ndarray | None = None

    def to_dataframe(self) -> pd.DataFrame:
        """One row a pair, each unordered pair once: system_a, system_b, distance, lower_bound, agreement, converged."""
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
        """The matrices with labelled axes ("system", "other", and "window" if any), the settings as attributes."""
        axes = ("system", "other")
        variables: dict[str, Any] = {name: (axes, getattr(self, name)) for name in MATRICES}
        coordinates = {"system": list(self.labels), "other": list(self.other_labels)}
        if self.by_window is not None:
            variables["by_window"] = (("window", *axes), self.by_window)
            coordinates["window"] = list(self.settings["windows"])
        return xr.Dataset(
            variables,
            coords=coordinates,
            attrs={"metric": self.metric, "settings": json.dumps(self.settings), "format": FORMAT},
        )

    def to_plane(self, seed: int = 0) -> tuple[np.ndarray, float]:
        """Places (k, 2) whose distances resemble those of the systems, and the stress of that map in [0, 1].

        Metric multidimensional scaling from the classical solution; a stress (Kruskal 1964) below .1 is good. Needs
        systems compared among themselves.
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
                listed = [operators[label] for label in labels]
                if self.by_window is not None:
                    listed, axis = [piece for pieces in listed for piece in pieces], f"{axis}_piece"
                dataset = dataset.merge(_operators_to_xarray(listed, axis))
        dataset.attrs["checksum"] = _checksum(dataset)
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
            if dataset.attrs.pop("checksum") != _checksum(dataset):
                raise ValueError("its contents do not match its checksum")
            matrices = {name: dataset[name].values for name in MATRICES}
            by_window = dataset["by_window"].values if "by_window" in dataset else None
            labels, other_labels = (tuple(map(str, dataset[axis].values)) for axis in ("system", "other"))
            operators, other_operators = (
                _labelled_operators(dataset, axis, names)
                for axis, names in (("system", labels), ("other", other_labels))
            )
            metric, settings = str(dataset.attrs["metric"]), json.loads(dataset.attrs["settings"])
        except Exception as problem:  # h5py and xarray raise a dozen kinds for damaged files
            raise DataError(
                f"{path} is damaged, or not written by Similarity.save ({type(problem).__name__}: {problem}); "
                f"compute it again"
            ) from problem
        if labels == other_labels:
            other_operators = operators
        return cls(
            **matrices,
            labels=labels,
            other_labels=other_labels,
            metric=metric,
            operators=operators,
            other_operators=other_operators,
            settings=settings,
            by_window=by_window,
        )

    @property
    def gap(self) -> np.ndarray:
        return self.distances - self.lower_bounds

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
    n_delays: int | str | None = None,
    rank: int | str | None = None,
    delay_interval: int = 1,
    steps_ahead: int = 1,
    ridge: float = 1e-8,
    center: bool = True,
    estimator: str = "least_squares",
    noise_variance: Any = None,
    windows: Any = None,
    on_rank: str = "lower",
    metric: str = "angular",
    n_starts: int | str = "auto",
    group: str = "O",
    remove_trace: bool = False,
    n_sweeps: int = 0,
    seed: int = 0,
    store: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Similarity:
    """Compare all systems with each other, or all ``systems`` with all ``others``; each unordered pair is solved once.

    Parameters
    ----------
    systems, others : mapping from name to system, or sequence of systems
        A system is an array or a list of trials as in `fit_operator`, or, in place of data, an `Operator`, a
        `DrivenOperator` (of which a saved result keeps the matrix) or a square matrix (a single trial with as many
        samples as channels has to come in a list, to be read as data).
    n_delays, rank, delay_interval, steps_ahead, ridge, center, estimator
        As in `fit_operator`, the same for all systems. Not needed where all are operators, nor for "cka" and
        "procrustes". "auto" for n_delays, rank or both lets `choose_embedding` choose.
    noise_variance : as in `fit_operator`, or mapping from name of a system to that
    windows : mapping from name to (start, stop), or sequence of (start, stop), in samples
        Pieces of the trials: each gets an operator of its own, and the distance of two systems is the mean over
        pieces of the distance between their operators of the same piece. One operator for whole trials is blind to
        the order in which things happen; this is not. `sliding_windows` makes regular ones.
    on_rank : "lower" or "error"
        What to do where some systems carry ``rank`` and others cannot: fit all at the largest rank that all carry, with
        a warning that names one, or refuse. A rank that none carries is refused anyway, and operators of unequal rank
        are never compared.
    metric : str
        "angular": angle between operators after the best alignment, in radians. "euclidean": the chord of that angle,
        |A - C B C^T| of operators of unit norm. "spectral": matched eigenvalues. "cka", "procrustes": angles between
        the recordings themselves, trials matched sample by sample.
    n_starts, group, remove_trace, seed
        As in `align`.
    n_sweeps : int >= 0
        Rounds in which each pair is started once more through third systems that both are aligned to: for large sets
        of related systems with a small ``n_starts``. A distance then depends on which other systems are compared.
    store : path, optional
        Folder in which aligned pairs are kept as they come. An interrupted comparison, called again, does the rest.
    device : str or torch.device, optional
        Where everything is computed; by default each system is fitted where its data are, and all are aligned where
        the first is. "auto" takes CUDA where there is one.
    progress : bool
        Show bars on stderr for what takes more than two seconds.

    Raises
    ------
    DataError
        Naming system, trial, channel or argument.
    """
    check_choice("metric", metric, METRICS)
    check_choice("on_rank", on_rank, ("lower", "error"))
    embedding: dict[str, Any] = {
        "delay_interval": delay_interval, "steps_ahead": steps_ahead, "ridge": ridge, "center": center,
        "estimator": estimator,
    }  # fmt: skip
    settings: dict[str, Any] = {
        "n_delays": n_delays, "rank": rank, **embedding, "on_rank": on_rank, "metric": metric, "n_starts": n_starts,
        "group": group, "remove_trace": remove_trace, "n_sweeps": n_sweeps, "seed": seed,
    }  # fmt: skip
    wanted = as_device(device)
    groups = [as_systems(systems)] + ([as_systems(others)] if others is not None else [])
    labels, other_labels = tuple(groups[0]), tuple(groups[-1])
    noise = _by_system(noise_variance, groups)
    if noise:
        settings["noise_variance"] = {name: np.asarray(value).tolist() for name, value in noise.items()}
    n_windows = 1
    if windows is not None:
        settings["windows"] = windows = as_windows(windows)
        n_windows = len(windows)
        noise = {_piece(name, window): value for name, value in noise.items() for window in windows}
        groups = [_pieces(group, windows, wanted) for group in groups]

    def similarity(values: Sequence[np.ndarray], operators: list[dict[str, Any]]) -> Similarity:
        """Of distance, bound, agreement and convergence, (n_windows, k, l) each, and operators by piece."""
        distance, bound, agreement, converged = values
        found = [_by_label(group, own, windows) for group, own in zip(operators, (labels, other_labels), strict=False)]
        return Similarity(
            distance.mean(0), bound.mean(0), agreement.min(0), np.all(converged, axis=0), labels, other_labels, metric,
            operators=found[0] if found else {}, other_operators=found[-1] if found else {}, settings=settings,
            by_window=None if windows is None else distance,
        )  # fmt: skip

    if metric in BASELINES:
        trials = [_all_trials(group, metric, wanted) for group in groups]
        left, right = (
            [dict(list(group.items())[at::n_windows]) for at in range(n_windows)] for group in (trials[0], trials[-1])
        )
        distances = np.stack([static_distances(a, b, metric).cpu().numpy() for a, b in zip(left, right, strict=True)])
        if others is None:
            distances[:, np.arange(len(labels)), np.arange(len(labels))] = 0.0
        exact = np.ones_like(distances)
        return similarity((distances, np.full_like(distances, np.nan), exact, exact > 0), [])

    if "auto" in (n_delays, rank):
        settings["chosen"] = {"n_delays": n_delays == "auto", "rank": rank == "auto"}
        n_delays, rank, settings["chosen"]["by"] = _choose(
            groups, noise, n_delays, rank, **embedding, seed=seed, device=device, progress=progress
        )
    parameters = None
    if n_delays is not None and rank is not None:
        parameters = EmbeddingParameters(cast(int, n_delays), cast(int, rank), **embedding)
    operators = all_operators(groups, parameters, wanted, progress, noise_variance=noise, on_rank=on_rank)
    stacked = as_operators([operator for group in operators for operator in group.values()], "operators", wanted)
    settings["n_delays"], settings["rank"] = n_delays, rank if rank is None else stacked.shape[-1]
    if settings["rank"] != rank:
        settings["lowered_from"] = rank

    k, n_others = len(labels), len(other_labels)
    rows, columns = np.triu_indices(k, 1) if others is None else map(np.ravel, np.indices((k, n_others)))
    first, second = (
        torch.from_numpy((n_windows * index[:, None] + np.arange(n_windows)).ravel()).to(stacked.device)
        for index in (rows, columns if others is None else k + columns)
    )
    solved = solve_pairs(
        stacked, first, second, metric, names=[f"system {name!r}" for group in operators for name in group],
        n_starts=n_starts, group=group, remove_trace=remove_trace, seed=seed, n_sweeps=n_sweeps, store=store,
        progress=progress,
    )  # fmt: skip
    if not bool(solved[3].all()):
        count = f"{int((~solved[3]).sum())} of {len(solved[3])}"
        warnings.warn(
            f"{count} alignments stopped before their gradient vanished; see Similarity.converged", stacklevel=2
        )

    def matrices(values: Tensor, diagonal: float) -> np.ndarray:
        by_window = values.view(-1, n_windows).T.cpu().numpy()
        full = np.full((n_windows, k, n_others), diagonal, dtype=by_window.dtype)
        full[:, rows, columns] = by_window
        if others is None:
            full[:, columns, rows] = by_window
        return full

    own = (0.0, np.nan if metric == "spectral" else 0.0, 1.0, True)  # a system against itself
    return similarity([matrices(values, x) for values, x in zip(solved, own, strict=True)], operators)


def _all_trials(systems: Mapping[str, Any], metric: str, device: torch.device | None) -> dict[str, list[Tensor]]:
    for name, system in systems.items():
        if isinstance(system, (Operator, DrivenOperator)):
            raise DataError(f"metric = {metric!r} compares recordings, but system {name!r} came as an operator")
    return {name: as_trials(system, name, device) for name, system in systems.items()}


def all_operators(
    groups: list[dict[str, Any]],
    embedding: EmbeddingParameters | None,
    device: torch.device | None,
    progress: bool,
    *,
    noise_variance: Mapping[str, Any] | None = None,
    on_rank: str = "lower",
) -> list[dict[str, Any]]:
    """Operators of all systems by label, fitted or as they came; ``noise_variance`` is by label.

    Where a system cannot carry the rank, all are fitted at the largest that all carry, or none under ``on_rank`` =
    "error". What is to be known of single operators is said once for all.
    """
    noise_variance = noise_variance or {}
    ready: list[dict[str, Any]] = []
    bar = tqdm(total=sum(map(len, groups)), desc="fitting", unit="system", delay=2, leave=False, disable=not progress)
    with bar:
        for group in groups:
            ready.append({})
            for name, system in group.items():
                if isinstance(system, (Operator, DrivenOperator)):
                    ready[-1][name] = system
                elif _is_matrix(system):
                    ready[-1][name] = as_operators(system, f"system {name!r}", device)
                elif embedding is None:
                    raise DataError(f"n_delays and rank are needed to fit an operator to system {name!r}")
                else:
                    found = directions(as_trials(system, name, device), embedding, name)
                    variance = as_noise_variance(noise_variance.get(name), found, embedding, name)
                    ready[-1][name] = (found, variance)
                bar.update()
    fitted = {name: value for group in ready for name, value in group.items() if isinstance(value, tuple)}
    if fitted and embedding is not None:
        embedding = _common_rank(fitted, embedding, on_rank)
        ready = [
            {name: solve(x[0], embedding, x[1]) if isinstance(x, tuple) else x for name, x in group.items()}
            for group in ready
        ]
    _refuse_unequal(ready)
    said: dict[str, list[str]] = {}
    for group in ready:
        for name, operator in group.items():
            if name in fitted and isinstance(operator, Operator):
                for concern in concerns(operator, fitted[name][0]):
                    said.setdefault(concern.split("(")[0].strip(), []).append(f"{name!r}")
    for concern, names in said.items():
        count = f"{len(names)} of {sum(map(len, ready))} systems"
        warnings.warn(f"{count} ({_listed(names)}): {concern}; see singular_spectrum", stacklevel=3)
    return ready


def _common_rank(
    fitted: Mapping[str, tuple[Directions, Tensor]], embedding: EmbeddingParameters, on_rank: str
) -> EmbeddingParameters:
    """The embedding at the largest rank, up to the one asked for, that all systems carry."""
    largest = {name: largest_rank(found, embedding, variance) for name, (found, variance) in fitted.items()}
    least = min(largest, key=lambda name: largest[name])
    if largest[least] == embedding.rank:
        return embedding
    reason = why_not(fitted[least][0], embedding, largest[least])
    if on_rank == "error" or not largest[least] or max(largest.values()) < embedding.rank:
        raise DataError(f"system {least!r}: {reason}")
    short = [repr(name) for name, rank in largest.items() if rank < embedding.rank]
    warnings.warn(
        f"all systems are compared at rank = {largest[least]} in place of {embedding.rank}, since {len(short)} of "
        f"{len(largest)} ({_listed(short)}) cannot carry it: system {least!r}: {reason}", stacklevel=4,
    )  # fmt: skip
    return replace(embedding, rank=largest[least])


def _refuse_unequal(operators: list[dict[str, Any]]) -> None:
    sizes = {
        name: len(getattr(operator, "matrix", operator)) for group in operators for name, operator in group.items()
    }
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        raise DataError(f"operators of different size cannot be aligned: {listed}; fit all systems at one rank")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


def _choose(
    groups: list[dict[str, Any]], noise: Mapping[str, Any], n_delays: Any, rank: Any, **settings: Any
) -> tuple[int, int, str]:
    """n_delays and rank for all systems, and what decided; those that are not "auto" are the only candidates."""
    named = {
        f"{name}{', other' * at}": (name, system) for at, group in enumerate(groups) for name, system in group.items()
    }
    choice = choose_embedding(
        {label: system for label, (_, system) in named.items()},
        n_delays=None if n_delays == "auto" else n_delays,
        rank=None if rank == "auto" else rank,
        noise_variance={label: noise.get(name) for label, (name, _) in named.items()},
        **settings,
    )
    return choice.n_delays, choice.rank, choice.method


def _by_system(noise_variance: Any, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Noise variance by name of the system, from one value for all or a mapping."""
    names = [name for group in groups for name in group]
    if noise_variance is None:
        return {}
    if not isinstance(noise_variance, Mapping):
        return dict.fromkeys(names, noise_variance)
    for name in noise_variance:
        check_choice("system of noise_variance", name, names)
    return dict(noise_variance)


def _piece(name: str, window: str) -> str:
    return f"{name}, window {window}"


def _pieces(
    systems: Mapping[str, Any], windows: Mapping[str, tuple[int, int]], device: torch.device | None
) -> dict[str, Any]:
    """All systems cut into windows, system by system."""
    for name, system in systems.items():
        if isinstance(system, (Operator, DrivenOperator)) or _is_matrix(system):
            raise DataError(f"windows are cut from trials, but system {name!r} came as an operator")
    return {
        _piece(name, window): trials
        for name, system in systems.items()
        for window, trials in cut(system, windows, name, device).items()
    }


def _by_label(operators: dict[str, Any], labels: tuple[str, ...], windows: Any) -> dict[str, Any]:
    """Operators by label of the system: those of all windows in a tuple."""
    if windows is None:
        return operators
    return {label: tuple(operators[_piece(label, window)] for window in windows) for label in labels}


def _is_matrix(system: Any) -> bool:
    shape: tuple[int, ...] = np.shape(system) if not isinstance(system, (list, tuple)) else ()
    return len(shape) == 2 and shape[0] == shape[1]


def _checksum(dataset: xr.Dataset) -> str:
    """SHA-256 of all names, values and attributes: HDF5 reads a file in which a byte has turned without complaint."""
    digest = hashlib.sha256(repr(sorted((key, str(value)) for key, value in dataset.attrs.items())).encode())
    for name, variable in sorted(dataset.variables.items(), key=lambda item: str(item[0])):
        values = variable.values
        digest.update(f"{name} {variable.dims} {variable.shape}".encode())
        digest.update(values.tobytes() if values.dtype.kind in "biuf" else "\0".join(map(str, values)).encode())
    return digest.hexdigest()


def _labelled_operators(dataset: xr.Dataset, axis: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """Operators by label, or tuples of those of all windows."""
    if f"{axis}_matrix" in dataset:
        return dict(zip(labels, _operators_from_xarray(dataset, axis), strict=True))
    if f"{axis}_piece_matrix" in dataset:
        pieces = _operators_from_xarray(dataset, f"{axis}_piece")
        n = len(pieces) // len(labels)
        return {label: tuple(pieces[n * at : n * (at + 1)]) for at, label in enumerate(labels)}
    return {}


def _operators_to_xarray(operators: list[Any], axis: str) -> xr.Dataset:
    """Operators along ``axis``; bases and means lie one below the other, since channel counts may differ."""
    matrices = np.stack([getattr(operator, "matrix", operator).cpu().numpy() for operator in operators])
    variables: dict[str, Any] = {f"{axis}_matrix": ((axis, "row", "column"), matrices)}
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
    noise, windows = tensors("noise_variance").split(n_channels), dataset[f"{axis}_n_windows"].values.tolist()
    columns = (matrices, tensors("singular_values"), bases, means, gaps, counts, parameters, noise, windows)
    return [Operator(*fields) for fields in zip(*columns, strict=True)]
