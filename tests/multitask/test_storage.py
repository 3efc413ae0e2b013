"""Run folders under kills, full disks, flipped bytes and second users."""

import errno
import hashlib
import json
import math
import multiprocessing
import os
import re
import resource
import signal
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from multitask.storage import RunFolder, open_for_training, provenance, tensors_sha256, write_atomically
from multitask.trials import MultitaskError

FORK = multiprocessing.get_context("fork")  # children that start at once, with torch loaded
TENSORS = {"weights/b": torch.tensor([0.1, -0.0, math.inf]), "adam.mean/b": torch.arange(6.0).view(2, 3).T}
SETTINGS = {"rules": ["fdgo"], "network": {"n_rnn": 64, "dt": 20.0}, "n_networks": 4, "start": None}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """A folder with settings and the checkpoints 0, 10 and 20."""
    with open_for_training(tmp_path / "a run, größer") as folder:  # blanks and letters beyond ASCII work
        folder.write_settings(SETTINGS)
        for step in (0, 10, 20):
            folder.save(step, TENSORS, {"finished": "", "third": step / 3})
    return folder


def file(folder: RunFolder, step: int, suffix: str = ".safetensors") -> Path:
    return folder.checkpoints / f"step_{step:07d}{suffix}"


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.path.rglob("*")) if path.is_file()}


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_bit_for_bit(folder):
    checkpoint = folder.load(10)
    assert checkpoint.step == 10
    assert checkpoint.progress == {"finished": "", "third": 10 / 3}
    assert checkpoint.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert checkpoint.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()  # the sign of -0 too
    assert folder.steps() == [0, 10, 20]
    assert folder.latest().step == 20


def test_the_noted_sum_is_what_sha256sum_writes(folder):
    data = file(folder, 10).read_bytes()
    assert file(folder, 10, ".sha256").read_text() == f"{hashlib.sha256(data).hexdigest()}  step_0000010.safetensors\n"


def test_one_flipped_bit_anywhere_is_noticed(folder):
    for suffix in (".safetensors", ".sha256"):
        path = file(folder, 20, suffix)
        data = path.read_bytes()
        positions = range(0, len(data), 5) if suffix == ".safetensors" else range(64)  # the name after it is for people
        for position in positions:
            path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
            with pytest.raises(
                MultitaskError, match=r"checkpoint step 20 in .* is damaged: the SHA-256 of its .* differs"
            ):
                folder.load(20)
        path.write_bytes(data)
    assert folder.load(20).step == 20


@pytest.mark.parametrize("length", [0, 1, 7, 63, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".sha256"])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(folder, suffix, length):
    path = file(folder, 20, suffix)
    whole = 64 if suffix == ".sha256" else path.stat().st_size
    os.truncate(path, length % whole)
    with pytest.warns(UserWarning, match=r"checkpoint step 20 in .* is damaged: .*; the checkpoint before it is used"):
        assert folder.latest().step == 10
    assert folder.steps() == [0, 10, 20]  # reading changes nothing


def test_damaged_checkpoints_are_set_aside_when_training_goes_on(folder):
    file(folder, 20).unlink()
    file(folder, 10).write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged") as warned:
        assert folder.latest(set_aside=True).step == 0
    assert [re.search(r"step \d+", str(warning.message))[0] for warning in warned] == ["step 20", "step 10"]
    assert folder.steps() == [0]
    assert file(folder, 10, ".safetensors.damaged").exists()
    folder.save(10, TENSORS, {})
    assert folder.latest().step == 10


def test_nothing_is_left_when_all_checkpoints_are_damaged(folder):
    for step in folder.steps():
        file(folder, step).write_bytes(b"?")
    with pytest.warns(UserWarning, match="damaged"):
        assert folder.latest() is None


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(folder):
    with pytest.raises(MultitaskError, match="contains no checkpoint of step 15; available: 0, 10, 20"):
        folder.load(15)
    with pytest.raises(MultitaskError, match="no checkpoint of step 0; available: none"):
        RunFolder(folder.path / "elsewhere").load(0)


def test_a_checkpoint_counts_once_its_sum_is_written_and_halves_are_swept(folder):
    file(folder, 20, ".sha256").unlink()  # as after a kill between the two files
    (folder.path / "settings.json.tmp").write_text("{")
    (folder.checkpoints / "step_0000030.safetensors.tmp").write_bytes(b"half")
    (folder.path / "mine.tmp").write_text("somebody's own")
    assert folder.steps() == [0, 10]
    with open_for_training(folder.path):
        assert not file(folder, 20).exists()
        assert [path.name for path in folder.path.rglob("*.tmp")] == ["mine.tmp"]
    assert folder.load(10).step == 10


def test_pruning_leaves_what_is_listed_and_the_last_two(folder):
    for step in (30, 40):
        folder.save(step, TENSORS, {})
    folder.prune({10})
    assert folder.steps() == [10, 30, 40]
    assert len(list(folder.checkpoints.iterdir())) == 6


def test_fingerprints_tell_values_and_names_apart():
    weights = {"a": torch.zeros(2), "b": torch.ones(2)}
    same = tensors_sha256(dict(reversed(weights.items())))
    assert tensors_sha256(weights) == same
    assert (
        len({same, tensors_sha256({"a": weights["b"], "b": weights["a"]}), tensors_sha256({"a": torch.zeros(2)})}) == 3
    )


# ---- full disks ------------------------------------------------------------------------------------------------------


@contextmanager
def file_size_limit(n_bytes: int):
    """No file may grow beyond a size: a write fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_half_way_leaves_the_earlier_checkpoints(folder):
    before = contents(folder)
    with (
        file_size_limit(100),
        pytest.raises(MultitaskError, match=r"cannot write .*step_0000030.safetensors: File too"),
    ):
        folder.save(30, TENSORS, {})
    assert contents(folder) == before
    assert folder.latest().step == 20


def test_a_full_disk_is_named_with_the_last_checkpoint_and_what_to_do(folder, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = contents(folder)
    monkeypatch.setattr(os, "fsync", full)
    message = "No space left on device; the last complete checkpoint is step 20. Free disk space and run again"
    with pytest.raises(MultitaskError, match=message):
        folder.save(30, TENSORS, {})
    assert contents(folder) == before
    with pytest.raises(MultitaskError, match=r"cannot write .*log.csv: No space left"):
        folder.append_log([{"step": 20}])


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_no_temporary_file_is_left_by_errors_and_interruptions(tmp_path, monkeypatch, error):
    def stop(_):
        raise error

    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr("multitask.storage.os.fsync", stop)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(OSError, match="no"):
            write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


# ---- locks and permissions -------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_with_its_user(tmp_path):
    with open_for_training(tmp_path) as folder:
        user = rf"is in use by process {os.getpid()} since \d\d:\d\d on .*: wait until it ends, or choose another"
        with pytest.raises(MultitaskError, match=user), open_for_training(tmp_path):
            pass
        folder.save(0, TENSORS, {})
    with open_for_training(tmp_path):
        pass


def test_a_lock_vanishes_with_the_process_that_held_it(tmp_path):
    def hold(connection):
        with open_for_training(tmp_path):
            connection.send("held")
            signal.pause()

    here, there = FORK.Pipe()
    child = FORK.Process(target=hold, args=(there,))
    child.start()
    assert here.recv() == "held"
    with pytest.raises(MultitaskError, match=f"in use by process {child.pid}"), open_for_training(tmp_path):
        pass
    child.kill()
    child.join()
    with open_for_training(tmp_path):
        pass


@contextmanager
def without_privileges():
    """Root may write anywhere: become nobody for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_path(tmp_path):
    """The temporary folder, with all folders above it open to everyone as long as the test lasts."""
    closed = [p for p in (tmp_path, *tmp_path.parents) if not p.stat().st_mode & 0o005 and p.owner() == "root"]
    modes = [p.stat().st_mode for p in closed]
    for path in closed:
        path.chmod(0o755)
    yield tmp_path
    for path, mode in zip(closed, modes, strict=True):
        path.chmod(mode)


def test_a_read_only_folder_can_be_read_but_not_trained_in(folder, open_path):
    for path in (folder.path, folder.checkpoints):
        path.chmod(0o555)
    try:
        with without_privileges():
            assert folder.latest().step == 20
            assert folder.holds(SETTINGS)
            with (
                pytest.raises(
                    MultitaskError, match=r"cannot write to run folder .*: Permission denied. Choose another"
                ),
                open_for_training(folder.path),
            ):
                pass
            with pytest.raises(MultitaskError, match="cannot write to run folder"), open_for_training("/proc/run"):
                pass
    finally:
        folder.path.chmod(0o755)


def test_a_folder_that_may_not_be_read_is_named(folder, open_path):
    folder.path.chmod(0)
    try:
        with (
            without_privileges(),
            pytest.raises(MultitaskError, match=r"cannot read .*settings.json: Permission denied"),
        ):
            folder.settings()
    finally:
        folder.path.chmod(0o755)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    assert not RunFolder(path).holds(SETTINGS)
    with pytest.raises(MultitaskError, match=r"cannot write to run folder .*file"), open_for_training(path):
        pass
    assert path.read_text() == "mine"


# ---- settings --------------------------------------------------------------------------------------------------------


def test_runs_of_a_package_that_is_not_installed_say_so(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    assert provenance()["versions"]["compute-alike"] == "not installed"


def test_settings_come_back_with_what_made_them(folder):
    stored = folder.settings()
    assert {key: stored[key] for key in SETTINGS} == SETTINGS
    assert stored["versions"]["torch"] == torch.__version__
    assert stored["threads"] == torch.get_num_threads()
    assert folder.holds(SETTINGS)
    assert folder.holds(SETTINGS | {"rules": ("fdgo",)})  # a tuple is a list in JSON


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"n_networks": 8}, "n_networks = 4 in the folder, 8 requested"),
        ({"network": {"n_rnn": 128, "dt": 20.0}}, r"network\.n_rnn = 64 in the folder, 128 requested"),
        (
            {"network": {"n_rnn": 32, "dt": 50.0}},
            r"network\.dt = 20.0 in the folder, 50.0 requested; network\.n_rnn = 64 in the folder",
        ),
        ({"network": {"n_rnn": 64}}, r"network\.dt = 20.0 in the folder, None requested"),
        ({"rules": ["fdgo", "dm1"]}, r"rules = \['fdgo'\] in the folder, \['fdgo', 'dm1'\] requested"),
        ({"start": "d0"}, "start = None in the folder, 'd0' requested"),
    ],
)
def test_other_settings_are_refused_by_the_key_that_differs(folder, change, difference):
    message = f"contains a run with other settings: {difference}.*Choose another run_folder"
    with pytest.raises(MultitaskError, match=message):
        folder.holds(SETTINGS | change)


def test_settings_that_cannot_be_read_are_refused(folder):
    path = folder.path / "settings.json"
    whole = path.read_text()
    path.write_text(whole[:-30])
    with pytest.raises(MultitaskError, match=r"settings.json is damaged .*: restore it, or choose another run_folder"):
        folder.settings()
    path.write_text(json.dumps(json.loads(whole) | {"format": 2}))
    with pytest.raises(MultitaskError, match="has format 2: this version reads format 1"):
        folder.settings()
    path.write_text("[1]")
    with pytest.raises(MultitaskError, match=r"settings.json is damaged .*: restore it, or choose another run_folder"):
        folder.settings()
    path.unlink()
    assert folder.settings() is None
    with pytest.raises(MultitaskError, match=r"contains checkpoints but no settings.json"):
        folder.holds(SETTINGS)


# ---- log -------------------------------------------------------------------------------------------------------------


def rows(step: int) -> list[dict[str, object]]:
    return [{"step": step, "rule": rule, "loss": step / 7} for rule in ("fdgo", "dm1")]


def test_the_log_comes_back_exactly_and_without_what_a_kill_cut(folder):
    assert folder.log(100).empty
    for step in (0, 10, 20):
        folder.append_log(rows(step))
    whole = (folder.path / "log.csv").read_bytes()
    assert folder.log(20)["loss"].tolist() == [0, 0, 10 / 7, 10 / 7, 20 / 7, 20 / 7]
    assert folder.log(10)["step"].tolist() == [0, 0, 10, 10]
    for cut in range(1, len(whole)):
        (folder.path / "log.csv").write_bytes(whole[:-cut])
        log = folder.log(20)
        assert len(log) == max(0, whole[:-cut].count(b"\n") - 1)
        assert log.empty or log.notna().all(axis=None)


@pytest.mark.parametrize("left", ["", "step,ru", "step,rule,loss\n", "step,rule,loss\n0,fd"])
def test_a_log_without_a_whole_row_begins_anew(folder, left):
    (folder.path / "log.csv").write_text(left)
    folder.rewind_log(20)
    folder.append_log(rows(0))
    assert folder.log(20)["rule"].tolist() == ["fdgo", "dm1"]


def test_rewinding_drops_rows_beyond_a_step_for_good(folder):
    for step in (0, 10, 20):
        folder.append_log(rows(step))
    with (folder.path / "log.csv").open("a") as log:
        log.write("30,fdgo,0.1\n30,dm")
    folder.rewind_log(10)
    folder.append_log(rows(15))
    assert folder.log(100)["step"].tolist() == [0, 0, 10, 10, 15, 15]
