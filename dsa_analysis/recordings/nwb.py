"""Neurodata Without Borders 2 (HDF5): spike times, and the tables of units and trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.containers import DataError
from dsa_analysis.recordings import hdf5
from dsa_analysis.recordings.contents import SpikeTrains

if TYPE_CHECKING:
    import h5py
    import pandas as pd


def read_nwb(path: Path) -> SpikeTrains:
    """The spike times of each unit in s, and the tables of units and trials."""
    with hdf5.open_checked(path) as file:
        version = hdf5.attribute(file, "nwb_version") or "none"
        if not version.startswith("2"):
            raise DataError(f"{path}: NWB version is {version}; files of version 2 are read")
        if _dataset(file, "units/spike_times") is None or not _n_rows(file, "units"):
            raise DataError(
                f"{path} has no units with spike times; for other series export an array (trial, time, channel)"
            )
        if not _n_rows(file, "intervals/trials"):
            raise DataError(f"{path} has no trials (the table intervals/trials is missing or empty)")
        times = _split_by_unit(file, "spike_times", 1)
        assert times is not None  # looked for above
        tables = _table(file, "units"), _table(file, "intervals/trials")
        return SpikeTrains(times, *tables, _split_by_unit(file, "obs_intervals", 2))


def _dataset(file: h5py.File, path: str) -> h5py.Dataset | None:
    """The dataset at ``path``, if there is one and its values can be read."""
    import h5py

    item = hdf5.find(file, path)
    if not isinstance(item, h5py.Dataset):
        return None
    problem = hdf5.trouble(item)
    if problem:
        raise DataError(f"{file.filename}, {path}: {problem}")
    return item


def _n_rows(file: h5py.File, table: str) -> int:
    if hdf5.find(file, table) is None:
        return 0
    rows = _dataset(file, f"{table}/id")
    if rows is None or len(rows.shape) != 1:
        raise DataError(f"{file.filename}: the table {table} has no column id with one number a row")
    return int(rows.shape[0])


def _split_by_unit(file: h5py.File, name: str, ndim: int) -> list[np.ndarray] | None:
    """A column of several numbers (or rows of them) a unit, one array a unit; None where there is none."""
    index, column = _dataset(file, f"units/{name}_index"), _dataset(file, f"units/{name}")
    if column is None:
        return None
    if index is None:
        raise DataError(f"{file.filename} has no units/{name}_index, which says where the {name} of a unit end")
    ends, numbers = hdf5.values(index), hdf5.values(column)
    sound = ends.dtype.kind in "iu" and ends.shape == (_n_rows(file, "units"),) and numbers.ndim == ndim
    ends = ends.astype(np.int64) if sound else ends  # differences of unsigned numbers never fall
    if not sound or numbers.dtype.kind not in "fiu" or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(numbers):
        raise DataError(
            f"{file.filename}: units/{name}_index does not divide the {len(numbers)} {name} among the units; it must "
            f"rise to their number, one entry a unit"
        )
    return np.split(numbers.astype(float), ends[:-1])


def _table(file: h5py.File, path: str) -> pd.DataFrame:
    """The columns that hold one number or text a row; rows are counted from 0.

    ``attrs["left_out"]`` says which others there are, and why they were left out.
    """
    import pandas as pd

    group, n_rows = hdf5.find(file, path), _n_rows(file, path)
    columns: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in group:
        if {f"{name}_index", name.removesuffix("_index")} - {name} & set(group):
            left_out[name] = "several values a row"
            continue
        try:
            column = _column(file, f"{path}/{name}", n_rows)
        except DataError as problem:  # it hinders those alone who use this column
            column = str(problem)
        if isinstance(column, str):
            left_out[name] = column
        else:
            columns[name] = column
    table = pd.DataFrame(columns, index=range(n_rows))
    table.attrs["left_out"] = left_out
    return table


def _column(file: h5py.File, path: str, n_rows: int) -> Any:
    """The values of a column, or in words why there is not one number or text a row."""
    import h5py

    column = _dataset(file, path)
    if column is None or column.shape != (n_rows,):
        return "not one value a row"
    if h5py.check_string_dtype(column.dtype) is not None:
        return column.asstr()[()]
    if column.dtype.kind in "fiub" or h5py.check_enum_dtype(column.dtype):
        return hdf5.values(column)
    return "neither numbers nor text"
