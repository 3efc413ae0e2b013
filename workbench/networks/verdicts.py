"""Claims about groups of networks, judged over several seeds.

Networks of one seed share their trials, their reference and the random starts of groups that follow each other. Only
seeds are independent repetitions of a study. With two seeds or more each statistic is therefore computed for each seed
by itself, and its interval is taken over seeds: of Fisher's z for correlations (see `workbench.claims.rho_interval`),
Student's for all else. With one seed the interval is that within the study, over its networks, runs or fixed points,
which is narrower than it would be over seeds.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis import mean_interval, spearman, spearman_interval
from dsa_analysis.inference import Interval
from workbench.claims import Claim, Relation, claims_table, median_interval, p_interval, rho_interval
from workbench.networks.families import BEFORE, FREE, FROZEN
from workbench.networks.study import GroupStudy
from workbench.networks.tables import difference, of_runs

if TYPE_CHECKING:
    import pandas as pd

    from workbench.settings import Settings

Studies = Sequence[GroupStudy]


def studies_of(settings: "Settings", progress: bool = True) -> list[GroupStudy]:
    """One complete study for each of ``groups.seeds``. What is stored is read."""
    return [GroupStudy(settings, seed, progress).complete() for seed in settings.groups.seeds]


def verdicts(studies: GroupStudy | Studies) -> "pd.DataFrame":
    """Judge the claims of the settings about groups of networks.

    Parameters
    ----------
    studies : GroupStudy, or a sequence of them
        Complete studies with the same settings and different seeds.

    Returns
    -------
    DataFrame
        Columns ``what``, ``seen``, ``claim`` and ``verdict`` ("met", "not met", "undecided", or "" where nothing is
        claimed), from `workbench.claims.claims_table`.
    """
    studies = [studies] if isinstance(studies, GroupStudy) else list(studies)
    _refuse_mixed(studies)
    parts = (_on_performance, _on_parts, _on_learning, _on_groups, _on_trials, _on_truth)
    return claims_table(claim for part in parts for claim in part(studies))


def pooled_scores(studies: GroupStudy | Studies) -> "pd.DataFrame":
    """Spearman's rho of the distance to the reference with what networks know, for each seed and over seeds.

    Parameters
    ----------
    studies : as in `verdicts`

    Returns
    -------
    DataFrame
        By ``measure`` and ``question``: ``rho``, ``low`` and ``high`` (95 %), ``n`` (seeds; networks for one study),
        and a column "seed N" with the rho of each seed. Questions are those of `GroupStudy.scores`.
    """
    studies = [studies] if isinstance(studies, GroupStudy) else list(studies)
    _refuse_mixed(studies)
    pooled = studies[0].scores.copy()
    for key in pooled.index:
        pooled.loc[key, ["rho", "low", "high", "n"]] = list(over_seeds(studies, _score(*key), rho_interval))
    return pooled.assign(**{f"seed {study.seed}": study.scores["rho"] for study in studies})


def over_seeds(
    studies: Studies,
    find: Callable[[GroupStudy], Interval],
    pool: Callable[[Sequence[float]], Interval] = mean_interval,
) -> Interval:
    """Interval of a statistic: that within the study for one study, else ``pool`` of the estimates of all studies."""
    found = [find(study) for study in studies]
    return found[0] if len(found) == 1 else pool([interval.mean for interval in found])


def _refuse_mixed(studies: Studies) -> None:
    seeds = [study.seed for study in studies]
    if not seeds:
        raise ValueError("studies: is empty; give one study or more")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"studies: have seeds {seeds}; each must have a seed of its own, since a seed counts once")
    if any(study.ours != studies[0].ours for study in studies):
        raise ValueError("studies: differ in the section 'groups' of their settings; give studies of the same settings")


# ---- claims ----------------------------------------------------------------------------------------------------------


def _on_performance(studies: Studies) -> Iterator[Claim]:
    how = studies[0].how
    for measure in how.judged:
        is_method = measure == how.judged[0]
        yield _claim(
            studies,
            f"{measure}: distance to the reference with performance, rho",
            over_seeds(studies, _score(measure, "performance"), rho_interval),
            "<=" if is_method else None,
            how.claims.performance,
            of="networks",
        )
    yield from _no_worse(studies, "performance", "tracks performance")


def _on_parts(studies: Studies) -> Iterator[Claim]:
    judged, asked = studies[0].how.judged, studies[0].scores.index
    for family in (BEFORE, FROZEN, FREE):
        question = f"parts shared, {family}"
        if (judged[0], question) not in asked:
            continue
        for measure in judged:
            yield _claim(
                studies,
                f"{measure}: distance with {question}, rho",
                over_seeds(studies, _score(measure, question), rho_interval),
                "<" if measure == judged[0] and family != FREE else None,
                0,
                of="networks",
            )
        if family == FROZEN:
            yield from _no_worse(studies, question, "orders parts, recurrent weights frozen,")


def _no_worse(studies: Studies, question: str, does: str) -> Iterator[Claim]:
    """Claims on the difference of rho between the method and each other measure, paired within networks."""
    method, *others = studies[0].how.judged
    for other in others:
        change = over_seeds(studies, _difference(method, other, question))
        yield _claim(
            studies, f"{method} {does} no worse than {other}, difference of rho", change, "<=", 0, of="networks"
        )


def _on_learning(studies: Studies) -> Iterator[Claim]:
    how = studies[0].how
    for measure in how.shown:
        yield _claim(
            studies,
            f"{measure}: distance with performance over a run, median rho of runs",
            over_seeds(studies, _rho_of_runs(measure), rho_interval),
            "<=" if measure == how.shown[0] else None,
            how.claims.learning,
            of="runs",
        )


def _on_groups(studies: Studies) -> Iterator[Claim]:
    how = studies[0].how
    r_squared = {name: np.array([study.group_tests.loc[name, "r_squared"] for study in studies]) for name in how.judged}
    for measure, each in r_squared.items():
        yield _claim(studies, f"{measure}: variance of distances that groups explain, R2", each)
    method, *others = how.judged
    for other in others:
        gain = r_squared[method] - r_squared[other]
        yield _claim(studies, f"groups explain more by {method} than by {other}, difference of R2", gain, ">", 0)
    for measure in how.judged:
        p = max((_p_of_groups(study, measure) for study in studies), key=lambda interval: interval.mean)
        what = f"{measure}: groups differ, PERMANOVA, {'p' if len(studies) == 1 else 'largest p of all seeds'}"
        yield Claim(what, p, "<=", how.claims.p_value, of="permutations")


def _on_trials(studies: Studies) -> Iterator[Claim]:
    how = studies[0].how
    for name, measure in how.measures.items():
        if measure.trials == "unmatched":
            what = f"{name}: rho with performance minus that of {how.judged[0]}"
            change = over_seeds(studies, _difference(name, how.judged[0], "performance"))
            yield _claim(studies, what, change, "within", how.claims.unmatched, of="networks")


def _on_truth(studies: Studies) -> Iterator[Claim]:
    claims, found = studies[0].how.claims, [study for study in studies if len(study.jacobian_pairs)]
    if not found:
        return
    n = f"{sum(study.jacobian_modes['point'].nunique() for study in found)} fixed points"
    error, rho = over_seeds(found, _mode_error), over_seeds(found, _rho_with_jacobians, rho_interval)
    what = f"slowest time constant near {n}, relative error, median"
    yield _claim(found, what, error, "<=", claims.mode_error, of="points")
    what = f"distances between operators with those between Jacobians, {n}, rho"
    yield _claim(found, what, rho, ">=", claims.jacobians, of="points")


def _claim(
    studies: Studies,
    what: str,
    seen: Any,
    relation: Relation | None = None,
    threshold: float | None = None,
    *,
    of: str = "",
) -> Claim:
    return Claim(what, seen, relation, threshold, of=of if len(studies) == 1 else "seeds")


# ---- statistics of one study -----------------------------------------------------------------------------------------


def _score(measure: str, question: str) -> Callable[[GroupStudy], Interval]:
    """Rho with its bootstrap interval over networks."""

    def find(study: GroupStudy) -> Interval:
        rho = study.scores.loc[(measure, question)]
        return Interval(float(rho["rho"]), float(rho["low"]), float(rho["high"]), int(rho["n"]))

    return find


def _difference(measure: str, other: str, question: str) -> Callable[[GroupStudy], Interval]:
    """Difference of rho between two measures, with its bootstrap interval over networks.

    With few networks some resamples know all the same and have no rho: the limits are NaN then.
    """

    def find(study: GroupStudy) -> Interval:
        n = int(study.scores.loc[(measure, question), "n"])
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The BCa confidence interval cannot be calculated")
            return Interval(*difference(study.to_reference, measure, other, study.seed, question), n)

    return find


def _rho_of_runs(measure: str) -> Callable[[GroupStudy], Interval]:
    """Median over runs of rho over checkpoints, with its exact interval."""
    return lambda study: median_interval(of_runs(study.over_learning).loc[measure])


def _p_of_groups(study: GroupStudy, measure: str) -> Interval:
    """P value with its interval over drawn permutations."""
    test = study.group_tests.loc[measure]
    return p_interval(float(test["p"]), int(test["n_permutations"]), bool(test["exact"]))


def _mode_error(study: GroupStudy) -> Interval:
    """Median over fixed points of the relative error of the slowest time constant, with its exact interval."""
    return median_interval(study.jacobian_modes.groupby("point")["error"].first().abs())


def _rho_with_jacobians(study: GroupStudy) -> Interval:
    """Rho over pairs of fixed points, with its bootstrap interval over points, which the pairs share.

    Fewer than 5 points are too few to resample: the limits are NaN then.
    """
    pairs = study.jacobian_pairs
    points = {name: k for k, name in enumerate(dict.fromkeys([*pairs["system_a"], *pairs["system_b"]]))}
    rows, columns = pairs["system_a"].map(points), pairs["system_b"].map(points)
    sides = []
    for side in ("operators", "jacobians"):
        distances = np.zeros((len(points), len(points)))
        distances[rows, columns] = distances[columns, rows] = pairs[side]
        sides.append(distances)
    if len(points) < 5:
        rho = spearman(*sides) if len(points) > 2 else math.nan  # two points are one pair
        return Interval(rho, math.nan, math.nan, len(points))
    return spearman_interval(*sides, seed=study.seed)
