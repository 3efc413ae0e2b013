"""Tables over groups: how far networks are from the reference, and what these distances correlate with.

Each function computes one table of a `GroupStudy`, which stores it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dsa_analysis import Similarity, permanova, spearman_interval
from workbench.networks.families import FAMILIES, REFERENCE

if TYPE_CHECKING:
    import pandas as pd

    from workbench.networks.study import GroupStudy

# ---- tables of a study -----------------------------------------------------------------------------------------------


def to_reference(study: "GroupStudy") -> "pd.DataFrame":
    """Distance of every network to the reference by every measure: see `GroupStudy.to_reference`."""
    import pandas as pd

    known = study.trained.performance(study.ours.master, n_trials=study.ours.n_test_trials)
    known = known[["group", "network", "performance"]].assign(
        family=[study.family(name) for name in known["group"]],
        shared=[study.parts_learnt(name) for name in known["group"]],
    )

    def of_measure(name: str) -> "pd.DataFrame":
        measure = study.measures[name]
        return known.assign(measure=name, distance=study.distances_to_reference(measure, study.systems(measure)))

    return pd.concat(study.in_parallel(of_measure, study.measures, "measures"), ignore_index=True)


def scores(study: "GroupStudy", table: "pd.DataFrame") -> "pd.DataFrame":
    """Spearman's rho of the distances of `to_reference` with what networks know: see `GroupStudy.scores`."""
    import pandas as pd

    def of_measure(name: str) -> "pd.DataFrame":
        own, rows = table[table["measure"] == name], []
        for question in ("performance", *(f"parts shared, {family}" for family in FAMILIES[1:])):
            distance, known = _asked(own, question)
            if len(np.unique(known)) > 1:
                rows.append((name, question, *spearman_interval(distance, known, seed=study.seed)))
        return pd.DataFrame(rows, columns=["measure", "question", "rho", "low", "high", "n"])

    return pd.concat(study.in_parallel(of_measure, study.measures, "scores"), ignore_index=True)


def _asked(own: "pd.DataFrame", question: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the networks that a question of `scores` is about, and what they know. ``own``: one measure."""
    family = question.removeprefix("parts shared, ")
    of = own[own["family"] != REFERENCE] if question == "performance" else own[own["family"] == family]
    return of["distance"].to_numpy(), of["performance" if question == "performance" else "shared"].to_numpy()


def over_learning(study: "GroupStudy") -> "pd.DataFrame":
    """Distance to the reference at every checkpoint: see `GroupStudy.over_learning`."""
    import pandas as pd

    followed = {group: study.ours.groups[group] for group in study.how.learning}
    known = replace(study.trained, groups=followed).performance(
        study.ours.master, n_trials=study.ours.n_test_trials, over_learning=True
    )

    def of_group(group: str) -> "pd.DataFrame":
        stages = study.stages(group)
        own = known.loc[known["group"] == group, ["group", "network", "step", "performance"]]
        own = own.assign(progress=own["step"] / max(stages))
        return pd.concat(
            own.assign(measure=name, distance=study.distances_to_reference(measure, study.systems(measure, stages)))
            for name, measure in study.shown.items()
        )

    return pd.concat(study.in_parallel(of_group, followed, "groups over learning"), ignore_index=True)


def within_runs(study: "GroupStudy") -> "pd.DataFrame":
    """Distances between checkpoints of the same run: see `GroupStudy.within_runs`."""
    import pandas as pd

    stages, runs = study.stages(study.reference), []
    for name, measure in study.shown.items():
        systems = study.systems(measure, stages)
        for network in range(stages[0].n_networks):
            own = {str(step): pieces for (step, k), pieces in systems.items() if k == network}
            with study.concerns.listening():
                distances = pd.DataFrame(study.distances(measure, own).distances, list(stages), list(stages))
            long = distances.rename_axis("step").melt(var_name="other_step", value_name="distance", ignore_index=False)
            runs.append(long.reset_index().assign(measure=name, network=network))
    return pd.concat(runs, ignore_index=True)


def group_tests(study: "GroupStudy", similarities: Mapping[str, Similarity]) -> "pd.DataFrame":
    """Tests of whether groups differ, by measure: see `GroupStudy.group_tests`."""
    import pandas as pd

    rows = []
    for name, similarity in similarities.items():
        with study.concerns.listening():
            test = permanova(
                similarity, groups_of(similarity), n_permutations=study.how.n_permutations, seed=study.seed
            )
        rows.append((name, test.r_squared, test.p, test.n_permutations, test.exact))
    return pd.DataFrame(rows, columns=["measure", "r_squared", "p", "n_permutations", "exact"])


# ---- summaries of tables ---------------------------------------------------------------------------------------------


def groups_of(similarity: Similarity) -> list[str]:
    """Groups of the systems of `GroupStudy.among`, in the order of its labels."""
    return [label.rsplit(" ", 1)[0] for label in similarity.labels]


def between_groups(similarity: Similarity) -> "pd.DataFrame":
    """Mean distance between the networks of each pair of groups, from `GroupStudy.among`.

    A network is not compared with itself, so that the diagonal holds the mean distance within each group; it is NaN for
    a group of one network.
    """
    import pandas as pd

    groups = pd.Index(groups_of(similarity))
    distances = pd.DataFrame(similarity.distances, groups, groups).mask(np.eye(len(groups), dtype=bool))
    sums, counts = (
        frame.T.groupby(level=0, sort=False).sum().T.groupby(level=0, sort=False).sum()
        for frame in (distances.fillna(0), distances.notna())
    )
    return sums / counts


def of_runs(learning: "pd.DataFrame") -> "pd.Series":
    """Spearman's rho of distance to the reference with performance, over the checkpoints of each run.

    Parameters
    ----------
    learning : DataFrame
        From `GroupStudy.over_learning`.

    Returns
    -------
    Series
        One rho for each measure, group and network. Runs whose performance is constant are left out.
    """
    from scipy.stats import spearmanr

    def rho(run: "pd.DataFrame") -> float:
        if run["performance"].nunique() == 1:
            return np.nan
        return spearmanr(run["distance"], run["performance"]).statistic

    by_run = learning.groupby(["measure", "group", "network"], sort=False)
    return by_run[["distance", "performance"]].apply(rho).dropna()


def difference(
    table: "pd.DataFrame", measure: str, other: str, seed: int = 0, question: str = "performance"
) -> tuple[float, float, float]:
    """Difference between two measures in their rho of distance with what networks know.

    Parameters
    ----------
    table : DataFrame
        From `GroupStudy.to_reference`.
    measure, other : str
        Names of measures; rho of ``other`` is subtracted.
    seed : int >= 0
        Seed of the bootstrap.
    question : str
        As in `GroupStudy.scores`.

    Returns
    -------
    difference, low, high : float
        With a 95 % percentile interval over networks, which are the same for both measures.
    """
    from scipy.stats import bootstrap

    (a, known), (b, _) = (_asked(table[table["measure"] == name], question) for name in (measure, other))
    found = bootstrap(
        (a, b, known), _difference_of_rho, paired=True, vectorized=True, n_resamples=999, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(_difference_of_rho(a, b, known)), float(found.low), float(found.high)


def _difference_of_rho(a: np.ndarray, b: np.ndarray, known: np.ndarray, axis: int = -1) -> np.ndarray:
    """Spearman's rho of ``a`` with ``known`` minus that of ``b``, along an axis."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=axis) for values in (a, b, known)]
    a, b, known = (values - values.mean(axis=axis, keepdims=True) for values in ranks)
    sizes = [np.sqrt((values**2).sum(axis=axis)) for values in (a, b, known)]
    return ((a * known).sum(axis=axis) / sizes[0] - (b * known).sum(axis=axis) / sizes[1]) / sizes[2]
