"""Runs independent tasks here, in processes, on a dask cluster, or as SLURM jobs.

    with engine(settings.engine):
        ...  # code that runs its tasks with joblib.Parallel

Results are the same with every engine, bit for bit, because each task computes with one thread.

If a worker dies (out of memory, a failing node), its task runs again. With ``processes`` the tasks of the other workers
run again too, because their pool ends with it. If the workers of one task die repeatedly, the run ends with an error
that names the task. Results stored until then are kept. A rerun does only the remaining work if tasks look for their
own finished results (a run folder, a file).

Ctrl-C ends all workers and removes jobs from the queue. If the driver is killed, its processes end within a second. Its
jobs end when they lose the scheduler, or a minute after their start.
"""

import asyncio
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

LOOPBACK = "127.0.0.1:0"  # of the scheduler's pages, which nobody on the network needs to see
REPEATS = 3  # how often a task runs again after its worker died; the default of dask
DASK = {
    "distributed.scheduler.worker-saturation": 1.0,  # one task per worker, so that its death counts for that task
    "distributed.deploy.lost-worker-timeout": "60 s",  # wait for a worker that restarts before starting another
}


@contextmanager
def engine(parameters: EngineParameters) -> Iterator[None]:
    """Run the tasks of joblib.Parallel on the engine that ``parameters.kind`` names, until the block ends.

    Raises
    ------
    ConfigError
        On entry: a missing package, no SLURM, no answer from the scheduler, a job that sbatch refuses, or no workers
        in time. Inside: a task whose workers died repeatedly, or a lost connection to the scheduler.
    """
    start = {"serial": _serial, "processes": _processes, "dask": _dask, "slurm": _slurm}[parameters.kind]
    with one_thread(), start(parameters) as backend, parallel_config(backend):
        yield


class Futures(ParallelBackendBase):
    """Runs the tasks of joblib.Parallel as futures of an executor, and repeats tasks whose worker died.

    joblib's own backends cannot be used: with loky the death of a worker ends the call, and with dask a task that the
    scheduler gives up on is waited for without end.

    Parameters
    ----------
    start : callable, () -> Executor
    stop : callable, (Executor) -> None
        Ends an executor and the tasks that it still runs.
    n_workers : int >= 1
    given_up : type of exception
        Raised by the future of a task whose worker died.
    repeats : int >= 0
        How often such a task runs again on a new executor; 0 if the executor repeats tasks itself.
    """

    supports_retrieve_callback = True  # generators need it

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
        self.executor: Executor | None = None  # None outside of calls, and after a call was aborted
        self.lock = threading.Lock()  # guards the executor: tasks are submitted from several threads
        self.nurse = ThreadPoolExecutor(1)  # resubmits: an executor cannot be ended from its own callback thread

    def effective_n_jobs(self, n_jobs: int) -> int:
        return max(2, self.n_workers)  # with 1, joblib would run the tasks itself

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
            except self.given_up as error:  # a worker died in the meantime
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
                self.stop(broken)  # also ends its other workers, which would still hold run folders
                self.executor = self.start()
        self.submit(func, callback, repeats)

    def retrieve_result_callback(self, out: Future) -> Any:
        if out.cancelled():
            raise ConfigError("engine: the connection to the dask scheduler was lost; run again to do the rest")
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End all tasks after one has failed or the user has pressed Ctrl-C."""
        with self.lock:
            executor, self.executor = self.executor, None
        if executor is not None:
            self.stop(executor)
        self.nurse.submit(int).result()  # wait until pending repeats are dropped: there is no executor now
        if ensure_ready:
            self.start_call()

    def __enter__(self) -> "Futures":
        return self

    def __exit__(self, *_: object) -> None:
        self.abort_everything(ensure_ready=False)
        self.nurse.shutdown()


def _died(func: Any) -> str:
    """The error message for a task whose workers died repeatedly."""
    short = reprlib.Repr()
    short.maxother = short.maxstring = 120
    function, args, kwargs = func.items[0]
    whose = f"{short.repr(function.__self__)}." if hasattr(function, "__self__") else ""
    given = [short.repr(value) for value in args] + [f"{key}={short.repr(value)}" for key, value in kwargs.items()]
    return (
        f"engine: worker processes were killed {REPEATS + 1} times while running {whose}{function.__name__}"
        f"({', '.join(given)}). Usually there is too little memory: use fewer workers per machine, or more memory per "
        "job. Stored results are kept; run again to do the rest"
    )


# ---- the engines -----------------------------------------------------------------------------------------------------


@contextmanager
def _serial(parameters: EngineParameters) -> Iterator[str]:
    yield "sequential"


@contextmanager
def _processes(parameters: EngineParameters) -> Iterator[Futures]:
    threads = dict.fromkeys(ParallelBackendBase.MAX_NUM_THREADS_VARS, "1")  # also for libraries that tasks load later
    start = partial(ProcessPoolExecutor, parameters.workers, env=threads, initializer=follow, initargs=(os.getpid(),))
    stop = partial(ProcessPoolExecutor.shutdown, kill_workers=True)
    with Futures(start, stop, parameters.workers, TerminatedWorkerError, REPEATS) as backend:
        yield backend


@contextmanager
def _dask(parameters: EngineParameters) -> Iterator[Futures]:
    distributed, address = _imported("distributed"), parameters.address
    if address is not None:
        # with a loop of its own, which a client closes that finds no scheduler
        with _workers(address, None, parameters, lambda: f"start workers of {address}") as backend:
            yield backend
        return
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # only the driver handles Ctrl-C
    with (
        _imported("dask").config.set(DASK),
        _loop() as loop,
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, memory_limit=0, dashboard_address=LOOPBACK, preload=[deaf], loop=loop
        ) as cluster,
        _workers(cluster, loop, parameters, lambda: "this machine may be too busy") as backend,
    ):
        yield backend


@contextmanager
def _slurm(parameters: EngineParameters) -> Iterator[Futures]:
    slurm = parameters.slurm
    _imported("dask_jobqueue")
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "engine.kind: slurm submits jobs with sbatch, which this machine does not have; run on a login node of the "
            "cluster, or choose another kind"
        )
    slurm.logs.mkdir(parents=True, exist_ok=True)
    with (
        _imported("dask").config.set(DASK),
        _loop() as loop,
        _submitting(slurm, loop) as cluster,
        _workers(cluster, loop, parameters, partial(_queue, slurm)) as backend,
    ):
        yield backend


@contextmanager
def _submitting(slurm: SlurmParameters, loop: Any) -> Iterator[Any]:
    """A dask cluster whose workers are SLURM jobs. Checks that sbatch accepts them."""
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
            scheduler_options={"dashboard_address": LOOPBACK},
            loop=loop,
        )
    except RuntimeError as error:  # the network interface does not exist
        raise ConfigError(f"engine.slurm: {error}") from error
    with cluster:
        trial = subprocess.run(["sbatch", "--test-only"], input=cluster.job_script(), text=True, capture_output=True)
        if trial.returncode:
            raise ConfigError(f"engine.slurm: sbatch refuses the job: {trial.stderr.strip()}")
        yield cluster


def _queue(slurm: SlurmParameters) -> str:
    """The state of the queue, for the error that no workers came."""
    queue = subprocess.run(["squeue", "--me"], text=True, capture_output=True)
    return f"squeue says\n{(queue.stdout + queue.stderr).rstrip()}\nand the logs of jobs that ran are in {slurm.logs}"


@contextmanager
def _loop() -> Iterator[Any]:
    """An event loop in a thread of its own.

    distributed starts one by itself, but fails if it does not run within ten seconds, as on a machine that stalls.
    """
    current: Callable[[], Any] = _imported("tornado.ioloop").IOLoop.current
    ready: Future[tuple[Any, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        ready.set_result((current(), stop))
        await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="event loop of the cluster", daemon=True)
    thread.start()
    loop, stop = ready.result()
    try:
        yield loop
    finally:
        loop.add_callback(stop.set)
        thread.join()


@contextmanager
def _workers(cluster: Any, loop: Any, parameters: EngineParameters, advice: Callable[[], str]) -> Iterator[Futures]:
    """The workers of a dask cluster, or of the scheduler at an address, once the first of them has connected."""
    distributed, n, wait = _imported("distributed"), parameters.workers, parameters.wait
    try:
        # not the default client, so that libraries that use dask, such as xarray, keep their own scheduler
        client = distributed.Client(cluster, timeout=min(wait, 10), set_as_default=False, loop=loop)
    except (OSError, ValueError) as error:
        raise ConfigError(f"engine.address: no dask scheduler answers at {cluster}: {error}") from error
    with client:
        if cluster is not parameters.address:
            cluster.adapt(minimum=n, maximum=n)  # starts them, and replaces those that are lost
        try:
            client.wait_for_workers(1, timeout=wait)
        except TimeoutError:
            raise ConfigError(f"engine.wait: 0 of {n} workers connected within {wait} s; {advice()}") from None
        for name, n_threads in client.nthreads().items():
            if n_threads > 1:
                raise ConfigError(
                    f"engine.address: worker {name} runs {n_threads} tasks at once, which would share the threads of "
                    "one process; start workers with --nthreads 1"
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
        if signal.getsignal(signal.SIGINT) is not ours:  # dask_jobqueue makes Ctrl-C exit with status 0
            signal.signal(signal.SIGINT, ours)
