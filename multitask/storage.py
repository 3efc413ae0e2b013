"""Run folders: files of a training run, safe against killed processes, full disks and flipped bits.

    settings.json                        what is trained, and the versions of the software
    log.csv                              one row for each evaluation, rule and network
    checkpoints/step_0000500.safetensors weights and everything else that the next step needs
    checkpoints/step_0000500.sha256      its SHA-256, in the format of sha256sum
    run.lock                             locked by the process that trains here

Files are written under a temporary name, flushed to the disk and renamed, so that a file is either complete or absent.
The SHA-256 of a checkpoint is written last; a checkpoint without it is ignored. Log rows are appended before the
checkpoint of the same step is written. Rows after the last checkpoint are ignored, and removed when training resumes.
The lock is one of the system and is released when the process ends. Network disks may not support it.
"""

import hashlib
import io
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from multitask.trials import MultitaskError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
KEYS = ("rules", "network", "training", "n_networks", "seed", "start")  # of settings
PROVENANCE = ("format", "versions", "threads", "machine", "created")  # stored with the settings, but not compared


class StorageError(MultitaskError):
    """A run folder that cannot be read or written: a full disk, a folder that is protected or went away."""


@dataclass(frozen=True)
class Checkpoint:
    """State of a run at one step.

    Attributes
    ----------
    step : int
    tensors : dict of name -> Tensor
        Weights, and state of the optimiser and of the synapses.
    progress : dict
        Everything else that the next step needs.
    log : str or None
        SHA-256 of the log up to this step; None in checkpoints of earlier versions.
    """

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]
    log: str | None = None


class RunFolder:
    """Reads and writes a run folder. Use `open_for_training` before you write, which locks it.

    Parameters
    ----------
    path : path
        The folder; it need not exist for reading.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    # ---- settings ------------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any] | None:
        """The settings in the folder, None if it contains no run; raises a `MultitaskError` if they are damaged."""
        path = self.path / "settings.json"
        try:
            settings: dict[str, Any] = json.loads(path.read_bytes())
            sha256 = settings.pop("sha256", None)
            # earlier versions wrote no digest: then there are only keys that they knew, and none that is half of it
            as_written = sha256 == _digest(settings) if sha256 is not None else set(settings) <= {*KEYS, *PROVENANCE}
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}. Choose another run_folder") from error
        except (ValueError, AttributeError, TypeError) as error:  # no JSON, or no mapping
            raise MultitaskError(f"{path} is damaged ({error}): restore it, or choose another run_folder") from error
        if settings.get("format") != FORMAT:
            raise MultitaskError(f"{path} has format {settings.get('format')!r}: this version reads format {FORMAT}")
        if not as_written:
            raise MultitaskError(f"{path} was changed after it was written: restore it, or choose another run_folder")
        return settings

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether the folder contains a run with these settings.

        Parameters
        ----------
        settings : mapping

        Returns
        -------
        bool
            False if the folder contains no run.

        Raises
        ------
        MultitaskError
            If the folder contains a run with other settings.
        """
        stored = self.settings()
        if stored is None and self.steps():
            raise MultitaskError(
                f"run folder {self.path} contains checkpoints but no settings.json: "
                f"restore this file, remove the folder, or choose another run_folder"
            )
        if stored is None:
            return False
        theirs = {key: value for key, value in stored.items() if key not in PROVENANCE}
        differences = list(_differences(theirs, json.loads(json.dumps(settings))))
        if differences:
            raise MultitaskError(
                f"run folder {self.path} contains a run with other settings: {'; '.join(differences)}. "
                f"Choose another run_folder, or delete this one"
            )
        return True

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, together with `provenance`."""
        written = {**settings, **provenance()}
        self._write(self.path / "settings.json", json.dumps({**written, "sha256": _digest(written)}, indent=2).encode())

    # ---- log -----------------------------------------------------------------------------------------------------

    def log(self, last_step: int, sha256: str | None = None) -> "pd.DataFrame":
        """The log up to and including a step, as a DataFrame; empty if there are no rows.

        Raises a `MultitaskError` if it is damaged, or if its SHA-256 is another one than that of the checkpoint.
        """
        import pandas as pd

        text = self._checked_log(last_step, sha256)
        return pd.read_csv(io.StringIO(text)) if text else pd.DataFrame()

    def append_log(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows to the log; their first column is the step."""
        import pandas as pd

        path = self.path / "log.csv"
        try:
            with path.open("a", encoding="utf-8") as file:
                text = pd.DataFrame(rows).to_csv(index=False, header=file.tell() == 0)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._no_room(path, error) from error

    def rewind_log(self, last_step: int, sha256: str | None = None) -> None:
        """Remove rows after a step, and an incomplete last row; raises as `log` does."""
        self._write(self.path / "log.csv", self._checked_log(last_step, sha256).encode())

    def _checked_log(self, last_step: int, sha256: str | None) -> str:
        path = self.path / "log.csv"
        if not path.exists():
            return ""
        try:
            text = self._log_up_to(last_step)
            if sha256 is not None and sha256 != _digest(text):
                raise ValueError(f"its rows up to step {last_step} are not those that were written")
        except (ValueError, IndexError) as error:
            raise MultitaskError(
                f"{path} is damaged ({error}): restore it, or delete it to go on without its rows"
            ) from error
        return text

    def _log_up_to(self, last_step: int) -> str:
        """Header and complete rows of the log up to a step, or an empty text if there are no rows."""
        path = self.path / "log.csv"
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        rows = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",", 1)[0]) <= last_step]
        return "".join([lines[0], *rows]) if rows else ""

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in ascending order."""
        return sorted(int(path.stem.removeprefix("step_")) for path in self.checkpoints.glob("step_*.sha256"))

    def save(self, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        step : int >= 0
        tensors : mapping name -> Tensor
        progress : mapping
            Values that can be written as JSON.

        Raises
        ------
        MultitaskError
            If the files cannot be written. Earlier checkpoints are not changed.
        """
        texts = {"progress": json.dumps(progress), "log": _digest(self._log_up_to(step))}
        path, data = self._file(step), _packed(tensors, texts)
        self._write(path, data)
        self._write(path.with_suffix(".sha256"), f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode())

    def load(self, step: int) -> Checkpoint:
        """Load the checkpoint of a step.

        Parameters
        ----------
        step : int

        Returns
        -------
        Checkpoint

        Raises
        ------
        MultitaskError
            If there is no checkpoint of this step, or if its SHA-256 does not match.
        """
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise MultitaskError(f"run folder {self.path} contains no checkpoint of step {step}; available: {known}")
        try:
            noted, data = self._file(step).with_suffix(".sha256").read_bytes(), self._file(step).read_bytes()
            if not noted.startswith(hashlib.sha256(data).hexdigest().encode()):
                raise ValueError(f"the SHA-256 of its {len(data)} bytes differs from the stored one")
            texts = _texts(data)
            return Checkpoint(step, safetensors.torch.load(data), json.loads(texts["progress"]), texts.get("log"))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise MultitaskError(f"checkpoint step {step} in {self.path} is damaged: {error}") from error

    def latest(self, set_aside: bool = False) -> Checkpoint | None:
        """Load the last undamaged checkpoint, with a warning for each damaged one after it.

        Parameters
        ----------
        set_aside : bool
            Rename the files of damaged checkpoints to ``.damaged``.

        Returns
        -------
        Checkpoint or None
            None if there is no undamaged checkpoint.
        """
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except MultitaskError as error:
                warnings.warn(f"{error}; the checkpoint before it is used", stacklevel=1)  # shown only once
                if set_aside:
                    for path in (self._file(step).with_suffix(".sha256"), self._file(step)):
                        if path.exists():
                            path.replace(path.with_name(path.name + ".damaged"))
        return None

    def prune(self, keep: Collection[int]) -> None:
        """Remove checkpoints whose steps are not in ``keep``, except the last two."""
        for step in self.steps()[:-2]:
            if step not in keep:
                self._file(step).with_suffix(".sha256").unlink()  # first, so that an incomplete checkpoint is ignored
                self._file(step).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove files left incomplete by a killed process: temporary files, and tensors without SHA-256."""
        tensors = self.checkpoints.glob("step_*.safetensors")
        unfinished = [path for path in tensors if not path.with_suffix(".sha256").exists()]
        temporary = [self.path / "settings.json.tmp", self.path / "log.csv.tmp", *self.checkpoints.glob("step_*.tmp")]
        for path in unfinished + temporary:
            path.unlink(missing_ok=True)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _file(self, step: int) -> Path:
        return self.checkpoints / f"step_{step:07d}.safetensors"

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_atomically(path, data)
        except OSError as error:
            raise self._no_room(path, error) from error

    def _no_room(self, path: Path, error: OSError) -> StorageError:
        steps = self.steps()
        last = f"the last complete checkpoint is step {steps[-1]}" if steps else "there is no complete checkpoint yet"
        return StorageError(
            f"cannot write {path}: {error.strerror}; {last}. Free disk space and run again to resume from there"
        )


@contextmanager
def open_for_training(path: str | os.PathLike[str]) -> Iterator[RunFolder]:
    """Open and lock a run folder for training.

    The folder is created if needed, and incomplete files are removed from it.

    Parameters
    ----------
    path : path

    Yields
    ------
    RunFolder

    Raises
    ------
    MultitaskError
        If the folder cannot be written, or if another process has locked it.
    """
    from filelock import FileLock, Timeout

    folder = RunFolder(path)
    lock = folder.path / "run.lock"
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, fallback_to_soft=False).acquire(timeout=0)
    except Timeout as error:
        raise MultitaskError(
            f"run folder {folder.path} is in use by {_holder(lock)}: wait until it ends, or choose another run_folder"
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write to run folder {folder.path}: {error.strerror}. Choose another run_folder"
        ) from error
    with held:
        with suppress(OSError):  # Windows keeps others out of a locked file; a full disk will be told of later
            lock.write_text(f"process {os.getpid()} since {time.strftime('%H:%M on %Y-%m-%d')}\n")
        folder.sweep()
        yield folder


def _holder(lock: Path) -> str:
    """Who trains in a folder, as it wrote into the lock file."""
    try:
        return lock.read_text().strip() or "another process"
    except OSError:
        return "another process"


def provenance() -> dict[str, Any]:
    """What may turn the rounding of a run: versions, number of threads, machine and BLAS; and the time."""
    cpuinfo, blas = Path("/proc/cpuinfo"), re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "format": FORMAT,
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in ("compute-alike", "torch", "numpy")},
        },
        "threads": torch.get_num_threads(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": model[1] if model else platform.processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "blas": blas[1] if blas else "unknown",
        },
        "created": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _version(package: str) -> str:
    """Version of a package; none is known of one that is on the path without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that it is either complete or absent.

    Parameters
    ----------
    path : Path
    data : bytes

    Raises
    ------
    OSError
        If the file cannot be written. An existing file is then not changed.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:  # after errors and Ctrl-C; once it is renamed there is none
        temporary.unlink(missing_ok=True)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, as hexadecimal text."""
    return hashlib.sha256(_packed(tensors)).hexdigest()


def _packed(tensors: Mapping[str, Tensor], texts: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file with tensors and texts."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, texts)


def _digest(content: Any) -> str:
    """SHA-256 of a text, or of other contents as JSON."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _texts(data: bytes) -> dict[str, str]:
    """The texts in a safetensors file, which starts with the length of its JSON header."""
    length = int.from_bytes(data[:8], "little")
    texts: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return texts


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys whose values differ, in the form 'network.n_rnn = 256 in the folder, 128 requested'."""
    for key in sorted({*stored, *asked}):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new and not (key not in stored and new == {}):  # a setting that older folders do not know
            yield f"{prefix}{key} = {old!r} in the folder, {new!r} requested"
