"""Where tasks run that do not depend on each other: here, in processes, on a dask cluster, or as jobs of SLURM.

    with engine(settings.engine):
        ...                     # whatever runs its tasks by joblib.Parallel, and need not know where

Results do not depend on the engine, bit for bit: wherever a task runs, it computes with one thread.

A worker that dies (out of memory, a node that fails) costs the task it was at, which runs again; with ``processes``
also those its neighbours were at, since their pool goes down together. A task whose workers die again and again ends
the run, with its name. What tasks have stored by then stays, and tasks that look for their own finished work (a run
folder, a file) make a rerun do only the rest.

Ctrl-C ends all workers and takes jobs off the queue. A driver that is killed can do neither: its processes notice and
end within a second, its jobs when they miss the scheduler, or a minute after their start.
"""

import importlib
import os
import reprlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from joblib import parallel_config
from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError
from joblib.parallel import ParallelBackendBase

from workbench.settings import ConfigError, EngineParameters, SlurmParameters
from workbench.worker import alone, follow, one_thread

REPEATS = 3  # of a task whose worker died; dask's own number
DASK = {
    "distributed.scheduler.worker-saturation": 1.0,  # a task each, so that a death is held against the right one
    "distributed.deploy.lost-worker-timeout": "60 s",  # until a worker that restarts is given up for another
}


@contextmanager
def engine(parameters: EngineParameters) -> Iterator[None]:
    """Have joblib.Parallel run its tasks where ``parameters.kind`` says, until the block ends.

    Raises
    ------
    ConfigError
        On entry: packages, a SLURM or a scheduler that are not there, a job that sbatch refuses, workers that do not
        come. Inside: a task whose workers died again and again, a scheduler that was lost.
    """
    start = {"serial": _serial, "processes": _processes, "dask": _dask, "slurm": _slurm}[parameters.kind]
    with one_thread(), start(parameters) as backend, parallel_config(backend):
        yield


class Futures(ParallelBackendBase):
    """Runs the tasks of joblib.Parallel as futures of an executor, and some of them again.

    joblib's own backends do neither: with loky the death of a worker ends the call, and with dask a task that the
    scheduler gives up keeps it waiting for ever.

    Parameters
    ----------
    start, stop : make an executor; end it, and with it what it still runs
    n_workers : int >= 1
    given_up : what the future of a task raises whose worker died
    repeats : int >= 0
        How often such a task is run again, by a new executor; 0 where the executor sees to it.
    """

    supports_retrieve_callback = True  # as generators need it

    def __init__(
        self,
        start: Callable[[], Executor],
        stop: Callable[[Executor], None],
        n_workers: int,
        given_up: type[Exception],
        repeats: int,
    ) -> None:
        super().__init__(nesting_level=0)
        self.start, self.stop, self.n_workers = start, stop, n_workers
        self.given_up, self.repeats = given_up, repeats
        self.executor: Executor | None = None  # None outside of calls, and once a call was broken off
        self.lock = threading.Lock()  # of the executor; tasks are submitted by several threads
        self.nurse = ThreadPoolExecutor(1)  # resubmits, as an executor cannot be ended by the thread that tells of it

    def effective_n_jobs(self, n_jobs: int) -> int:
        return max(2, self.n_workers)  # joblib runs the tasks itself where it hears of one

    def start_call(self) -> None:
        self.executor = self.executor or self.start()

    def submit(self, func: Any, callback: Callable[[Future], None], repeats: int = 0) -> Future:
        with self.lock:
            executor, future = self.executor, Future[Any]()
            try:
                if executor is None:
                    future.cancel()
                else:
                    future = executor.submit(alone, func)
            except self.given_up as error:  # a worker has died meanwhile
                future.set_exception(error)
        future.add_done_callback(partial(self._ended, func, callback, repeats, executor))
        return future

    def _ended(self, func: Any, callback: Callable, repeats: int, executor: Executor | None, future: Future) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, self.given_up) and repeats < self.repeats:
            self.nurse.submit(self._again, func, callback, repeats + 1, executor)
            return
        if isinstance(error, self.given_up):
            future = Future()
            future.set_exception(ConfigError(_died(func)))
        callback(future)

    def _again(self, func: Any, callback: Callable, repeats: int, broken: Executor | None) -> None:
        with self.lock:
            if self.executor is not None and self.executor is broken:
                self.stop(broken)  # its other workers too are gone then, and hold no run folder any more
                self.executor = self.start()
        self.submit(func, callback, repeats)

    def retrieve_result_callback(self, out: Future) -> Any:
        if out.cancelled():
            raise ConfigError("engine: the connection to the dask scheduler was lost; a rerun does what remains")
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End what runs, as a task has failed or the user has pressed Ctrl-C."""
        with self.lock:
            executor, self.executor = self.executor, None
        if executor is not None:
            self.stop(executor)
        self.nurse.submit(int).result()  # what it had in hand is dropped, as there is no executor
        if ensure_ready:
            self.start_call()

    def __enter__(self) -> "Futures":
        return self

    def __exit__(self, *_: object) -> None:
        self.abort_everything(ensure_ready=False)
        self.nurse.shutdown()


def _died(func: Any) -> str:
    """What to say of a task whose workers died."""
    short = reprlib.Repr()
    short.maxother = short.maxstring = 120
    function, args, kwargs = func.items[0]
    whose = f"{short.repr(function.__self__)}." if hasattr(function, "__self__") else ""
    given = [short.repr(value) for value in args] + [f"{key}={short.repr(value)}" for key, value in kwargs.items()]
    return (
        f"engine: worker processes were killed {REPEATS + 1} times while at {whose}{function.__name__}"
        f"({', '.join(given)}). Usually memory does not suffice: take fewer workers on a machine, or more memory a "
        "job. What was stored stays; a rerun does the rest"
    )


# ---- the engines -----------------------------------------------------------------------------------------------------


@contextmanager
def _serial(parameters: EngineParameters) -> Iterator[str]:
    yield "sequential"


@contextmanager
def _processes(parameters: EngineParameters) -> Iterator[Futures]:
    threads = dict.fromkeys(ParallelBackendBase.MAX_NUM_THREADS_VARS, "1")  # also of libraries that tasks load later
    start = partial(ProcessPoolExecutor, parameters.workers, env=threads, initializer=follow, initargs=(os.getpid(),))
    stop = partial(ProcessPoolExecutor.shutdown, kill_workers=True)
    with Futures(start, stop, parameters.workers, TerminatedWorkerError, REPEATS) as backend:
        yield backend


@contextmanager
def _dask(parameters: EngineParameters) -> Iterator[Futures]:
    distributed, address = _imported("distributed"), parameters.address
    if address is not None:
        with _workers(address, parameters, lambda: "start some there") as backend:
            yield backend
        return
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for the driver alone
    with (
        _imported("dask").config.set(DASK),
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, memory_limit=0, dashboard_address=None, preload=[deaf]
        ) as cluster,
        _workers(cluster, parameters, lambda: "this machine may be too busy") as backend,
    ):
        yield backend


@contextmanager
def _slurm(parameters: EngineParameters) -> Iterator[Futures]:
    slurm = parameters.slurm
    _imported("dask_jobqueue")
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "engine.kind: slurm submits jobs by sbatch, which is not on this machine; start where it is, or choose "
            "another kind"
        )
    slurm.logs.mkdir(parents=True, exist_ok=True)
    with (
        _imported("dask").config.set(DASK),
        _submitting(slurm) as cluster,
        _workers(cluster, parameters, partial(_queue, slurm)) as backend,
    ):
        yield backend


@contextmanager
def _submitting(slurm: SlurmParameters) -> Iterator[Any]:
    """A dask cluster whose workers are jobs, which sbatch would take."""
    try:
        cluster = _imported("dask_jobqueue").SLURMCluster(
            queue=slurm.queue,
            account=slurm.account,
            walltime=str(slurm.walltime),
            memory=f"{slurm.memory}GB",
            cores=1,
            processes=1,
            interface=slurm.interface,
            python=shlex.quote(sys.executable),
            job_extra_directives=[f'--output="{slurm.logs}/%j.log"', *slurm.directives],
            scheduler_options={"dashboard_address": None},
        )
    except RuntimeError as error:  # an interface that is not there
        raise ConfigError(f"engine.slurm: {error}") from error
    with cluster:
        trial = subprocess.run(["sbatch", "--test-only"], input=cluster.job_script(), text=True, capture_output=True)
        if trial.returncode:
            raise ConfigError(f"engine.slurm: sbatch refuses the job: {trial.stderr.strip()}")
        yield cluster


def _queue(slurm: SlurmParameters) -> str:
    """What the queue says, for want of workers."""
    queue = subprocess.run(["squeue", "--me"], text=True, capture_output=True)
    return f"squeue says\n{(queue.stdout + queue.stderr).rstrip()}\nand {slurm.logs} has what jobs said that ran"


@contextmanager
def _workers(cluster: Any, parameters: EngineParameters, advice: Callable[[], str]) -> Iterator[Futures]:
    """The workers of a dask cluster, or of the scheduler at an address, as soon as the first of them is there."""
    distributed, n, wait = _imported("distributed"), parameters.workers, parameters.wait
    try:
        # not the default client: dask's users, such as xarray, keep their own scheduler
        client = distributed.Client(cluster, timeout=min(wait, 10), set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"engine.address: no dask scheduler answers at {cluster}: {error}") from error
    with client:
        if cluster is not parameters.address:
            cluster.adapt(minimum=n, maximum=n)  # starts them, and others for those that are lost for good
        try:
            client.wait_for_workers(1, timeout=wait)
        except TimeoutError:
            raise ConfigError(f"engine.wait: 0 of {n} workers came in {wait} s; {advice()}") from None
        for name, n_threads in client.nthreads().items():
            if n_threads > 1:
                raise ConfigError(
                    f"engine.address: worker {name} runs {n_threads} tasks at once, which would share the threads of "
                    "its process; start workers with --nthreads 1"
                )
        start = partial(client.get_executor, pure=False)
        with Futures(start, lambda tasks: tasks.shutdown(wait=False), n, distributed.KilledWorker, 0) as backend:
            yield backend


def _imported(package: str) -> Any:
    ours = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"engine.kind: dask and slurm need the package {package}, which is not installed ({error}); run "
            "pip install 'compute-alike[cluster]', or poetry install --all-extras in the project's folder"
        ) from error
    finally:
        if signal.getsignal(signal.SIGINT) is not ours:  # dask_jobqueue has Ctrl-C end the program as if all were well
            signal.signal(signal.SIGINT, ours)
