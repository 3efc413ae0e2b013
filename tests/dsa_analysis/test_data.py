"""What users hand in: every layout and number type that is accepted, every one that is refused, with its message."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor

from dsa_analysis import DataError, compare, omit_trials
from dsa_analysis.data import as_device, as_generator, as_systems, as_trials, check_choice, check_count


@pytest.fixture
def array() -> np.ndarray:
    """Three trials of 20 samples of 4 channels, whole numbers in -100 .. 100."""
    return np.random.default_rng(0).integers(-100, 101, (3, 20, 4)).astype(float)


def stacked(system: Any) -> Tensor:
    return torch.stack(as_trials(system)).double()


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (lambda x: x, lambda x: x),
        (lambda x: torch.from_numpy(x), lambda x: x),
        (lambda x: xr.DataArray(x, dims=("trial", "time", "unit")), lambda x: x),
        (lambda x: list(x), lambda x: x),
        (lambda x: tuple(x), lambda x: x),
        (lambda x: x[0], lambda x: x[:1]),
        (lambda x: pd.DataFrame(x[0]), lambda x: x[:1]),
        (lambda x: x[0, :, 0], lambda x: x[:1, :, :1]),
        (lambda x: list(x[..., 0]), lambda x: x[..., :1]),
    ],
    ids=["3-D", "tensor", "xarray", "list", "tuple", "2-D", "data frame", "1-D", "list of 1-D"],
)
def test_each_layout_becomes_trials_by_time_by_channels(array, layout, expected):
    np.testing.assert_array_equal(stacked(layout(array)).numpy(), expected(array))


def test_trials_of_unequal_length_stay_apart(array):
    trials = as_trials([array[0], array[1, :7], array[2, :1]])
    assert [tuple(trial.shape) for trial in trials] == [(20, 4), (7, 4), (1, 4)]


@pytest.mark.parametrize(
    "dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", ">f8", ">f4", ">i2", ">u4"]
)
def test_every_real_number_type_keeps_its_values(array, dtype):
    whole = abs(array) if "u" in dtype else array
    np.testing.assert_array_equal(stacked(whole.astype(dtype)).numpy(), whole)  # whole numbers to 100 fit into each


def test_truth_values_are_zeros_and_ones(array):
    np.testing.assert_array_equal(stacked(array > 0).numpy(), array > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float64])
def test_trials_stay_in_the_precision_they_came_in(array, dtype):
    assert as_trials(torch.from_numpy(array).to(dtype))[0].dtype == dtype


def test_trials_of_a_tensor_are_views_of_it(array):
    tensor = torch.from_numpy(array)
    assert as_trials(tensor)[1].data_ptr() == tensor[1].data_ptr()


@pytest.mark.parametrize(
    "view",
    [
        lambda x, folder: np.asfortranarray(x),
        lambda x, folder: x[:, ::-1][:, ::-1],
        lambda x, folder: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x, folder: np.load(_saved(x, folder), mmap_mode="r"),
        lambda x, folder: torch.from_numpy(x).requires_grad_(),
        lambda x, folder: torch.from_numpy(x).mT.contiguous().mT,
    ],
    ids=["Fortran order", "reversed", "strided", "read-only memory map", "requires grad", "transposed tensor"],
)
def test_any_memory_layout_is_read_without_warning_or_graph(array, view, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trials = as_trials(view(array.copy(), tmp_path))
    np.testing.assert_array_equal(torch.stack(trials).numpy(), array)
    assert not trials[0].requires_grad


def _saved(x: np.ndarray, folder: Path) -> Path:
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


def spoilt(value: float, *places: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    def spoil(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        for place in places:
            x[place] = value
        return x

    return spoil


REFUSED = {
    "NaN": (
        spoilt(np.nan, (2, 5, 3), (2, 9, 3)),
        "system 'A', trial 2, channel 3: 2 non-finite values, first at sample 5 (nan); leave such trials out by omit",
    ),
    "infinity": (
        spoilt(np.inf, (1, 0, 2)),
        "system 'A', trial 1, channel 2: 1 non-finite value, first at sample 0 (inf)",
    ),
    "constant": (np.ones_like, "system 'A' is constant in all 4 channels: it has no variance, and so no dynamics"),
    "one sample": (lambda x: x[0, :1], "system 'A' is constant in all 4 channels"),
    "4-D": (
        lambda x: x[None],
        "system 'A' has shape (1, 3, 20, 4); accepted are (n_trials, n_times, n_channels), (n_t",
    ),
    "a number": (lambda x: 3.0, "system 'A' has shape (); accepted are"),
    "list of 3-D": (
        lambda x: [x, x],
        "system 'A', trial 0 has shape (3, 20, 4); a trial of a list is (n_times_i, n_chan",
    ),
    "no trials": (lambda x: [], "system 'A' has no trials; at least one is needed"),
    "no trials, stacked": (lambda x: x[:0], "system 'A' has no trials; at least one is needed"),
    "no samples": (lambda x: [x[0], x[1, :0]], "system 'A', trial 1 has no samples; at least one is needed"),
    "no channels": (lambda x: x[..., :0], "system 'A', trial 0 has 0 channels"),
    "other channels": (
        lambda x: [x[0], x[1, :, :3]],
        "system 'A', trial 1 has 3 channels, trial 0 has 4; all trials n",
    ),
    "complex": (lambda x: x + 0j, "system 'A' holds complex128 values; real numbers are needed"),
    "complex tensor": (
        lambda x: torch.from_numpy(x) + 0j,
        "system 'A' holds complex128 values; real numbers are needed",
    ),
    "complex trial": (lambda x: [x[0], x[1] + 0j], "system 'A', trial 1 holds complex128 values"),
    "strings": (lambda x: x.astype(str), "system 'A' holds <U32 values; real numbers are needed"),
    "a string": (lambda x: "recording.npy", "system 'A' holds <U13 values; real numbers are needed"),
    "objects": (lambda x: x.astype(object), "system 'A' holds object values; real numbers are needed"),
    "nothing": (lambda x: None, "system 'A' holds object values; real numbers are needed"),
    "ragged nested lists": (lambda x: [[[1.0, 2.0], [1.0]]], "system 'A', trial 0 is a list inside a list; give np."),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_unusable_data_are_refused_naming_the_place(array, kind):
    spoil, message = REFUSED[kind]
    with pytest.raises(DataError, match=re.escape(message)):
        as_trials(spoil(array), "A")


def test_refusal_is_a_value_error():
    assert issubclass(DataError, ValueError)


def test_nothing_that_came_in_is_changed(array):
    before = array.copy()
    as_trials(array, "A")
    with pytest.raises(DataError):
        as_trials(spoilt(np.nan, (0, 0, 0))(array), "A")
    np.testing.assert_array_equal(array, before)


def test_constant_channel_is_warned_about_and_kept(array):
    array[..., 2] = 7
    with pytest.warns(UserWarning, match=re.escape("system 'A': constant channels [2] carry nothing")):
        assert as_trials(array, "A")[0].shape[1] == 4


def test_channel_that_is_constant_within_trials_only_is_not_constant(array):
    array[..., 2] = np.arange(3)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_trials(array)


def test_swapped_axes_are_warned_about():
    with pytest.warns(UserWarning, match="'A': 201 channels x 20 samples; is time on the last axis"):
        as_trials(np.random.default_rng(0).normal(size=(20, 201)), "A")


def test_mapping_keeps_names_and_sequence_is_counted():
    assert as_systems({"lorenz": 1, 7: 2}) == {"lorenz": 1, "7": 2}
    assert as_systems([5, 6]) == as_systems((5, 6)) == {"0": 5, "1": 6}


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({}, "no systems came; at least one is needed"),
        ([], "no systems came; at least one is needed"),
        ({1: 0, "1": 0}, "two systems have the same name: 1, 1"),
        (np.zeros((2, 3, 4)), "systems came as ndarray; give a mapping from name to system, or a list of systems"),
        (torch.zeros(2), "systems came as Tensor"),
        ("lorenz", "systems came as str"),
        (None, "systems came as NoneType"),
    ],
    ids=["empty mapping", "empty list", "same name", "array", "tensor", "string", "None"],
)
def test_what_is_no_collection_of_systems_is_refused(systems, message):
    with pytest.raises(DataError, match=re.escape(message)):
        as_systems(systems)


def test_unknown_choice_is_refused_with_the_nearest():
    with pytest.raises(
        DataError, match=re.escape("metric = 'angel' is none of 'angle', 'chord'; did you mean 'angle'?")
    ):
        check_choice("metric", "angel", ("angle", "chord"))
    with pytest.raises(DataError, match=r"'chord'$"):  # no guess where nothing is near
        check_choice("metric", 3, ("angle", "chord"))


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2", None, np.float64(3)])
def test_count_is_a_whole_number_of_at_least_one(value):
    with pytest.raises(DataError, match=re.escape(f"n_delays = {value!r} is not a whole number of at least 1")):
        check_count("n_delays", value)


def test_count_may_come_from_numpy():
    check_count("n_delays", np.int32(3))
    check_count("discard", 0, least=0)


def test_device_names_are_resolved():
    assert as_device(None) is None
    assert as_device("cpu") == torch.device("cpu") == as_device(torch.device("cpu"))
    assert as_device("auto") == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "hpu", "cpu:x", 3.5])
def test_absent_device_is_refused_naming_those_present(device):
    with pytest.raises(DataError, match=re.escape(f"device = {device!r} is not there, or lacks float64; here are cpu")):
        as_device(device)


def test_generator_comes_from_exactly_one_source(generator):
    assert as_generator(None, generator) is generator
    one, other = (torch.rand(3, generator=as_generator(5, None)) for _ in range(2))
    assert torch.equal(one, other)
    for seed, given in ((None, None), (5, generator)):
        with pytest.raises(DataError, match="exactly one of seed and generator"):
            as_generator(seed, given)
    with pytest.raises(DataError, match=r"seed = 1\.5 is not a whole number"):
        as_generator(1.5, None)


# ---- trials left out -------------------------------------------------------------------------------------------------

LAYOUTS = {
    "3-D": lambda x: x,
    "tensor": torch.from_numpy,
    "xarray": lambda x: xr.DataArray(x, dims=("trial", "time", "unit")),
    "list": list,
    "tuple": tuple,
    "list of 1-D": lambda x: list(x[..., 0]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trials_with_nan_or_infinity_are_left_out_in_every_layout(array, layout):
    array[1, 5, 0] = np.nan
    before = array.copy()
    system = LAYOUTS[layout](array)
    with pytest.warns(UserWarning, match=r"^trials left out: 1 of 3 of 'A'$"):
        found = omit_trials({"A": system}, non_finite=True)["A"]
    expected = [x.numpy() for x in as_trials(LAYOUTS[layout](array[[0, 2]]))]
    np.testing.assert_array_equal([x.numpy() for x in as_trials(found)], expected)
    assert type(found) is (list if layout == "tuple" else type(system))
    np.testing.assert_array_equal(array, before)


def test_trials_too_short_are_left_out_of_their_own_system_with_one_warning_for_all(array):
    ragged, whole = [array[0], array[1, :4], array[2, :5]], array
    with pytest.warns(UserWarning, match="^trials left out: 1 of 3 of '0', 1 of 2 of '2'$") as caught:
        found = omit_trials([ragged, whole, [array[0, :4], array[1]]], shorter_than=5)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert [[len(trial) for trial in system] for system in found] == [[20, 5], [20, 20, 20], [20]]
    assert found[1] is whole


def test_nothing_is_left_out_unasked(array):
    array[1, 5, 0] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert omit_trials([array])[0] is array
        assert omit_trials([array[[0, 2]]], non_finite=True, shorter_than=20)[0].shape == (2, 20, 4)


def test_matched_trials_go_from_all_systems_alike(array):
    """Left out one by one, both systems would keep two trials, and the third be matched with the first."""
    first, second = array.copy(), array.copy()
    first[0, 0, 0] = second[2, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="2 of 3 of 'a', 2 of 3 of 'b'"):
        found = omit_trials({"a": first, "b": second}, non_finite=True, matched=True)
    np.testing.assert_array_equal(found["a"], array[[1]])
    np.testing.assert_array_equal(found["b"], array[[1]])
    with pytest.raises(DataError, match=r"matched trials are as many in each system, but came as 'a' 3, 'b' 2"):
        omit_trials({"a": first, "b": second[:2]}, non_finite=True, matched=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"non_finite": True}, "of its 3 trials none would be left, since all hold NaN or infinity; leave out the sys"),
        ({"shorter_than": 21}, "of its 3 trials none would be left, since all are shorter than 21; leave out the syst"),
        (
            {"non_finite": True, "shorter_than": 21, "matched": True},
            "since all hold NaN or infinity or are shorter than 21, here or in another system; leave out",
        ),
        ({"shorter_than": -1}, "shorter_than = -1 is not a whole number of at least 0"),
    ],
)
def test_system_of_which_nothing_would_be_left_is_refused(array, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        omit_trials([np.full_like(array, np.nan)], **settings)


def test_refusals_name_the_way_out_and_it_works(array):
    """What the message says to call is called: the comparison then goes through."""
    systems = {"a": [*-array[::-1], np.full((20, 4), np.nan)], "b": [*array, array[0, :3]]}
    settings = {"n_delays": 3, "rank": 2, "progress": False}
    with pytest.raises(DataError, match=r"system 'a', trial 3, channel 0: 20 non-finite .* omit_trials\(systems, non_"):
        compare(systems, **settings)
    with pytest.warns(UserWarning, match="left out: 1 of 4 of 'a'"):
        systems = omit_trials(systems, non_finite=True)
    with pytest.raises(DataError, match=r"or leave the short trials out by omit_trials\(systems, shorter_than=4\)"):
        compare(systems, **settings)
    with pytest.warns(UserWarning, match="left out: 1 of 4 of 'b'"):
        systems = omit_trials(systems, shorter_than=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "2 of 2 systems")  # few transitions
        assert compare(systems, **settings).distances[0, 1] > 0
    with pytest.raises(DataError, match=r"system 'a', trial 1 has 3; .* omit_trials\(systems, shorter_than=9\)"):
        compare({"a": [array[0], array[0, :3]]}, windows=[(2, 9)], **settings)
