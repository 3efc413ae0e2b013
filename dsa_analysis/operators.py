"""Operators of many systems at one rank: fitted to data, or used as they are given.

A `Key` names a piece of a system (a whole recording or one of its windows), so that equal names in two sets of systems
stay apart.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.alignment import as_operators
from dsa_analysis.comparison import Comparison
from dsa_analysis.covariances import Directions, directions
from dsa_analysis.data import DataError, as_trials
from dsa_analysis.dmd import Operator, as_noise_variance, concerns, largest_rank, solve, why_not
from dsa_analysis.driven import DrivenOperator
from dsa_analysis.embedding import EmbeddingParameters


class Key(NamedTuple):
    """Name of a piece of a system."""

    name: str
    side: int = 0  # 1 for ``others``
    window: str | None = None
    called: str = ""  # in messages; by default the name

    def __str__(self) -> str:
        return (self.called or self.name) + (f", window {self.window}" if self.window is not None else "")


class _Fitted(NamedTuple):
    """The results of a piece that its operator is computed from."""

    embedding: EmbeddingParameters
    found: Directions
    noise_variance: Tensor

    @property
    def largest(self) -> int:
        return largest_rank(self.found, self.embedding, self.noise_variance)


def fit_all(
    systems: Mapping[Key, Any], how: Comparison, device: torch.device | None, progress: bool, stacklevel: int = 3
) -> dict[Key, Any]:
    """Operators of all pieces, all of one size: fitted to data, or as they were given.

    If the rank is too large for a piece, all are fitted at the largest rank that is possible for all, or an error is
    raised if ``how.on_rank`` is "error". A warning that applies to several operators is given once.
    """
    ready: dict[Key, Any] = {}
    for key, system in tqdm(systems.items(), desc="fitting", unit="system", delay=2, leave=False, disable=not progress):
        if is_operator(system):
            ready[key] = system
        elif _is_matrix(system):
            ready[key] = as_operators(system, f"system {str(key)!r}", device)
        else:
            embedding = how.embedding(key.name)
            found = directions(as_trials(system, str(key), device), embedding, str(key))
            variance = as_noise_variance(how.noise_of(key.name), found, embedding, str(key))
            ready[key] = _Fitted(embedding, found, variance)
    fitted = {key: value for key, value in ready.items() if isinstance(value, _Fitted)}
    rank = _common_rank(fitted, how.on_rank, stacklevel + 1) if fitted else None
    said: dict[str, list[str]] = {}
    for key, one in fitted.items():
        operator = solve(one.found, replace(one.embedding, rank=rank or one.embedding.rank), one.noise_variance)
        ready[key] = operator
        for concern in concerns(operator, one.found):
            said.setdefault(concern.split("(")[0].strip(), []).append(repr(str(key)))
    _refuse_unequal(ready)
    n_named = len(set(map(str, ready)))  # halves of one system have one name
    for concern, names in said.items():
        names = list(dict.fromkeys(names))
        warnings.warn(
            f"{len(names)} of {n_named} systems ({_listed(names)}): {concern}; see singular_spectrum",
            stacklevel=stacklevel,
        )
    return ready


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


def _common_rank(fitted: Mapping[Key, _Fitted], on_rank: str, stacklevel: int) -> int:
    """The largest rank, up to the requested one, that is possible for all pieces."""
    largest = {key: one.largest for key, one in fitted.items()}
    least = min(largest, key=lambda key: largest[key])
    asked = fitted[least].embedding.rank
    if largest[least] == asked:
        return asked
    reason = why_not(fitted[least].found, fitted[least].embedding, largest[least])
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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)
