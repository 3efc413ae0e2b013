"""python -m benchmarks [--quick] [block ...]; the blocks are the keys of BLOCKS."""

import argparse
import datetime
import platform
from types import ModuleType

import torch
from tqdm import tqdm

from benchmarks import all_pairs, certificates, fits, never_worse, pairs, paths, table, training_step, trials
from benchmarks.measure import calibrate
from benchmarks.peer import ROOT

BLOCKS: dict[str, ModuleType] = {
    "pairs": pairs,
    "paths": paths,
    "certificates": certificates,
    "never-worse": never_worse,
    "fits": fits,
    "all-pairs": all_pairs,
    "training-step": training_step,
    "trials": trials,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times this project against its peers: the same work, one run, one thread, CPU seconds. "
        "Peers get virtual environments of their own under results/peers. About an hour, nearly all of it the peer's.",
    )
    parser.add_argument("blocks", nargs="*", metavar="block", help=f"some of: {', '.join(BLOCKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes only, about a minute")
    arguments = parser.parse_args()
    if unknown := set(arguments.blocks) - set(BLOCKS):
        parser.error(f"unknown block {', '.join(sorted(unknown))}; there are {', '.join(BLOCKS)}")

    started = datetime.datetime.now()
    path = ROOT / "results" / "benchmarks" / f"{started:%Y-%m-%d_%H%M%S}.csv"
    calibrate()  # the first call loads libraries
    rows, calibrations = [], [calibrate()]
    names = arguments.blocks or list(BLOCKS)
    for name in names:
        chosen = BLOCKS[name].cases(arguments.quick)
        for new in tqdm(BLOCKS[name].run(chosen), desc=name, total=len(chosen), unit="case"):
            rows += new
            calibrations.append(calibrate())
            noise = max(calibrations) / min(calibrations) - 1
            table.save(rows, noise, path)
    print(table.markdown(rows))
    print(
        f"\n{started:%Y-%m-%d}, CPU time of one thread, {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}. Peers: {'; '.join(dict.fromkeys(BLOCKS[name].PEER for name in names))}.\n"
        f"A fixed matrix product varied by {100 * noise:.0f} % between the cases. Saved as {path.relative_to(ROOT)}."
    )


if __name__ == "__main__":
    main()
