"""Arrays of other libraries -> numpy arrays and tensors, without losing what `numpy.asarray` drops.

Masked arrays, nullable numbers of pandas   missing samples become NaN
named dimensions (xarray, data frames)      axes are put in order by their names, or refused
quantities (pint, astropy, unyt, ...)       refused: their unit would be lost
sparse, quantised and unsigned tensors      dense tensors of a type that torch can reduce
object arrays of arrays, nested tensors     a list of trials

None of these libraries is imported: an object is recognised by what it offers.
"""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

AXES = ("trial", "time", "channel")
# Words in names of dimensions, in the singular. A name that holds words of two axes says nothing.
WORDS = {
    "trial": {"trial", "epoch", "repeat", "repetition", "rep", "sweep", "realization", "presentation", "batch"},
    "time": {"time", "t", "sample", "bin", "timepoint", "timestep", "step", "frame"},
    "channel": {"channel", "unit", "neuron", "neuroid", "electrode", "sensor", "cell", "feature", "voxel", "roi"},
}
# Tensors of these types have minima, finite values and sums in torch; other real types are read as float64.
REDUCIBLE = {getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64", "uint8", "bool")}
REDUCIBLE |= {getattr(torch, name) for name in ("int8", "int16", "int32", "int64")}


class DataError(ValueError):
    """Data or arguments that cannot be used; the message says where, what came and what would do."""


def as_tensor(value: Any, where: str) -> Tensor | list[Any]:
    """Real tensor of one array, axes in the order trial, time, channel; or the list of trials that it holds.

    The tensor is a view of ``value`` where torch can make one.

    Parameters
    ----------
    value : array of any library
    where : str
        Used in messages: "system 'a', trial 3".

    Raises
    ------
    DataError
        Values that are no real numbers, units, named dimensions in an order that cannot be used, or more values than
        fit into memory.
    """
    names = _dimensions(value, where)
    values = _unwrapped(value, where)
    if isinstance(values, list):
        return values
    tensor = values if isinstance(values, Tensor) else _from_numpy(values, where)
    if tensor.is_complex():
        raise DataError(f"{where} holds {tensor.dtype} values; real numbers are needed".replace("torch.", ""))
    if tensor.dtype not in REDUCIBLE:
        tensor = _attempt(tensor.double, where)
    if not any(names):
        return tensor
    roles = _roles(names, where)
    tensor = tensor.permute([roles.index(axis) for axis in AXES if axis in roles])
    return tensor if "channel" in roles else tensor[..., None]


def trial_dimension(value: Any) -> str | None:
    """The name of the dimension along which an xarray object has its trials; None for anything without names."""
    if not _is_xarray(value) or len(value.dims) < 2:
        return None
    roles = _roles(_dimensions(value, "system"), "system")
    return str(value.dims[roles.index("trial")]) if "trial" in roles else None


def _is_xarray(value: Any) -> bool:
    return hasattr(value, "isel") and hasattr(value, "dims")


def is_list(value: Any) -> bool:
    """Whether ``value`` is a plain list or tuple: of trials where a system is meant, of numbers inside one."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "__array__")


def check_memory(n_bytes: float, where: str) -> None:
    """Refuse what is larger than this machine's memory, before it is allocated."""
    limit = memory()
    if n_bytes > limit:
        raise DataError(
            f"{where} would take {n_bytes / 2**30:.3g} GiB of memory; this machine has {limit / 2**30:.3g} GiB"
        )


def memory() -> float:
    """Bytes of memory that this process can have at most; infinite where the system does not say."""
    limits = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        limits.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    with suppress(OSError, ValueError):  # of a container; absent, or "max", where there is no limit
        limits.append(float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits, default=float("inf"))


# ---- values ----------------------------------------------------------------------------------------------------------


def _unwrapped(value: Any, where: str) -> np.ndarray | Tensor | list[Any]:
    """The values as a numpy array, a tensor or a list of trials; missing ones are NaN."""
    if isinstance(value, Tensor):
        return _dense(value, where)
    if hasattr(value, "data_vars"):
        variables = ", ".join(map(str, value.data_vars)) or "none"
        raise DataError(f"{where} is a Dataset; give one of its variables ({variables})")
    if _is_xarray(value):
        return _unwrapped(_attempt(lambda: value.data, where), where)
    if hasattr(value, "__dask_graph__"):
        check_memory(getattr(value, "nbytes", 0), where)
        return _unwrapped(_attempt(value.compute, where), where)
    if hasattr(value, "to_numpy") and (hasattr(value, "dtypes") or hasattr(value, "dtype")):
        return _from_frame(value, where)
    for attribute, call in (("magnitude", "x.magnitude"), ("unit", "x.value"), ("units", "x.value")):
        if hasattr(value, attribute):
            unit = getattr(value, "units", getattr(value, "unit", ""))
            raise DataError(f"{where} has a unit ({unit}), which would be lost; give the numbers, such as {call}")
    if isinstance(value, np.ma.MaskedArray):
        return _filled(value.data, np.ma.getmaskarray(value))
    if hasattr(value, "unmasked") and hasattr(value, "mask"):
        return _filled(np.asarray(value.unmasked), np.asarray(value.mask))
    for method in ("toarray", "todense"):
        if hasattr(value, method):
            check_memory(8 * float(np.prod([float(n) for n in value.shape])), f"{where}, made dense,")
            return np.asarray(_attempt(getattr(value, method), where))
    array = _attempt(lambda: np.asarray(value), where)
    if array.dtype == object and array.size and max(array.shape, default=0) == array.size:
        elements = list(array.ravel())
        if all(hasattr(element, "__array__") and np.ndim(element) for element in elements):
            return elements
    return array


def _attempt(read: Callable[[], Any], where: str) -> Any:
    """What ``read`` gives; each library raises errors of its own."""
    try:
        return read()
    except Exception as problem:
        layouts = "an array (n_trials, n_times, n_channels) or (n_times, n_channels) of numbers"
        raise DataError(f"{where} cannot be read as an array ({problem}); give {layouts}") from problem


def _filled(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    if not missing.any() or values.dtype.kind not in "fiub":
        return values
    values = values.astype(values.dtype if values.dtype.kind == "f" else float)  # a copy
    values[missing] = np.nan
    return values


def _from_frame(frame: Any, where: str) -> np.ndarray:
    """Values of a pandas (or like) frame, series or array."""
    index: Any = getattr(frame, "index", None)
    if getattr(index, "nlevels", 1) > 1:
        raise DataError(
            f"{where} has rows that are indexed by {', '.join(map(str, index.names))}; give each trial apart, such as "
            f"[x for _, x in frame.groupby(level=0)]"
        )
    dtypes = frame.dtypes if hasattr(frame, "dtypes") else frame.dtype
    columns = list(dtypes.items()) if hasattr(dtypes, "items") else [("", dtypes)]
    kinds = {name: getattr(dtype, "kind", "f") for name, dtype in columns}
    wrong = [f"{name} {dtype}".strip() for name, dtype in columns if kinds[name] not in "fiub"]
    if wrong:
        shown = ", ".join(wrong[:3]) + ", ..." * (len(wrong) > 3)
        raise DataError(
            f"{where} holds object values or other columns than real numbers ({shown}); real numbers are needed: leave "
            f"such columns out, or give frame.astype(float)"
        )
    if any(hasattr(dtype, "units") for _, dtype in columns):
        raise DataError(
            f"{where} has columns with units, which would be lost; give the numbers, such as x.pint.magnitude"
        )
    plain = all(isinstance(dtype, np.dtype) for _, dtype in columns)
    if plain or not hasattr(frame, "isna"):
        return _attempt(lambda: np.asarray(frame), where)
    return _attempt(lambda: np.asarray(frame.to_numpy(dtype=float, na_value=np.nan)), where)


def _from_numpy(array: np.ndarray, where: str) -> Tensor:
    if array.dtype.kind not in "fiub":
        hint = "; give x.astype(float), or a list of trials" * (array.dtype == object and array.ndim > 0)
        raise DataError(f"{where} holds {array.dtype} values; real numbers are needed{hint}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    # torch can neither share read-only memory without a warning nor walk backwards
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    if (array.dtype.kind == "u" and array.dtype.itemsize > 1) or array.dtype == np.longdouble:
        array = array.astype(np.float64)
    return torch.from_numpy(array)


def _dense(value: Tensor, where: str) -> Tensor | list[Any]:
    tensor = value.detach()
    if tensor.is_nested:
        return list(tensor.unbind())
    if any(getattr(value, "names", ())):  # of torch before 2.13
        raise DataError(f"{where} has named dimensions; put them in order and give x.rename(None)")
    if tensor.is_meta:
        raise DataError(f"{where} is a tensor on the device 'meta', which holds no values")
    if hasattr(value, "get_mask"):  # of torch.masked; True is where a value stands
        masked: Any = value
        data = masked.get_data().detach()
        return torch.where(masked.get_mask(), data if data.is_floating_point() else data.double(), torch.nan)
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout != torch.strided:
        check_memory(tensor.element_size() * float(np.prod([float(n) for n in tensor.shape])), f"{where}, made dense,")
        return _attempt(tensor.to_dense, where)
    return tensor


# ---- names of dimensions ---------------------------------------------------------------------------------------------


def _dimensions(value: Any, where: str) -> Sequence[str | None]:
    """The names of the axes, None where an axis has none."""
    if _is_xarray(value) and not hasattr(value, "data_vars"):
        return [str(name) for name in value.dims]
    if hasattr(value, "index") and hasattr(value, "columns") and hasattr(value, "iloc"):
        return [getattr(axis, "name", None) for axis in (value.index, value.columns)]
    return ()


def _role(name: str | None) -> str | None:
    words = {word if len(word) < 3 else word.removesuffix("s") for word in re.findall("[a-z]+", str(name).lower())}
    roles = [axis for axis, known in WORDS.items() if words & known]
    return roles[0] if name is not None and len(roles) == 1 else None


def _roles(names: Sequence[str | None], where: str) -> tuple[str, ...]:
    """What each axis is: by name where all names are known, else by place if no name contradicts that."""
    by_place = {1: ("time",), 2: ("time", "channel"), 3: AXES}.get(len(names))
    roles = tuple(_role(name) for name in names)
    if by_place is None or all(role in (None, place) for role, place in zip(roles, by_place, strict=True)):
        return by_place or tuple(map(str, names))  # the number of axes is refused elsewhere
    if None in roles or len(set(roles)) < len(roles) or "time" not in roles:
        raise DataError(
            f"{where} has dimensions ({', '.join(map(str, names))}), but ({', '.join(by_place)}) is the order that is "
            f"read; transpose it, or rename its dimensions to some of trial, time, channel"
        )
    return tuple(str(role) for role in roles)
