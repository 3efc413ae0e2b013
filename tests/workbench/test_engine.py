"""Engines: all give the same results, survive killed workers and drivers, end on Ctrl-C, and refuse bad settings.

Starting processes and importing takes most of the time. So tests share engines, and most tasks import little. Where the
engines differ only in the processes they start, all but one of them are marked slow.
"""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from joblib import Parallel, delayed

from dsa_analysis import compare
from tests.slurm.controller import AVAILABLE, jobs, one_node
from tests.workbench.errands import engine_parameters, errands, failing, killing, torch_sums, trained
from workbench.engine import DASK, _submitting, engine
from workbench.settings import ConfigError

PROJECT = Path(__file__).parents[2]
SLURM = pytest.mark.skipif(not AVAILABLE, reason="needs the packages slurm-wlm and munge, and root")
SLOW = pytest.mark.slow


def kinds(*slow: str, workers: int | None = None):
    """All kinds of engine that have workers, with their number if given; those named are marked slow."""
    return [
        pytest.param(
            (kind, workers) if workers else kind, marks=[SLURM] * (kind == "slurm") + [SLOW] * (kind in slow), id=kind
        )
        for kind in ("processes", "dask", "slurm")
    ]


SERIAL = pytest.param(("serial", 1), id="serial")

pytestmark = pytest.mark.xdist_group("engine")  # they start processes of their own


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    """A SLURM controller for this module; yields its environment variables."""
    with one_node(tmp_path_factory.mktemp("slurm")) as environment:
        os.environ.update(environment)
        yield environment
        for name in environment:
            del os.environ[name]


@pytest.fixture(scope="class")
def running(request, tmp_path_factory):
    """An engine that is entered by a driver with two threads; yields its kind."""
    kind, workers = request.param
    if kind == "slurm":
        request.getfixturevalue("controller")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")  # workers would inherit it
        torch.set_num_threads(2)
        try:
            with engine(engine_parameters(kind, tmp_path_factory.mktemp(kind), workers=workers)):
                yield kind
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)


def on(engines: list):
    """Parametrize a test over engines, in the same order in all tests of a class, so that they share them."""
    return pytest.mark.parametrize("running", engines, indirect=True)


@pytest.fixture
def here(tmp_path):
    """For a block of a test whose tasks run in this process."""
    return engine(engine_parameters("serial", tmp_path))


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that tasks wrote."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.npy")}


def starts(folder: Path) -> list[tuple[int, int]]:
    """Task number and process id of each start of a task."""
    path = folder / "starts"
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []


def undisturbed(folder: Path, n_tasks: int) -> dict[str, str]:
    folder.mkdir()
    errands(folder, n_tasks, seconds=0)
    return content(folder)


def until(met, what: str, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Killer(threading.Thread):
    """Kills ``n_kills`` workers, one after every ``every`` starts of a task."""

    def __init__(self, folder: Path, n_kills: int, every: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.n_kills, self.every, self.killed = folder, n_kills, every, 0
        self.start()

    def run(self) -> None:
        seen = self.every
        while self.killed < self.n_kills:
            until(lambda: len(starts(self.folder)) >= seen, "no more tasks to kill")  # noqa: B023
            all_starts = starts(self.folder)
            seen = len(all_starts) + self.every
            if alive(pid := all_starts[-1][1]):
                os.kill(pid, signal.SIGKILL)
                self.killed += 1


# ---- the same results from all engines -------------------------------------------------------------------------------


class TestEveryEngine:
    @on([*kinds(workers=1), SERIAL])
    def test_gives_the_same_results_bit_for_bit(self, running):
        [(sums, threads, pid)] = Parallel()([delayed(torch_sums)()])
        assert threads == 1
        assert (pid == os.getpid()) == (running == "serial")  # one worker is a process too
        torch.set_num_threads(1)
        assert torch_sums()[0] == sums
        torch.set_num_threads(2)
        assert torch_sums()[0] != sums  # the comparison above could have failed
        torch.set_num_threads(1)

    @on(kinds("dask", "slurm", workers=1))
    def test_trains_the_weights_of_training_here_and_reads_what_was_stored(self, running, here, tmp_path):
        def weights(folder):
            return Parallel()([delayed(trained)(folder)])

        there = weights(tmp_path / "there")
        written = (tmp_path / "there" / "log.csv").stat().st_mtime_ns
        with here:
            assert weights(tmp_path / "here") == there
            assert weights(tmp_path / "there") == there
        assert (tmp_path / "there" / "log.csv").stat().st_mtime_ns == written

    @on(kinds("dask", "slurm", workers=1))
    def test_compares_all_pairs_as_here_and_reads_what_was_stored(self, running, here, tmp_path, generator):
        systems = list(torch.randn(60, 4, 4, dtype=torch.float64, generator=generator))

        def distances(store):
            return compare(systems, n_starts=2, store=store, progress=False).distances

        def blocks():
            return {path: path.stat().st_mtime_ns for path in (tmp_path / "there").iterdir()}

        there, written = distances(tmp_path / "there"), blocks()
        assert len(written) == 2
        with here:
            assert np.array_equal(distances(None), there)
            assert np.array_equal(distances(tmp_path / "there"), there)
        assert blocks() == written

    @on([*kinds(workers=1), SERIAL])
    def test_listens_to_this_machine_alone(self, running):
        if running == "slurm":
            pytest.skip("jobs connect over the network")
        Parallel()(delayed(abs)(x) for x in range(3))
        driver = psutil.Process()
        sockets = [c for p in (driver, *driver.children(recursive=True)) for c in p.net_connections()]
        heard = {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}
        assert heard <= {"127.0.0.1", "::1"}

    @on([*kinds(workers=1), SERIAL])
    def test_lets_the_error_of_a_task_through_and_goes_on(self, running):
        with pytest.raises(ValueError, match="one is no good"):
            Parallel()(delayed(failing)(n) for n in range(4))
        assert Parallel()(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]

    @on(kinds("dask", "slurm", workers=1))
    def test_ends_the_call_with_the_name_of_a_task_that_kills_its_workers_again_and_again(self, running):
        with pytest.raises(
            ConfigError, match=r"^engine: worker processes were killed 4 times while running killing\(2, "
        ):
            Parallel()(delayed(killing)(n, killer=2) for n in range(4))


def test_pages_of_the_slurm_scheduler_are_for_this_machine_alone(tmp_path, monkeypatch):
    """Jobs reach the scheduler itself over the network; this needs no SLURM, because no job is submitted."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    before = {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN}
    with _submitting(engine_parameters("slurm", tmp_path).slurm, None) as cluster:
        heard = {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN} - before
        scheduler = int(cluster.scheduler_address.rsplit(":", 1)[1])
    pages = {address.ip for address in heard if address.port != scheduler}
    assert len({address.port for address in heard}) == 2
    assert pages == {"127.0.0.1"}


@on(kinds("slurm", workers=2))
def test_worker_that_is_killed_costs_only_its_task(running, tmp_path):
    folder = tmp_path / "disturbed"
    folder.mkdir()
    killer = Killer(folder, n_kills=1, every=3)
    done = errands(folder, 8)
    killer.join()
    assert sorted(done) == list(range(8))  # each task once
    assert content(folder) == undisturbed(tmp_path / "undisturbed", 8)
    lost = len(starts(folder)) - 8
    assert 1 <= lost <= (2 if running == "processes" else 1)  # a pool of processes ends as a whole


# ---- drivers that end ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def starter(request, tmp_path_factory):
    """The program that starts drivers, with SLURM's commands on its path if they are installed."""
    if AVAILABLE:
        request.getfixturevalue("controller")
    errors = tmp_path_factory.mktemp("drivers") / "errors"
    command = [sys.executable, "-m", "tests.workbench.errands"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with errors.open("w") as file, subprocess.Popen(command, cwd=PROJECT, stderr=file, **pipes) as process:
        yield process
        process.stdin.close()
    print(errors.read_text())


class Driver:
    """A process that runs errands, and its workers."""

    def __init__(self, starter, kind: str, folder: Path, n_tasks: int) -> None:
        self.starter, known = starter, len(starts(folder))
        print(kind, folder, n_tasks, file=starter.stdin, flush=True)
        self.pid = int(starter.stdout.readline())
        until(lambda: len(starts(folder)) >= known + 2 or not alive(self.pid), "no task starts")
        assert alive(self.pid), "the driver has ended"
        self.workers = {pid for _, pid in starts(folder)[known:]}
        self.workers |= {child.pid for child in psutil.Process(self.pid).children(recursive=True)}

    def end(self, number: signal.Signals, whole_group: bool = False) -> int:
        """Send a signal to the driver, or to its process group as Ctrl-C does; return its exit status."""
        (os.killpg if whole_group else os.kill)(self.pid, number)
        return int(self.starter.stdout.readline())


@pytest.mark.parametrize("kind", kinds("dask", "slurm"))
def test_driver_that_is_stopped_or_killed_leaves_no_worker_and_a_rerun_does_the_rest(kind, tmp_path, starter, request):
    queue = request.getfixturevalue("controller") if kind == "slurm" else None
    folder = tmp_path / "disturbed"
    folder.mkdir()

    driver = Driver(starter, kind, folder, 10)
    assert driver.end(signal.SIGINT, whole_group=True) == 130
    until(lambda: not any(map(alive, driver.workers)), "workers outlive their driver", seconds=5)
    assert queue is None or jobs(queue) == []

    driver = Driver(starter, kind, folder, 10)
    driver.end(signal.SIGKILL)
    until(lambda: not any(map(alive, driver.workers)), "workers outlive their driver", seconds=20)
    if queue is not None:
        until(lambda: jobs(queue) == [], "jobs outlive their driver", seconds=20)

    finished = len(content(folder))
    began = len(starts(folder))
    assert errands(folder, 10, seconds=0) == list(range(10))  # here, in order
    assert len(starts(folder)) - began == 10 - finished
    assert content(folder) == undisturbed(tmp_path / "undisturbed", 10)


@pytest.mark.parametrize("kind", kinds("processes", "dask", "slurm"))
def test_twenty_kills_lose_and_double_nothing(kind, tmp_path, starter, request):
    """Ten workers are killed within one run, and ten drivers at random moments, each followed by a rerun."""
    if kind == "slurm":
        request.getfixturevalue("controller")
    folder = tmp_path / "workers"
    folder.mkdir()
    killer = Killer(folder, n_kills=10, every=4)
    with engine(engine_parameters(kind, tmp_path)):
        done = errands(folder, 60)
    killer.join()
    assert (killer.killed, sorted(done)) == (10, list(range(60)))
    assert content(folder) == undisturbed(tmp_path / "undisturbed", 60)

    folder = tmp_path / "drivers"
    folder.mkdir()
    moments = torch.rand(10, generator=torch.Generator().manual_seed(0)).tolist()
    for moment in moments:
        driver = Driver(starter, kind, folder, 60)
        time.sleep(moment)
        driver.end(signal.SIGKILL)
        until(lambda: not any(map(alive, driver.workers)), "workers outlive their driver", seconds=20)  # noqa: B023
    assert errands(folder, 60, seconds=0) == list(range(60))
    assert content(folder) == content(tmp_path / "undisturbed")


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def distributed():
    return pytest.importorskip("distributed")


def test_tasks_go_to_a_scheduler_at_an_address_and_are_kept_to_one_thread_there(tmp_path, distributed):
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as there:
        torch.set_num_threads(2)
        try:
            with engine(engine_parameters("dask", tmp_path, workers=1, address=there.scheduler_address)):
                task = Parallel()([delayed(where)()])
        finally:
            torch.set_num_threads(1)
        assert task == [(1, True)]
        assert there.status.name == "running"  # it is not ours to close


@pytest.mark.parametrize("kind", kinds("slurm")[1:])
def test_a_slow_start_of_the_event_loop_is_waited_for(kind, tmp_path, distributed, monkeypatch, request):
    """The loop that distributed would start gives up after ten seconds."""
    if kind == "slurm":
        request.getfixturevalue("controller")

    def refuse(**_):
        pytest.fail("distributed starts a loop")

    run = asyncio.run
    monkeypatch.setattr(distributed.utils, "_CollectErrorThread", refuse)
    monkeypatch.setattr(asyncio, "run", lambda main: (time.sleep(0.5), run(main)))
    with engine(engine_parameters(kind, tmp_path)):
        assert Parallel()([delayed(abs)(-1)]) == [1]


def where() -> tuple[int, bool]:
    """Threads of a task, and whether dask runs it."""
    from distributed import get_worker

    return torch.get_num_threads(), get_worker() is not None


def test_workers_at_an_address_that_run_tasks_side_by_side_in_one_process_are_refused(tmp_path, distributed):
    with distributed.LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=None) as there:
        parameters = engine_parameters("dask", tmp_path, address=there.scheduler_address)
        with pytest.raises(ConfigError, match=r"^engine.address: worker .* runs 3 tasks at once"), engine(parameters):
            pass


def test_scheduler_without_workers_is_named_after_the_time_to_wait(tmp_path, distributed):
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as there:
        parameters = engine_parameters("dask", tmp_path, address=there.scheduler_address, wait=0.5)
        message = r"^engine.wait: 0 of 2 workers connected within 0.5 s; start workers of "
        with pytest.raises(ConfigError, match=message), engine(parameters):
            pass


def test_scheduler_that_is_lost_ends_the_call_and_says_so(tmp_path, distributed):
    folder = tmp_path / "tasks"
    folder.mkdir()
    there = distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    closing = threading.Thread(target=lambda: (until(lambda: len(starts(folder)) > 1, "no task"), there.close()))
    closing.start()
    with (
        pytest.raises(ConfigError, match=r"^engine: the connection to the dask scheduler was lost"),
        engine(engine_parameters("dask", tmp_path, address=there.scheduler_address)),
    ):
        errands(folder, 50)
    closing.join()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:1", r"no dask scheduler answers at tcp://127.0.0.1:1: Timed out .* after 0.5 s"),
        ("nonsense", r"no dask scheduler answers at nonsense: missing port number"),
        ("foo://here:1", r"no dask scheduler answers at foo://here:1: unknown address scheme 'foo'"),
    ],
)
def test_scheduler_that_does_not_answer_is_named(address, message, tmp_path, distributed):
    parameters = engine_parameters("dask", tmp_path, address=address, wait=0.5)
    with pytest.raises(ConfigError, match=f"^engine.address: {message}"), engine(parameters):
        pass


@pytest.mark.parametrize(("kind", "package"), [("dask", "distributed"), ("slurm", "dask_jobqueue")])
def test_missing_package_is_named_with_the_command_that_installs_it(kind, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as caught, engine(engine_parameters(kind, tmp_path)):
        pass
    assert f"dask and slurm need the package {package}" in str(caught.value)
    assert "pip install 'compute-alike[cluster]'" in str(caught.value)
    assert "poetry install --all-extras" in str(caught.value)


def test_slurm_without_sbatch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = r"^engine.kind: slurm submits jobs with sbatch, which this machine does not have"
    with pytest.raises(ConfigError, match=message), engine(engine_parameters("slurm", tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


@SLURM
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("queue", "nowhere", "sbatch refuses the job: .*invalid partition specified: nowhere"),
        ("directives", ("--nonsense",), "sbatch refuses the job: .*unrecognized option '--nonsense'"),
        ("memory", 100.0, "sbatch refuses the job: .*Requested node configuration is not available"),
        ("interface", "ib9", "Cluster failed to start: 'ib9' is not a valid network interface"),
    ],
)
def test_job_that_cannot_be_submitted_is_refused_in_the_words_of_sbatch(key, value, message, tmp_path, controller):
    parameters = engine_parameters("slurm", tmp_path, slurm={key: value})
    with pytest.raises(ConfigError, match=f"(?s)^engine.slurm: {message}"), engine(parameters):
        pass
    assert jobs(controller) == []


@SLURM
def test_workers_that_do_not_come_are_told_with_the_queue(tmp_path, controller):
    parameters = engine_parameters("slurm", tmp_path, wait=3, slurm={"directives": ("--begin=now+1hour",)})
    with pytest.raises(ConfigError) as caught, engine(parameters):
        pass
    assert str(caught.value).startswith("engine.wait: 0 of 2 workers connected within 3 s; squeue says\n")
    assert str(caught.value).count("(BeginTime)") == 2
    assert jobs(controller) == []


@SLOW
@SLURM
def test_job_that_ends_is_replaced(tmp_path, controller, monkeypatch):
    monkeypatch.setitem(DASK, "distributed.deploy.lost-worker-timeout", "1 s")
    folder = tmp_path / "tasks"
    folder.mkdir()

    def cancel():
        until(lambda: len(starts(folder)) > 2, "no task")
        subprocess.run(["scancel", *jobs(controller)], check=True)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with engine(engine_parameters("slurm", tmp_path)):
        assert sorted(errands(folder, 12)) == list(range(12))
    canceller.join()
