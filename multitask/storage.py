"""Run folders: what a training run leaves on disk, and how it survives kills, full disks and flipped bits.

    settings.json                        what is trained, with which versions
    log.csv                              one row for each evaluation, rule and network
    checkpoints/step_0000500.safetensors weights and whatever else the next step needs
    checkpoints/step_0000500.sha256      its SHA-256, as sha256sum writes and checks it
    run.lock                             held by the process that trains here

Files are written under a temporary name, flushed to the disk and renamed, so that each is whole or absent. A
checkpoint counts once its SHA-256 is there, which is written last. Log rows are appended before the checkpoint that
follows them: those beyond the last checkpoint do not count, and resuming drops and makes them anew. The lock is the
kernel's (flock): it vanishes with the process. Network disks may not honour it.
"""

import fcntl
import hashlib
import io
import json
import os
import platform
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
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
PROVENANCE = ("format", "versions", "threads", "created")  # written beside the settings, not compared


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a run: tensors by name, and the progress stored with them."""

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class RunFolder:
    """Reads a run folder, and writes it while locked (see `open_for_training`)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    # ---- settings ------------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any] | None:
        """The settings stored here; None if the folder holds no run."""
        path = self.path / "settings.json"
        try:
            settings: dict[str, Any] = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise MultitaskError(f"cannot read {path}: {error.strerror}; choose another run_folder") from error
        except ValueError as error:
            raise MultitaskError(f"{path} is damaged ({error}); restore it, or choose another run_folder") from error
        if settings.get("format") != FORMAT:
            raise MultitaskError(f"{path} has format {settings.get('format')!r}: this version reads format {FORMAT}")
        return settings

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run with these settings is stored here: False for an empty folder, an error for any other run."""
        stored = self.settings()
        if stored is None and self.steps():
            raise MultitaskError(
                f"run folder {self.path} holds checkpoints but no settings.json that tells what they are; "
                f"restore it, or choose another run_folder"
            )
        if stored is None:
            return False
        theirs = {key: value for key, value in stored.items() if key not in PROVENANCE}
        differences = list(_differences(theirs, json.loads(json.dumps(settings))))
        if differences:
            raise MultitaskError(
                f"run folder {self.path} holds a run with other settings, it differs in {'; '.join(differences)}. "
                f"Choose another run_folder, or delete this one"
            )
        return True

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        provenance = {
            "format": FORMAT,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in ("compute-alike", "torch", "numpy")},
            },
            "threads": torch.get_num_threads(),
            "created": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        self._write(self.path / "settings.json", json.dumps({**settings, **provenance}, indent=2).encode())

    # ---- log -----------------------------------------------------------------------------------------------------

    def log(self, last_step: int) -> "pd.DataFrame":
        """The log up to a step; empty if nothing was logged yet."""
        import pandas as pd

        text = self._log_up_to(last_step)
        return pd.read_csv(io.StringIO(text)) if text else pd.DataFrame()

    def append_log(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add rows, whose first column is the step."""
        import pandas as pd

        path = self.path / "log.csv"
        try:
            with path.open("a") as file:
                text = pd.DataFrame(rows).to_csv(index=False, header=file.tell() == 0)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._no_room(path, error) from error

    def rewind_log(self, last_step: int) -> None:
        """Drop the rows beyond a step, and what a kill left of a row."""
        self._write(self.path / "log.csv", self._log_up_to(last_step).encode())

    def _log_up_to(self, last_step: int) -> str:
        """Header and rows of the log, without a row cut short; empty if there are no rows."""
        path = self.path / "log.csv"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        rows = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",", 1)[0]) <= last_step]
        return "".join([lines[0], *rows]) if rows else ""

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(int(path.stem.removeprefix("step_")) for path in self.checkpoints.glob("step_*.sha256"))

    def save(self, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Write a checkpoint; those before it are untouched until it is complete."""
        path, data = self._file(step), _packed(tensors, {"progress": json.dumps(progress)})
        self._write(path, data)
        self._write(path.with_suffix(".sha256"), f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode())

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of a step; an error if there is none, or if its bytes are not those that were written."""
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise MultitaskError(f"run folder {self.path} holds no checkpoint of step {step}; checkpoints: {known}")
        try:
            noted, data = self._file(step).with_suffix(".sha256").read_bytes(), self._file(step).read_bytes()
            if not noted.startswith(hashlib.sha256(data).hexdigest().encode()):
                raise ValueError(f"its {len(data)} bytes do not have the SHA-256 noted when they were written")
            return Checkpoint(step, safetensors.torch.load(data), json.loads(_texts(data)["progress"]))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise MultitaskError(f"checkpoint step {step} in {self.path} is damaged: {error}") from error

    def latest(self, set_aside: bool = False) -> Checkpoint | None:
        """The last checkpoint that is whole.

        A warning tells of each damaged one after it, which ``set_aside`` renames to ``.damaged``.
        """
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except MultitaskError as error:
                warnings.warn(f"{error}; going back to the one before", stacklevel=1)  # once, however often it is met
                if set_aside:
                    for path in (self._file(step).with_suffix(".sha256"), self._file(step)):
                        if path.exists():
                            path.replace(path.with_name(path.name + ".damaged"))
        return None

    def prune(self, keep: Collection[int]) -> None:
        """Remove the checkpoints that are neither listed nor among the last two."""
        for step in self.steps()[:-2]:
            if step not in keep:
                self._file(step).with_suffix(".sha256").unlink()  # first, so that no half of a checkpoint counts
                self._file(step).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a kill left half-written: temporary files, and tensors without their SHA-256."""
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

    def _no_room(self, path: Path, error: OSError) -> MultitaskError:
        steps = self.steps()
        last = f"the last complete checkpoint is step {steps[-1]}" if steps else "no checkpoint is complete yet"
        return MultitaskError(
            f"cannot write {path}: {error.strerror}; {last}. Make room and run again: training resumes there"
        )


@contextmanager
def open_for_training(path: str | os.PathLike[str]) -> Iterator[RunFolder]:
    """A run folder that no other process may train in meanwhile; made if needed, and swept of half-written files."""
    folder = RunFolder(path)
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        lock = (folder.path / "run.lock").open("a+")
    except OSError as error:
        raise MultitaskError(
            f"cannot write to run folder {folder.path}: {error.strerror}; choose another run_folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise MultitaskError(
                f"run folder {folder.path} is in use by {holder}; wait for it, or choose another run_folder"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} since {time.strftime('%H:%M on %Y-%m-%d')}\n")
        lock.flush()
        folder.sweep()
        yield folder


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Fingerprint of tensors and their names."""
    return hashlib.sha256(_packed(tensors)).hexdigest()


def _packed(tensors: Mapping[str, Tensor], texts: dict[str, str] | None = None) -> bytes:
    """A safetensors file in memory, with texts beside the tensors."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, texts)


def _texts(data: bytes) -> dict[str, str]:
    """The texts beside the tensors of a safetensors file, which opens with the length of its JSON header."""
    length = int.from_bytes(data[:8], "little")
    texts: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return texts


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys whose values differ, as 'network.n_rnn: 256 there, 128 now'."""
    for key in sorted({*stored, *asked}):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: {old!r} there, {new!r} now"
