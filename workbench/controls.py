"""Several measures on one control: similarities, and how well each tells kinds of systems apart.

measures = beside(dsa)                                      # DSA, one sample ahead, size kept, eigenvalues, rivals
found = compare_all(control.systems, measures, dt=0.05)     # {"DSA": Similarity, ...}
scores(found, control.groups)                               # AUROC, silhouette, nearest neighbours
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis import METRICS, Comparison, DataError, Similarity, auroc, compare, silhouette

if TYPE_CHECKING:
    import pandas as pd

ONE_SAMPLE = "DSA, one sample"
BESIDE = ("frobenius", "spectral", "cka", "procrustes", "principal_variances", "autocorrelations")


def beside(dsa: Comparison) -> dict[str, Comparison]:
    """Measures that are shown beside each other, by the names that figures use.

    The comparison by angles, the same one sample ahead unless that is what it is, the same operators by other metrics,
    and metrics of the trials.
    """
    measures = {METRICS["angular"].title: dsa.override(metric="angular")}
    if dsa.horizon is not None or dsa.steps_ahead not in (None, 1):
        measures[ONE_SAMPLE] = dsa.override(metric="angular", steps_ahead=1)
    return measures | {METRICS[name].title: dsa.override(metric=name) for name in BESIDE}


def compare_all(
    systems: Mapping[str, Any],
    measures: Mapping[str, Comparison],
    *,
    dt: float | Mapping[str, float] | None = None,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, Similarity]:
    """Similarity of systems under each measure.

    Measures that fit the same operators share them.

    Parameters
    ----------
    systems : mapping from name to system, as data
    measures : mapping from name to Comparison
    dt : float, or mapping from name to that, optional
        Sampling interval, for measures that give times.
    seed : int >= 0
        Of the alignments.
    """
    fitted: dict[str, dict[str, Any]] = {}
    found = {}
    for name, how in measures.items():
        how = how.override(seed=seed, dt=dt)
        if how.metric.needs == "trials":
            found[name] = compare(systems, how=how, device=device, progress=False)
            continue
        fit = str({**how.override(metric="angular").to_dict(), "n_starts": None})
        found[name] = compare(fitted.get(fit, systems), how=how, device=device, progress=False)
        fitted.setdefault(fit, found[name].operators)
    return found


def scores(found: Mapping[str, Similarity], groups: Sequence[Any], **about: Any) -> "pd.DataFrame":
    """How well each measure tells groups apart: one row for each, with columns measure, AUROC, silhouette, nearest.

    ``nearest`` is the fraction of systems whose nearest other system is of their group. Keywords become columns, such
    as ``seed=3``.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "measure": name,
                **about,
                "AUROC": auroc(similarity, groups),
                "silhouette": silhouette(similarity, groups),
                "nearest": nearest_neighbour(similarity, groups),
            }
            for name, similarity in found.items()
        ]
    )


def nearest_neighbour(similarity: Similarity | np.ndarray, groups: Sequence[Any]) -> float:
    """Fraction of systems whose nearest other system is of their group, in [0, 1]."""
    distances = np.array(getattr(similarity, "distances", similarity), dtype=float)
    labels = np.asarray(groups)
    if distances.shape != (len(labels), len(labels)):
        raise DataError(f"{len(labels)} groups were given for distances of shape {distances.shape}")
    if len(labels) < 2:
        raise DataError("one system has no neighbour; give at least 2")
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(1)] == labels).mean())
