"""All pairs: systems -> operators -> distances with lower bounds, in one labelled object."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsa_analysis.choose import choose_embedding
from dsa_analysis.comparison import AUTO, Comparison, as_comparison
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice
from dsa_analysis.inputs import match
from dsa_analysis.operators import Key, as_inputs, fit_all, needed, refuse_operators
from dsa_analysis.pairs import solve_pairs
from dsa_analysis.similarity import Similarity
from dsa_analysis.windows import as_pieces, cut, piece_label


def compare(
    systems: Any,
    others: Any = None,
    how: Comparison | None = None,
    *,
    inputs: Any = None,
    across: bool = False,
    store: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    **choices: Any,
) -> Similarity:
    """Compare all systems with each other, or all ``systems`` with all ``others``.

    Each unordered pair is computed once.

    Parameters
    ----------
    systems, others : mapping from name to system, or sequence of systems
        A system is an array (n_trials, n_times, n_channels) or a list of trials (n_times_i, n_channels), or, in place
        of data, an `Operator`, a `DrivenOperator` (a saved result keeps its matrices) or a square matrix (a single
        trial with as many samples as channels has to come in a list, to be read as data). ``others`` may use the same
        names.
    how : Comparison, optional
        Every choice of the comparison: embedding, estimator, metric, alignment, windows.
    inputs : mapping from name of a system to its inputs, or sequence in the order of the systems, optional
        What drives each system, as in `fit_driven_operator`: an array or a list like its trials, with one input for
        each sample. Operators with inputs are fitted then, one sample ahead. Metrics "state", "input" and "joint" need
        them; other metrics compare the operators A. They have to vary enough to tell their effects apart.
    across : bool
        Compare every window with every window, also those of one system, instead of each with the same window of the
        other system. Each window of each system is then a system of its own, labelled "name, window", and
        `Similarity.between_windows` gives the array of two systems.
    store : path, optional
        Folder in which solved pairs are kept as they come. If a comparison was interrupted, call it again with the
        same folder to compute the rest.
    device : str or torch.device, optional
        Where everything is computed; by default each system is fitted where its data are, and all are aligned where
        the first is. "auto" takes CUDA if there is a device.
    progress : bool
        Show bars for what takes more than two seconds.
    **choices
        Fields of `Comparison`, which override those of ``how``: ``compare(systems, n_delays=10, rank=8)``.

    Returns
    -------
    Similarity

    Raises
    ------
    DataError
        Naming system, trial, channel or argument.

    Examples
    --------
    >>> from dsa_analysis import lorenz
    >>> similarity = compare({"chaos": lorenz(5, 200, seed=0), "again": lorenz(5, 200, seed=1)}, n_delays=5, rank=3)
    >>> similarity.distances.shape, similarity.unit
    ((2, 2), 'rad')
    """
    how = as_comparison(how, choices)
    if across:
        if inputs is not None:
            raise DataError("across=True compares windows without inputs; leave inputs or across out")
        return _across(systems, others, how, store=store, device=device, progress=progress)
    sides = _sides(systems, others, inputs, how, as_device(device))
    lowered: dict[str, Any] = {}
    if how.metric.needs == "trials":
        solved_for: dict[Key, Any] = _all_trials(sides, how, as_device(device))
        operators: dict[Key, Any] = {}
    else:
        asked = how
        how = _chosen(sides, how, device, progress)
        if how is not asked:
            lowered["chosen"] = {name: getattr(asked, name) == AUTO for name in ("n_delays", "rank", "horizon")}
            lowered["chosen"]["by"] = sides.method
        operators = solved_for = fit_all(sides.pieces, how, as_device(device), progress, inputs=sides.inputs)
        rank = len(getattr(next(iter(operators.values())), "matrix", next(iter(operators.values()))))
        if how.rank is not None and rank != how.rank:
            lowered["lowered_from"] = how.rank
            how = how.override(rank=rank)

    first, second = sides.pairs()
    options, names = how.options(), [f"system {str(key)!r}" for key in solved_for]
    values = needed(solved_for, how, as_device(device))
    place = first.to(values.device) if isinstance(values, Tensor) else first
    solved = solve_pairs(
        how.metric, values, place, second.to(place.device), options, names=names, store=store, progress=progress,  # type: ignore[arg-type]
    )  # fmt: skip
    if not bool(solved.converged.all()):
        count = f"{int((~solved.converged).sum())} of {len(solved.converged)}"
        warnings.warn(
            f"{count} alignments stopped before their gradient vanished; see Similarity.converged", stacklevel=2
        )
    own = (0.0, 0.0 if how.metric.bounded else np.nan, 1.0, True)
    distance, bound, agreement, converged = (
        sides.matrices(found, diagonal) for found, diagonal in zip(solved, own, strict=True)
    )
    return Similarity(
        distance.mean(0),
        bound.mean(0),
        agreement.min(0),
        np.all(converged, axis=0),
        sides.labels[0],
        sides.labels[-1],
        how,
        operators=sides.by_label(operators, 0),
        other_operators=sides.by_label(operators, len(sides.labels) - 1),
        settings=how.to_dict() | lowered,
        by_window=None if how.windows is None else distance,
        two_sided=others is not None,
    )


def _across(systems: Any, others: Any, how: Comparison, *, device: Any, **settings: Any) -> Similarity:
    """Compare every window with every window."""
    if how.windows is None:
        raise DataError("across=True compares every window with every window; give windows")
    windows, pieces, per_piece = how.windows, [], {}
    named = [as_systems(systems)] + ([as_systems(others)] if others is not None else [])
    everyone = [name for side in named for name in side]
    _check_names(how, everyone)
    for side in named:
        refuse_operators(side, "windows are cut from trials")
        pieces.append(as_pieces(side, windows, as_device(device)))
    for choice in ("dt", "noise_variance"):
        if isinstance(own := getattr(how, choice), Mapping):
            per_piece[choice] = {
                piece_label(name, window): own[name] for name in everyone if name in own for window in windows
            }
    alone = how.override(windows=None, **per_piece)
    found = compare(pieces[0], pieces[1] if others is not None else None, alone, device=device, **settings)
    cuts = {"windows": {name: list(pair) for name, pair in windows.items()}}
    return replace(found, across=tuple(windows), settings=found.settings | cuts)


@dataclass
class _Sides:
    """One set of systems or two, cut into windows or whole: which pieces there are, and which make a pair."""

    labels: list[tuple[str, ...]]  # of each side
    windows: tuple[str | None, ...]
    pieces: dict[Key, Any]  # side by side, system by system, window by window
    inputs: dict[Key, Any]  # of pieces that have some
    method: str = ""  # by which an embedding was chosen

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Indices into the pieces of both partners of all pairs: pair by pair, window by window."""
        k, w = len(self.labels[0]), len(self.windows)
        rows, columns = self._places()
        offset = 0 if len(self.labels) == 1 else k
        first, second = (w * index[:, None] + np.arange(w) for index in (rows, columns + offset))
        return torch.from_numpy(first.ravel()), torch.from_numpy(second.ravel())

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self.labels) == 1:
            return np.triu_indices(len(self.labels[0]), 1)
        rows, columns = np.indices((len(self.labels[0]), len(self.labels[1])))
        return rows.ravel(), columns.ravel()

    def matrices(self, values: Tensor, diagonal: Any) -> np.ndarray:
        """(n_windows, k, k) or (n_windows, k, l) from the values of all pairs."""
        by_window = values.view(-1, len(self.windows)).T.cpu().numpy()
        shape = len(self.windows), len(self.labels[0]), len(self.labels[-1])
        full = np.full(shape, diagonal, dtype=by_window.dtype)
        rows, columns = self._places()
        full[:, rows, columns] = by_window
        if len(self.labels) == 1:
            full[:, columns, rows] = by_window
        return full

    def by_label(self, operators: Mapping[Key, Any], side: int) -> dict[str, Any]:
        """Operators of a side by label of the system: those of all windows in a tuple."""
        own: dict[str, list[Any]] = {}
        for key, operator in operators.items():
            if key.side == side:
                own.setdefault(key.name, []).append(operator)
        return {name: found[0] if self.windows == (None,) else tuple(found) for name, found in own.items()}


def _sides(systems: Any, others: Any, inputs: Any, how: Comparison, device: torch.device | None) -> _Sides:
    named = [as_systems(systems)] + ([as_systems(others)] if others is not None else [])
    drives = as_inputs(inputs, *named)
    if drives and how.metric.needs == "trials":
        raise DataError(
            f"inputs have no effect with metric = {how.metric.name!r}, which compares trials; leave them out"
        )
    _check_names(how, [name for side in named for name in side])
    pieces: dict[Key, Any] = {}
    of_pieces: dict[Key, Any] = {}
    for at, side in enumerate(named):
        for name, system in side.items():
            called = f"{name}, other" if at and name in named[0] else ""
            key = Key(name, at, called=called)
            if how.windows is None:
                pieces[key] = system
                of_pieces |= {key: drives[name]} if name in drives else {}
                continue
            refuse_operators({key: system}, "windows are cut from trials")
            cuts = cut(system, how.windows, str(key), device)
            pieces |= {key._replace(window=window): trials for window, trials in cuts.items()}
            if name in drives:
                match(system, drives[name], str(key))
                cuts = cut(drives[name], how.windows, f"inputs of {key}", device, constant=True)
                of_pieces |= {key._replace(window=window): trials for window, trials in cuts.items()}
    return _Sides([tuple(side) for side in named], tuple(how.windows or (None,)), pieces, of_pieces)


def _check_names(how: Comparison, everyone: list[str]) -> None:
    """Refuse noise variances of systems that are not there, and systems without a sampling interval."""
    if isinstance(how.noise_variance, Mapping):
        for name in how.noise_variance:
            check_choice("system of noise_variance", name, everyone)
    if isinstance(how.dt, Mapping):
        for name in everyone:
            how.interval(name)


def _all_trials(sides: _Sides, how: Comparison, device: torch.device | None) -> dict[Key, list[Tensor]]:
    refuse_operators(sides.pieces, f"metric = {how.metric.name!r} compares recordings", matrices=False)
    return {key: as_trials(system, str(key), device) for key, system in sides.pieces.items()}


def _chosen(sides: _Sides, how: Comparison, device: Any, progress: bool) -> Comparison:
    """The comparison with delays, rank and horizon chosen where they are "auto"."""
    if AUTO not in (how.n_delays, how.rank, how.horizon):
        return how
    if sides.inputs:
        how.embedding(next(iter(sides.inputs)).name, inputs=True)  # which refuses "auto"
    by_name = {str(key): system for key, system in sides.pieces.items()}
    per_system: dict[str, Any] = {"windows": None}
    for name in ("dt", "noise_variance"):
        if isinstance(values := getattr(how, name), Mapping):
            per_system[name] = {str(key): values[key.name] for key in sides.pieces if key.name in values}
    choice = choose_embedding(by_name, how.override(**per_system), device=device, progress=progress)
    sides.method = choice.method
    return choice.applied_to(how)
