"""Other people's packages, each in a virtual environment of its own under results/peers and run as a subprocess.

A peer is never a dependency of this project: its environment is made on first use and kept, its code runs in a worker
process, and only arrays pass between the two (as .npz files without pickled objects, in a temporary folder).
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / "results" / "peers"
TORCH = f"torch=={torch.__version__.split('+')[0]}"  # peers run on the project's


@dataclass(frozen=True)
class Peer:
    """A pinned package, what it needs to run, and the module that runs it."""

    name: str
    version: str
    needs: tuple[str, ...]
    worker: str  # module that runs in its environment

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


DSA_METRIC = Peer(
    name="dsa-metric",
    version="2.0.2",
    needs=(
        TORCH,
        *("numpy", "scipy", "scikit-learn", "matplotlib", "seaborn", "tqdm", "pot", "omegaconf", "pydmd", "optht"),
        *("derivative", "prettytable", "joblib", "pandas"),
    ),
    worker="benchmarks.dsa_metric_worker",
)

NEUROGYM = Peer(
    name="neurogym",
    version="2.3.1",
    needs=(
        TORCH,
        *("numpy==2.2.*", "gymnasium==0.29.*", "matplotlib==3.10.*"),
        *("scipy", "natsort", "pydantic-settings", "loguru", "tqdm", "tomlkit"),
    ),
    worker="benchmarks.neurogym_worker",
)


def prepare_environment(peer: Peer) -> Path:
    """Path of the peer's Python interpreter; its environment is made on the first call and kept while it fits.

    The package itself goes in without its own pins (--no-deps), so that peer and project run on the same torch.
    """
    folder = ENVIRONMENTS / peer.name
    python = folder / "bin" / "python"
    stamp, content = folder / "ready", "\n".join([*peer.needs, f"{peer.name}=={peer.version}"])
    if not stamp.exists() or stamp.read_text() != content:
        print(f"making {folder.relative_to(ROOT)} (once; a minute or two)", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([*install, *peer.needs], check=True)
        subprocess.run([*install, "--no-deps", f"{peer.name}=={peer.version}"], check=True)
        stamp.write_text(content)
    return python


class Worker:
    """The peer's process, as a context: ``with Worker(peer) as run: answer = run("fit", data=..., rank=10)``."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def __enter__(self) -> "Worker":
        python = prepare_environment(self.peer)
        self.folder = tempfile.TemporaryDirectory()
        self.log = Path(self.folder.name, "stderr.txt").open("w+")
        self.process = subprocess.Popen(
            [python, "-m", self.peer.worker],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        return self

    def __call__(self, job: str, **arguments: object) -> dict[str, np.ndarray]:
        """The job's arrays by name. RuntimeError with the worker's last words if it fails."""
        source, target = Path(self.folder.name, "arguments.npz"), Path(self.folder.name, "result.npz")
        np.savez(source, allow_pickle=False, **{name: np.asarray(value) for name, value in arguments.items()})
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):  # a dead worker gives no answer, below
            self.process.stdin.write(f"{job}\t{source}\t{target}\n")
            self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            self.log.seek(0)
            raise RuntimeError(f"{self.peer.name} failed at job {job!r}:\n{self.log.read()[-2000:]}")
        with np.load(target, allow_pickle=False) as result:
            return dict(result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()  # closes its standard input, on which it ends
        self.log.close()
        self.folder.cleanup()
