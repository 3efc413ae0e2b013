"""Arrays of numpy, .npy and .npz: header and length are compared before anything is read, checksums after."""

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from dsa_analysis.containers import DataError, check_memory
from dsa_analysis.recordings.contents import Variables

HEADERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
OBJECTS = "Python objects, which only unsafe pickle reads"


def read_npy(path: Path) -> Variables:
    """The array of a .npy file."""
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            raise DataError(f"{path} is a zip archive, as .npz files are; rename it to {path.stem}.npz")
        file.seek(0)
        return {"": _array(file, path.stat().st_size, str(path))}


def read_npz(path: Path) -> Variables:
    """The arrays of a .npz archive; zipfile checks the checksum of each."""
    variables: Variables = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_memory(sum(member.file_size for member in members), str(path))
        for member in members:
            name, where = member.filename.removesuffix(".npy"), f"{path}, {member.filename}"
            if name in variables:
                raise DataError(f"{where} is there twice; write the file again")
            if member.flag_bits & 1:
                variables[name] = "encrypted"
                continue
            content = archive.read(member)  # to its end, where names and checksums are compared
            is_array = member.filename.endswith(".npy")
            variables[name] = _array(io.BytesIO(content), len(content), where) if is_array else "no array"
    return variables


def _array(file: BinaryIO, n_bytes: int, where: str) -> np.ndarray | str:
    """The array that fills the rest of ``file``, or in words why it cannot be used."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"format {'.'.join(map(str, version))} of numpy is not read")
    shape, fortran_order, dtype = HEADERS[version](file)
    if dtype.hasobject:
        return OBJECTS
    if dtype.kind not in "fiub":
        return f"{' x '.join(map(str, shape)) or 'one'}, {dtype}"
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {shape}")
    declared, there = math.prod(shape) * dtype.itemsize, n_bytes - file.tell()
    if declared != there:
        several = "; it may hold several arrays, which .npz is for" if 0 < declared < there else ""
        raise ValueError(f"the header of {where} states {declared} bytes of values, but {there} are there{several}")
    check_memory(declared, where)
    flat = np.empty(math.prod(shape), dtype)
    file.readinto(flat.view(np.uint8))  # type: ignore[attr-defined]
    return flat.reshape(shape, order="F" if fortran_order else "C")
