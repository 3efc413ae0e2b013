"""How well networks learn, and what that costs: ``python -m benchmarks.learning [--seeds 3] [preset ...]``.

Each preset trains an ensemble for each seed, in a run folder under results/benchmarks/learning: what is there already
is read, and what was cut short goes on.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.peer import ROOT
from multitask import RULES, NetworkParameters, Run, TrainingParameters, train

FOLDER = ROOT / "results" / "benchmarks" / "learning"
FAST = NetworkParameters(activation="relu", w_rec_scale=0.9, dt=50.0)
RECIPE = TrainingParameters(learning_rate=3e-3, schedule="cosine", warm_up=0.03, clip="norm", evaluate_every=1000)


@dataclass(frozen=True)
class Preset:
    """What is trained, and what it should reach: mean and worst rule of every network."""

    rules: tuple[str, ...]
    network: NetworkParameters
    training: TrainingParameters
    n_networks: int
    mean: float = 0.0
    worst: float = 0.0


PRESETS = {
    "six-rules": Preset(
        ("fdgo", "delaygo", "delayanti", "dm1", "contextdm1", "dmcgo"),
        dataclasses.replace(FAST, n_rnn=64),
        dataclasses.replace(RECIPE, n_steps=2800, difficulty="easy"),
        n_networks=4,
        worst=0.95,
    ),
    "easy-to-standard": Preset(  # the same rules, learnt and tested at the standard difficulty
        ("fdgo", "delaygo", "delayanti", "dm1", "contextdm1", "dmcgo"),
        dataclasses.replace(FAST, n_rnn=64),
        dataclasses.replace(
            RECIPE, n_steps=2800, difficulty="easy_to_standard", rule_weights={"dm1": 2.0, "contextdm1": 2.0}
        ),
        n_networks=4,
        worst=0.90,
    ),
    "twenty-rules": Preset(
        RULES,
        dataclasses.replace(FAST, n_rnn=128),
        dataclasses.replace(RECIPE, n_steps=9000, difficulty="easy_to_standard"),
        n_networks=3,
        mean=0.93,
        worst=0.75,
    ),
    "paper": Preset(  # its own settings, the first 300 of 156 251 steps
        RULES,
        NetworkParameters(),
        TrainingParameters(
            n_steps=300, rule_weights={"contextdm1": 5.0, "contextdm2": 5.0}, evaluate_every=300, n_test_batches=4
        ),
        n_networks=2,
    ),
}


def learn(name: str, seed: int) -> Run:
    """The run of a preset, trained if it is not there yet."""
    preset = PRESETS[name]
    return train(
        preset.rules,
        preset.network,
        preset.training,
        run_folder=FOLDER / f"{name}_{seed}",
        n_networks=preset.n_networks,
        seed=seed,
    )


def row(name: str, seed: int) -> str:
    """A line of the table."""
    preset, run = PRESETS[name], learn(name, seed)
    first, last = (run.log[run.log["step"] == step] for step in (0, run.log["step"].max()))
    mean = last.groupby("network")["performance"].mean()
    worst = last.loc[last.groupby("network")["performance"].idxmin()]
    steps, seconds = int(last["step"].max()), last["cpu_seconds"].max() / preset.n_networks
    met = "met" if mean.min() >= preset.mean and worst["performance"].min() >= preset.worst else "**missed**"
    hours = seconds / steps * TrainingParameters().n_steps / 3600
    cells = (
        f"{name}, {preset.network.n_rnn} units",
        f"{seed}",
        f"{preset.n_networks} x {steps}",
        f"{seconds:.0f}",
        f"{first['loss'].mean():.2g} to {last['loss'].mean():.2g}",
        " ".join(f"{value:.3f}" for value in mean),
        ", ".join(f"{value:.3f} {rule}" for rule, value in zip(worst["rule"], worst["performance"], strict=True)),
        f"{preset.mean:g} / {preset.worst:g}, {met}" if preset.worst else f"{hours:.1f} h for the paper's steps",
    )
    return f"| {' | '.join(cells)} |"


def table(names: list[str], n_seeds: int) -> Iterator[str]:
    """Line by line, as the runs end."""
    yield "| preset | seed | networks x steps | CPU s a network | loss | mean | worst rule | target: mean / worst |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in names:
        for seed in range(1 if name == "paper" else n_seeds):
            yield row(name, seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning",
        description="Trains presets and prints what they learnt and what it took, on one thread. About half an hour.",
    )
    parser.add_argument("presets", nargs="*", metavar="preset", help=f"some of: {', '.join(PRESETS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each preset (default: 3)")
    arguments = parser.parse_args()
    if unknown := set(arguments.presets) - set(PRESETS):
        parser.error(f"unknown preset {', '.join(sorted(unknown))}; there are {', '.join(PRESETS)}")
    torch.set_num_threads(1)
    for line in table(arguments.presets or list(PRESETS), arguments.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
