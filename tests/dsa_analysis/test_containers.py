"""What `numpy.asarray` would drop from arrays of other libraries: kept, or refused with the call that helps."""

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray as xr

from dsa_analysis import DataError, omit_trials
from dsa_analysis.containers import check_memory, memory
from dsa_analysis.data import as_trials, check_choice, check_count, check_flag, check_number, check_seed, shown


@pytest.fixture
def array() -> np.ndarray:
    """Three trials of 20 samples of 4 channels, whole numbers in -100 .. 100."""
    return np.random.default_rng(0).integers(-100, 101, (3, 20, 4)).astype(float)


def values(system: Any) -> list[np.ndarray]:
    return [trial.double().numpy() for trial in as_trials(system, "A")]


# ---- missing values --------------------------------------------------------------------------------------------------


class Masked:
    """As of astropy: values and a mask, and an __array__ that drops the mask."""

    def __init__(self, unmasked: np.ndarray, mask: np.ndarray) -> None:
        self.unmasked, self.mask = unmasked, mask

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.unmasked

    def __getitem__(self, place: Any) -> "Masked":
        return Masked(self.unmasked[place], self.mask[place])


def masked(x: np.ndarray, dtype: str = "f8") -> np.ma.MaskedArray:
    """Sample 5 of trial 1, channel 2 is 99 and masked."""
    spoilt, mask = x.astype(dtype), np.zeros(x.shape, bool)
    spoilt[1, 5, 2], mask[1, 5, 2] = 99, True
    return np.ma.masked_array(spoilt, mask)


def nullable(x: np.ma.MaskedArray, dtype: str) -> list[pd.DataFrame]:
    return [pd.DataFrame(one.data).astype(dtype).mask(pd.DataFrame(one.mask)) for one in x]


MISSING = {
    "masked": masked,
    "masked float32": lambda x: masked(x, "f4"),
    "masked integers": lambda x: masked(x, "i2"),
    "masked big-endian": lambda x: masked(x, ">f4"),
    "list of masked": lambda x: list(masked(x)),
    "mask of another library": lambda x: Masked(x, masked(x).mask),
    "xarray of masked": lambda x: xr.DataArray(masked(x), dims=("trial", "time", "unit")),
    "nullable frames": lambda x: nullable(masked(x), "Int64"),
    "nullable floats": lambda x: nullable(masked(x), "Float64"),
    "object array of masked": lambda x: _objects(list(masked(x))),
}


def _objects(trials: list[Any], shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.empty(len(trials), object)
    for k, trial in enumerate(trials):
        array[k] = trial
    return array.reshape(shape or array.shape)


@pytest.mark.parametrize("kind", MISSING)
def test_missing_samples_are_refused_as_nan_with_their_place(array, kind):
    with pytest.raises(DataError, match=r"system 'A', trial 1, channel 2: 1 non-finite value, first at sample 5"):
        as_trials(MISSING[kind](array), "A")


@pytest.mark.parametrize("kind", MISSING)
def test_trials_with_missing_samples_can_be_left_out(array, kind):
    with pytest.warns(UserWarning, match="trials left out: 1 of 3 of 'A'"):
        found = omit_trials({"A": MISSING[kind](array)}, non_finite=True)["A"]
    np.testing.assert_array_equal(values(found), array[[0, 2]])


def test_masked_arrays_without_masked_samples_are_arrays(array):
    before = np.ma.masked_array(array, mask=False)
    np.testing.assert_array_equal(values(before), array)
    assert as_trials(np.ma.masked_array(array.astype("f4")))[0].dtype == torch.float32
    spoilt = masked(array)
    with pytest.raises(DataError):
        as_trials(spoilt)
    assert spoilt.data[1, 5, 2] == 99  # unchanged


# ---- named dimensions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (("trial", "time", "unit"), (0, 1, 2)),
        (("unit", "time", "trial"), (2, 1, 0)),
        (("time", "trial", "channel"), (1, 0, 2)),
        (("Neurons", "epochs", "n_samples"), (2, 0, 1)),
        (("unit_id", "trial_id", "time_bin"), (2, 0, 1)),
        (("dim_0", "dim_1", "dim_2"), (0, 1, 2)),
        (("session", "time", "component"), (0, 1, 2)),
    ],
)
def test_named_dimensions_are_put_in_order(array, names, order):
    named = xr.DataArray(array.transpose(order), dims=names)
    np.testing.assert_array_equal(values(named), array)
    spoilt = named.copy()
    spoilt[dict(zip(names, (int(k) for k in np.array([1, 5, 2])[list(order)]), strict=True))] = np.nan
    with pytest.warns(UserWarning, match="1 of 3"):
        found = omit_trials([spoilt], non_finite=True)[0]
    assert found.dims == names
    np.testing.assert_array_equal(values(found), array[[0, 2]])


def test_named_dimensions_of_two_axes_are_put_in_order(array):
    np.testing.assert_array_equal(values(xr.DataArray(array[0], dims=("time", "unit")))[0], array[0])
    np.testing.assert_array_equal(values(xr.DataArray(array[0].T, dims=("unit", "time")))[0], array[0])
    by_trial = values(xr.DataArray(array[..., 0], dims=("trial", "time")))
    np.testing.assert_array_equal(by_trial, array[..., :1])
    np.testing.assert_array_equal(values(xr.DataArray(array[..., 0].T, dims=("time", "trial"))), by_trial)
    frame = pd.DataFrame(array[0].T).rename_axis(index="unit", columns="time")
    np.testing.assert_array_equal(values(frame)[0], array[0])
    np.testing.assert_array_equal(values([xr.DataArray(one.T, dims=("unit", "time")) for one in array]), array)


@pytest.mark.parametrize(
    "names",
    [
        ("time", "component", "x"),
        ("session", "trial", "time"),
        ("unit", "channel", "time"),
        ("trial", "unit"),
        ("component", "time"),
        ("unit",),
    ],
)
def test_dimensions_whose_names_leave_doubt_are_refused(array, names):
    named = xr.DataArray(array[(0,) * (3 - len(names))], dims=names)
    with pytest.raises(DataError, match=r"system 'A' has dimensions .* transpose it, or rename its dimensions"):
        as_trials(named, "A")


# ---- units, and containers of other kinds ----------------------------------------------------------------------------


class Quantity:
    def __init__(self, x: np.ndarray, attribute: str) -> None:
        self.magnitude = x
        setattr(self, attribute, "mV")
        if attribute == "unit":
            del self.magnitude

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.zeros((3, 4))


@pytest.mark.parametrize("attribute", ["unit", "units"])
def test_units_are_refused_and_not_dropped(array, attribute):
    with pytest.raises(DataError, match=r"system 'A' has a unit \(mV\), which would be lost; give the numbers"):
        as_trials(Quantity(array, attribute), "A")
    with pytest.raises(DataError, match=r"system 'A', trial 1 has a unit \(mV\)"):
        as_trials([array[0], Quantity(array[1], attribute)], "A")


SAME = {
    "object array of trials": lambda x: _objects(list(x)),
    "object row of trials": lambda x: _objects(list(x), (1, 3)),
    "nested tensor": lambda x: torch.nested.nested_tensor([torch.from_numpy(one) for one in x]),
    "nullable frames": lambda x: [pd.DataFrame(one).convert_dtypes() for one in x],
    "sparse matrices": lambda x: [scipy.sparse.csr_matrix(one) for one in x],
    "sparse arrays": lambda x: [scipy.sparse.coo_array(one) for one in x],
    "sparse frames": lambda x: [pd.DataFrame(one).astype(pd.SparseDtype("float64", 0.0)) for one in x],
    "sparse tensor": lambda x: torch.from_numpy(x).to_sparse(),
    "sparse rows": lambda x: [torch.from_numpy(one).to_sparse_csr() for one in x],
    "frames of mixed numbers": lambda x: [pd.DataFrame(one).astype({0: "int64", 1: "float32"}) for one in x],
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:The PyTorch API of nested tensors")
def test_other_containers_hold_the_same_trials(array, kind):
    np.testing.assert_array_equal(values(SAME[kind](array)), array)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.float8_e5m2])
def test_tensors_of_types_that_torch_cannot_reduce_are_read(dtype):
    counts = torch.arange(24.0).reshape(2, 4, 3).clamp(max=4).to(dtype)
    np.testing.assert_array_equal(values(counts), counts.double().numpy())


REFUSED = {
    "nested list": (lambda x: x[0].tolist(), "trial 0 is a list inside a list; give np.asarray(x) for one array"),
    "list of lists of lists": (lambda x: x.tolist(), "or [np.asarray(trial) for trial in x] for a list of trials"),
    "list of tuples of arrays": (lambda x: [(x[0], x[1])], "trial 0 is a list inside a list"),
    "list of numbers": (lambda x: [1.0, 2.0], "trial 0 is a number inside a list"),
    "Dataset": (lambda x: xr.Dataset({"rates": (("trial", "time", "unit"), x)}), "give one of its variables (rates)"),
    "text column": (lambda x: pd.DataFrame({"a": x[0, :, 0], "b": ["1"] * 20}), "than real numbers (b "),
    "category": (lambda x: pd.DataFrame({"a": x[0, :, 0]}).astype("category"), "give frame.astype(float)"),
    "dates": (lambda x: pd.DataFrame({"t": pd.date_range("2020", periods=20)}), "(t datetime64"),
    "rows of trials": (
        lambda x: pd.concat(dict(enumerate(map(pd.DataFrame, x)))).rename_axis(["trial", "time"]),
        "rows that are indexed by trial, time; give each trial apart, such as [x for _, x in frame.groupby(level=0)]",
    ),
    "objects": (lambda x: x.astype(object), "object values; real numbers are needed; give x.astype(float)"),
    "grid of arrays": (lambda x: _objects([*x, *x[:1]], (2, 2)), "object values; real numbers are needed"),
    "meta tensor": (lambda x: torch.empty(3, 20, 4, device="meta"), "on the device 'meta', which holds no values"),
    "structured": (lambda x: np.zeros(5, [("a", float)]), "real numbers are needed"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_containers_of_unclear_meaning_are_refused_with_the_call_that_helps(array, kind):
    change, message = REFUSED[kind]
    with pytest.raises(DataError, match=re.escape(message)):
        as_trials(change(array), "A")


def test_sparse_arrays_that_do_not_fit_into_memory_are_refused_before_they_are_made_dense():
    huge = scipy.sparse.coo_array(([1.0], ([0], [0])), shape=(2**40, 2**20))
    with pytest.raises(DataError, match=r"system 'A', made dense, would take .* GiB of memory; this machine has"):
        as_trials(huge, "A")
    with pytest.raises(DataError, match="would take"):
        check_memory(2 * memory(), "it")


# ---- constancy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [0.1, 14.62, -3.7, 1e-9, 1e9])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_constant_channels_are_found_after_arithmetic(array, constant, dtype):
    """A running mean of a constant is the constant and rounding errors."""
    array[..., 1] = constant
    array[..., [0, 2, 3]] *= abs(constant)
    kernel = np.full(7, 1 / 7)
    smooth = np.apply_along_axis(np.convolve, 1, array, kernel, "valid").astype(dtype)
    with pytest.warns(UserWarning, match=re.escape("constant channels [1] carry nothing")):
        as_trials(smooth)
    with pytest.raises(DataError, match="is constant in all 1 channels"):
        as_trials(smooth[..., 1:2])


@pytest.mark.parametrize(
    ("dtype", "offset", "range_"), [("f8", 1e6, 1e-4), ("f4", 100, 0.01), ("i8", 2**53, 1), ("f2", 1, 0.001)]
)
def test_small_variation_around_an_offset_is_no_constant(dtype, offset, range_):
    array = (np.asarray(offset, dtype) + np.asarray([[0], [range_]]).astype(dtype) * np.ones((1, 2), dtype))[None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_trials(array.astype(dtype))


# ---- settings --------------------------------------------------------------------------------------------------------


def test_settings_come_back_as_numbers_of_python():
    for value in (3, np.int64(3), np.uint8(3)):
        assert type(check_count("n", value)) is int
    for value in (2, 2.0, np.float32(2), np.int16(2)):
        assert type(check_number("x", value, "a number")) is float
    for value in (True, np.True_):
        assert check_flag("f", value) is True


@pytest.mark.parametrize("value", [2**63, 10**20, 10**5000], ids=["64 bits", "a date", "5001 digits"])
def test_counts_that_no_machine_holds_are_refused(value):
    with pytest.raises(
        DataError, match=r"seed = .* is not a whole number of at least 0 and at most 9223372036854775807"
    ):
        check_seed(value)
    with pytest.raises(DataError, match=r"n_starts = .* and at most 1000"):
        check_count("n_starts", value, 1, 1000)


@pytest.mark.parametrize(
    "value", ["1", True, None, np.nan, np.inf, -1, 10**5000, 1j, [1]], ids=lambda value: type(value).__name__
)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(DataError, match=r"smooth = .* is not a time in ms of at least 0"):
        check_number("smooth", value, "a time in ms of at least 0", 0)


@pytest.mark.parametrize("value", ["False", 0, 1, None, np.int64(1)])
def test_what_is_no_flag_is_refused(value):
    with pytest.raises(DataError, match=r"zscore = .* is neither True nor False"):
        check_flag("zscore", value)
    with pytest.raises(DataError, match=r"non_finite = .* is neither True nor False"):
        omit_trials([np.eye(3)], non_finite=value)


def test_long_values_are_cut_in_messages():
    assert shown(10**5000) == "a number of 5001 digits"
    assert len(shown("x" * 10**6)) < 200
    with pytest.raises(DataError, match=r"metric = a number of 5001 digits is none of 'angular'"):
        check_choice("metric", 10**5000, ["angular"])
    with pytest.raises(DataError, match=r"is none of 'angular'"):
        check_choice("metric", ["angular"], ["angular"])
