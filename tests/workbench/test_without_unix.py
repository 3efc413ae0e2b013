"""What Windows lacks is taken away from a process on Unix: each command does its work there all the same.

No part of this runs on Windows; docs/limits.md says what to expect.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import nbformat.v4 as v4
import numpy as np
import pytest

PROJECT = Path(__file__).parents[2]
# libraries that choose their ways by the system, as they are imported, come first
POORER = """
import asyncio, os, signal, sys
import filelock, nbclient, torch
import workbench.notebooks

def no_handlers(self, *_):
    raise NotImplementedError

for loop in (asyncio.BaseEventLoop, asyncio.SelectorEventLoop):
    loop.add_signal_handler = loop.remove_signal_handler = no_handlers
for name in [name for name in vars(signal) if name in ("SIGALRM", "SIGKILL", "SIGHUP", "setitimer", "ITIMER_REAL")]:
    delattr(signal, name)
del os.sysconf, os.geteuid, os.getuid, os.killpg, os.fork
workbench.notebooks.SOCKETS = False
sys.modules.update(dict.fromkeys(["fcntl", "grp", "pwd", "resource", "termios"]))
"""


def test_compare_train_and_run_need_nothing_that_windows_lacks(config):
    for key, value in (
        ("network", "{n_rnn: 8}"),
        ("training", "{n_steps: 2, evaluate_every: 2, n_test_batches: 1, test_batch_size: 4}"),
    ):
        config.set(f"multitask.{key}", value)
    folder = config.path.parent
    for name in ("first", "second"):
        np.save(folder / f"{name}.npy", np.random.default_rng(len(name)).normal(size=(4, 40, 2)).cumsum(1))
    notebook = v4.new_notebook(cells=[v4.new_code_cell("print('here')")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "own.ipynb")
    code = (
        "from workbench.__main__ import main\n"
        "codes = [main(['compare', 'first.npy', 'second.npy', '--n-delays', '2', '--rank', '2', '--quiet']),\n"
        "         main(['train', '--config', 'config.yaml', '--quiet']),\n"
        "         main(['run', 'own.ipynb', '--config', 'config.yaml', '--quiet'])]\n"
        "print(codes)"
    )
    environment = os.environ | {"COMPUTE_ALIKE_NATIVE": "0", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", POORER + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0]", done.stderr
    assert sorted(path.name for path in (folder / "results/compare").iterdir()) == [
        "distances.csv", "report.html", "similarity.nc",
    ]  # fmt: skip
    assert "here" in (folder / "results/notebooks/own.ipynb").read_text()


@pytest.mark.parametrize("ignored", [False, True])
def test_interruption_ends_the_program_without_an_alarm_clock(ignored):
    """Python ignores exceptions in callbacks of the garbage collector; a moment later the program ends."""
    code = (
        "import signal, sys, time\n"
        "del signal.SIGALRM, signal.setitimer, signal.ITIMER_REAL\n"
        "from workbench.terminal import Stopping\n"
        "class Gone:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "with Stopping():\n"
        "    try:\n"
        f"        {'Gone()' if ignored else 'signal.raise_signal(signal.SIGINT)'}\n"
        "        for _ in range(1000): time.sleep(0.01)\n"
        "    except KeyboardInterrupt:\n"
        "        print('raised')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert (done.returncode, done.stdout, done.stderr) == (
        (130, "", "interrupted\n") if ignored else (0, "raised\n", "")
    )
