"""Systems -> Similarity: what every distance has in common, what goes to disk and back, and what is refused."""

import copy
import importlib
import math
import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsa_analysis import (
    Comparison,
    DataError,
    Operator,
    Similarity,
    align,
    cka_distance,
    compare,
    fit_operator,
    lorenz,
    spectral_distance,
    trajectories,
    transformed_copies,
)
from dsa_analysis.metrics import METRICS as KNOWN
from dsa_analysis.pairs import solve_pairs

METRICS = ("angular", "euclidean", "frobenius", "spectral", "cka", "procrustes")
EMBEDDING = {"n_delays": 4, "rank": 5, "progress": False}
pytestmark = [  # cuts through clusters do not matter to what is tested here
    pytest.mark.filterwarnings("ignore:.* of .* systems:UserWarning"),
    pytest.mark.filterwarnings("ignore:system 'system'. the cut:UserWarning"),
    pytest.mark.filterwarnings("ignore:all systems are compared at rank:UserWarning"),
]
# h5netcdf closes what it never opened
damaged = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def recordings() -> dict[str, Tensor]:
    """Three systems of 6 trials x 80 samples x 3 channels with a little noise."""
    generator = torch.Generator().manual_seed(0)
    clean = {
        "chaos": lorenz(6, 80, discard=100, seed=0),
        "fixed": lorenz(6, 80, rho=14.0, seed=1),
        "roessler": trajectories("roessler", 6, 80, discard=100, seed=2),
    }
    return {name: x + 0.02 * x.std() * torch.randn(x.shape, generator=generator) for name, x in clean.items()}


def by(metric: str) -> dict[str, Any]:
    """The choices that a metric takes."""
    static = metric in KNOWN and KNOWN[metric].needs == "trials"
    return {"metric": metric, "progress": False} | ({} if static else EMBEDDING)


@pytest.fixture(scope="module")
def systems() -> dict[str, Tensor]:
    return recordings()


@pytest.fixture(scope="module", params=METRICS)
def similarity(request: pytest.FixtureRequest, systems: dict[str, Tensor]) -> Similarity:
    return compare(systems, **by(request.param))


@pytest.fixture(scope="module")
def angular(systems: dict[str, Tensor]) -> Similarity:
    return compare(systems, **EMBEDDING)


def test_distances_are_symmetric_with_zeros_on_the_diagonal(similarity):
    np.testing.assert_allclose(similarity.distances, similarity.distances.T, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(similarity.distances.diagonal(), 0)
    assert (similarity.distances[np.triu_indices(3, 1)] > 1e-3).all()
    assert similarity.labels == similarity.other_labels == ("chaos", "fixed", "roessler")
    assert similarity.converged.all()


def test_bounds_are_below_the_distances_or_absent(similarity):
    if KNOWN[similarity.metric].bounded:
        assert (similarity.lower_bounds <= similarity.distances).all()
    else:
        assert np.isnan(similarity.lower_bounds[np.triu_indices(3, 1)]).all()


def test_order_of_systems_only_orders_the_matrix(similarity, systems):
    turned = compare(dict(reversed(systems.items())), **by(similarity.metric))
    np.testing.assert_allclose(turned.distances[::-1, ::-1], similarity.distances, rtol=0, atol=1e-9)


def test_pair_is_the_same_alone_and_in_the_set(similarity, systems):
    names = list(systems)
    for i, j in ((0, 1), (1, 2)):
        pair = compare({name: systems[name] for name in (names[j], names[i])}, **by(similarity.metric))
        assert pair.distances[0, 1] == pytest.approx(similarity.distances[i, j], abs=1e-9)


def test_systems_against_others_are_the_columns_of_all_pairs(similarity, systems):
    others = {name: systems[name] for name in ("roessler", "chaos")}
    found = compare(systems, others, **by(similarity.metric))
    assert found.distances.shape == (3, 2)
    assert found.other_labels == ("roessler", "chaos")
    # arccos near 1 and near 0 loses half of the digits: a system against itself is 1e-8, not 0
    np.testing.assert_allclose(found.distances, similarity.distances[:, [2, 0]], rtol=0, atol=1e-7)


def test_same_seed_repeats_bit_for_bit_without_touching_anything(similarity, systems):
    before, state = {name: x.clone() for name, x in systems.items()}, torch.get_rng_state()
    again = compare(systems, **by(similarity.metric))
    np.testing.assert_array_equal(again.distances, similarity.distances)
    assert all(torch.equal(systems[name], x) for name, x in before.items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("metric", METRICS)
def test_copies_in_other_coordinates_are_at_zero(metric, systems, generator):
    x = systems["chaos"]
    copies = transformed_copies(x, generator) | {
        "mirrored": x * torch.tensor([1.0, 1.0, -1.0]),
        "channels twice": torch.cat([x, x], -1),
        "listed": list(x),
        "tiny": 1e-6 * x,
    }
    distances = compare({"original": x}, copies, **by(metric)).distances
    assert distances.max() < 1e-7  # offsets cost digits; 1e-8 is where arccos ends


@pytest.mark.parametrize("metric", ["angular", "spectral"])
def test_order_and_number_of_copies_of_trials_mean_nothing(metric, systems):
    x = systems["fixed"]
    copies = {"turned": x.flip(0), "twice": torch.cat([x, x]), "single precision": x.float()}
    distances = compare({"original": x}, copies, metric=metric, **EMBEDDING).distances[0]
    assert (distances[:2] < 1e-7).all()
    assert distances[2] < 1e-4  # 24 bits of data, some lost to small directions


@settings(max_examples=8)
@given(seed=st.integers(0, 100), factor=st.floats(1e-3, 1e3), offset=st.floats(-5, 5))
def test_any_rotation_scale_and_shift_is_at_zero(seed, factor, offset):
    x = lorenz(3, 60, discard=100, seed=0)
    Q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    moved = factor * (x @ Q + offset)
    assert compare([x, moved], n_starts=4, **EMBEDDING).distances[0, 1] < 1e-7


def test_what_is_another_system_to_it_is_told_apart():
    """Time shuffled, sampled more coarsely, unequal gains, and an offset where the mean is kept."""
    x, embedding = lorenz(20, 150, discard=100, seed=0), {"n_delays": 4, "rank": 3, "progress": False}
    floor = compare([x[::2], x[1::2]], **embedding).distances[0, 1]
    shuffled = x[:, torch.randperm(150, generator=torch.Generator().manual_seed(0))]
    assert (compare([x], [shuffled, x[:, ::2]], **embedding).distances > 3 * floor).all()
    gains = x * torch.tensor([20.0, 1.0, 1.0])
    # where a common gain, and an offset that is taken away, leave 1e-8
    assert compare([x, gains], **embedding).distances[0, 1] > 1e-4
    assert compare([x, x + 30], center=False, **embedding).distances[0, 1] > 1e-4


def test_euclidean_is_the_chord_of_the_angle(systems, angular):
    chord = compare(systems, metric="euclidean", **EMBEDDING)
    np.testing.assert_allclose(chord.distances, 2 * np.sin(angular.distances / 2), rtol=0, atol=1e-12)
    np.testing.assert_allclose(chord.lower_bounds, 2 * np.sin(angular.lower_bounds / 2), rtol=0, atol=1e-12)


def test_distances_are_those_of_the_single_functions(systems, angular):
    a, b = (fit_operator(systems[name], n_delays=4, rank=5) for name in ("chaos", "fixed"))
    assert torch.equal(angular.operators["chaos"].matrix, a.matrix)
    assert angular.distances[0, 1] == pytest.approx(float(align(a, b).distance), abs=1e-9)
    spectral = compare(systems, metric="spectral", **EMBEDDING).distances[0, 1]
    assert spectral == pytest.approx(float(spectral_distance(a.eigenvalues, b.eigenvalues)), abs=1e-12)
    cka = compare(systems, metric="cka").distances[0, 1]
    assert cka == pytest.approx(float(cka_distance(systems["chaos"], systems["fixed"])), abs=1e-12)


def test_settings_of_the_alignment_reach_it(generator):
    A, Q = torch.randn(4, 4, generator=generator), torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    pair = {"a": A, "mirrored": Q @ A @ Q, "shifted": A + 3 * torch.eye(4)}
    plain, rotations, traceless = (
        compare(pair, progress=False, **changed).distances for changed in ({}, {"group": "SO"}, {"remove_trace": True})
    )
    assert plain[0, 1] < 1e-6 < 1e-2 < rotations[0, 1]
    assert traceless[0, 2] < 1e-6 < 1e-2 < plain[0, 2]


def test_operators_and_matrices_stand_in_for_data(systems, angular):
    operators = [fit_operator(x, n_delays=4, rank=5) for x in systems.values()]
    for given_systems in (
        operators,
        [o.matrix for o in operators],
        [operators[0], operators[1].matrix.numpy(), systems["roessler"]],
    ):
        found = compare(given_systems, **EMBEDDING)
        np.testing.assert_allclose(found.distances, angular.distances, rtol=0, atol=1e-12)
    assert found.operators["0"] is operators[0]
    assert isinstance(found.operators["1"], Tensor)


@pytest.mark.parametrize("metric", METRICS)
def test_one_system_is_a_matrix_of_one_zero(metric, systems):
    found = compare([systems["chaos"]], **by(metric))
    np.testing.assert_array_equal(found.distances, [[0.0]])
    assert len(found.to_dataframe()) == 0


@pytest.mark.parametrize("metric", ["angular", "spectral"])
def test_systems_may_differ_in_channels_trials_and_lengths(metric, systems):
    mixed = {
        "full": systems["chaos"], "one channel": systems["chaos"][:4, :, :1].numpy(),
        "ragged": [trial[: 40 + 5 * k].float() for k, trial in enumerate(systems["chaos"])],
    }  # fmt: skip
    found = compare(mixed, metric=metric, n_delays=6, rank=4, progress=False)
    assert np.isfinite(found.distances).all()


def test_table_has_each_unordered_pair_once(angular, systems):
    table = angular.to_dataframe()
    assert list(zip(table.system_a, table.system_b, strict=True)) == [
        ("chaos", "fixed"), ("chaos", "roessler"), ("fixed", "roessler")
    ]  # fmt: skip
    np.testing.assert_array_equal(table.distance, angular.distances[np.triu_indices(3, 1)])
    assert len(compare(systems, {"x": systems["chaos"]}, **EMBEDDING).to_dataframe()) == 3


def test_labelled_arrays_are_found_by_name(angular):
    dataset = angular.to_xarray()
    assert float(dataset.distances.sel(system="fixed", other="chaos")) == angular.distances[1, 0]
    assert dataset.attrs["metric"] == "angular"


def test_map_reproduces_distances_that_fit_into_a_plane():
    points = np.random.default_rng(0).normal(size=(6, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    labels = tuple("abcdef")
    flat = Similarity(distances, distances, distances, distances > -1, labels, labels)
    places, stress = flat.to_plane()
    assert stress < 1e-3
    np.testing.assert_allclose(np.linalg.norm(places[:, None] - places, axis=-1), distances, atol=0.01)
    np.testing.assert_array_equal(flat.to_plane()[0], places)


def test_certified_pairs_are_those_without_a_gap_and_only_metrics_with_bounds_tell():
    distances = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    open_gap = np.array([[0.0, 0.0, 1e-5], [0.0, 0.0, 0.5], [1e-5, 0.5, 0.0]])
    names = ("a", "b", "c")
    flat = Similarity(distances, distances - open_gap, distances, distances > -1, names, names)
    assert flat.certified.tolist() == (open_gap == 0).tolist()
    assert flat.to_dataframe()["certified"].tolist() == [True, False, False]
    assert "1 of 3 pairs certified" in repr(flat)
    of_states = replace(flat, comparison=Comparison(metric="cka"))
    assert "certified" not in of_states.to_dataframe()


def test_map_of_systems_against_others_is_refused(systems):
    with pytest.raises(DataError, match="a map needs the distances of systems among themselves"):
        compare(systems, {"x": systems["chaos"]}, **EMBEDDING).to_plane()


# ---- on disk ---------------------------------------------------------------------------------------------------------


def assert_same(one: Similarity, other: Similarity) -> None:
    for name in ("distances", "lower_bounds", "agreement", "converged"):
        found, expected = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    for name in ("labels", "other_labels", "metric", "settings"):
        assert getattr(one, name) == getattr(other, name)
    for side in ("operators", "other_operators"):
        found, expected = getattr(one, side), getattr(other, side)
        assert list(found) == list(expected)
        for a, b in zip(found.values(), expected.values(), strict=True):
            assert type(a) is type(b)
            for name in ("matrix", "singular_values", "basis", "mean") if isinstance(a, Operator) else ():
                assert torch.equal(getattr(a, name), getattr(b, name))
            if isinstance(a, Operator):
                assert (a.parameters, a.gap, a.n_transitions) == (b.parameters, b.gap, b.n_transitions)
            else:
                assert torch.equal(a, b)


def test_saved_similarity_comes_back_the_same(similarity, tmp_path):
    path = similarity.save(tmp_path / "new folder" / "Ähnlichkeit 1.nc")
    assert_same(Similarity.load(str(path)), similarity)
    assert [file.name for file in path.parent.iterdir()] == ["Ähnlichkeit 1.nc"]


def test_others_and_unequal_channels_and_matrices_come_back_too(systems, tmp_path):
    rectangular = compare({"a": systems["chaos"][..., :1], "b": systems["fixed"]}, {"b": systems["fixed"]}, **EMBEDDING)
    assert_same(Similarity.load(rectangular.save(tmp_path / "r.nc")), rectangular)
    matrices = compare({"a": torch.randn(3, 3), "b": torch.randn(3, 3)}, progress=False)
    assert_same(Similarity.load(matrices.save(tmp_path / "m.nc")), matrices)


def test_saving_again_replaces_the_file(angular, tmp_path):
    path = angular.save(tmp_path / "s.nc")
    changed = replace(angular, distances=angular.distances * 2)
    changed.save(path)
    assert_same(Similarity.load(path), changed)


@pytest.mark.parametrize("failing", ["xarray.Dataset.to_netcdf", "os.replace"])
def test_failed_save_leaves_the_old_file_and_nothing_else(failing, angular, tmp_path, monkeypatch):
    path = angular.save(tmp_path / "s.nc")
    before = path.read_bytes()

    def fail(*arguments: Any, **keywords: Any) -> None:
        for argument in arguments:
            if isinstance(argument, Path) and failing.endswith("netcdf"):
                argument.write_bytes(b"half a fi")
        raise OSError("no space left on device")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(OSError, match=r"no space left on device: '.*s.nc'$"):
        replace(angular, distances=angular.distances * 2).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["s.nc"]
    assert path.read_bytes() == before


@damaged
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another file"])
def test_damaged_file_is_refused_by_name(damage, angular, tmp_path):
    path = angular.save(tmp_path / "s.nc")
    if damage == "another file":
        angular.to_xarray().drop_vars("distances").to_netcdf(path, engine="h5netcdf")
    else:
        path.write_bytes({"truncated": path.read_bytes()[:-200], "empty": b"", "text": b"distance,0.1\n"}[damage])
    with pytest.raises(DataError, match=re.escape(f"{path} is damaged, or not written by Similarity.save (")):
        Similarity.load(path)


@damaged
def test_no_flipped_bit_is_read_as_another_result(angular, tmp_path):
    path = angular.save(tmp_path / "s.nc")
    whole = path.read_bytes()
    numbers = whole.find(angular.distances.tobytes())
    assert numbers > 0
    for place in (numbers + 13, *np.random.default_rng(0).integers(len(whole), size=8)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 4
        path.write_bytes(spoilt)
        try:
            found = Similarity.load(path)
        except DataError:
            continue
        assert place != numbers + 13
        assert_same(found, angular)  # the bit lay in unused space


def test_missing_file_is_refused_with_its_full_path(tmp_path):
    for path in (tmp_path / "none.nc", tmp_path):
        with pytest.raises(
            DataError, match=re.escape(f"{path} is not a file ({path.absolute()}); give one written by")
        ):
            Similarity.load(path)


def test_similarity_survives_copying_and_pickling(angular):
    for twin in (copy.deepcopy(angular), pickle.loads(pickle.dumps(angular))):
        assert_same(twin, angular)
    assert "operators" not in repr(angular)


# ---- what is refused -------------------------------------------------------------------------------------------------

X = torch.randn(4, 40, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64).cumsum(1)


def with_value(value: float) -> Tensor:
    x = X.clone()
    x[2, 7, 1] = value
    return x


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "NaN": (with_value(math.nan), {}, "system 'bad', trial 2, channel 1: 1 non-finite value, first at sample 7 (nan)"),
    "infinity": (with_value(math.inf), {}, "system 'bad', trial 2, channel 1: 1 non-finite value, first at sample 7"),
    "short": (X[:, :3], {}, "but system 'bad', trials 0, 1, 2, 3 have as few as 3; at most n_delays = 2 fits"),
    "exactly the window": ([X[0], X[1, :4]], {}, "needs trials of at least 5 samples (4 for one "
                           "window, 1 more to predict), but system 'bad', trial 1 has 4; at most n_delays = 3 fits"),
    "rank": (X[..., :1], {"on_rank": "error"}, "'bad': rank = 5 is out of reach; 4 entries in a window"),
    "constant": (torch.full_like(X, 3.0), {}, "system 'bad' is constant in all 3 channels: it has no variance"),
    "4-D": (X[None], {}, "system 'bad' has shape (1, 4, 40, 3); accepted are (n_trials, n_times"),
    "no trials": ([], {}, "system 'bad' has no trials; at least one is needed"),
    "complex": (X * 1j, {}, "system 'bad' holds complex128 values; real numbers are needed"),
    "strings": (X.numpy().astype(str), {}, "system 'bad' holds <U32 values; real numbers are needed"),
    "size": (torch.eye(4), {}, "operators of different size"),
    "zero operator": (torch.zeros(5, 5), {}, "system 'bad' is zero: it has no direction, and so no angle to another"),
    "identity": (torch.eye(5), {"remove_trace": True}, "system 'bad' is a multiple of the identity, and zero wit"),
    "NaN operator": (torch.full((5, 5), math.nan), {}, "system 'bad' holds NaN or infinity"),
    "metric": (X, {"metric": "angel"}, "metric = 'angel' is none of 'angular', 'euclidean', 'frobenius', "
               "'spectral', 'sgot', 'state', 'input', 'joint', 'cka', 'procrustes', 'principal_variances', "
               "'autocorrelations'; did you mean 'angular'?"),
    "estimator": (X, {"estimator": "least_square"}, "did you mean 'least_squares'?"),
    "zero delays": (X, {"n_delays": 0}, "n_delays = 0 is not a whole number of at least 1"),
    "no rank": (X, {"rank": None}, "n_delays and rank are needed to fit an operator to system 'good'"),
    "device": (X, {"device": "cuda:99"}, "device = 'cuda:99' is not there, or lacks float64; here are cpu"),
    "unmatched": (X[:3], {"metric": "cka"}, "metric = 'cka' compares trials sample by sample, but system 'bad' has"),
    "operator to cka": (fit_operator(X, n_delays=4, rank=5), {"metric": "cka"}, "metric = 'cka' compares recordings, "
                        "but system 'bad' came as an operator"),
    "group": (X, {"group": "U"}, "group = 'U' is none of 'O', 'SO'"),
    "starts": (X, {"n_starts": 0}, "n_starts = 0 is not a whole number of at least 1"),
    "seed": (X, {"seed": -1}, "seed = -1 is not a whole number of at least 0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_compared_is_refused_and_left_unchanged(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad, changed, message = REFUSED[kind]
    before = copy.deepcopy(bad)
    with pytest.raises(DataError, match=re.escape(message)):
        compare({"good": X.flip(1), "bad": bad}, **by(changed.get("metric", "angular")) | changed)
    for came, was in zip([bad] if isinstance(bad, Tensor) else [], [before], strict=False):
        torch.testing.assert_close(came, was, rtol=0, atol=0, equal_nan=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("systems", "others", "message"),
    [
        ({}, None, "no systems came; at least one is needed"),
        ([X], [], "no systems came; at least one is needed"),
        (X, None, "systems came as Tensor; give a mapping from name to system, or a list of systems"),
        ({1: X, "1": X}, None, "two systems have the same name: 1, 1"),
    ],
)
def test_what_is_no_set_of_systems_is_refused(systems, others, message):
    with pytest.raises(DataError, match=re.escape(message)):
        compare(systems, others, **EMBEDDING)


def test_misspelt_argument_is_refused():
    with pytest.raises(TypeError, match="unknown choice 'n_delay'; did you mean 'n_delays'"):
        compare([X], n_delay=3, rank=2)


def test_system_of_one_window_too_few_is_never_at_distance_zero():
    """The trap of filling in: a trial of exactly one window has no transition, and so no operator."""
    for metric in ("angular", "euclidean", "spectral"):
        with pytest.raises(DataError, match="needs trials of at least 5 samples"):
            compare([X[:, :4], X[:, 4:8]], n_delays=4, rank=2, metric=metric)


def test_constant_channel_is_warned_about_by_system_and_the_rest_compared():
    x = X.clone()
    x[..., 1] = 5
    with pytest.warns(UserWarning, match=re.escape("system 'x': constant channels [1] carry nothing")):
        found = compare({"x": x, "y": X}, **EMBEDDING)
    assert np.isfinite(found.distances).all()


def test_alignments_that_did_not_end_are_counted_in_one_warning(systems, monkeypatch):
    """Pairs a-b and b-c stop early: told once, and shown by pair."""

    def stopped(*arguments, **settings):
        return solve_pairs(*arguments, **settings)._replace(converged=torch.tensor([False, True, False]))

    monkeypatch.setattr(importlib.import_module("dsa_analysis.compare"), "solve_pairs", stopped)
    with pytest.warns(UserWarning) as caught:  # noqa: PT030 - that there is a single one is looked at below
        found = compare(systems, n_delays=4, rank=2)
    assert [str(one.message) for one in caught] == [
        "2 of 3 alignments stopped before their gradient vanished; see Similarity.converged"
    ]
    np.testing.assert_array_equal(found.converged, [[True, False, True], [False, True, False], [True, False, True]])


def test_systems_may_differ_in_type_and_precision(systems):
    """Whole numbers as int16, float32 and big-endian: the same distances as all in double precision."""
    whole = [np.round(1000 * np.stack([np.asarray(trial) for trial in system])) for system in systems.values()]
    mixed = [whole[0].astype("i2"), torch.from_numpy(whole[1]).float(), whole[2].astype(">f8")]
    assert all(np.array_equal(np.asarray(a), b) for a, b in zip(mixed, whole, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = (compare(x, n_delays=4, rank=2, progress=False).distances for x in (mixed, whole))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)  # the bar of one system in single precision


def test_silent_where_there_is_nothing_to_say(systems, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(systems, n_delays=4, rank=2)  # a clear gap in each
    assert capsys.readouterr().out == capsys.readouterr().err == ""
