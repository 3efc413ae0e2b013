"""The table of readers: a function for each extension.

A reader takes a path and returns what the file holds:

- an array (n_trials, n_times, n_channels), (n_times, n_channels) or (n_times,), or with other axes that you then state
  by ``axes``;
- or a list of arrays, one a trial;
- or a mapping from names to arrays, lists of arrays, or text that says why a variable cannot be used;
- or `SpikeTrains`.

It may raise anything: users see a `DataError` that names the file. To read a format of your own, add a line:

>>> import numpy as np
>>> from dsa_analysis.recordings import READERS, load_recording
>>> def read_table(path):
...     return np.loadtxt(path, delimiter=",", ndmin=2)  # (time, channel)
>>> READERS[".csv"] = read_table
>>> import tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp()) / "monday.csv"
>>> _ = path.write_text("1,0\\n0.5,2\\n0.7,1")
>>> print(load_recording(path, sampling_rate=100))
monday: 1 trials x 3 samples x 2 channels, 100 Hz
>>> del READERS[".csv"]
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsa_analysis.containers import DataError
from dsa_analysis.recordings.contents import SpikeTrains, Variables, as_contents
from dsa_analysis.recordings.matlab import read_mat
from dsa_analysis.recordings.numpy_files import read_npy, read_npz
from dsa_analysis.recordings.nwb import read_nwb

READERS: dict[str, Callable[[Path], Any]] = {".npy": read_npy, ".npz": read_npz, ".mat": read_mat, ".nwb": read_nwb}

# Errors of the system, which say nothing about the content of the file.
CIRCUMSTANCES = {
    errno.EAGAIN: "is open in another program, which holds a lock on it; close it there",
    errno.EACCES: "may not be read; change its permissions",
    errno.EPERM: "may not be read; change its permissions",
    errno.ENOLCK: "is on a file system without locks; copy it to a local disk, or set HDF5_USE_FILE_LOCKING=FALSE",
    errno.EMFILE: "cannot be opened, because too many files are open",
    errno.ENFILE: "cannot be opened, because too many files are open",
    errno.EIO: "cannot be read from its disk or network drive at present; copy it to a local disk",
    errno.ESTALE: "is no longer there for its network drive; connect the drive anew",
    errno.ENOMEM: "does not fit into memory",
}


def read(path: Path) -> Variables | SpikeTrains:
    """What the file holds, read by the reader of its extension.

    Raises
    ------
    DataError
        A file that is missing, empty, locked, damaged or of an unknown extension.
    """
    reader = READERS[extension(path)]
    try:
        return as_contents(reader(path), str(path))
    except DataError:
        raise
    except MemoryError as problem:
        raise DataError(f"{path} does not fit into memory ({problem})") from problem
    except OSError as problem:
        if problem.errno not in CIRCUMSTANCES:
            raise _damaged(path, problem) from problem
        raise DataError(f"{path} {CIRCUMSTANCES[problem.errno]} ({problem})") from problem
    except Exception as problem:  # a damaged file makes a library raise anything
        raise _damaged(path, problem) from problem


def _damaged(path: Path, problem: Exception) -> DataError:
    said = " ".join(str(problem).split())[:300]
    return DataError(
        f"{path} is damaged, or no {extension(path)} file ({type(problem).__name__}: {said}); write it again"
    )


def extension(path: Path) -> str:
    """The key of `READERS` that the name of the file ends with, the longest if there are several."""
    fitting = [key for key in READERS if path.name.lower().endswith(key.lower())]
    if fitting:
        return max(fitting, key=len)
    kind = f"{path.suffix!r}" if path.suffix else "without ending"
    raise DataError(f"{path}: files {kind} are not read; accepted are {', '.join(READERS)}")


def refuse_unreadable(path: Path) -> None:
    """Refuse a path that names no file with content, or one of an unknown extension."""
    extension(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the files in it")
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file ({path.absolute()})")
        empty = not path.stat().st_size
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem})") from problem
    if empty:
        raise DataError(f"{path} is empty (0 bytes)")
