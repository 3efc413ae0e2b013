"""Every choice of a comparison: stated once, overridden, in samples and in time, on disk, and refused."""

import inspect
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsa_analysis import (
    METRICS,
    Comparison,
    DataError,
    Similarity,
    choose_embedding,
    compare,
    explain,
    fit_operator,
    noise_floor,
    trial_replicates,
)
from dsa_analysis.spectra import aliases
from dsa_analysis.systems import linear

STORED = Path(__file__).parents[1] / "reference" / "similarity_0_1.nc"
NAMES = [each.name for each in fields(Comparison)]
pytestmark = pytest.mark.filterwarnings("ignore:.* of .* systems:UserWarning")


def turning(frequency: float, n_times: int = 200, noise: float = 0.02, seed: int = 0) -> torch.Tensor:
    """Eight trials of a slowly decaying rotation of so many cycles in 100 samples, in four noisy channels."""
    generator = torch.Generator().manual_seed(seed)
    x = linear([-0.02 + 2j * np.pi * frequency / 100 / 0.01 * 0.01], 8, n_times, dt=1.0, generator=generator)
    x = x @ torch.randn(2, 4, generator=generator, dtype=torch.float64)
    return x + noise * x.std() * torch.randn(x.shape, generator=generator, dtype=torch.float64)


# ---- one set of arguments --------------------------------------------------------------------------------------------


def test_every_field_says_what_it_means_and_which_values_it_takes():
    for each in fields(Comparison):
        assert each.metadata["help"]
        assert each.metadata["values"]
        assert f"{each.name} : {each.metadata['values']}" in (Comparison.__doc__ or "")


@pytest.mark.parametrize("function", [compare, noise_floor, choose_embedding, fit_operator])
def test_functions_that_compare_repeat_no_field(function):
    parameters = inspect.signature(function).parameters
    assert not set(NAMES) & set(parameters)
    assert "how" in parameters
    assert parameters["choices"].kind is inspect.Parameter.VAR_KEYWORD


def test_replicates_take_all_choices_from_the_similarity():
    assert set(inspect.signature(trial_replicates).parameters) & set(NAMES) == {"seed"}


def test_keywords_how_and_both_are_the_same():
    systems = {"a": turning(2), "b": turning(3)}
    how = Comparison(n_delays=3, rank=2)
    results = [
        compare(systems, n_delays=3, rank=2, progress=False),
        compare(systems, how=how, progress=False),
        compare(systems, None, how, progress=False),
        compare(systems, how=Comparison(n_delays=9, rank=2), n_delays=3, progress=False),
    ]
    for one in results:
        np.testing.assert_array_equal(one.distances, results[0].distances)
        assert one.comparison == how
    floors = [noise_floor(systems, how), noise_floor(systems, n_delays=3, rank=2)]
    np.testing.assert_array_equal(*floors)
    operators = [fit_operator(systems["a"], how), fit_operator(systems["a"], n_delays=3, rank=2)]
    assert torch.equal(operators[0].matrix, operators[1].matrix)


def test_comparison_is_a_value():
    how = Comparison(n_delays=3)
    with pytest.raises(FrozenInstanceError):
        how.n_delays = 4  # type: ignore[misc]
    assert how.override(rank=2) == Comparison(n_delays=3, rank=2)
    assert how.rank is None


def test_another_metric_drops_what_it_does_not_use_unless_it_is_asked_for():
    how = Comparison(n_delays=3, rank=2, n_starts=8, horizon=0.5, dt=0.1)
    assert how.override(metric="cka") == Comparison(metric="cka", dt=0.1)
    assert how.override(metric="spectral") == Comparison(n_delays=3, rank=2, horizon=0.5, dt=0.1, metric="spectral")
    with pytest.raises(DataError, match="n_delays = 3 has no effect with metric = 'cka', which compares trials"):
        how.override(metric="cka", n_delays=3)


def test_horizon_and_steps_and_window_and_delays_replace_each_other():
    how = Comparison(n_delays=3, rank=2, steps_ahead=4, dt=0.1)
    assert how.override(horizon=0.2).steps_ahead is None
    assert how.override(horizon=0.2).override(steps_ahead=5).horizon is None
    assert how.override(window=0.4).n_delays is None
    assert how.override(window=0.4).override(n_delays=2).window is None


@given(
    n_delays=st.one_of(st.none(), st.just("auto"), st.integers(1, 50)),
    rank=st.integers(1, 50),
    ridge=st.floats(0, 1),
    dt=st.one_of(st.none(), st.floats(1e-3, 1e3), st.dictionaries(st.text(max_size=3), st.just(0.5), min_size=1)),
    metric=st.sampled_from(["angular", "frobenius", "spectral"]),
    windows=st.one_of(st.none(), st.just([(0, 10), (5, 20)])),
)
def test_plain_values_read_back_the_same(**choices):
    how = Comparison(**choices)
    assert Comparison.from_dict(how.to_dict()) == how


def test_numbers_of_numpy_become_those_of_python(tmp_path):
    systems = [turning(2), turning(3)]
    numpy = {"n_delays": np.int64(3), "rank": np.int32(2), "ridge": np.float32(0.5), "center": np.bool_(True)}
    found = compare(systems, **numpy, seed=np.uint8(3), store=tmp_path, progress=False)
    assert Similarity.load(found.save(tmp_path / "s.nc")).comparison == found.comparison
    assert [type(getattr(found.comparison, name)) for name in numpy] == [int, int, float, bool]


# ---- two sides -------------------------------------------------------------------------------------------------------


def test_two_sides_may_use_the_same_names(tmp_path):
    a, b, c, d = (turning(f, seed=k) for k, f in enumerate((2, 3, 4, 5)))
    found = compare([a, b], [c, d], n_delays=3, rank=2, progress=False)
    apart = compare({"a": a, "b": b}, {"c": c, "d": d}, n_delays=3, rank=2, progress=False)
    np.testing.assert_array_equal(found.distances, apart.distances)
    table = found.to_dataframe()
    assert list(zip(table.system_a, table.system_b, strict=True)) == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    stored = Similarity.load(found.save(tmp_path / "s.nc"))
    assert stored.two_sided
    for name in "01":
        assert torch.equal(stored.other_operators[name].matrix, found.other_operators[name].matrix)
        assert not torch.equal(stored.other_operators[name].matrix, stored.operators[name].matrix)
    assert explain(stored, "0", "1", dt=1.0).distance == pytest.approx(apart.distances[0, 1], abs=1e-9)
    with pytest.raises(DataError, match="a map needs the distances of systems among themselves"):
        stored.to_plane()
    with pytest.warns(UserWarning, match=r"compared at rank = 2 instead of 3, .* system 's': rank = 3 is out of reach"):
        lowered = compare({"s": a[..., :2]}, {"s": b}, n_delays=1, rank=3, progress=False)
    assert lowered.comparison.rank == 2


# ---- in time ---------------------------------------------------------------------------------------------------------


def test_horizon_is_steps_times_the_sampling_interval():
    x = turning(2)
    timed = fit_operator(x, n_delays=2, rank=2, horizon=0.5, dt=0.05)
    assert timed.parameters.steps_ahead == 10
    assert torch.equal(timed.matrix, fit_operator(x, n_delays=2, rank=2, steps_ahead=10).matrix)
    windowed = fit_operator(x, window=0.6, rank=2, dt=0.1, delay_interval=2)
    assert windowed.parameters.n_delays == 3


def test_eigenvalues_of_a_horizon_are_powers_and_time_constants_stay():
    """Closed form: without noise A over s samples is A^s."""
    x = turning(2, noise=0.0)[..., :2]
    one, ten = (fit_operator(x, n_delays=1, rank=2, steps_ahead=s, ridge=0.0, center=False) for s in (1, 10))
    # whitening differs by the samples at the ends of trials alone, and eigenvalues are invariant
    torch.testing.assert_close(ten.eigenvalues, one.eigenvalues**10, rtol=1e-6, atol=0)
    torch.testing.assert_close(ten.time_constants(1.0), one.time_constants(1.0), rtol=1e-6, atol=0)


def test_recording_and_its_every_second_sample_are_alike_at_one_horizon_and_not_at_one_sample():
    x = turning(2, n_times=400)
    systems = {"fine": x, "coarse": x[:, ::2]}
    dt = {"fine": 1.0, "coarse": 2.0}
    how = Comparison(n_delays=1, rank=2, horizon=10.0, dt=dt)
    floor = noise_floor(systems, how).mean()
    assert compare(systems, how=how, progress=False).distances[0, 1] < 2 * floor
    samples = Comparison(n_delays=1, rank=2)
    assert compare(systems, how=samples, progress=False).distances[0, 1] > 5 * noise_floor(systems, samples).mean()


def test_systems_of_unequal_rate_get_their_own_counts():
    x = turning(2, n_times=400)
    found = compare(
        {"fine": x, "coarse": x[:, ::2]}, window=12.0, rank=2, horizon=10.0, dt={"fine": 1.0, "coarse": 2.0},
        progress=False,
    )  # fmt: skip
    counts = {name: (o.parameters.n_delays, o.parameters.steps_ahead) for name, o in found.operators.items()}
    assert counts == {"fine": (12, 10), "coarse": (6, 5)}


def test_frequencies_beyond_the_limit_are_named():
    """8 and 12 Hz at 100 Hz and ten samples ahead both look like 2 Hz."""
    systems = {"theta": turning(8, noise=0.05), "alpha": turning(12, noise=0.05)}
    similarity = compare(systems, n_delays=2, rank=2, steps_ahead=10, dt=10.0, progress=False)
    with pytest.warns(UserWarning, match="resolve frequencies only below 5 Hz; those shown may be aliases"):
        modes = explain(similarity, "theta", "alpha", unit="ms").modes
    assert modes["frequency"].to_numpy() == pytest.approx([2, 2], abs=0.2)
    for true, row in zip((8, 12), modes["could_be"], strict=True):
        assert min(abs(f - true) for f in row) < 0.2
        assert all(f <= 50 for f in row)


@given(frequency=st.floats(0.01, 49.9), steps=st.integers(1, 40))
def test_aliases_are_all_frequencies_with_the_same_eigenvalue(frequency, steps):
    dt, step = 0.01, steps * 0.01
    seen = abs(np.angle(np.exp(2j * np.pi * frequency * step))) / (2 * np.pi * step)
    found = aliases(seen, step, dt)
    assert min(abs(f - frequency) for f in found) < 1e-6
    turns = [np.cos(2 * np.pi * f * step) for f in found]  # the sign of a frequency is that of its conjugate
    np.testing.assert_allclose(turns, np.cos(2 * np.pi * frequency * step), atol=1e-6)


def test_horizon_is_chosen_by_the_data_and_recorded():
    """Slow rotations whose operators one sample ahead differ by less than their noise."""
    systems = {
        f"{f}": torch.cat([turning(g, n_times=120, noise=0.1, seed=k) for g in (f, 3 * f)], -1)
        for k, f in enumerate((1.0, 1.4, 1.8))
    }
    options = {"n_delays": 2, "rank": [4, 5], "horizon": "auto", "dt": 0.01, "progress": False}
    choice = choose_embedding(systems, **options)
    assert list(choice.table.index.names) == ["n_delays", "rank", "horizon"]
    horizons = choice.table.index.get_level_values("horizon").unique()
    assert horizons[0] == 0.01
    assert horizons[-1] == pytest.approx(0.4)
    assert choice.cell["auroc"] == choice.table["auroc"].max()
    # memory of more than 1 / e: systems have hardly moved on, and no cell of that horizon is admissible
    assert (choice.table["admissible"] == (choice.table["admissible"] & (choice.table["memory"] <= np.exp(-1)))).all()
    assert not choice.table.xs(0.01, level="horizon")["admissible"].any()
    chosen, shortest = (
        np.array([float(fit_operator(x, how).matrix.diagonal().mean()) for x in systems.values()])
        for how in (choice.how.override(rank=3), choice.how.override(rank=3, horizon=0.01))
    )
    assert choice.cell["memory"] == pytest.approx(np.median(chosen / shortest), rel=1e-6)
    assert set(choice.neighbours.index.names) == set(choice.table.index.names)
    found = compare(systems, **options | {"rank": 4})
    assert found.comparison.horizon == choice.horizon
    assert found.settings["chosen"] == {"n_delays": False, "rank": False, "horizon": True, "by": "identifiability"}
    samples = choose_embedding(systems, **options | {"dt": None})
    assert samples.table.index.names[2] == "steps_ahead"
    assert samples.how.steps_ahead == round(choice.horizon / 0.01)


# ---- on disk ---------------------------------------------------------------------------------------------------------


def test_file_of_the_first_version_is_read():
    stored = Similarity.load(STORED)
    assert stored.comparison == Comparison(
        n_delays=2, rank=3, steps_ahead=1, n_starts=4, windows={"early": (0, 30), "late": (30, 60)}
    )
    assert stored.distances[0, 1] == pytest.approx(0.06328083, abs=1e-8)
    assert (stored.metric, stored.unit, stored.two_sided) == ("angular", "rad", False)
    assert len(stored.operators["chaos"]) == 2


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"rnak": 3}, "unknown choice 'rnak'; did you mean 'rank'?"),
        ({"how_many": 3}, "unknown choice 'how_many'; choices are n_delays, rank"),
        ({"n_delays": 0}, "n_delays = 0 is not a whole number of at least 1"),
        ({"rank": 2.5}, "rank = 2.5 is not a whole number of at least 1"),
        ({"n_delays": "Auto"}, "n_delays = 'Auto' is not a whole number of at least 1"),
        ({"seed": -1}, "seed = -1 is not a whole number of at least 0"),
        ({"center": 1}, "center = 1 is not True or False"),
        ({"ridge": -1.0}, "ridge = -1.0 is not a number of at least 0"),
        ({"on_rank": "raise"}, "on_rank = 'raise' is none of 'lower', 'error'"),
        (
            {"horizon": 0.5, "n_delays": 2, "rank": 2},
            "horizon = 0.5 is a time, so dt (the sampling interval) is needed",
        ),
        ({"window": 0.5, "rank": 2}, "window = 0.5 is a time, so dt (the sampling interval) is needed"),
        ({"horizon": 0.5, "steps_ahead": 2, "dt": 0.1}, "steps_ahead = 2 and horizon = 0.5 say the same thing twice"),
        ({"window": 0.5, "n_delays": 2, "dt": 0.1}, "n_delays = 2 and window = 0.5 say the same thing twice"),
        ({"horizon": 0.0, "dt": 0.1}, "horizon = 0.0 is not a time above 0"),
        ({"dt": -0.1}, "dt = -0.1 is not a time above 0"),
        ({"dt": 0}, "dt = 0 is not a time above 0"),
        ({"dt": float("nan")}, "dt = nan is not a time above 0"),
        ({"dt": {"a": 0.1, "b": float("inf")}}, "dt of system 'b' = inf is not a time above 0"),
        (
            {"dt": {"a": 0.1, "b": 0.2}, "n_delays": 1, "rank": 2},
            "steps_ahead = 1 is a different time in each system; give ",
        ),
        (
            {"dt": {"a": 0.1, "b": 0.2}, "n_delays": 3, "horizon": 0.4},
            "n_delays = 3 is a different time in each system; give",
        ),
        (
            {"metric": "spectral", "n_starts": 3},
            "n_starts = 3 has no effect with metric = 'spectral', which compares eig",
        ),
        ({"metric": "cka", "horizon": 1.0, "dt": 1.0}, "horizon = 1.0 has no effect with metric = 'cka'"),
        ({"metric": "procrustes", "estimator": "signal_weighted"}, "estimator = 'signal_weighted' has no effect with"),
    ],
)
def test_impossible_choices_are_refused(choices, message):
    with pytest.raises(DataError, match=re.escape(message)):
        compare({"a": turning(2), "b": turning(3)}, **choices)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"horizon": 0.155},
            "horizon = 0.155 is not a whole number of samples of system 'a', 0.01 each; the nearest: 0.",
        ),
        ({"horizon": 0.005}, "horizon = 0.005 is shorter than one sample of system 'a', 0.01"),
        (
            {"horizon": 3.0},
            "but system 'a', trials 0, 1, 2, 3, 4, 5, 6, 7 have as few as 200; at most 198 samples ahead",
        ),
        ({"horizon": 0.1, "dt": {"a": 0.01}}, "dt is given for 'a', but not for system 'b'"),
        ({"horizon": 0.1, "dt": {"a": 0.01, "B": 0.01}}, "but not for system 'b'; did you mean 'B'?"),
        (
            {"window": 0.035, "n_delays": None, "horizon": 0.1},
            "window = 0.035 is not a whole number of samples of system",
        ),
    ],
)
def test_times_that_do_not_fit_are_refused_with_what_would(choices, message):
    with pytest.raises(DataError, match=re.escape(message)):
        compare({"a": turning(2), "b": turning(3)}, **{"n_delays": 2, "rank": 2, "dt": 0.01} | choices, progress=False)


def test_how_has_to_be_a_comparison():
    with pytest.raises(DataError, match="how came as dict; give a Comparison"):
        compare([turning(2)], how={"n_delays": 3})  # type: ignore[arg-type]
    assert set(METRICS) >= {"angular", "euclidean", "frobenius", "spectral", "cka", "procrustes"}


def test_directions_of_another_horizon_are_those_of_a_fit_at_it():
    x = torch.cat([turning(g, n_times=120, noise=0.1) for g in (1, 3)], -1)
    options = {"n_delays": [1, 3], "rank": [4], "horizon": [0.01, 0.2, 0.4], "dt": 0.01, "method": "gap"}
    choice = choose_embedding({"a": x, "b": x.flip(-1)}, **options, progress=False)
    for m, r, horizon in choice.table.index:
        left = [
            float(operator.matrix.diagonal().mean())
            for time in (horizon, 0.01)
            for operator in [fit_operator(y, n_delays=m, rank=3, horizon=time, dt=0.01) for y in (x, x.flip(-1))]
        ]
        expected = np.median(np.divide(left[:2], left[2:]))
        assert choice.table.loc[(m, r, horizon), "memory"] == pytest.approx(expected, abs=1e-9)
