"""The embedding chosen for comparing: where the cut falls, which cell wins, and what the choice admits about itself."""

import re
import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from dsa_analysis import (
    Comparison,
    DataError,
    EmbeddingChoice,
    choose_embedding,
    compare,
    fit_operator,
    singular_spectrum,
)
from dsa_analysis.choose import _doubts
from dsa_analysis.plotting import plot_cells
from dsa_analysis.systems import linear

pytestmark = pytest.mark.filterwarnings("ignore:.*(good for comparing|order of the distances|cut at rank):UserWarning")

FREQUENCIES = (2.0, 3.0, 4.0, 5.0)


def recordings(noise: float = 0.1, n_trials: int = 12, n_channels: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """Systems of four dimensions, a rotation of their own and one they share, each seen in channels of its own."""
    generator = torch.Generator().manual_seed(seed)
    systems = {}
    for frequency in FREQUENCIES:
        x = linear([-0.1 + frequency * 1j, -0.1 + 8j], n_trials, 80, generator=generator)
        x = x @ torch.linalg.qr(torch.randn(n_channels, 4, generator=generator, dtype=torch.float64))[0].T
        added = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        systems[f"{frequency}"] = x + noise * x.std() * added
    return systems


SMALL: dict[str, Any] = {"n_delays": (1, 2, 4), "rank": range(1, 9), "n_starts": 4, "progress": False}


@pytest.fixture(scope="module")
def choice() -> EmbeddingChoice:
    return choose_embedding(recordings(), **SMALL)


def test_rank_is_the_dimension_of_the_systems(choice):
    assert choice.rank == 4
    assert choice.method == "identifiability"
    assert choice.cell["auroc"] == 1.0


def test_where_a_cut_is_clear_others_are_not_compared(generator):
    """Four strong dimensions and two weak ones: a gap of 3 after the fourth, and of 1.9 after the sixth."""
    systems = {}
    for frequency in FREQUENCIES:
        x = linear([-0.1 + frequency * 1j, -0.1 + 8j, -0.1 + 2j * frequency], 12, 80, generator=generator)
        x = x * x.new_tensor([1, 1, 1, 1, 0.25, 0.25])
        x = x @ torch.linalg.qr(torch.randn(8, 6, generator=generator, dtype=torch.float64))[0].T
        systems[f"{frequency}"] = x + 0.2 * x.std() * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    table = choose_embedding(systems, n_delays=1, rank=range(1, 9), progress=False).table.droplevel("n_delays")
    assert table["gap"][4] >= 2
    assert 1.1 <= table["gap"][6] < 2
    assert table["admissible"][6]
    assert table.index[table["auroc"].notna()].tolist() == [4, 8]  # the clear cut, and the window that is kept whole


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", [0, 1])
def test_windows_that_are_kept_whole_are_no_clear_cut(seed):
    """With three channels the whole windows of one sample have an infinite gap, which says nothing."""
    narrow = {name: x[..., :3] for name, x in recordings(0.5, seed=seed).items()}
    found = choose_embedding(narrow, n_delays=(1, 8), rank=range(1, 9), method="gap", progress=False)
    whole = found.table.loc[(1, 3)]
    assert whole["admissible"]
    assert np.isinf(whole["gap"])
    admissible = found.table[found.table["admissible"]]["gap"]
    assert found.cell["gap"] == admissible[np.isfinite(admissible)].max()


def test_of_cells_that_identify_about_as_well_the_fewest_delays_win_and_then_the_gap(choice):
    table = choice.table[choice.table["admissible"]]
    near = table[table["auroc"] >= table["auroc"].max() - 0.02].reset_index()
    assert near["n_delays"].nunique() > 1
    own = near[near["n_delays"] == near["n_delays"].min()]
    best = own[own["auroc"] == own["auroc"].max()]
    assert choice.n_delays == near["n_delays"].min()
    assert choice.cell["auroc"] == best["auroc"].iloc[0]
    assert choice.cell["gap"] == best["gap"][np.isfinite(best["gap"])].max()


@pytest.mark.parametrize("seed", [1, 2])
def test_largest_gap_finds_it_without_alignment(seed):
    found = choose_embedding(recordings(seed=seed), method="gap", **SMALL)
    assert (found.rank, found.method) == (4, "gap")
    assert found.table["auroc"].isna().all()
    gaps = found.table["gap"][found.table["admissible"]]
    assert found.cell["gap"] == gaps[np.isfinite(gaps)].max()  # where all is kept there is no cut


def test_gap_is_the_geometric_mean_over_systems(choice):
    for m, r in [(1, 2), (2, 4), (4, 7)]:
        S = [singular_spectrum(x, n_delays=m) for x in recordings().values()]
        expected = np.exp(np.mean([np.log(float(s[r - 1] / s[r])) for s in S]))
        assert choice.table.loc[(m, r), "gap"] == pytest.approx(expected, rel=1e-6)


def test_cells_are_admissible_by_gap_noise_and_size(choice):
    table = choice.table
    enough = table.index.get_level_values("rank") >= 3
    expected = table["resolved"] & table["above_noise"] & (table["gap"] >= 1.1) & enough
    assert (table["admissible"] == expected).all()
    assert choice.table["chosen"].sum() == 1
    assert bool(choice.cell["admissible"])
    # directions of noise, the fifth and on, do not stand above it
    above = table["above_noise"].unstack("rank").loc[[2, 4]]
    assert above[[1, 2, 3, 4]].all(axis=None)
    assert not above[[6, 7, 8]].any(axis=None)


def test_identifiability_is_that_of_halves_fitted_on_their_own(choice):
    systems = recordings()
    halves = [{k: x[start::2] for k, x in systems.items()} for start in (0, 1)]
    D = compare(*halves, n_delays=choice.n_delays, rank=4, n_starts=4, progress=False).distances
    same = np.eye(len(D), dtype=bool)
    expected = np.mean(D[~same][:, None] > D[same])
    assert choice.cell["auroc"] == pytest.approx(expected)
    assert choice.cell["ratio"] == pytest.approx(np.median(D[~same]) / np.median(D[same]), rel=1e-3)


def test_prediction_error_is_that_of_the_odd_trials(choice):
    errors = []
    for x in recordings().values():
        operator = fit_operator(x[::2], n_delays=2, rank=4)
        errors.append(operator.prediction_error(x[1::2], choice.n_applications))
    assert choice.n_applications == 4
    assert choice.table.loc[(2, 4), "prediction_error"] == pytest.approx(np.median(errors), rel=1e-6)


def test_same_data_and_seed_choose_the_same(choice):
    pd.testing.assert_frame_equal(choose_embedding(recordings(), **SMALL).table, choice.table)


def test_names_and_scale_of_systems_play_no_part(choice):
    scaled = {f"system {k}": 1e3 * x for k, x in enumerate(recordings().values())}
    found = choose_embedding(scaled, **SMALL)
    assert (found.n_delays, found.rank) == (choice.n_delays, choice.rank)
    np.testing.assert_allclose(found.table["gap"], choice.table["gap"], rtol=1e-6)


def test_default_candidates_fit_into_a_quarter_of_the_trials():
    found = choose_embedding(recordings(n_trials=4), method="gap", progress=False)
    assert set(found.table.index.get_level_values("n_delays")) == {1, 2, 3, 5, 8, 12, 20}
    shorter = {k: x[:, :40] for k, x in recordings(n_trials=4).items()}
    found = choose_embedding(shorter, method="gap", progress=False)
    assert set(found.table.index.get_level_values("n_delays")) == {1, 2, 3, 5, 8}


def test_single_samples_are_no_candidates_where_noise_is_to_be_estimated():
    systems = recordings(n_trials=4)
    settings: dict[str, Any] = {"method": "gap", "estimator": "signal_weighted", "rank": (3, 4), "progress": False}
    assert min(choose_embedding(systems, **settings).table.index)[0] == 2
    assert min(choose_embedding(systems, noise_variance=0.01, **settings).table.index)[0] == 1


def test_few_systems_or_trials_leave_the_gap():
    two = dict(list(recordings().items())[:2])
    assert choose_embedding(two, **SMALL).method == "gap"
    assert choose_embedding({k: x[:3] for k, x in recordings().items()}, **SMALL).method == "gap"
    assert choose_embedding([recordings()["2.0"]], **SMALL).rank == 4


def test_without_any_gap_the_largest_is_taken_and_said():
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(8, 60, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    with pytest.warns(UserWarning, match="no cell of rank 3 or more is resolved, above the noise and at a gap of 1.1"):
        found = choose_embedding(noise, n_delays=(2, 3), rank=range(2, 7), progress=False)
    assert found.method == "gap"
    assert not found.table["admissible"].any()


def test_comparison_records_what_was_chosen(choice):
    systems = dict(list(recordings(n_trials=4).items())[:3])
    result = compare(systems, n_delays="auto", rank="auto", n_starts=4, progress=False)
    free = choose_embedding(systems, progress=False)
    assert (result.settings["n_delays"], result.settings["rank"]) == (free.n_delays, free.rank)
    assert result.settings["chosen"] == {"n_delays": True, "rank": True, "horizon": False, "by": "identifiability"}
    assert all(operator.rank == free.rank for operator in result.operators.values())

    half = compare(systems, systems, n_delays=2, rank="auto", n_starts=4, progress=False)
    assert half.settings["n_delays"] == 2
    assert half.settings["chosen"] == {"n_delays": False, "rank": True, "horizon": False, "by": "identifiability"}


def test_doubts_are_spoken_where_prediction_or_neighbours_disagree():
    table = pd.DataFrame(
        {"prediction_error": [0.5, 0.2, 0.9], "agreement": [1.0, 0.4, np.nan], "chosen": [True, False, False]},
        index=pd.MultiIndex.from_tuples([(2, 3), (2, 5), (4, 3)], names=["n_delays", "rank"]),
    )
    doubts = _doubts(EmbeddingChoice(2, 3, "identifiability", table, n_applications=7, how=Comparison()))
    assert len(doubts) == 2
    assert doubts[0] == (
        "n_delays = 2, rank = 3 is good for comparing, poor for predicting: its error 7 steps ahead is 0.5 of the "
        "variance, 0.2 at n_delays = 2, rank = 5"
    )
    assert "their rank correlation with those at n_delays = 2, rank = 5 is 0.40" in doubts[1]
    calm = table.assign(prediction_error=0.5, agreement=[1.0, 0.9, np.nan])
    assert _doubts(EmbeddingChoice(2, 3, "identifiability", calm, n_applications=7, how=Comparison())) == []


def test_neighbours_are_the_nearest_compared_cells_in_each_direction():
    cells = [(m, r) for m in (1, 2, 4, 8) for r in (3, 5, 6, 9)]
    table = pd.DataFrame(index=pd.MultiIndex.from_tuples(cells, names=["n_delays", "rank"]))
    table["agreement"], table["chosen"] = 0.5, [cell == (4, 5) for cell in cells]
    table.loc[(2, 5), "agreement"] = np.nan  # not compared: the next one stands in
    neighbours = EmbeddingChoice(4, 5, "identifiability", table, n_applications=1, how=Comparison()).neighbours
    assert set(neighbours.index) == {(4, 3), (4, 6), (1, 5), (8, 5)}


def test_cells_are_drawn_with_the_chosen_one_framed(choice):
    axes = plt.figure().subplots()
    plot_cells(choice, axes)
    frame = axes.patches[0]
    assert (frame.get_x(), frame.get_y()) == (3, [1, 2, 4].index(choice.n_delays))
    assert len(axes.lines[0].get_xdata()) == choice.table["admissible"].sum()
    assert "rank = 4" in axes.get_title()
    plt.close("all")


def test_choosing_leaves_data_and_global_randomness_alone():
    systems = recordings(n_trials=4)
    before, state = {k: x.clone() for k, x in systems.items()}, torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        choose_embedding(systems, n_delays=2, rank=(3, 4), n_starts=2, progress=False)
    assert all(torch.equal(systems[k], before[k]) for k in systems)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("systems", "settings", "message"),
    [
        ({}, {}, "no systems came"),
        (
            {"a": torch.arange(48.0).sin().view(2, 3, 8)},
            {},
            "no n_delays from 1 on fits: a window may span a quarter",
        ),
        (None, {"rank": []}, "rank is empty; at least one candidate is needed"),
        (None, {"rank": 2.5}, "rank = 2.5 is not a whole number of at least 1"),
        (None, {"n_delays": (1, 0)}, "n_delays = 0 is not a whole number of at least 1"),
        (None, {"n_delays": 90}, "n_delays = 90 with delay_interval = 1 needs trials of at least 91 samples"),
        (None, {"n_delays": 2, "rank": 100}, "no rank fits: a window holds at most 16 entries"),
        (
            None,
            {"n_delays": 20, "rank": 100},
            "no rank from 100 to 100 is resolved in all systems, with ten transitions",
        ),
        (None, {"method": "gaps"}, "method = 'gaps' is none of 'identifiability', 'gap'; did you mean 'gap'?"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is time on the last axis")
def test_impossible_choices_are_refused(systems, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        choose_embedding(recordings(n_trials=4) if systems is None else systems, progress=False, **settings)


def test_halves_need_two_trials_and_operators_have_no_trials():
    one_trial = {k: x[:1] for k, x in recordings(n_trials=4).items()}
    with pytest.raises(DataError, match="identifiability needs at least 2 systems of 2 trials each; method = 'gap'"):
        choose_embedding(one_trial, method="identifiability")
    operator = fit_operator(recordings(n_trials=4)["2.0"], n_delays=2, rank=4)
    with pytest.raises(DataError, match="an embedding is chosen from data, but system '0' came as an operator"):
        choose_embedding([operator])


@pytest.mark.parametrize("method", ["identifiability", "gap"])
def test_white_noise_is_said_to_be_noise(method):
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(8, 150, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    with pytest.warns(UserWarning) as caught:  # noqa: PT030
        choice = choose_embedding(noise, n_delays=1, rank=6, method=method, progress=False)
    said = " ".join(str(one.message) for one in caught)
    assert "no better than their mean" in said
    assert ("hardly nearer than halves of two" in said) == (choice.cell["auroc"] < 0.6)


def test_data_that_support_rank_1_alone_are_refused_with_what_would_help():
    generator = torch.Generator().manual_seed(0)
    flat = [torch.randn(8, 60, 1, generator=generator, dtype=torch.float64).cumsum(1) for _ in range(3)]
    with pytest.raises(DataError, match="support operators of rank 1 only"):
        choose_embedding(flat, n_delays=1, rank=[1, 2], progress=False)


SLOW = {f"{f}": linear([-0.001 + f * 1j, -0.001 + 3j * f], 4, 60, seed=0) for f in (0.01, 0.02, 0.03)}


def test_longest_horizon_is_taken_if_systems_hardly_move_within_a_trial():
    with pytest.warns(UserWarning, match="as long as the memory of the systems: the longest is used"):
        choice = choose_embedding(SLOW, n_delays=1, rank=4, horizon="auto", dt=1.0, method="gap", progress=False)
    assert choice.horizon == choice.table.index.get_level_values("horizon").max()


@pytest.mark.filterwarnings("ignore:halves of one system are hardly nearer:UserWarning")
def test_halves_decide_about_the_horizon_if_systems_hardly_move_within_a_trial():
    with pytest.warns(UserWarning, match="the memory of the systems: identifiability decides about it"):
        choice = choose_embedding(SLOW, n_delays=1, rank=4, horizon="auto", dt=1.0, progress=False)
    compared = choice.table["auroc"].dropna()
    assert len(compared) == len(choice.table)
    assert choice.cell["auroc"] == compared.max()


def test_horizon_is_that_over_which_memory_is_lost_and_its_neighbours_are_compared():
    choice = choose_embedding(recordings(), n_delays=[1, 2], rank=[3, 4], horizon="auto", dt=1.0, progress=False)
    for _, line in choice.table.groupby(["n_delays", "rank"]):
        memory = line["memory"].to_numpy()
        after = int((memory <= np.exp(-1)).argmax())
        assert memory[after] <= np.exp(-1)
        nearer = after if after == 0 or abs(memory[after] - np.exp(-1)) <= memory[after - 1] - np.exp(-1) else after - 1
        assert np.flatnonzero(line["moved_on"]).tolist() == [nearer]
    assert choice.cell["moved_on"]
    horizons = list(choice.table.index.get_level_values("horizon").unique())
    place = horizons.index(choice.horizon)
    compared = choice.table.loc[(choice.n_delays, choice.rank), "agreement"].dropna().index
    assert list(compared) == horizons[max(0, place - 1) : place + 2]


def test_memory_is_that_of_the_signal_whatever_the_noise():
    settings: dict[str, Any] = {"n_delays": 1, "rank": 4, "horizon": "auto", "dt": 1.0, "method": "gap"}
    clean, noisy = (choose_embedding(recordings(noise), **settings, progress=False) for noise in (0.01, 0.5))
    # estimates from 12 trials of 80 samples differ by less than 0.08; noise lowers autocorrelations by its share, 0.2
    np.testing.assert_allclose(clean.table["memory"], noisy.table["memory"], atol=0.08)
    assert clean.horizon == noisy.horizon


def test_a_system_that_is_kept_whole_does_not_make_a_gap():
    narrow = {name: x[..., :5] for name, x in recordings(n_channels=8).items()}
    mixed = {**dict(list(recordings(seed=1).items())[:1]), "narrow": narrow["3.0"], "narrow too": narrow["4.0"]}
    table = choose_embedding(mixed, n_delays=1, rank=[4, 5], method="gap", progress=False).table
    spectrum = singular_spectrum(mixed["2.0"], n_delays=1)
    assert table.loc[(1, 5), "gap"] == pytest.approx(float(spectrum[4] / spectrum[5]), rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_noisy_channel_has_a_choice(seed):
    """Oscillations span two directions of windows: no cell of rank 3 is clear, and rank 1 tells nothing."""
    generator, t = torch.Generator().manual_seed(seed), 0.02 * torch.arange(400)
    systems = {}
    for frequency in (2.0, 3.0):
        for copy in range(2):
            phases = 2 * torch.pi * torch.rand(20, 1, generator=generator)
            wave = torch.sin(2 * torch.pi * frequency * t + phases) + 0.7 * torch.randn(20, 400, generator=generator)
            systems[f"{frequency} {copy}"] = wave[..., None].double()
    with pytest.warns(UserWarning, match="no cell of rank 3 or more is resolved, above the noise and at a gap of 1.1"):
        found = choose_embedding(systems, progress=False)
    assert (found.n_delays > 1, found.rank) == (True, 2)
    assert found.cell["gap"] > 2
