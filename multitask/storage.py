"""Run folders: what a training run leaves on disk, and how it survives kills, full disks and flipped bits.

    settings.json                        what is trained, with which versions
    log.csv                              one row for each evaluation, rule and network
    checkpoints/step_0000500.safetensors weights and whatever else the next step needs
    checkpoints/step_0000500.json        its SHA-256 and the progress of the run
    run.lock                             held by the process that trains here

Files are written under a temporary name, flushed to the disk and renamed, so that each is whole or absent. A
checkpoint counts once its sidecar is there, which is written last; log rows are written before the checkpoint that
follows them, and resuming drops those beyond it. The lock is the kernel's (flock): it vanishes with the process.
Network disks may not honour it.
"""

import fcntl
import hashlib
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
from typing import Any

import pandas as pd
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from multitask.trials import MultitaskError

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
        if not path.exists():
            return None
        try:
            settings: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError as error:
            raise MultitaskError(f"{path} is damaged ({error}); restore it, or train in another folder") from error
        if settings.get("format") != FORMAT:
            raise MultitaskError(f"{path} has format {settings.get('format')!r}: this version reads format {FORMAT}")
        return settings

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run with these settings is stored here: False for an empty folder, an error for any other run."""
        stored = self.settings()
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

    def log(self) -> pd.DataFrame:
        """The log; empty if nothing was logged yet."""
        path = self.path / "log.csv"
        return pd.read_csv(path, float_precision="round_trip") if path.exists() else pd.DataFrame()

    def append_log(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add rows, whose first column is the step."""
        path = self.path / "log.csv"
        text = pd.DataFrame(rows).to_csv(index=False, header=not path.exists())
        try:
            with path.open("a") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._no_room(path, error) from error

    def rewind_log(self, step: int) -> None:
        """Drop the rows beyond a step, and what a kill left of a row."""
        path = self.path / "log.csv"
        if not path.exists():
            return
        header, *rows = path.read_text().splitlines(keepends=True)
        whole = [row for row in rows if row.endswith("\n") and row.count(",") == header.count(",")]
        if len(whole) < len(rows):
            warnings.warn(f"{path}: dropped {len(rows) - len(whole)} incomplete row at the end", stacklevel=2)
        kept = [row for row in whole if int(row.split(",", 1)[0]) <= step]
        if kept:
            self._write(path, "".join([header, *kept]).encode())
        else:
            path.unlink()

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(int(path.stem.removeprefix("step_")) for path in self.checkpoints.glob("step_*.json"))

    def save(self, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Write a checkpoint; those before it are untouched until it is complete."""
        data = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        sidecar = {"format": FORMAT, "step": step, "sha256": hashlib.sha256(data).hexdigest(), "progress": progress}
        self._write(self._file(step), data)
        self._write(self._file(step).with_suffix(".json"), json.dumps(sidecar, indent=2).encode())

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of a step; an error if there is none, or if its bytes are not those that were written."""
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise MultitaskError(f"run folder {self.path} holds no checkpoint of step {step}; checkpoints: {known}")
        try:
            sidecar = json.loads(self._file(step).with_suffix(".json").read_bytes())
            data = self._file(step).read_bytes()
            if hashlib.sha256(data).hexdigest() != sidecar["sha256"]:
                raise _Damage(f"its SHA-256 is not the one noted when it was written ({len(data)} bytes)")
            return Checkpoint(step, safetensors.torch.load(data), sidecar["progress"])
        except (OSError, ValueError, KeyError, SafetensorError, _Damage) as error:
            raise MultitaskError(f"checkpoint step {step} in {self.path} is damaged: {error}") from error

    def latest(self, set_aside: bool = False) -> Checkpoint | None:
        """The last checkpoint that is whole.

        A warning tells of each damaged one after it, which ``set_aside`` renames to ``.damaged``.
        """
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except MultitaskError as error:
                warnings.warn(f"{error}; going back to the one before", stacklevel=2)
                if set_aside:
                    for path in (self._file(step).with_suffix(".json"), self._file(step)):
                        if path.exists():
                            path.replace(path.with_name(path.name + ".damaged"))
        return None

    def prune(self, keep: Collection[int]) -> None:
        """Remove the checkpoints that are neither listed nor among the last two."""
        for step in self.steps()[:-2]:
            if step not in keep:
                self._file(step).with_suffix(".json").unlink()  # first, so that no half of a checkpoint counts
                self._file(step).unlink(missing_ok=True)

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
        for stale in [*folder.path.glob("*.tmp"), *folder.checkpoints.glob("*.tmp")]:
            stale.unlink()
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
    data = safetensors.torch.save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)})
    return hashlib.sha256(data).hexdigest()


class _Damage(Exception):
    """A file is not what was written."""


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys whose values differ, as 'network.n_rnn: 256 there, 128 now'."""
    for key in sorted({*stored, *asked}):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: {old!r} there, {new!r} now"
