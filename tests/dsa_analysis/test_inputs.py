"""Inputs of driven systems: what `compare` makes of them, and which inputs say too little."""

import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dsa_analysis import (
    DataError,
    DrivenOperator,
    Recording,
    choose_embedding,
    compare,
    fit_driven_operator,
    fit_operator,
    noise_floor,
    trial_replicates,
)
from dsa_analysis.inputs import excitation
from tests.dsa_analysis.test_driven import N, Q, driven

quiet = pytest.mark.filterwarnings(
    "ignore:.*(cut at rank|transitions for rank|inputs determine|windows for):UserWarning"
)
ESTIMATORS = {"least_squares": {"n_delays": 2}, "subspace": {"n_delays": 6, "estimator": "subspace"}}


@pytest.fixture(scope="module")
def two() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same system twice, with other inputs, and another one."""
    made = {"one": driven(seed=0), "other": driven(seed=1)}
    x, u, F = made["one"]
    G = torch.linalg.lstsq(torch.cat([x[:, :-1], u[:, :-1]], -1).flatten(0, 1), x[:, 1:].flatten(0, 1)).solution[N:].T
    again = torch.randn(50, 20, Q, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = [x[:, 0].flip(0)]
    for t in range(19):
        y.append(y[-1] @ F.T + again[:, t] @ G.T)
    states = {name: own[0] for name, own in made.items()} | {"one again": torch.stack(y, 1)}
    return states, {name: own[1] for name, own in made.items()} | {"one again": again}


# ---- how much inputs vary --------------------------------------------------------------------------------------------


def windows_of(u: np.ndarray, window: int) -> np.ndarray:
    return np.stack([u[t : t + window][::-1].ravel() for t in range(len(u) - window + 1)])


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("window", [1, 4])
def test_rank_and_condition_are_those_of_all_windows(center, window):
    rng = np.random.default_rng(0)
    trials = [rng.normal(size=(n, 2)).cumsum(0) * [1, 1e-3] + [5, 0] for n in (30, 9, 50)]
    everything = np.concatenate(trials)
    mean = everything.mean(0) * center
    scaled = [(u - mean) / np.sqrt(((everything - mean) ** 2).mean(0)) for u in trials]
    H = np.concatenate([windows_of(u, window) for u in scaled])
    S = np.linalg.svd(H - H.mean(0) * center, compute_uv=False)
    found = excitation([torch.from_numpy(u) for u in trials], window, center)
    assert (found.rank, found.full, found.lacking) == (2 * window, 2 * window, "")
    assert found.condition == pytest.approx(S[0] / S[-1], rel=1e-6)


def delayed(u: Tensor) -> Tensor:
    """An input that repeats another one a sample later."""
    return torch.cat([u[..., :1], torch.cat([torch.zeros_like(u[:, :1, :1]), u[:, :-1, :1]], 1)], -1)


LACKING: dict[str, tuple[Callable[[Tensor], Tensor], int, str]] = {
    "constant": (
        lambda u: torch.cat([u, torch.full_like(u[..., :1], 0.3)], -1), 1,
        "input 3 is constant: its effect is that of the offset; leave it out",
    ),
    "two constants": (
        lambda u: torch.cat([torch.zeros_like(u[..., :1]), u, torch.ones_like(u[..., :1])], -1), 2,
        "inputs 0, 4 are constant: their effects are that of the offset; leave them out",
    ),
    "a multiple": (
        lambda u: torch.cat([u, -3 * u[..., 1:2]], -1), 1,
        "inputs 1, 3 are collinear: 1 of them determines the other; leave out 1",
    ),
    "a mixture": (
        lambda u: torch.cat([u, u @ torch.tensor([[1.0], [0.0], [0.5]]).double()], -1), 2,
        "inputs 0, 2, 3 are collinear: 2 of them determine the other; leave out 1",
    ),
    "a sine": (
        lambda u: torch.cat([u[..., :1], torch.sin(0.3 * torch.arange(20)).double().expand(50, 20)[..., None]], -1), 4,
        "input 1 varies in 2 of 4 directions of a window of 4 samples, all of which are needed to tell effects at "
        "different lags apart; windows of at most 2 samples fit, or inputs with more frequencies",
    ),
    "a delayed copy": (
        delayed, 3, "inputs 0, 1 vary in 4 of 6 directions of a window of 3 samples: past samples of some determine",
    ),
    "few windows": (lambda u: u[:2, :9], 5, "10 windows of 5 samples cannot show all 15 directions (5 samples x 3 in"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LACKING)
def test_inputs_that_say_too_little_are_named(kind):
    change, window, message = LACKING[kind]
    found = excitation(list(change(driven()[1])), window)
    assert found.lacking.startswith(message.split(": past")[0])
    assert message in found.lacking
    assert found.rank < found.full
    assert found.condition == np.inf


@pytest.mark.parametrize("kind", ["constant", "a multiple", "a mixture"])
@pytest.mark.parametrize("metric", ["state", "input", "joint", "angular"])
def test_compare_refuses_such_inputs_naming_system_and_inputs(kind, metric, two):
    change, _, message = LACKING[kind]
    x, u = two
    with pytest.raises(DataError, match=re.escape(f"system 'other': {message}")):
        compare(x, inputs=u | {"other": change(u["other"])}, n_delays=2, rank=N, metric=metric, progress=False)


def test_operators_of_such_inputs_are_compared_by_their_state_alone(two):
    x, u = two
    rule = torch.cat([u["one"], torch.ones_like(u["one"][..., :1])], -1)
    operators = {
        "one": fit_driven_operator(x["one"], rule, n_delays=1, rank=N),
        "again": fit_driven_operator(x["one"], rule, n_delays=1, rank=N),
    }
    assert operators["one"].excitation.lacking.startswith("input 3 is constant")
    assert compare(operators, metric="state", progress=False).distances.max() < 1e-6
    for metric in ("input", "joint"):
        with pytest.raises(DataError, match="system 'one': input 3 is constant"):
            compare(operators, metric=metric, progress=False)


@quiet
@pytest.mark.parametrize("kind", ["constant", "a multiple", "a sine", "a delayed copy"])
def test_subspace_estimator_refuses_them_by_itself(kind):
    change, _, message = LACKING[kind]
    x, u, _ = driven()
    with pytest.raises(DataError, match=re.escape("system 'A': " + message.split(" varies")[0].split(" vary")[0])):
        fit_driven_operator(x, change(u), n_delays=4, rank=N, estimator="subspace", name="A")


# ---- through compare -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_systems_that_agree_are_found_whatever_drives_them(estimator, two):
    x, u = two
    for metric in ("state", "input", "joint", "spectral"):
        found = compare(x, inputs=u, rank=N, metric=metric, progress=False, **ESTIMATORS[estimator])
        same, different = found.distances[0, 2], found.distances[0, 1]
        if metric == "spectral":  # the two systems have equal eigenvalues
            assert max(same, different) < 1e-6
        elif estimator == "subspace":
            assert same < 1e-6, metric  # coordinates do not depend on the inputs
            assert different > 0.05, metric
    plain = compare(x, n_delays=2, rank=N, metric="angular", progress=False)
    assert plain.distances[0, 2] > 0.05


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_compare_fits_what_fit_driven_operator_does(estimator, two):
    x, u = two
    found = compare(x, inputs=list(u.values()), rank=N, metric="joint", progress=False, **ESTIMATORS[estimator])
    operators = {name: fit_driven_operator(x[name], u[name], rank=N, **ESTIMATORS[estimator]) for name in x}
    for name, operator in operators.items():
        assert torch.equal(found.operators[name].matrix, operator.matrix)
        assert torch.equal(found.operators[name].drive, operator.drive)
    again = compare(operators, metric="joint", progress=False)
    np.testing.assert_array_equal(again.distances, found.distances)
    two_sided = compare({"one": x["one"]}, {"other": x["other"]}, inputs={"one": u["one"], "other": u["other"]},
                        rank=N, metric="joint", progress=False, **ESTIMATORS[estimator])  # fmt: skip
    np.testing.assert_array_equal(two_sided.distances, found.distances[:1, 1:2])


def test_trials_may_be_ragged_and_their_borders_are_kept(two):
    """A trial cut in two has fewer windows, and none across the cut: the same system is found."""
    x, u = two
    cut_x, cut_u = ([part for trial in data["one"] for part in (trial[:8], trial[8:])] for data in (x, u))
    for estimator, choices in ESTIMATORS.items():
        choices = choices | {"n_delays": 2 if estimator == "least_squares" else 4}
        found = compare({"whole": x["one"], "cut": cut_x}, inputs={"whole": u["one"], "cut": cut_u},
                        rank=N, metric="spectral", progress=False, **choices)  # fmt: skip
        assert found.distances.max() < 1e-5


def test_windows_cut_inputs_with_their_trials(two):
    x, u = two
    found = compare(x, inputs=u, n_delays=1, rank=N, metric="joint", windows={"early": (0, 12), "late": (8, 20)},
                    progress=False)  # fmt: skip
    late = compare({name: own[:, 8:] for name, own in x.items()}, inputs={name: own[:, 8:] for name, own in u.items()},
                   n_delays=1, rank=N, metric="joint", progress=False)  # fmt: skip
    np.testing.assert_allclose(found.by_window[1], late.distances, atol=1e-12)


def test_floor_of_halves_takes_the_inputs_of_their_trials(two):
    x, u = two
    clean = noise_floor(x, inputs=u, rank=N, metric="joint", n_splits=2, **ESTIMATORS["subspace"], progress=False)
    assert clean.max() < 1e-5
    mismatched = {name: own.flip(0) for name, own in u.items()}
    noisy = noise_floor(x, inputs=mismatched, rank=3, metric="joint", n_splits=2, **ESTIMATORS["subspace"])
    assert noisy.min() > 0.01


@quiet
def test_rank_that_is_too_large_is_lowered_for_all_with_a_warning(two):
    x, u = two
    with pytest.warns(UserWarning, match=r"all systems are compared at rank = 5 instead of 6, .* for 1 of 2 \('few'\)"):
        found = compare(
            {"many": torch.cat([x["one"], x["one"].square()], -1), "few": x["one"]},
            inputs={"many": u["one"], "few": u["one"]}, n_delays=4, rank=6, metric="joint", estimator="subspace",
            progress=False,
        )  # fmt: skip
    assert found.comparison.rank == 5
    with pytest.raises(
        DataError, match="system 'few': rank = 6 is out of reach: the past predicts the future in 5 dir"
    ):
        compare({"few": x["one"]}, inputs=[u["one"]], n_delays=4, rank=6, metric="joint", estimator="subspace",
                on_rank="error", progress=False)  # fmt: skip


@pytest.mark.parametrize("estimator", ["least_squares", "subspace"])
def test_episodes_that_are_too_short_are_refused_with_the_longest_window_that_fits(estimator):
    """20 episodes of 15 samples, 30 delays asked: never zeros."""
    x, u, _ = driven(20, 15, smooth=0.0)
    settings = {"rank": 3, "estimator": estimator, "progress": False, "metric": "joint"}
    with pytest.raises(
        DataError, match=r"system 'a', trials 0, 1, 2.* have as few as 15; at most n_delays = "
    ) as caught:
        compare({"a": x[..., :2], "b": x[..., :2]}, inputs=[u, u], n_delays=30, **settings)
    longest = int(re.search(r"at most n_delays = (\d+) fits", str(caught.value))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = compare({"a": x[..., :2], "b": x[..., :2]}, inputs=[u, u], n_delays=longest, **settings)
        assert found.operators["a"].matrix.abs().max() > 0.01
        with pytest.raises(DataError, match=f"system 'a'.* at most n_delays = {longest} fits"):
            compare({"a": x[..., :2], "b": x[..., :2]}, inputs=[u, u], n_delays=longest + 1, **settings)


X, U, _ = driven(6, 20)
DATA, DRIVES = {"a": X, "b": X.flip(0)}, {"a": U, "b": U.flip(0)}
HOW = {"n_delays": 1, "rank": 2, "metric": "joint"}


@pytest.mark.parametrize(
    ("inputs", "choices", "message"),
    [
        (None, {}, "metric = 'joint' compares operators with inputs, but no inputs came for system 'a'; give inputs"),
        ({"a": U}, {}, "no inputs came for system 'b'; give inputs for each system, or for none"),
        (DRIVES | {"c": U}, {}, "system of inputs = 'c' is none of 'a', 'b'"),
        ([U], {}, "2 systems came, and inputs for 1; give inputs for each"),
        (U, {}, "inputs came as Tensor; give a mapping from the name of each system to its inputs, or a list in the"),
        (DRIVES | {"a": U[:, 1:]}, {}, "system 'a', trial 0 has 20 samples and its inputs 19; the numbers must agree"),
        (DRIVES | {"a": U[:, ::2]}, {}, "trial 0 has 20 samples and its inputs 10; the numbers must agree (are they"),
        (DRIVES | {"a": U[:5]}, {}, "system 'a' has 6 trials, and inputs came for 5"),
        (DRIVES | {"b": U * np.nan}, {}, "system 'inputs of b', trial 0, channel 0: 20 non-finite values"),
        (DRIVES | {"b": U[..., :2]}, {}, "systems have different numbers of inputs, 'a' 3, 'b' 2"),
        (DRIVES, {"metric": "cka"}, "inputs have no effect with metric = 'cka', which compares trials"),
        (DRIVES, {"metric": "angular", "rank": "auto"}, "for which rank = 'auto' is not offered; state rank"),
        (DRIVES, {"metric": "angular", "steps_ahead": 2}, "which predict one sample ahead; leave out steps_ahead = 2"),
        (DRIVES, {"horizon": 0.4, "dt": 0.1}, "horizon = 0.4 is 4 samples of system 'a', and operators with inputs "),
        (DRIVES, {"noise_variance": 0.1}, "for which noise_variance has no effect; leave it out"),
        (DRIVES, {"estimator": "subspace", "delay_interval": 2, "n_delays": 3}, "delay_interval = 2 has no effect w"),
        (DRIVES, {"estimator": "subspace", "rank": 5, "n_delays": 2, "n_future": 1}, "n_future = 1 samples of 5 cha"),
        (None, {"metric": "angular", "estimator": "subspace"}, "'subspace' separates states from inputs, and no inp"),
        (DRIVES, {"n_delays": 16}, "system 'a': 24 transitions cannot tell rank = 2 from"),
    ],
)  # fmt: skip
@quiet
def test_inputs_that_do_not_fit_are_refused(inputs, choices, message):
    choices = HOW | choices
    if choices["metric"] == "cka":
        choices = {"metric": "cka"}
    with pytest.raises(DataError, match=re.escape(message)):
        compare(DATA, inputs=inputs, progress=False, **choices)


def test_two_sets_need_names_that_tell_their_inputs_apart():
    with pytest.raises(DataError, match="system 'a' is in both sets, and one name cannot have two inputs; rename one"):
        compare({"a": X}, {"a": X}, inputs={"a": U}, progress=False, **HOW)
    with pytest.raises(
        DataError, match="inputs came as list; give a mapping from the name of each system to its inputs"
    ):
        compare({"a": X}, {"b": X}, inputs=[U, U], progress=False, **HOW)


def test_operators_take_no_inputs():
    operator = DrivenOperator(torch.eye(2) + 0.1, torch.ones(2, 3))
    with pytest.raises(
        DataError, match="system 'a' came as an operator, which contains its inputs; leave it out of in"
    ):
        compare({"a": operator, "b": X}, inputs=DRIVES, progress=False, **HOW)


@quiet
def test_operators_of_unlike_coordinates_are_not_mixed():
    operators = [
        fit_driven_operator(X, U, n_delays=4, rank=2, estimator=name) for name in ("least_squares", "subspace")
    ]
    with pytest.raises(
        DataError, match=r"were fitted in different ways .*'0': estimator = 'least_squares', windows of 4"
    ):
        compare(operators, metric="state", progress=False)


def test_recordings_of_another_rate_are_refused():
    fast, slow = (
        Recording("x", [np.asarray(trial) for trial in X], sampling_rate=rate, settings={}) for rate in (100.0, 50.0)
    )  # fmt: skip
    with pytest.raises(DataError, match="system 'a' is sampled every 10 and its inputs every 20; bring them to one"):
        compare({"a": fast}, inputs={"a": slow}, progress=False, **HOW)


def test_systems_of_unequal_rates_are_refused():
    with pytest.raises(DataError, match=r"dt is 1 to 2, so steps_ahead = 1 is a different time in each system"):
        compare(DATA, inputs=DRIVES, dt={"a": 1.0, "b": 2.0}, progress=False, **HOW)


@pytest.mark.parametrize("windows", [None, [(0, 12), (8, 20)]])
def test_replicates_draw_trials_with_their_inputs(windows, two):
    x, u = two
    how = {"n_delays": 1, "rank": N, "metric": "joint", "windows": windows, "progress": False}
    found = compare(x, inputs=u, **how)
    replicates = trial_replicates(x, found, inputs=u, n_replicates=3, progress=False)
    order = np.random.default_rng(0).integers(50, size=(3, 50))  # of the first replicate
    drawn = [{name: own[k] for (name, own), k in zip(data.items(), order, strict=True)} for data in (x, u)]
    expected = compare(drawn[0], inputs=drawn[1], **how)
    np.testing.assert_allclose(replicates[0], expected.distances, rtol=0, atol=1e-7)
    with pytest.raises(DataError, match="system 'one' was compared with its inputs; give inputs"):
        trial_replicates(x, found)


def test_embedding_of_driven_systems_is_not_chosen():
    with pytest.raises(
        DataError, match="metric = 'joint' compares operators with inputs, for which an embedding is not"
    ):
        choose_embedding(DATA, metric="joint")
    with pytest.raises(
        DataError, match="estimator = 'subspace' separates states from inputs, and no inputs of system 'a'"
    ):
        choose_embedding(DATA, n_delays=[2], rank=[3], estimator="subspace")


def test_plain_operators_are_as_they_were():
    assert not isinstance(fit_operator(X, n_delays=1, rank=2), DrivenOperator)
