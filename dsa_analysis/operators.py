"""Operators of many systems at one rank: fitted where data are given, taken where operators are.

A piece of a system (the whole of it, or one of its windows, of one of two sets) is named by a `Key`, so that equal
names in two sets stay apart.
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
    """Which piece of which system."""

    name: str
    side: int = 0  # 1 for ``others``
    window: str | None = None
    called: str = ""  # in messages, if the name alone would not do

    def __str__(self) -> str:
        return (self.called or self.name) + (f", window {self.window}" if self.window is not None else "")


class _Fitted(NamedTuple):
    """What is known of a piece before its operator is solved."""

    embedding: EmbeddingParameters
    found: Directions
    noise_variance: Tensor

    @property
    def largest(self) -> int:
        return largest_rank(self.found, self.embedding, self.noise_variance)


def fit_all(
    systems: Mapping[Key, Any], how: Comparison, device: torch.device | None, progress: bool, stacklevel: int = 3
) -> dict[Key, Any]:
    """Operators of all pieces, fitted or as they were given, all of one size.

    Where a piece does not carry the rank, all are fitted at the largest rank that all carry, or none if ``how.on_rank``
    is "error". Warnings about single operators are given once for all.
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
        operator = solve(one.found, replace(one.embedding, rank=rank), one.noise_variance)
        ready[key] = operator
        for concern in concerns(operator, one.found):
            said.setdefault(concern.split("(")[0].strip(), []).append(repr(str(key)))
    _refuse_unequal(ready)
    for concern, names in said.items():
        warnings.warn(
            f"{len(names)} of {len(ready)} systems ({_listed(names)}): {concern}; see singular_spectrum",
            stacklevel=stacklevel,
        )
    return ready


def is_operator(system: Any) -> bool:
    return isinstance(system, (Operator, DrivenOperator))


def _is_matrix(system: Any) -> bool:
    shape: tuple[int, ...] = np.shape(system) if not isinstance(system, (list, tuple)) else ()
    return len(shape) == 2 and shape[0] == shape[1]


def refuse_operators(systems: Mapping[Any, Any], why: str, matrices: bool = True) -> None:
    """Raise `DataError` if a system is an operator where data are needed."""
    for name, system in systems.items():
        if is_operator(system) or (matrices and _is_matrix(system)):
            raise DataError(f"{why}, but system {str(name)!r} came as an operator")


def _common_rank(fitted: Mapping[Key, _Fitted], on_rank: str, stacklevel: int) -> int:
    """The largest rank, up to the one asked for, that all pieces carry."""
    largest = {key: one.largest for key, one in fitted.items()}
    least = min(largest, key=lambda key: largest[key])
    asked = fitted[least].embedding.rank
    if largest[least] == asked:
        return asked
    reason = why_not(fitted[least].found, fitted[least].embedding, largest[least])
    if on_rank == "error" or not largest[least] or max(largest.values()) < asked:
        raise DataError(f"system {str(least)!r}: {reason}")
    short = [repr(str(key)) for key, rank in largest.items() if rank < asked]
    warnings.warn(
        f"all systems are compared at rank = {largest[least]} in place of {asked}, since {len(short)} of "
        f"{len(largest)} ({_listed(short)}) cannot carry it: system {str(least)!r}: {reason}",
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
