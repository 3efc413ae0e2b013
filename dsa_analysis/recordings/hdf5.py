"""HDF5 files, read no further than what they say: nothing of other files, nothing that was never written.

HDF5 fills in what is missing: values that were never written come back as zeros, links and external storage open other
files, and a type that is no standard one is converted. `trouble` finds these before a value is read.
"""

from __future__ import annotations

import itertools
import math
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.containers import DataError, check_memory

if TYPE_CHECKING:
    import h5py

FILTERS = {
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}
HEAP = b"GCOL\x01\0\0\0"  # signature and version of a global heap
LARGEST_SCAN = 4 * 2**30  # bytes of a file through which the search for heaps takes seconds
MOST_LINKS = 16  # one behind the other


def link_trouble(group: h5py.Group, name: str) -> str | None:
    """Why ``name`` of ``group`` is not followed: a link to another place. None for an object of the group."""
    import h5py

    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f"a link to {link.path} in another file ({link.filename}), which is not read"
    if isinstance(link, h5py.SoftLink):
        return f"a link to {link.path}, which is not followed"
    return None


def find(file: h5py.File, path: str) -> Any:
    """The object at ``path``, through links within the file; None where there is none.

    Raises
    ------
    DataError
        A link to another file on the way.
    """
    import h5py

    item: Any = file
    parts, n_links = [part for part in path.split("/") if part], 0
    while parts:
        name = parts.pop(0)
        link = item.get(name, getlink=True) if isinstance(item, h5py.Group) and name in list(item) else None
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{file.filename}: {path} is a link to another file ({link.filename}), which is not read; export the "
                f"data into one file"
            )
        if isinstance(link, h5py.SoftLink):
            n_links += 1
            if n_links > MOST_LINKS:
                return None
            item = file if link.path.startswith("/") else item
            parts = [part for part in link.path.split("/") if part] + parts
        elif link is None:
            return None
        else:
            item = item[name]
    return item


def trouble(dataset: h5py.Dataset) -> str | None:
    """Why the values of ``dataset`` cannot be read as they were written, in words; None where they can."""
    import h5py

    if dataset.shape is None:
        return "empty"
    if dataset.external:
        return f"values stored in another file ({dataset.external[0][0]}), which is not read"
    if dataset.is_virtual:
        return "values stored in other files (a virtual dataset), which are not read"
    properties = dataset.id.get_create_plist()
    for k in range(properties.get_nfilters()):
        code, *_, name = properties.get_filter(k)
        if not h5py.h5z.filter_avail(code):
            known = FILTERS.get(code, name.decode(errors="replace") or "unknown")
            return f"compressed by a filter that is not installed ({known}, {code}); write it with gzip or without"
    stored = dataset.id.get_type()
    if dataset.dtype.kind in "fiu" and not stored.equal(h5py.h5t.py_create(dataset.dtype)):
        return f"numbers of a kind that is no standard one, nearest to {dataset.dtype}"
    return _unwritten(dataset, stored.get_size())


def _unwritten(dataset: h5py.Dataset, n_bytes: int) -> str | None:
    """Whether parts of the values were never written, so that HDF5 would put zeros there."""
    if not dataset.chunks:
        expected, written = n_bytes * math.prod(dataset.shape), dataset.id.get_storage_size()
        return None if written == expected else _told(written, expected, "bytes")
    n_bytes *= math.prod(dataset.chunks)
    check_memory(n_bytes, f"{dataset.file.filename}, a chunk of {dataset.name},")
    starts = [range(0, n, step) for n, step in zip(dataset.shape, dataset.chunks, strict=True)]
    expected, written = math.prod(map(len, starts)), dataset.id.get_num_chunks()
    if written != expected:
        return _told(written, expected, "chunks")
    n_filters = dataset.id.get_create_plist().get_nfilters()
    for place in itertools.product(*starts):
        try:  # by the search that reading uses; where it finds no chunk, reading gives zeros
            mask, stored = dataset.id.read_direct_chunk(place)
        except (OSError, ValueError):
            return f"of which the chunk at {place} cannot be read; the file is damaged"
        # no filter made it smaller; texts are stored elsewhere, so the lengths of theirs are others
        as_it_is = mask == 2**n_filters - 1 and dataset.dtype.kind in "fiu"
        if mask >= 2**n_filters or (as_it_is and len(stored) != n_bytes):
            return f"of which the chunk at {place} has an impossible length; the file is damaged"
    return None


def _told(written: int, expected: int, what: str) -> str:
    return f"of which {written} {what} were written, not {expected}; the file was not closed, or is damaged"


def values(dataset: h5py.Dataset) -> np.ndarray:
    """The values of a dataset without `trouble`."""
    check_memory(dataset.dtype.itemsize * math.prod(dataset.shape), f"{dataset.file.filename}, {dataset.name}")
    return np.asarray(dataset[()])


def attribute(item: Any, name: str) -> str | None:
    """An attribute as text; None where it is missing."""
    value = item.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


def is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def open_checked(path: Path) -> h5py.File:
    """Open a file for reading, after a look at the damage that would make HDF5 search without end."""
    import h5py

    if 0 < path.stat().st_size <= LARGEST_SCAN:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_heaps(content)
    return h5py.File(path)


def _check_heaps(content: mmap.mmap) -> None:
    """Walk through the heaps that hold texts, as HDF5 does: it never ends at an object of length 0."""
    start = content.find(HEAP)
    while start >= 0:
        end = start + int.from_bytes(content[start + 8 : start + 16], "little")
        if not start + 16 <= end <= len(content):
            raise ValueError("a heap of texts is longer than the file")
        position = start + 16
        while position + 16 <= end:
            size = int.from_bytes(content[position + 8 : position + 16], "little")
            is_free = content[position : position + 2] == b"\0\0"  # then the length includes this header
            if size < 16 * is_free or position + size > end:
                raise ValueError("a heap of texts holds an object of impossible length")
            position += size if is_free else 16 + size + -size % 8
        start = content.find(HEAP, start + 8)
