"""python -m benchmarks.resumed [--systems 1000] [--kills 10] [--certificate fast]

Compares many systems by two workers with a store, kills all processes at random moments, starts again, and compares the
result with that of a run that was left alone. Prints the time, the memory of all processes together and the size of the
store. The operators (rank 10) are those of random networks; networks that share weights differ in their recordings.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from benchmarks.peer import ROOT
from benchmarks.work import network_activity
from dsa_analysis import Similarity, compare, fit_operator
from workbench.engine import engine
from workbench.settings import load_settings

FOLDER = ROOT / "results" / "benchmarks" / "resumed"
RANK, N_DELAYS, SHAPE = 10, 10, (20, 200, 24)


def operators(n_systems: int) -> Path:
    """Operators of the recordings, (n_systems, n, n), kept between calls."""
    path = FOLDER / f"operators_{n_systems}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fits = (fit_operator(network_activity(SHAPE, k), n_delays=N_DELAYS, rank=RANK) for k in range(n_systems))
        np.save(path, np.stack([fit.matrix.numpy() for fit in fits]))
    return path


def once(source: Path, store: Path, certificate: str) -> None:
    """Compare all, in this process and its two workers."""
    systems = {f"{k:04d}": matrix for k, matrix in enumerate(np.load(source))}
    parameters = replace(load_settings().engine, kind="processes", workers=2)
    with engine(parameters):
        compare(systems, certificate=certificate, store=store, progress=False).save(store.with_suffix(".nc"))


class Watch(threading.Thread):
    """The most memory (proportional set size, MB) that a process and its children have had at once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak = psutil.Process(pid), 0.0
        self.start()

    def run(self) -> None:
        while self.process.is_running():
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(one.memory_full_info().pss for one in family) / 1e6)
            except psutil.Error:
                pass
            time.sleep(0.5)


def begin(source: Path, store: Path, certificate: str) -> subprocess.Popen:
    arguments = ["--once", str(source), str(store), "--certificate", certificate]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.resumed", *arguments], start_new_session=True)


def whole(source: Path, store: Path, certificate: str) -> tuple[float, float, float]:
    """Wall and CPU seconds and memory in MB of a run to its end."""
    before, started = os.times(), time.perf_counter()
    process = begin(source, store, certificate)
    watch = Watch(process.pid)
    if process.wait():
        raise SystemExit(f"the comparison ended with code {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu, watch.peak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resumed", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--systems", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--certificate", default="fast")
    parser.add_argument("--once", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        once(*arguments.once, arguments.certificate)
        return
    source, n = operators(arguments.systems), arguments.systems
    quiet, killed = FOLDER / "quiet", FOLDER / "killed"
    for store in (quiet, killed):
        shutil.rmtree(store, ignore_errors=True)
    wall, cpu, megabytes = whole(source, quiet, arguments.certificate)
    disk = sum(path.stat().st_size for path in quiet.rglob("*")) / 1e6
    print(f"{n} systems, rank {RANK}, {n * (n - 1) // 2} pairs, certificate {arguments.certificate}, 2 workers")
    print(f"left alone: {wall:.0f} s, {cpu:.0f} CPU s, {megabytes:.0f} MB in all processes, {disk:.1f} MB stored")

    moments = np.random.default_rng(arguments.seed).uniform(5, 2 * wall / max(arguments.kills, 1), arguments.kills)
    for moment in moments:
        process = begin(source, killed, arguments.certificate)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wall, cpu, megabytes = whole(source, killed, arguments.certificate)
    found, expected = (Similarity.load(store.with_suffix(".nc")) for store in (killed, quiet))
    parts = ("distances", "lower_bounds", "agreement", "converged")
    equal = all(np.array_equal(getattr(found, part), getattr(expected, part)) for part in parts)
    print(f"killed {len(moments)} times, after {', '.join(f'{moment:.0f}' for moment in moments)} s; the last run took")
    print(f"{wall:.0f} s, {cpu:.0f} CPU s, {megabytes:.0f} MB; bit-equal: {equal}")


if __name__ == "__main__":
    main()
