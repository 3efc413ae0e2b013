"""MATLAB files of versions 4 to 7.3: arrays of numbers, and cell arrays of them as lists of trials.

Versions 4 to 7 are decoded by scipy. Of version 5 to 7 the lengths of all elements, the sizes of all arrays and the
checksums of compressed variables are compared first: scipy allocates what a damaged size says, and stops reading before
the checksum. Version 7.3 is HDF5, with the axes reversed and MATLAB's class in an attribute of each variable.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.containers import DataError, check_memory, memory
from dsa_analysis.recordings import hdf5
from dsa_analysis.recordings.contents import Variables

if TYPE_CHECKING:
    import h5py

NUMBERS = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
INTERNAL = ("__header__", "__version__", "__globals__", "__function_workspace__")  # of scipy
HEADER = 128  # bytes of version 5, before the first element
MATRIX, COMPRESSED = 14, 15  # types of elements
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}  # bytes a value, by type
CELL, STRUCT, OBJECT, CHAR, SPARSE, OPAQUE = 1, 2, 3, 4, 5, 17  # classes; numbers are 6 to 15
DEEPEST = 50  # cells in cells


def read_mat(path: Path) -> Variables:
    """The variables of a .mat file of any version."""
    if hdf5.is_hdf5(path):
        return _read_hdf5(path)
    from scipy.io import loadmat
    from scipy.io.matlab import matfile_version

    check_memory(2 * path.stat().st_size, str(path))
    old = matfile_version(path)[0] == 0
    content = io.BytesIO(path.read_bytes()) if old else _verified(path.read_bytes())
    found = loadmat(content)
    return {name: _from_matlab(value) for name, value in found.items() if name not in INTERNAL}


# ---- versions 4 to 7 -------------------------------------------------------------------------------------------------


def _from_matlab(value: Any) -> np.ndarray | list[np.ndarray] | str:
    if not isinstance(value, np.ndarray):
        return "sparse matrix" if hasattr(value, "nnz") else type(value).__name__
    if type(value).__name__ in ("MatlabOpaque", "MatlabObject", "MatlabFunction"):
        return "object of a MATLAB class"
    if value.dtype.names:
        return f"struct with fields {', '.join(value.dtype.names)}"
    if value.dtype.kind in "SU":
        return "text"
    if value.dtype != object:
        return value if value.size else f"empty ({' x '.join(map(str, value.shape))})"
    cells = [_from_matlab(cell) for cell in value.ravel(order="F")]
    return _as_trials(cells, value.shape)


def _as_trials(cells: list[Any], shape: tuple[int, ...]) -> list[np.ndarray] | str:
    """The matrices of a cell array, or in words why they are no list of trials. No cell is left out."""
    described = f"cell array of {' x '.join(map(str, shape))}"
    other = {
        k: cell for k, cell in enumerate(cells, 1) if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "fiub"
    }
    if not cells:
        return f"{described}, empty"
    if other:
        k, cell = next(iter(other.items()))
        what = cell if isinstance(cell, str) else "another cell array" if isinstance(cell, list) else str(cell.dtype)
        return f"{described}, of which {len(other)} hold no matrix of real numbers (cell {k}: {what})"
    if max(shape) < len(cells):
        return f"{described}; a list of trials has one row or one column, such as x(:, 1)"
    return cells


def _verified(content: bytes) -> io.BytesIO:
    """The file with its variables inflated, after all lengths, sizes and checksums were compared."""
    if len(content) < HEADER:
        raise ValueError("it ends within its header")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("its header states no order of bytes")
    whole, names = io.BytesIO(), set()
    whole.write(content[:HEADER])
    for kind, element in _elements(memoryview(content)[HEADER:], order):
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            inflated = stream.decompress(element, int(min(memory(), 2**62)))
            if not stream.eof:
                raise ValueError("a compressed variable is cut short, or does not fit into memory")
            parts = list(_elements(memoryview(inflated), order))
        else:
            parts, inflated = [(kind, element)], struct.pack(f"{order}II", kind, len(element)) + bytes(element)
            inflated += bytes(-len(element) % 8)
        for part, matrix in parts:
            if part != MATRIX:
                raise ValueError(f"an element of type {part} stands where a variable is expected")
            name = _check_matrix(matrix, order)
            if name and name in names:
                raise ValueError(f"the variable {name.decode(errors='replace')} is there twice")
            names.add(name)
        whole.write(inflated)
    whole.seek(0)
    return whole


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element."""
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            if any(data[position:]):
                raise ValueError("it ends within an element")
            return
        first, size = struct.unpack_from(f"{order}II", data, position)
        start, small = position + 8, first >> 16
        if small:  # up to four bytes, within the tag
            first, size, start = first & 0xFFFF, small, position + 4
        if size > (4 if small else len(data) - start):
            raise ValueError(f"an element of {size} bytes is longer than what is left of the file")
        yield first, data[start : start + size]
        position = position + 8 if small else start + size + (0 if first == COMPRESSED else -size % 8)


def _check_matrix(matrix: memoryview, order: str, depth: int = 0) -> bytes:
    """Compare the sizes that a variable states with the values that it holds; return its name."""
    if not len(matrix):  # an empty cell
        return b""
    parts = _elements(matrix, order)
    flags = struct.unpack(f"{order}II", _next(parts, 6))[0]
    kind = flags & 0xFF
    if kind == OPAQUE:
        return bytes(_next(parts, 1))
    dims = struct.unpack(f"{order}{len(shape := _next(parts, 5)) // 4}i", shape)
    name, count = bytes(_next(parts, 1)), math.prod(dims)
    if len(dims) < 2 or min(dims) < 0 or depth > DEEPEST:
        raise ValueError(f"a variable has sizes {dims}, or too many cells within cells")
    if 6 <= kind <= 15:
        for _ in range(2 if flags & 0x0800 else 1):  # complex numbers have two parts
            stored, values = next(parts, (0, memoryview(b"")))
            if len(values) != count * SIZES.get(stored, 0):
                raise ValueError(
                    f"a variable of {' x '.join(map(str, dims))} holds {len(values)} bytes of type {stored}"
                )
    elif kind in (CELL, STRUCT, OBJECT):
        if kind == OBJECT:
            _next(parts, 1)  # the name of its class
        n_fields = 1
        if kind != CELL:
            length = struct.unpack(f"{order}i", _next(parts, 5))[0]
            fields = _next(parts, 1)
            n_fields = len(fields) // length if length > 0 else 0
        rest = list(parts)
        if len(rest) != count * n_fields or any(part != MATRIX for part, _ in rest):
            raise ValueError(f"a variable of {count} cells or structs holds {len(rest)}")
        for _, part in rest:
            _check_matrix(part, order, depth + 1)
        return name
    elif kind == CHAR:
        if count > len(next(parts, (0, memoryview(b"")))[1]):
            raise ValueError(f"a text of {count} characters is longer than the file says")
    elif kind == SPARSE:
        return name
    if next(parts, None) is not None and kind != CHAR:
        raise ValueError("a variable holds more than its values")
    return name


def _next(parts: Iterator[tuple[int, memoryview]], expected: int) -> memoryview:
    kind, content = next(parts, (0, memoryview(b"")))
    if kind != expected:
        raise ValueError(f"an element of type {kind} stands where type {expected} is expected")
    return content


# ---- version 7.3 -----------------------------------------------------------------------------------------------------


def _read_hdf5(path: Path) -> Variables:

    with hdf5.open_checked(path) as file:
        return {
            name: hdf5.link_trouble(file, name) or _from_hdf5(file, file[name])
            for name in file
            if not name.startswith("#")  # "#refs#" and "#subsystem#" hold the cells and objects
        }


def _from_hdf5(file: h5py.File, item: Any, depth: int = 0) -> np.ndarray | list[np.ndarray] | str:
    """A variable of a version 7.3 file. Only numbers and cells are read: other classes are stored as numbers too."""
    import h5py

    kind = hdf5.attribute(item, "MATLAB_class")
    if isinstance(item, h5py.Group):
        return "sparse matrix" if "MATLAB_sparse" in item.attrs else f"struct with fields {', '.join(item)}"
    if not isinstance(item, h5py.Dataset):
        return type(item).__name__
    if kind is None:
        return (
            "no variable of MATLAB (the attribute MATLAB_class is missing), so the order of its axes is unknown; "
            "save it as .npy or .npz"
        )
    if kind == "char":
        return "text"
    if "MATLAB_object_decode" in item.attrs or kind not in NUMBERS | {"cell"}:
        return f"object of class {kind}"
    problem = hdf5.trouble(item)
    if problem:
        return problem
    if item.attrs.get("MATLAB_empty", 0):
        return f"empty ({' x '.join(map(str, hdf5.values(item).ravel()[:8]))})"
    if (kind == "cell") != (item.dtype == h5py.ref_dtype):
        return f"class {kind} stored as {item.dtype}"
    found = hdf5.values(item).T
    if kind != "cell":
        return found if found.size else f"empty ({' x '.join(map(str, found.shape))})"
    if depth > DEEPEST:
        raise DataError(f"{file.filename}: cells within cells, more than {DEEPEST} deep")
    cells = [_from_hdf5(file, file[reference], depth + 1) for reference in found.ravel(order="F")]
    return _as_trials(cells, found.shape)
