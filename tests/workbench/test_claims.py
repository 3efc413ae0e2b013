"""Claims are judged by where their intervals lie; intervals agree with closed forms and independent computations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from dsa_analysis import mean_interval
from dsa_analysis.inference import Interval
from workbench.claims import (
    Claim,
    as_interval,
    claims_table,
    median_interval,
    p_interval,
    read_claims,
    rho_interval,
    verdict,
)


@pytest.mark.parametrize(
    ("interval", "relation", "threshold", "expected"),
    [
        ((1.0, 0.5, 1.5), "<=", 1.5, "met"),
        ((1.0, 0.5, 1.5), "<", 1.5, "undecided"),  # the limit itself is not below
        ((1.0, 0.5, 1.5), "<=", 1.2, "undecided"),
        ((1.0, 0.5, 1.5), "<=", 0.4, "not met"),
        ((1.0, 0.5, 1.5), "<=", 0.5, "undecided"),
        ((1.0, 0.5, 1.5), "<", 0.5, "not met"),
        ((1.0, 0.5, 1.5), ">=", 0.5, "met"),
        ((1.0, 0.5, 1.5), ">", 0.5, "undecided"),
        ((1.0, 0.5, 1.5), ">=", 1.6, "not met"),
        ((1.0, 0.5, 1.5), ">", 1.5, "not met"),
        ((0.0, -0.1, 0.1), "within", 0.1, "met"),
        ((0.0, -0.1, 0.2), "within", 0.1, "undecided"),
        ((0.0, -0.9, 0.9), "within", 0.1, "undecided"),
        ((0.5, 0.2, 0.9), "within", 0.1, "not met"),
        ((-0.5, -0.9, -0.2), "within", 0.1, "not met"),
        ((0.5, 0.4, 0.6), "within", (0.35, 0.65), "met"),
        ((0.5, 0.4, 0.6), "within", [0.35, 0.55], "undecided"),
        ((0.3, 0.2, 0.34), "within", (0.35, 0.65), "not met"),
    ],
)
def test_verdict_follows_the_side_of_the_threshold(interval, relation, threshold, expected):
    assert verdict(interval, relation, threshold) == expected


@pytest.mark.parametrize("relation", ["<", "<=", ">", ">="])
def test_opposite_claims_have_opposite_verdicts(relation, generator):
    opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[relation]
    swapped = {"met": "not met", "not met": "met", "undecided": "undecided"}
    for low, high, limit in np.random.default_rng(0).integers(0, 4, (100, 3)):  # ties happen
        if low <= high:
            assert verdict((low, low, high), opposite, limit) == swapped[verdict((low, low, high), relation, limit)]


@pytest.mark.parametrize("relation", ["<", "<=", ">", ">="])
def test_a_single_value_leaves_every_claim_undecided(relation):
    assert verdict(0.5, relation, 0.0) == verdict([0.5], relation, 1.0) == "undecided"


def test_values_of_seeds_have_students_interval():
    values = [0.9, 0.8, 0.95]
    for given in (values, np.array(values), pd.Series(values)):
        assert as_interval(given) == mean_interval(values)
    assert as_interval((0.9, 0.8, 1.0)) == Interval(0.9, 0.8, 1.0, 0)
    assert as_interval(mean_interval(values)) == mean_interval(values)


def test_rho_interval_is_students_of_fishers_z():
    z = np.array([0.5, 0.9, 1.6])
    found, of_z = rho_interval(np.tanh(z)), mean_interval(z)
    assert np.arctanh(found[:3]) == pytest.approx(of_z[:3])
    assert found.n == 3
    assert found.high < 1


def test_rho_interval_of_a_perfect_correlation_is_finite():
    assert rho_interval([1.0, 0.9, 0.95]) == mean_interval([1.0, 0.9, 0.95])
    assert rho_interval([-1.0, -1.0, -1.0]) == Interval(-1.0, -1.0, -1.0, 3)


def test_rho_interval_of_one_seed_has_no_limits():
    mean, low, high, n = rho_interval([0.5])
    assert (mean, n) == (pytest.approx(0.5), 1)
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(("n", "limits"), [(6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (20, (6, 15)), (50, (18, 33))])
def test_median_interval_lies_between_the_tabulated_order_statistics(n, limits):
    """Ranks for 95 %, as tables of the sign test have them."""
    values = np.random.default_rng(n).permutation(np.arange(1, n + 1))
    assert median_interval(values) == Interval(np.median(values), *limits, n)


def test_median_interval_covers_the_median_often_enough_whatever_the_distribution():
    draws = np.random.default_rng(0).exponential(size=(400, 15))
    covered = [low <= math.log(2) <= high for _, low, high, _ in map(median_interval, draws)]
    assert np.mean(covered) > 0.93  # 0.965 is exact; three standard errors of 400 draws are 0.03


def test_median_interval_of_five_values_has_no_limits():
    assert np.isnan(median_interval([1.0, 2.0, 3.0, 4.0, 5.0])[1:3]).all()


@pytest.mark.parametrize("reached", [0, 1, 48, 199])
def test_p_interval_is_that_of_a_proportion(reached):
    exact = binomtest(reached, 199).proportion_ci(method="exact")
    found = p_interval((reached + 1) / 200, 199)
    assert found[1:3] == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_p_of_all_permutations_is_certain():
    assert p_interval(0.04, 24, exact=True) == Interval(0.04, 0.04, 0.04, 24)


def test_table_shows_values_with_intervals_and_claims_with_verdicts():
    table = claims_table(
        [
            Claim("rho", Interval(-0.8, -0.9, -0.71, 3), "<=", -0.7, of="seeds", digits=2),
            ("difference", (0.02, -0.01, 0.05), "within", 0.1),
            ("range", (0.5, 0.5, 0.5), "within", (0.4, 0.6)),
            ("no minus before zero", (0.0, -1e-6, 1e-6), "<", 1),
            ("for comparison", [1.0, 2.0, 3.0]),
            ("one seed", 0.9, ">=", 0.5),
            ("bounds hold", True),
            ("bounds hold elsewhere", np.bool_(False)),
        ]
    )
    assert list(table) == ["what", "seen", "claim", "verdict"]
    assert table.drop(columns="what").to_numpy().tolist() == [
        ["-0.80 [-0.90, -0.71] (n = 3 seeds)", "<= -0.7", "met"],
        ["0.020 [-0.010, 0.050]", "within 0.1 of 0", "met"],
        ["0.500", "from 0.4 to 0.6", "met"],
        ["0.000 [0.000, 0.000]", "< 1", "met"],
        ["2.000 [-0.484, 4.484] (n = 3)", "", ""],
        ["0.900", ">= 0.5", "undecided"],
        ["true", "true", "met"],
        ["false", "true", "not met"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 0, 1), "=", 1), "relation = '=' is not known; choose one of <, <=, >, >=, within"),
        (((0, 0, 1), "<=", (1, 2)), r"threshold = \(1, 2\) is not a number, which relation '<=' needs"),
        (((0, 0, 1), "<=", None), "threshold = None is not a number"),
        (((0, 0, 1), "<=", math.nan), "threshold = nan is not a number"),
        (((0, 0, 1), "within", -1), r"threshold = -1 is not a range; give t >= 0 or \(low, high\)"),
        (((0, 0, 1), "within", (2, 1)), r"threshold = \(2, 1\) is not a range"),
        (((0, 1, 0), "<=", 1), r"\(0, 1, 0\) is not \(mean, low, high\) with low <= high; give values of seeds as a"),
        (((0.1, 0.2), "<=", 1), r"\(0.1, 0.2\) is not \(mean, low, high\)"),
    ],
)
def test_what_cannot_be_judged_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        verdict(*arguments)


def test_printed_tables_are_read_back():
    rows = [("rho, first", [0.5, 0.6, 0.7], ">", 0), ("AUROC met", [0.1, 0.9], ">=", 0.95), ("no claim", 0.5)]
    table = claims_table([*rows, ("fact", False)])
    expected = [(row.what, row.verdict) for row in table.itertuples() if row.verdict]
    printed = table.to_string(index=False)
    assert read_claims(f"said first, met\n{printed}\n\nsaid after, met") == expected
    assert read_claims(printed + "\n\n" + printed) == expected * 2
    assert [what for what, _ in expected] == ["rho, first", "AUROC met", "fact"]
    assert read_claims("nothing was met") == []
