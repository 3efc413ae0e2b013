"""What a comparison of files found: all that its report tells."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.cells import LEAST_GAP

if TYPE_CHECKING:
    import pandas as pd

    import dsa_analysis as dsa

NAMED = re.compile(r"\d+ of \d+ systems \((?P<names>.*?)\): (?P<what>.*)", re.DOTALL)


@dataclass(frozen=True)
class Findings:
    """What was found; fields with a default stand for "not computed" at that value.

    Attributes
    ----------
    systems : mapping
        Recordings, or matrices if the files hold operators.
    groups : dict from system to group
        Empty if none were asked for.
    similarity : Similarity
    table : DataFrame
        One row for each pair: that of ``Similarity.to_dataframe`` and what was added to it.
    floor : Series or None
        Noise floor of each system.
    choice : EmbeddingChoice or None
        If the embedding was chosen by the data.
    statistics : dict from text to Interval or PermutationTest
        About the groups.
    explanation : Explanation or None
    spectra : dict from system to Tensor
        All singular values of the windows, if a cut is unclear; empty if they were not computed.
    concerns : list of str
        Warnings, each once.
    stability : Stability or None
    nulls : dict from kind to Nulls
    """

    systems: Mapping[str, Any]
    groups: dict[str, str]
    similarity: "dsa.Similarity"
    table: "pd.DataFrame"
    floor: "pd.Series | None" = None
    choice: "dsa.EmbeddingChoice | None" = None
    statistics: dict[str, Any] = field(default_factory=dict)
    explanation: "dsa.Explanation | None" = None
    spectra: dict[str, Any] = field(default_factory=dict)
    concerns: list[str] = field(default_factory=list)
    stability: "dsa.Stability | None" = None
    nulls: "dict[str, dsa.Nulls]" = field(default_factory=dict)

    @property
    def unit(self) -> str:
        return self.similarity.unit

    @property
    def group_list(self) -> list[str] | None:
        """The group of each system, in their order."""
        return [self.groups[label] for label in self.similarity.labels] if self.groups else None

    @cached_property
    def operators(self) -> dict[str, Any]:
        """Fitted operators by system; empty for matrices, windows, and metrics without operators."""
        fitted = self.similarity.operators
        return {label: one for label, one in fitted.items() if hasattr(one, "gaps")}

    @property
    def unclear_cuts(self) -> list[str]:
        """Systems whose cut goes through a cluster of singular values, if the estimator minds."""
        if self.similarity.comparison.estimator == "signal_weighted":  # directions of noise have no weight there
            return []
        return [name for name, operator in self.operators.items() if operator.gap < LEAST_GAP]

    @cached_property
    def nearest(self) -> "pd.Series":
        return self.table.loc[self.table["distance"].idxmin()]

    @cached_property
    def farthest(self) -> "pd.Series":
        return self.table.loc[self.table["distance"].idxmax()]

    @cached_property
    def below_floor(self) -> "pd.DataFrame | None":
        """Pairs that are not above their noise floor; None if there is none."""
        return None if self.floor is None else self.table[self.table["distance"] <= self.table["noise_floor"]]

    @cached_property
    def bound_share(self) -> float | None:
        """Median of lower bound / distance; None for metrics without bounds, and if all distances are 0."""
        apart = self.table[self.table["distance"] > 0]
        if not self.similarity.measure.bounded or apart.empty:
            return None
        return float(np.median(apart["lower_bound"] / apart["distance"]))


def said_once(messages: Iterable[str]) -> list[str]:
    """Warnings, each once: what is said of systems is not said again of their halves, and no function is named."""
    kept: dict[str, str] = {}
    for message in messages:
        message = re.sub(r"; see (singular_spectrum|the table)$", "", message)
        named = NAMED.fullmatch(message)
        kept.setdefault(named["what"] if named else message, message)
    return list(kept.values())
