"""MATLAB files of versions 4 to 7.3: arrays of numbers, and cell arrays of them as lists of trials.

Numbers of versions 4 to 7 are decoded by scipy. Of versions 5 to 7 the lengths of all elements, the sizes of all arrays
and the checksums of compressed variables are compared first: scipy allocates what a damaged size says, and stops
reading before the checksum. Version 7.3 is HDF5, with the axes reversed and MATLAB's class in an attribute of each
variable.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
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
INT32, UINT32, MATRIX, COMPRESSED = 5, 6, 14, 15  # types of elements
NAMES = (1, 2, 16)  # types of texts of one byte a character
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}  # bytes a value, by type
CELL, STRUCT, OPAQUE = 1, 2, 17  # classes; numbers are 6 to 15
CLASSES = {4: "text", 5: "sparse matrix", 16: "function"}
DEEPEST = 50  # cells in cells


def read_mat(path: Path) -> Variables:
    """The variables of a .mat file of any version."""
    if hdf5.is_hdf5(path):
        return _read_hdf5(path)
    from scipy.io import loadmat
    from scipy.io.matlab import matfile_version

    check_memory(2 * path.stat().st_size, str(path))
    if matfile_version(path)[0] == 0:  # version 4
        found = loadmat(io.BytesIO(path.read_bytes()))
        return {name: _from_matlab(value) for name, value in found.items() if name not in INTERNAL}
    numbers, variables = _verified(path.read_bytes())
    found = loadmat(numbers)
    return {name: problem or _from_matlab(found[name]) for name, problem in variables.items()}


# ---- versions 4 to 7 -------------------------------------------------------------------------------------------------


def _from_matlab(value: Any) -> np.ndarray | list[np.ndarray] | str:
    if not isinstance(value, np.ndarray):
        return "sparse matrix" if hasattr(value, "nnz") else type(value).__name__
    if value.dtype.kind in "SU":
        return "text"
    if value.dtype.kind != "O":
        return value if value.size else f"empty ({_sizes(value.shape)})"
    return _as_trials([_from_matlab(cell) for cell in value.ravel(order="F")], value.shape)


def _sizes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _as_trials(cells: list[Any], shape: tuple[int, ...]) -> list[np.ndarray] | str:
    """The matrices of a cell array, or in words why they are no list of trials. No cell is left out."""
    problem = _cell_problem({k: _no_matrix(cell) for k, cell in enumerate(cells, 1)}, shape)
    return problem or cells


def _no_matrix(cell: Any) -> str | None:
    if isinstance(cell, np.ndarray):
        return None if cell.dtype.kind in "fiub" else str(cell.dtype)
    return cell if isinstance(cell, str) else "another cell array"


def _cell_problem(cells: dict[int, str | None], shape: tuple[int, ...]) -> str | None:
    """Why cells are no list of trials, from what is wrong with each of them, counted from 1."""
    described = f"cell array of {_sizes(shape)}"
    wrong = {k: problem for k, problem in cells.items() if problem}
    if not cells:
        return f"{described}, empty"
    if wrong:
        k, problem = next(iter(wrong.items()))
        return f"{described}, of which {len(wrong)} hold no matrix of real numbers (cell {k}: {problem})"
    if max(shape) < len(cells):
        return f"{described}; a list of trials has one row or one column, such as x(:, 1)"
    return None


def _verified(content: bytes) -> tuple[io.BytesIO, dict[str, str | None]]:
    """A file of the variables that hold numbers, inflated; all names, each with what the variable is instead.

    Lengths, sizes and checksums are compared first. scipy sees numbers only: of damaged texts and structs it makes
    arrays of any size, or ends the interpreter.
    """
    if len(content) < HEADER:
        raise ValueError("it ends within its header")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("its header states no order of bytes")
    numbers, variables = io.BytesIO(), {}
    numbers.write(content[:HEADER])
    for kind, element in _elements(memoryview(content)[HEADER:], order):
        parts = [(kind, element)]
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            inflated = stream.decompress(element, int(min(memory(), 2**62)))
            if not stream.eof:
                raise ValueError("a compressed variable is cut short, or does not fit into memory")
            parts = list(_elements(memoryview(inflated), order))
        for part, matrix in parts:
            if part != MATRIX:
                raise ValueError(f"an element of type {part} stands where a variable is expected")
            name, problem = _inspected(matrix, order)
            if name in variables:
                raise ValueError(f"the variable {name} is there twice")
            if name:  # what has no name is MATLAB's own
                variables[name] = problem
            if name and problem is None:
                numbers.write(struct.pack(f"{order}II", MATRIX, len(matrix)) + matrix + bytes(-len(matrix) % 8))
    numbers.seek(0)
    return numbers, variables


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


def _inspected(matrix: memoryview, order: str, depth: int = 0) -> tuple[str, str | None]:
    """Name of a variable, and in words why it holds no real numbers; its sizes agree with what it holds."""
    if not len(matrix):
        return "", "empty (0 x 0)"
    parts = _elements(matrix, order)
    flags = struct.unpack(f"{order}II", _next(parts, UINT32))[0]
    kind = flags & 0xFF
    if kind == OPAQUE:
        return _text(_next(parts, *NAMES)), "object of a MATLAB class"
    shape = _next(parts, INT32, UINT32)
    dims = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    name, count = _text(_next(parts, *NAMES)), math.prod(dims)
    if len(dims) < 2 or min(dims) < 0 or depth > DEEPEST:
        raise ValueError(f"a variable has sizes {dims}, or too many cells within cells")
    if kind == CELL:
        cells = list(parts)
        if len(cells) != count or any(part != MATRIX for part, _ in cells):
            raise ValueError(f"a variable of {count} cells holds {len(cells)}")
        problems = {k: _inspected(cell, order, depth + 1)[1] for k, (_, cell) in enumerate(cells, 1)}
        return name, _cell_problem(problems, dims)
    if kind == STRUCT:
        length = struct.unpack(f"{order}i", _next(parts, INT32, UINT32))[0]
        fields = bytes(_next(parts, *NAMES))
        starts = range(0, len(fields), length) if length > 0 else ()
        return name, f"struct with fields {', '.join(_text(fields[k : k + length]) for k in starts)}"
    if not 6 <= kind <= 15:
        return name, CLASSES.get(kind, "object of a MATLAB class")
    is_complex = bool(flags & 0x0800)
    for _ in range(1 + is_complex):
        stored, values = next(parts, (0, memoryview(b"")))
        if len(values) != count * SIZES.get(stored, 0):
            raise ValueError(f"a variable of {_sizes(dims)} holds {len(values)} bytes of type {stored}")
    if next(parts, None) is not None:
        raise ValueError("a variable holds more than its values")
    if not count:
        return name, f"empty ({_sizes(dims)})"
    return name, f"{_sizes(dims)}, complex128" if is_complex else None


def _text(name: memoryview | bytes) -> str:
    return bytes(name).split(b"\0")[0].decode("latin1")  # as scipy


def _next(parts: Iterator[tuple[int, memoryview]], *expected: int) -> memoryview:
    kind, content = next(parts, (0, memoryview(b"")))
    if kind not in expected:
        raise ValueError(f"an element of type {kind} stands where type {expected[0]} is expected")
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
        return f"empty ({_sizes(hdf5.values(item).ravel()[:8])})"
    if (kind == "cell") != (item.dtype == h5py.ref_dtype):
        return f"class {kind} stored as {item.dtype}"
    found = hdf5.values(item).T
    if kind != "cell":
        return found if found.size else f"empty ({_sizes(found.shape)})"
    if depth > DEEPEST:
        raise DataError(f"{file.filename}: cells within cells, more than {DEEPEST} deep")
    cells = [_from_hdf5(file, file[reference], depth + 1) for reference in found.ravel(order="F")]
    return _as_trials(cells, found.shape)
