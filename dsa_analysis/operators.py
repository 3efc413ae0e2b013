"""Operators of many systems at one rank: fitted to data, with inputs or without, or used as they are given.

A `Key` names a piece of a system (a whole recording or one of its windows), so that equal names in two sets of systems
stay apart.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.alignment import as_operators
from dsa_analysis.comparison import Comparison
from dsa_analysis.covariances import Directions, directions
from dsa_analysis.data import DataError, as_trials, check_choice
from dsa_analysis.display import bars_go_to
from dsa_analysis.dmd import Operator, as_noise_variance, concerns, largest_rank, solve, why_not
from dsa_analysis.driven import DrivenOperator, prepare
from dsa_analysis.embedding import EmbeddingParameters
from dsa_analysis.grassmann import Lift, as_rates, modes
from dsa_analysis.pairs import Systems


class Key(NamedTuple):
    """Name of a piece of a system."""

    name: str
    side: int = 0  # 1 for ``others``
    window: str | None = None
    called: str = ""  # in messages; by default the name

    def __str__(self) -> str:
        return (self.called or self.name) + (f", window {self.window}" if self.window is not None else "")


class _Fit(Protocol):
    """What operators of any rank are computed from: here, in `driven.WindowFit` and in `subspace.SubspaceFit`."""

    @property
    def largest(self) -> int:
        """Largest rank, up to that asked for, that is possible."""

    def why_not(self, largest: int) -> str:
        """Why the rank asked for is too large."""

    def operator(self, rank: int) -> tuple[Any, list[str]]:
        """The operator of that rank, and warnings about it."""


class _Fitted(NamedTuple):
    """The results of a piece without inputs that its operator is computed from."""

    embedding: EmbeddingParameters
    found: Directions
    noise_variance: Tensor

    @property
    def largest(self) -> int:
        return largest_rank(self.found, self.embedding, self.noise_variance)

    def why_not(self, largest: int) -> str:
        return why_not(self.found, self.embedding, largest)

    def operator(self, rank: int) -> tuple[Operator, list[str]]:
        operator = solve(self.found, replace(self.embedding, rank=rank), self.noise_variance)
        return operator, concerns(operator, self.found)


def fit_all(
    systems: Mapping[Key, Any],
    how: Comparison,
    device: torch.device | None,
    progress: bool,
    stacklevel: int = 3,
    inputs: Mapping[Key, Any] | None = None,
) -> dict[Key, Any]:
    """Operators of all pieces, all of one size: fitted to data, or as they were given.

    Pieces that have ``inputs`` become operators with inputs.

    If the rank is too large for a piece, all are fitted at the largest rank that is possible for all, or an error is
    raised if ``how.on_rank`` is "error". A warning that applies to several operators is given once.
    """
    ready: dict[Key, Any] = {}
    fitted: dict[Key, _Fit] = {}
    inputs = inputs or {}
    if how.metric.needs == "driven":
        _refuse_without_inputs(systems, inputs, how)
    for key, system in tqdm(
        systems.items(), desc="fitting", unit="system", delay=2, leave=False, file=bars_go_to(), disable=not progress
    ):
        if is_operator(system):
            ready[key] = system
        elif _is_matrix(system):
            ready[key] = as_operators(system, f"system {str(key)!r}", device)
        elif key in inputs:
            embedding = how.embedding(key.name, inputs=True)
            ready[key] = fitted[key] = prepare(
                system, inputs[key], embedding, n_future=how.n_future, device=device, name=str(key)
            )
        else:
            embedding = how.embedding(key.name)
            found = directions(as_trials(system, str(key), device), embedding, str(key))
            variance = as_noise_variance(how.noise_of(key.name), found, embedding, str(key))
            ready[key] = fitted[key] = _Fitted(embedding, found, variance)
    rank = _common_rank(fitted, int(how.rank or 0), how.on_rank, stacklevel + 1) if fitted else 0
    said: dict[str, list[str]] = {}
    for key, one in fitted.items():
        ready[key], doubts = one.operator(rank)
        for doubt in doubts:
            said.setdefault(doubt.split("(")[0].strip(), []).append(repr(str(key)))
    _refuse_unequal(ready)
    n_named = len(set(map(str, ready)))  # halves of one system have one name
    if how.metric.needs == "driven" or inputs:
        _refuse_undetermined(ready, inputs, how)
    for concern, names in said.items():
        names = list(dict.fromkeys(names))
        warnings.warn(
            f"{len(names)} of {n_named} systems ({_listed(names)}): {concern}; see singular_spectrum",
            stacklevel=stacklevel,
        )
    return ready


def needed(pieces: Mapping[Any, Any], how: Comparison, device: torch.device | None = None) -> Systems:
    """What the metric needs of all pieces, which are lists of trials or operators of one size."""
    if how.metric.needs == "trials":
        return list(pieces.values())
    stacked = as_operators(list(pieces.values()), "operators", device)
    if how.metric.needs == "driven":
        return torch.cat([stacked, torch.stack([piece.drive.to(stacked) for piece in pieces.values()])], 2)
    if how.metric.needs == "modes":
        return all_modes(dict(zip(map(_as_key, pieces), pieces.values(), strict=True)), stacked, how)
    return stacked if how.metric.needs == "operators" else torch.linalg.eigvals(stacked)


def all_modes(pieces: Mapping[Key, Any], matrices: Tensor, how: Comparison) -> Tensor:
    """`modes` of all pieces in the space of their windows, (k, n, 1 + 2 d); ``matrices`` are (k, n, n)."""
    steps = [_step(piece, how, key.name) for key, piece in pieces.items()]
    named = [f"system {str(key)!r}" for key in pieces]
    found = [
        modes(matrix, name, _lift(piece, name))
        for matrix, piece, name in zip(matrices, pieces.values(), named, strict=True)
    ]
    if len(sizes := {one.shape[1] // 2: name for one, name in zip(found, named, strict=True)}) > 1:
        listed = ", ".join(f"{size} ({name})" for size, name in sizes.items())
        raise DataError(
            f"metric = {how.metric.name!r} compares eigenvectors entry by entry, but windows have {listed} entries; "
            f"systems need the same channels and n_delays"
        )
    per = getattr(how.metric, "per", None)
    if per is None and max(steps) - min(steps) > 1e-9 * max(steps):
        per = max(steps)
    if per is not None:
        found = [as_rates(one, step, per, name) for one, step, name in zip(found, steps, named, strict=True)]
    return torch.stack(found)


def _as_key(key: Any) -> Key:
    return key if isinstance(key, Key) else Key(str(key))


def _step(piece: Any, how: Comparison, name: str) -> float:
    """Time from v(t) to A v(t), in samples if there is no ``dt``."""
    if how.horizon is not None and not isinstance(piece, Operator):
        return float(how.horizon)  # type: ignore[arg-type]
    ahead = piece.parameters.steps_ahead if isinstance(piece, Operator) else how.steps_ahead or 1
    return ahead * (how.interval(name) or 1.0)


def _lift(piece: Any, name: str) -> Lift | None:
    """Maps of eigenvectors of whitened coordinates v = S^-1 U^T h to windows h; None for matrices from elsewhere."""
    if isinstance(piece, DrivenOperator):
        raise DataError(
            f"{name}: metric = 'sgot' compares eigenvectors in the space of the channels, and states of operators with "
            f"inputs have coordinates of their own; use metric = 'state'"
        )
    if not isinstance(piece, Operator):
        return None
    return piece.basis * piece.singular_values, piece.basis / piece.singular_values


def as_inputs(inputs: Any, *sides: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs by name of the system, checked against the names and kinds of the systems; empty if there are none."""
    if inputs is None:
        return {}
    everyone = {name: system for side in reversed(sides) for name, system in side.items()}
    if isinstance(inputs, Mapping):
        given = {str(name): value for name, value in inputs.items()}
    elif isinstance(inputs, Sequence) and not isinstance(inputs, str) and len(sides) == 1:
        if len(inputs) != len(everyone):
            raise DataError(f"{len(everyone)} systems came, and inputs for {len(inputs)}; give inputs for each")
        given = dict(zip(everyone, inputs, strict=True))
    else:
        raise DataError(
            f"inputs came as {type(inputs).__name__}; give a mapping from the name of each system to its inputs"
            + ", or a list in the order of the systems" * (len(sides) == 1)
        )
    for name in given:
        check_choice("system of inputs", name, everyone)
        if all(name in side for side in sides) and len(sides) > 1:
            raise DataError(
                f"system {name!r} is in both sets, and one name cannot have two inputs; rename one, or give operators "
                f"by fit_driven_operator"
            )
        if is_operator(everyone[name]) or _is_matrix(everyone[name]):
            raise DataError(f"system {name!r} came as an operator, which contains its inputs; leave it out of inputs")
    for name, system in everyone.items():
        if name not in given and not is_operator(system) and not _is_matrix(system):
            raise DataError(f"no inputs came for system {name!r}; give inputs for each system, or for none")
    return given


def is_operator(system: Any) -> bool:
    return isinstance(system, (Operator, DrivenOperator))


def _is_matrix(system: Any) -> bool:
    shape: tuple[int, ...] = np.shape(system) if not isinstance(system, (list, tuple)) else ()
    return len(shape) == 2 and shape[0] == shape[1]


def refuse_operators(systems: Mapping[Any, Any], why: str, matrices: bool = True) -> None:
    """Raise `DataError` if a system is an operator; ``why`` says what data are needed for."""
    for name, system in systems.items():
        if is_operator(system) or (matrices and _is_matrix(system)):
            raise DataError(f"{why}, but system {str(name)!r} came as an operator")


def _common_rank(fitted: Mapping[Key, _Fit], asked: int, on_rank: str, stacklevel: int) -> int:
    """The largest rank, up to the one ``asked`` for, that is possible for all pieces."""
    largest = {key: one.largest for key, one in fitted.items()}
    least = min(largest, key=lambda key: largest[key])
    if largest[least] == asked:
        return asked
    reason = fitted[least].why_not(largest[least])
    if on_rank == "error" or not largest[least] or max(largest.values()) < asked:
        raise DataError(f"system {str(least)!r}: {reason}")
    short = list(dict.fromkeys(repr(str(key)) for key, rank in largest.items() if rank < asked))
    warnings.warn(
        f"all systems are compared at rank = {largest[least]} instead of {asked}, which is too large for {len(short)} "
        f"of {len(set(map(str, largest)))} ({_listed(short)}): system {str(least)!r}: {reason}",
        stacklevel=stacklevel,
    )
    return largest[least]


def _refuse_unequal(operators: Mapping[Key, Any]) -> None:
    sizes = {str(key): len(getattr(operator, "matrix", operator)) for key, operator in operators.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        raise DataError(f"operators of different size cannot be aligned: {listed}; fit all systems at one rank")


def _refuse_without_inputs(systems: Mapping[Key, Any], inputs: Mapping[Key, Any], how: Comparison) -> None:
    """Refuse systems that cannot have an input matrix."""
    why = f"metric = {how.metric.name!r} compares operators with inputs"
    for key, system in systems.items():
        if isinstance(system, DrivenOperator) or key in inputs:
            continue
        if is_operator(system) or _is_matrix(system):
            raise DataError(
                f"{why}, but system {str(key)!r} came as an operator without; give DrivenOperator(A, B), or "
                f"fit_driven_operator of its trials and inputs"
            )
        raise DataError(f"{why}, but no inputs came for system {str(key)!r}; give inputs={{{key.name!r}: ...}}")


def _refuse_undetermined(operators: Mapping[Key, Any], inputs: Mapping[Key, Any], how: Comparison) -> None:
    """Refuse operators whose input matrices the data do not determine, or that cannot be compared."""
    strict = how.metric.needs == "driven" and getattr(how.metric, "takes_inputs", True)
    kinds: dict[str, list[str]] = {}
    widths: dict[str, int] = {}
    for key, operator in operators.items():
        if not isinstance(operator, DrivenOperator):
            continue
        if operator.lacking and (strict or key in inputs):
            raise DataError(f"system {str(key)!r}: {operator.lacking}")
        if operator.kind:
            kinds.setdefault(operator.kind, []).append(str(key))
        widths[str(key)] = operator.drive.shape[1]
    if len(kinds) > 1:
        listed = "; ".join(f"{_listed(list(map(repr, names)))}: {kind}" for kind, names in kinds.items())
        raise DataError(f"operators with inputs were fitted in different ways ({listed}); fit all in one")
    if strict and len(set(widths.values())) > 1:
        listed = ", ".join(f"{name!r} {width}" for name, width in widths.items())
        raise DataError(
            f"systems have different numbers of inputs, {listed}; metric = {how.metric.name!r} matches them"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)
