"""python -m benchmarks.flip_flop [--seeds 0 1] [--cells Tanh GRU] [--sizes 64] [--controls]

Networks with known answers: 3-bit flip-flops (Sussillo and Barak 2013) have 2^3 stable fixed points, whatever the cell.
The first table counts them. With ``--controls``, networks of all cells also learn other memories of the same inputs,
and the second table says how well distances tell tasks apart, whatever the cell: the AUROC of pairs of the same task in
different cells against pairs of different tasks, by DSA at the automatic horizon, CKA and Procrustes.

Networks are stored under results/benchmarks/flip_flop: what is there already is read, and what was cut short goes on.
"""

import argparse
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.peer import ROOT
from dsa_analysis import auroc_interval, compare
from multitask import (
    FlipFlop,
    NetworkParameters,
    Run,
    Task,
    TrainingParameters,
    TrialBatch,
    find_fixed_points,
    record_activity,
    train,
)

FOLDER = ROOT / "results" / "benchmarks" / "flip_flop"
CELLS = ("LeakyRNN", "Tanh", "GRU", "LSTM")
SIZES = (32, 64)
KINDS = ("three bits", "two bits", "leaky", "analogue")
TRAINING = TrainingParameters(
    n_steps=600, batch_size=64, learning_rate=0.003, schedule="cosine", clip="norm", loss_type="mean_square",
    evaluate_every=200, n_test_batches=2,
)  # fmt: skip
DT, TAU = 20.0, 40.0  # ms
DECAY = 300.0  # ms, of the leaky memory
TEST = 4321  # seed of the trials on which networks are tested and compared


@dataclass(frozen=True)
class Memory(FlipFlop):
    """What is kept of pulses of the same inputs.

    ``kind`` is "two bits" (the third output stays 0), "leaky" (outputs decay after a pulse) or "analogue" (each pulse s
    changes its output to (y + s) / 2, which is then held). "three bits" is the flip-flop.
    """

    kind: str = "three bits"
    name: str = "memory"

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of trials with the inputs of `FlipFlop`."""
        batch = super().draw(n_trials, dt=dt, generator=generator)
        targets, x = batch.targets.clone(), batch.inputs
        if self.kind == "two bits":
            targets[..., -1] = 0
        if self.kind in ("leaky", "analogue"):
            begins = (x != 0) & (torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1) != x)
            y = torch.zeros_like(x[:, 0])
            for t in range(batch.n_times):
                kept = y * (1 - dt / DECAY) if self.kind == "leaky" else y
                y = torch.where(begins[:, t], x[:, t] if self.kind == "leaky" else (y + x[:, t]) / 2, kept)
                targets[:, t] = y
        return self.batch(x, targets, dt=dt, cost_mask=batch.cost_mask)


def learn(kind: str, cell: str, size: int, seed: int) -> tuple[Run, Task]:
    """A trained network, and its task."""
    task = Memory(kind=kind)
    network = NetworkParameters(n_rnn=size, rnn_type=cell, activation="tanh", dt=DT, tau=TAU, sigma_rec=0.0,
                                w_rec_init="randgauss", **task.sizes)  # fmt: skip
    folder = FOLDER / f"{kind.replace(' ', '_')}_{cell}_{size}_{seed}"
    return train([task], network, TRAINING, run_folder=folder, seed=seed, progress=False), task


def error(run: Run, task: Task) -> float:
    """Mean square error over what counts, on fresh trials."""
    batch = task.draw(256, dt=DT, generator=torch.Generator().manual_seed(TEST))
    with torch.no_grad():
        outputs = run.network.logits(batch.inputs)[0][0]  # linear
    return float(((outputs - batch.targets).square() * batch.cost_mask).sum() / batch.cost_mask.sum())


def n_stable(run: Run, task: Task, n_starts: int = 200) -> int:
    """Number of stable fixed points without input, found from states of trials."""
    batch = task.draw(n_starts, dt=DT, generator=torch.Generator().manual_seed(TEST))
    with torch.no_grad():
        starts = run.network.states(batch.inputs)[:, :, -1]
    points = find_fixed_points(run.network, torch.zeros(task.n_input), starts, slowest=1e-4, apart=0.1)
    return int((points.fixed & (points.n_unstable == 0)).sum())


def known_answers(cells: Sequence[str], sizes: Sequence[int], seeds: Sequence[int]) -> Iterator[str]:
    """A line for each cell and size."""
    yield "| cell | units | n | mean square error | below .01 | CPU s a network | stable fixed points | with 8 |"
    yield "|---|---|---|---|---|---|---|---|"
    for cell, size in itertools.product(cells, sizes):
        runs = [learn("three bits", cell, size, seed) for seed in seeds]
        errors, counts = [error(*run) for run in runs], [n_stable(*run) for run in runs]
        seconds = [run.log["cpu_seconds"].max() for run, _ in runs]
        yield (
            f"| {cell} | {size} | {len(seeds)} | {' '.join(f'{e:.4f}' for e in errors)} "
            f"| {sum(e < 0.01 for e in errors)} of {len(errors)} | {' '.join(f'{s:.0f}' for s in seconds)} "
            f"| {' '.join(map(str, counts))} | {sum(c == 8 for c in counts)} of {len(counts)} |"
        )


def controls(cells: Sequence[str], size: int, seeds: Sequence[int]) -> Iterator[str]:
    """A line for each measure: AUROC over networks of one size, each seed by itself and all seeds together."""
    yield "| measure | systems | AUROC by seed | all seeds: AUROC, 95 % interval over networks |"
    yield "|---|---|---|---|"
    systems = {}
    for seed, kind, cell in itertools.product(seeds, KINDS, cells):
        run, task = learn(kind, cell, size, seed)
        systems[f"{kind} {cell} {seed}"] = record_activity(run.network, task, 48, seed=TEST).hidden[0].double()
    measures = {
        "DSA, automatic horizon": {"n_delays": "auto", "rank": "auto", "horizon": "auto", "dt": DT},
        "CKA": {"metric": "cka"},
        "Procrustes": {"metric": "procrustes"},
    }
    kinds = [kind for _, kind, _ in itertools.product(seeds, KINDS, cells)]
    for name, how in measures.items():
        found = compare(systems, progress=False, **how)
        each = len(kinds) // len(seeds)
        blocks = [slice(k * each, (k + 1) * each) for k in range(len(seeds))]
        alone = [auroc_interval(found.distances[at, at], kinds[at]).mean for at in blocks]
        whole = auroc_interval(found, kinds)
        made = found.comparison
        chosen = f" ({made.horizon:g} ms, {made.n_delays} delays, rank {made.rank})" if "horizon" in how else ""
        yield (
            f"| {name}{chosen} | {len(systems)} | {' '.join(f'{a:.2f}' for a in alone)} "
            f"| {whole.mean:.2f}, {whole.low:.2f} to {whole.high:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flip_flop", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="one network of each kind for each")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--controls", action="store_true", help="also other memories, and how they are told apart")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in known_answers(arguments.cells, arguments.sizes, arguments.seeds):
        print(line, flush=True)
    if arguments.controls:
        for line in controls(arguments.cells, max(arguments.sizes), arguments.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
