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
        return SpikeTrains(_spike_times(file), _table(file, "units"), _table(file, "intervals/trials"))


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


def _spike_times(file: h5py.File) -> list[np.ndarray]:
    index, times = _dataset(file, "units/spike_times_index"), _dataset(file, "units/spike_times")
    if index is None:
        raise DataError(f"{file.filename} has no units/spike_times_index, which says where the spikes of a unit end")
    ends, spikes = hdf5.values(index), hdf5.values(times)
    sound = ends.dtype.kind in "iu" and ends.shape == (_n_rows(file, "units"),) and spikes.ndim == 1
    ends = ends.astype(np.int64) if sound else ends  # differences of unsigned numbers never fall
    if not sound or spikes.dtype.kind not in "fiu" or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(spikes):
        raise DataError(
            f"{file.filename}: units/spike_times_index does not divide the {spikes.size} spike times among the units; "
            f"it must rise to their number, one entry a unit"
        )
    return np.split(spikes.astype(float), ends[:-1])


def _table(file: h5py.File, path: str) -> pd.DataFrame:
    """The columns that hold one number or text a row; rows are counted from 0."""
    import h5py
    import pandas as pd

    group, n_rows = hdf5.find(file, path), _n_rows(file, path)
    columns: dict[str, Any] = {}
    for name in group:
        column = hdf5.find(file, f"{path}/{name}")
        ragged = {f"{name}_index", name.removesuffix("_index")} - {name} & set(group)
        if not isinstance(column, h5py.Dataset) or column.shape != (n_rows,) or ragged:
            continue
        text = h5py.check_string_dtype(column.dtype) is not None
        if text or column.dtype.kind in "fiub" or h5py.check_enum_dtype(column.dtype):
            column = _dataset(file, f"{path}/{name}")
            columns[name] = column.asstr()[()] if text else hdf5.values(column)  # type: ignore[union-attr]
    return pd.DataFrame(columns, index=range(n_rows))
