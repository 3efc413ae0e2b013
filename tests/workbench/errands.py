"""Tasks for workers, in a module that imports fast; and a program that starts drivers, to be stopped and killed.

For each line "KIND FOLDER N_TASKS" of its input the program forks a driver into a new session (which saves the imports)
and prints its process id. When the driver has ended, it prints its exit status.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from joblib import Parallel, delayed


def errand(folder: Path, n: int, seconds: float = 0.3) -> int:
    """Write a file whose content depends on n, unless it exists; record each start and the process id."""
    path = folder / f"{n}.npy"
    if not path.exists():
        with (folder / "starts").open("a") as file:
            file.write(f"{n} {os.getpid()}\n")
        time.sleep(seconds)
        temporary = path.with_suffix(f".{os.getpid()}")
        with temporary.open("wb") as file:
            np.save(file, np.linalg.inv(np.random.default_rng(n).standard_normal((100, 100))))
        os.replace(temporary, path)
    return n


def errands(folder: Path, n_tasks: int, seconds: float = 0.3) -> list[int]:
    """Run all errands, in any order."""
    tasks = (delayed(errand)(folder, n, seconds) for n in range(n_tasks))
    return list(Parallel(return_as="generator_unordered")(tasks))


def torch_sums() -> tuple[list[float], int, int]:
    """Sums whose last bits depend on the number of threads, that number, and the process id."""
    import torch

    x = torch.randn(4, 1_000_000, generator=torch.Generator().manual_seed(0))
    return [row.exp().sum().item() for row in x], torch.get_num_threads(), os.getpid()


def trained(folder: Path) -> str:
    """SHA-256 of a network's weights after some steps of training, stored in a folder."""
    from multitask import NetworkParameters, TrainingParameters, train
    from multitask.storage import tensors_sha256

    network, training = NetworkParameters(n_rnn=8), TrainingParameters(n_steps=6, batch_size=4, evaluate_every=6)
    run = train(["fdgo"], network, training, run_folder=folder, seed=0, progress=False)
    return tensors_sha256(run.network.weights)


def killing(n: int, killer: int) -> int:
    if n == killer:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def failing(n: int) -> int:
    if n == 1:
        raise ValueError("one is no good")
    return n


def engine_parameters(kind: str, folder: Path, **changes):
    from workbench.settings import EngineParameters, SlurmParameters

    slurm = {"queue": None, "account": None, "walltime": 10, "memory": 0.9, "interface": "lo", "directives": ()}
    slurm |= {"logs": folder / "logs"} | changes.pop("slurm", {})
    values = {"kind": kind, "workers": 2, "address": None, "wait": 100} | changes
    return EngineParameters(**values, slurm=SlurmParameters(**slurm))


def drive(kind: str, folder: str, n_tasks: str) -> None:
    """Run a driver, described by a line of input."""
    from workbench.engine import engine

    with engine(engine_parameters(kind, Path(folder))):
        errands(Path(folder), int(n_tasks))


if __name__ == "__main__":
    # replaces workbench.settings, which takes seconds to import, by the three names that drivers need
    names = {"EngineParameters": SimpleNamespace, "SlurmParameters": SimpleNamespace, "ConfigError": RuntimeError}
    sys.modules["workbench.settings"] = SimpleNamespace(**names)
    import workbench.engine  # noqa: F401  (once for all drivers)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background

    for line in sys.stdin:
        if not (pid := os.fork()):
            os.setsid()
            try:
                drive(*line.split())
            except KeyboardInterrupt:
                sys.exit(130)
            sys.exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
