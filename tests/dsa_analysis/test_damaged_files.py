"""Damaged files: whatever bytes change, a file is read as it was, or refused by a DataError that names it, in seconds.

Bytes of values that no checksum covers can change unnoticed in every one of these formats. Where mutations hit nothing
else, other values of the same shape are accepted, at those bytes alone.
"""

import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import coo_array

from dsa_analysis import DataError, load_recording

NWB = Path(__file__).parents[1] / "reference" / "trials.nwb"


def samples() -> np.ndarray:
    """Random walks, (3, 40, 2), so that time is the smooth axis."""
    return np.random.default_rng(0).standard_normal((3, 40, 2)).cumsum(1)


def _mat73(path: Path, **options: object) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        item = file.create_dataset("rates", data=samples().T, **options)
        item.attrs["MATLAB_class"] = np.bytes_("double")


def _mat73_cells(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = [file.create_dataset(f"#refs#/{k}", data=trial[: 40 - k].T) for k, trial in enumerate(samples())]
        for cell in cells:
            cell.attrs["MATLAB_class"] = np.bytes_("double")
        item = file.create_dataset("rates", data=[[cell.ref] for cell in cells], dtype=h5py.ref_dtype)
        item.attrs["MATLAB_class"] = np.bytes_("cell")


def _mat5_cells(path: Path) -> None:
    cells = np.empty((1, 3), object)
    cells[0] = [trial[: 40 - k] for k, trial in enumerate(samples())]
    savemat(path, {"rates": cells})


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.npy": lambda path: np.save(path, samples()),
    "stored.npz": lambda path: np.savez(path, rates=samples()),
    "deflated.npz": lambda path: np.savez_compressed(path, rates=samples()),
    "trials.npz": lambda path: np.savez(path, **{f"trial_{k}": trial for k, trial in enumerate(samples())}),
    "v5.mat": lambda path: savemat(path, {"rates": samples()}),
    "v7.mat": lambda path: savemat(path, {"rates": samples()}, do_compression=True),
    "cells5.mat": _mat5_cells,
    "others5.mat": lambda path: savemat(
        path,
        {"note": "text", "session": {"fs": 9.0, "name": "x"}, "sparse": coo_array(np.eye(3)), "rates": samples()},
    ),
    "v4.mat": lambda path: savemat(path, {"rates": samples()[0]}, format="4"),
    "v73.mat": _mat73,
    "chunks73.mat": lambda path: _mat73(path, chunks=(2, 10, 3), compression="gzip"),
    "cells73.mat": _mat73_cells,
    "a.nwb": lambda path: shutil.copy(NWB, path),
}


def mutated(raw: bytes, generator: np.random.Generator, text: bytes = b"") -> tuple[bytes, range]:
    """A copy with one kind of damage, and which of its bytes it hit."""
    start, length = int(generator.integers(len(raw))), int(generator.integers(1, 64))
    kind = generator.choice(["bit", "byte", "zeros", "noise", "cut", "gone", "extra", "repeated"])
    stop = min(start + length, len(raw))
    match kind:
        case "bit":
            middle, stop = bytes([raw[start] ^ (1 << int(generator.integers(8)))]), start + 1
        case "byte":
            middle, stop = generator.bytes(1), start + 1
        case "zeros":
            middle = bytes(stop - start)
        case "noise":
            middle = generator.bytes(stop - start)
        case "cut":
            middle, stop = b"", len(raw)
        case "gone":
            middle = b""
        case "extra":
            middle, stop = generator.bytes(length), start
        case _:
            middle = raw[start:stop] * 2
    changed = raw[:start] + middle + raw[stop:]
    return changed, range(start, len(raw) if len(changed) != len(raw) else stop)


def load(path: Path) -> list[np.ndarray]:
    choices = {"sampling_rate": 100} if path.suffix == ".nwb" else {}
    pattern = {"variable": "trial_*"} if path.name.startswith("trials") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy and scipy about odd headers
        return load_recording(path, **choices, **pattern).trials


def unprotected(path: Path, trials: list[np.ndarray]) -> set[int]:
    """The places of the file that hold values as they are."""
    raw = path.read_bytes()
    if path.suffix == ".nwb":
        return set().union(*(range(start, start + n) for start, n in _extents(path)))
    values = [np.concatenate(trials).tobytes(), np.stack(trials).T.tobytes() if len({*map(len, trials)}) == 1 else b""]
    values += [one for trial in trials for one in (trial.tobytes(), trial.T.tobytes())]
    found = [(raw.find(one), len(one)) for one in values if one]
    return {place for start, n in found if start >= 0 for place in range(start, start + n)}


def _extents(path: Path) -> list[tuple[int, int]]:
    """Offset and length of what the datasets of an HDF5 file hold."""
    found: list[tuple[int, int]] = []

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.chunks:
            chunks = [item.id.get_chunk_info(k) for k in range(item.id.get_num_chunks())]
            found.extend((chunk.byte_offset, chunk.size) for chunk in chunks)
        elif item.id.get_offset():
            found.append((item.id.get_offset(), item.id.get_storage_size()))

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def check(name: str, n_mutations: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Read mutated copies; count what came of them."""
    path = folder / name
    WRITERS[name](path)
    raw, whole = path.read_bytes(), load(path)
    open_to_all, generator = unprotected(path, whole), np.random.default_rng(seed)
    counts = {"refused": 0, "as it was": 0, "other values": 0}
    for k in range(n_mutations):
        changed, places = mutated(raw, generator)
        path.write_bytes(changed)
        start = time.perf_counter()
        try:
            found = load(path)
        except DataError as problem:
            assert path.stem in str(problem)  # noqa: PT017
            counts["refused"] += 1
            continue
        finally:
            assert time.perf_counter() - start < 5, f"{name}, mutation {k}"
        same = len(found) == len(whole) and all(map(np.array_equal, found, whole))
        counts["as it was" if same else "other values"] += 1
        if not same:
            of_spikes = path.suffix == ".nwb"  # other times of trials are other numbers of bins
            assert of_spikes or [x.shape for x in found] == [x.shape for x in whole], f"mutation {k} at {places}"
            assert set(places) & open_to_all, f"mutation {k} at {places}"
    return counts


@pytest.mark.parametrize("name", WRITERS)
def test_changed_bytes_are_refused_or_change_nothing(name, tmp_path):
    counts = check(name, 40, tmp_path)
    assert counts["refused"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_five_hundred_changes_are_refused_or_change_nothing(name, tmp_path):
    check(name, 500, tmp_path, seed=1)
