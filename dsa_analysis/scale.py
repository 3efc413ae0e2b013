"""Distances on a scale from the noise floor to a null; see `Similarity.scaled`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.data import DataError

if TYPE_CHECKING:
    import pandas as pd


def scaled(similarity: Any, floor: Any, null: Any) -> "pd.DataFrame":
    """`Similarity.scaled`."""
    import pandas as pd

    labels = list(similarity.labels)
    if similarity.two_sided:
        raise DataError("a scale needs the distances of systems among themselves, not between two sets")
    if isinstance(floor, pd.Series):
        if missing := [label for label in labels if label not in floor.index]:
            raise DataError(f"floor has no value for system {missing[0]!r}")
        own = floor[labels].to_numpy(dtype=float)
    else:
        own = np.full(len(labels), float(floor))
    draws = np.asarray(getattr(null, "distances", null), dtype=float)
    draws = draws if draws.ndim == 3 else np.broadcast_to(draws, (1, len(labels), len(labels)))
    if draws.shape[1:] != similarity.distances.shape:
        raise DataError(f"null has shape {draws.shape}; (n, {len(labels)}, {len(labels)}) fits these systems")
    rows, columns = np.triu_indices(len(labels), 1)
    distance, floors, nulls = (
        similarity.distances[rows, columns],
        (own[rows] + own[columns]) / 2,
        draws[:, rows, columns],
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (distance - floors) / (nulls.mean(0) - floors)
        each = (distance - floors) / (nulls - floors)
    value[nulls.mean(0) <= floors] = np.nan
    limits = np.quantile(each, [0.025, 0.975], axis=0) if len(draws) > 1 else np.full((2, len(distance)), np.nan)
    limits[:, np.isnan(value)] = np.nan
    names = np.array(labels, dtype=object)
    return pd.DataFrame(
        {
            "system_a": names[rows],
            "system_b": names[columns],
            "distance": distance,
            "floor": floors,
            "null": nulls.mean(0),
            "scaled": value,
            "low": limits[0],
            "high": limits[1],
        }
    )
