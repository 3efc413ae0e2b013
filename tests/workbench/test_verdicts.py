"""Verdicts on groups of networks: one study has intervals within it, several have intervals over seeds."""

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from dsa_analysis import mean_interval
from workbench.claims import rho_interval
from workbench.networks import BEFORE, FREE, FROZEN, REFERENCE, difference, pooled_scores, verdicts
from workbench.networks.report import write_pooled_report
from workbench.networks.verdicts import over_seeds

MEASURES = {"DSA": "matched", "CKA": "matched", "own trials": "unmatched"}
CLAIMS = {
    "performance": -0.7, "learning": -0.7, "unmatched": 0.1, "p_value": 0.05, "mode_error": 0.1, "jacobians": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Ours:
    """Stands in for the section of the settings."""

    name: str

    def to_yaml(self) -> str:
        return f"name: {self.name}\n"


def made_up(seed: int, noise: float = 0.1, p: float = 0.01, n_points: int = 8):
    """A study with tables drawn at random, in which distances fall with performance and with parts."""
    generator = np.random.default_rng(seed)
    families = np.repeat([REFERENCE, BEFORE, FROZEN, FREE], 10)
    performance, shared = generator.uniform(size=40), np.tile([0, 1, 2, 3, 3], 8)

    def distances(falls_with):
        return 2 - falls_with + noise * generator.standard_normal(len(falls_with))

    known = pd.DataFrame({"family": families, "performance": performance, "shared": shared})
    falls_with = np.where(known["family"] == REFERENCE, performance, performance + shared / 4)
    reference = pd.concat([known.assign(measure=name, distance=distances(falls_with)) for name in MEASURES])
    rows = []
    for name in MEASURES:
        own = reference[(reference["measure"] == name) & (reference["family"] != REFERENCE)]
        asked = {"performance": (own, "performance")}
        asked |= {f"parts shared, {of}": (own[own["family"] == of], "shared") for of in (BEFORE, FROZEN, FREE)}
        rows += [
            (name, question, rho := spearmanr(of["distance"], of[column]).statistic, rho - 0.1, rho + 0.1, len(of))
            for question, (of, column) in asked.items()
        ]
    scores = pd.DataFrame(rows, columns=["measure", "question", "rho", "low", "high", "n"])
    steps = np.linspace(0, 1, 8)
    learning = [
        pd.DataFrame({"distance": distances(steps), "performance": steps}).assign(measure=name, group="g", network=k)
        for name in ("DSA", "CKA")
        for k in range(8)
    ]
    x = generator.uniform(size=n_points)
    first, second = np.triu_indices(n_points, 1)
    pairs = pd.DataFrame({"system_a": first, "system_b": second, "jacobians": np.abs(x[first] - x[second])})
    pairs["operators"] = pairs["jacobians"] + 0.01 * generator.uniform(size=len(pairs))
    tests = pd.DataFrame({"measure": ["DSA", "CKA"], "r_squared": [0.8 + 0.01 * seed, 0.6], "p": p, "exact": False})
    tests["n_permutations"] = 999
    return SimpleNamespace(
        seed=seed,
        ours=Ours("the same"),
        concerns=Counter({f"warned of in seed {seed}": 2}),
        how=SimpleNamespace(
            shown=("DSA", "CKA"),
            judged=("DSA", "CKA"),
            claims=SimpleNamespace(**CLAIMS),
            measures={name: SimpleNamespace(trials=trials) for name, trials in MEASURES.items()},
        ),
        to_reference=reference,
        scores=scores.set_index(["measure", "question"]),
        over_learning=pd.concat(learning),
        group_tests=tests.set_index("measure"),
        jacobian_pairs=pairs,
        jacobian_modes=pd.DataFrame({"point": range(n_points), "error": 0.01 * generator.standard_normal(n_points)}),
    )


@pytest.fixture(scope="module")
def studies():
    return [made_up(seed) for seed in range(3)]


def test_one_study_has_intervals_over_its_networks_runs_and_points(studies):
    table = verdicts(studies[:1])
    seen = table.set_index("what")["seen"]
    rho = studies[0].scores.loc[("DSA", "performance")]
    shown = f"{rho['rho']:.3f} [{rho['low']:.3f}, {rho['high']:.3f}] (n = 30 networks)"
    assert seen["DSA: distance to the reference with performance, rho"] == shown
    assert seen["DSA: distance with performance over a run, median rho of runs"].endswith("(n = 8 runs)")
    assert seen["slowest time constant near 8 fixed points, relative error, median"].endswith("(n = 8 points)")
    assert seen["DSA: groups differ, PERMANOVA, p"].endswith("(n = 999 permutations)")
    assert set(table["verdict"]) <= {"met", "not met", "undecided", ""}


def test_several_studies_have_intervals_over_seeds(studies):
    table = verdicts(studies).set_index("what")
    pooled = rho_interval([study.scores.loc[("DSA", "performance"), "rho"] for study in studies])
    own = table.loc["DSA: distance to the reference with performance, rho"]
    assert own["seen"] == f"{pooled.mean:.3f} [{pooled.low:.3f}, {pooled.high:.3f}] (n = 3 seeds)"
    change = mean_interval([difference(study.to_reference, "own trials", "DSA", study.seed)[0] for study in studies])
    own = table.loc["own trials: rho with performance minus that of DSA"]
    assert own["seen"] == f"{change.mean:.3f} [{change.low:.3f}, {change.high:.3f}] (n = 3 seeds)"
    assert own["claim"] == "within 0.1 of 0"
    truth = table.loc["distances between operators with those between Jacobians, 24 fixed points, rho"]
    assert truth["verdict"] == "met"
    assert all("seeds" in seen or "permutations" in seen for seen in table["seen"])


def test_measures_are_compared_within_each_seed(studies):
    table = verdicts(studies).set_index("what")
    own = table.loc["groups explain more by DSA than by CKA, difference of R2"]
    assert own["seen"] == f"{str(mean_interval([0.2, 0.21, 0.22])).replace('(n = 3)', '(n = 3 seeds)')}"
    assert (own["claim"], own["verdict"]) == ("> 0", "met")
    own = table.loc[f"DSA orders parts, {FROZEN}, no worse than CKA, difference of rho"]
    rho = {
        name: [study.scores.loc[(name, f"parts shared, {FROZEN}"), "rho"] for study in studies]
        for name in ("DSA", "CKA")
    }
    change = mean_interval(np.subtract(rho["DSA"], rho["CKA"]))
    assert own["seen"] == f"{change.mean:.3f} [{change.low:.3f}, {change.high:.3f}] (n = 3 seeds)"


def test_groups_differ_only_if_they_do_in_every_seed():
    at = [made_up(seed, p=p, n_points=0) for seed, p in enumerate((0.001, 0.001, 0.4))]
    key = "DSA: groups differ, PERMANOVA, largest p of all seeds"
    assert verdicts(at[:2]).set_index("what").loc[key, "verdict"] == "met"
    assert verdicts(at).set_index("what").loc[key, "verdict"] == "not met"


def test_p_near_its_limit_is_undecided_with_few_permutations():
    near = verdicts([made_up(0, p=0.045, n_points=0)]).set_index("what")
    assert near.loc["DSA: groups differ, PERMANOVA, p", "verdict"] == "undecided"


def test_rho_of_pairs_is_that_of_all_pairs_of_points(studies):
    pairs = studies[0].jacobian_pairs
    shown = verdicts(studies[:1]).set_index("what")["seen"]
    (own,) = (value for what, value in shown.items() if "Jacobians" in what)
    assert float(own.split()[0]) == pytest.approx(spearmanr(pairs["operators"], pairs["jacobians"]).statistic, abs=5e-4)


def test_studies_without_fixed_points_say_nothing_about_them():
    assert not any("fixed points" in what for what in verdicts([made_up(0, n_points=0)])["what"])


@pytest.mark.parametrize("n_points", [2, 3, 4])
def test_few_fixed_points_leave_the_claim_on_them_undecided(n_points):
    table = verdicts([made_up(0, n_points=n_points)]).set_index("what")
    (what,) = (what for what in table.index if "Jacobians" in what)
    assert table.loc[what, "verdict"] == "undecided"
    assert verdicts([made_up(0, n_points=5)])["seen"].str.contains("n = 5 points").any()


def test_pooled_scores_show_each_seed_and_the_interval_over_seeds(studies):
    pooled = pooled_scores(studies)
    each = [study.scores.loc[("CKA", "performance"), "rho"] for study in studies]
    own = pooled.loc[("CKA", "performance")]
    assert [own[f"seed {seed}"] for seed in range(3)] == each
    assert tuple(own[["rho", "low", "high"]]) == pytest.approx(rho_interval(each)[:3])
    assert own["n"] == 3
    assert studies[0].scores.loc[("CKA", "performance"), "n"] == 30  # the study's own table is unchanged
    pd.testing.assert_frame_equal(
        pooled_scores(studies[:1]).drop(columns="seed 0"), studies[0].scores, check_dtype=False
    )


def test_over_seeds_takes_the_interval_of_a_single_study():
    assert over_seeds([1], lambda study: mean_interval([0.0, 1.0])) == mean_interval([0.0, 1.0])
    assert over_seeds([0, 2], lambda study: mean_interval([study, study])) == mean_interval([0.0, 2.0])


def test_report_of_several_seeds_shows_verdicts_scores_and_warnings(studies, tmp_path):
    page = write_pooled_report(studies, tmp_path / "pooled", "the command").read_text()
    for shown in ("Seeds 0, 1, 2; intervals are over seeds", "seed 2", "(seed 1)", "name: the same", "the command"):
        assert shown in page
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "pooled" / "verdicts.csv").fillna(""), verdicts(studies))
    assert list(pd.read_csv(tmp_path / "pooled" / "scores.csv"))[:2] == ["measure", "question"]


@pytest.mark.parametrize("judge", [verdicts, pooled_scores])
def test_studies_that_cannot_be_pooled_are_refused(judge, studies):
    with pytest.raises(ValueError, match="studies: is empty; give one study or more"):
        judge([])
    with pytest.raises(ValueError, match=r"studies: have seeds \[0, 0\]; each must have a seed of its own"):
        judge([studies[0], made_up(0)])
    other = made_up(1)
    other.ours = Ours("another")
    with pytest.raises(ValueError, match="studies: differ in the section 'groups' of their settings"):
        judge([studies[0], other])
