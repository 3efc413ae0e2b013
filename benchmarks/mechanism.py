"""python -m benchmarks.mechanism [--seeds 1 2 3] [--choice-seed 0] [--workers 2]

The same three rules, learnt equally well by five mechanisms: which distance tells the mechanism? Four networks of each
mechanism learn for each seed. A measure does well if networks of one mechanism are nearer to each other than to others:
AUROC, fraction of nearest neighbours of the same mechanism, and R2 of PERMANOVA, each with Student's interval over
seeds. Delays, rank and horizon of DSA are chosen on the seed of the choice: automatically, from trials without their
kinds, and as the cell of a grid that tells the mechanisms of that seed best.

Trials are matched (the same inputs for all networks) or unmatched (inputs of their own). Static measures need matched
trials; beside unmatched ones they see the grid of test trials, whose times and directions are the same for all.
Private noise is always a network's own. Networks are stored under results/benchmarks/mechanism: what is there already
is read, and what was cut short goes on.
"""

import argparse
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
import torch
from torch import Tensor

from benchmarks.peer import ROOT
from dsa_analysis import Comparison, auroc, choose_embedding, compare, mean_interval, permanova
from multitask import (
    LeakyRNN,
    NetworkParameters,
    Run,
    TrainingParameters,
    evaluate,
    generate_trials,
    make_network,
    train,
)

FOLDER = ROOT / "results" / "benchmarks" / "mechanism"
RULES = ("fdgo", "delaygo", "delayanti")
N_NETWORKS, N_BATCHES, N_TRIALS = 4, 4, 16  # networks of a mechanism; batches of a rule, each with its own event times
RANKS, HORIZONS = (5, 9, 15), (50.0, 100.0, 250.0, 500.0)  # ms; the grid of the best cells, without delays
NOISE, PRIVATE = 0.01, 10_000  # of the inputs; added to the seed of the trials for that of the private noise
LEAST = 0.95  # performance on the worst rule, so that networks differ in mechanism and not in what they can do
BASE = NetworkParameters(n_rnn=64, dt=50.0)
RECIPE = TrainingParameters(
    n_steps=2400, batch_size=64, learning_rate=3e-3, schedule="cosine", warm_up=0.03, clip="norm", evaluate_every=200,
    n_test_batches=4, target_performance=0.985, checkpoint_steps=(),
)  # fmt: skip
Systems = dict[str, list[Tensor]]


@dataclass(frozen=True)
class Mechanism:
    """How networks are made and trained."""

    network: NetworkParameters
    training: TrainingParameters = RECIPE
    mixed: float = 0.0  # strength of random recurrent weights that are added at the start

    def start(self, seed: int) -> LeakyRNN:
        made = make_network(self.network, N_NETWORKS, seed)
        if not self.mixed:
            return made
        loop = made.weights["w_rec"]
        drawn = torch.randn(loop.shape, generator=torch.Generator().manual_seed(seed)) / loop.shape[-1] ** 0.5
        return made.with_weights(made.weights | {"w_rec": loop + self.mixed * drawn})


MECHANISMS = {
    "relu": Mechanism(dataclasses.replace(BASE, activation="relu", w_rec_scale=0.9)),
    "tanh": Mechanism(dataclasses.replace(BASE, activation="tanh", w_rec_scale=1.0)),
    "GRU": Mechanism(dataclasses.replace(BASE, rnn_type="GRU")),
    "low rank": Mechanism(
        dataclasses.replace(BASE, rnn_type="LowRank", activation="relu", w_rec_scale=0.9, cell_options={"rank": 8}),
        dataclasses.replace(RECIPE, n_steps=4000),
    ),
    "frozen": Mechanism(  # near-diagonal random recurrent weights that are never trained
        dataclasses.replace(BASE, activation="relu", w_rec_scale=0.9),
        dataclasses.replace(RECIPE, frozen=("recurrent",), learning_rate=5e-3),
        mixed=0.15,
    ),
}


def learn(kind: str, seed: int) -> Run:
    """Trained networks of one mechanism."""
    torch.set_num_threads(1)
    how = MECHANISMS[kind]
    return train(
        RULES,
        how.network,
        how.training,
        run_folder=FOLDER / f"{kind.replace(' ', '_')}_{seed}",
        n_networks=N_NETWORKS,
        seed=seed,
        start=how.start(seed),
        progress=False,
    )


def performances(seed: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Of each mechanism: performance on the worst rule of each network, on fresh trials, and CPU seconds a network."""
    for kind in MECHANISMS:
        run = learn(kind, seed)
        table = evaluate(run.network, RULES, noise=NOISE, seed=seed).to_dataframe()
        yield kind, table.groupby("network")["performance"].min().to_numpy(), run.log["cpu_seconds"].max() / N_NETWORKS


# ---- what measures see -----------------------------------------------------------------------------------------------


def recorded(seed: int, mode: str, matched: bool) -> Systems:
    """Trials of every network of a seed on all rules, by name; ``mode`` as in `generate_trials`."""
    systems = {}
    for number, (kind, k) in enumerate((kind, k) for kind in MECHANISMS for k in range(N_NETWORKS)):
        network = learn(kind, seed).network.subset([k])
        own = np.random.SeedSequence([seed, 0 if matched else 1 + number]).generate_state(len(RULES) * N_BATCHES)
        noise = torch.Generator().manual_seed(PRIVATE + 100 * seed + number)
        systems[f"{kind} {k}"] = [
            trial.double()
            for rule, drawn in zip(RULES * N_BATCHES, own.tolist(), strict=True)
            for trial in hidden(network, rule, drawn, mode, noise)
        ]
    return systems


@torch.no_grad()
def hidden(network: LeakyRNN, rule: str, seed: int, mode: str, noise: torch.Generator) -> Tensor:
    """(n_trials, n_times, n_units)."""
    p = network.parameters
    batch = generate_trials(rule, N_TRIALS, mode=mode, dt=p.dt, tau=p.tau, noise=NOISE, seed=seed)
    return network(batch.inputs, generator=noise)[1][0]


METRICS = {"angular": "DSA", "frobenius": "DSA, size kept", "spectral": "eigenvalues"}


OURS = (
    "DSA, automatic choice",
    "DSA, size kept, automatic choice",
    "DSA, size kept, best cell",
    "eigenvalues, automatic choice",
)
RIVALS = {
    "CKA": "cka",
    "Procrustes": "procrustes",
    "principal variances": "principal_variances",
    "autocorrelations of units": "autocorrelations",
}
STATIC = ("CKA", "Procrustes")


def measures(chosen: dict[str, Comparison]) -> dict[str, Comparison]:
    """All measures, by name: those that were chosen, and rivals without choices."""
    return chosen | {name: Comparison(metric=metric) for name, metric in RIVALS.items()}


# ---- how well they tell mechanisms -----------------------------------------------------------------------------------


def neighbours(distances: np.ndarray, kinds: Sequence[str]) -> float:
    """Fraction of systems whose nearest other system is of their kind."""
    apart = np.where(np.eye(len(distances), dtype=bool), np.inf, distances)
    return float(np.mean([kinds[near] == kind for near, kind in zip(apart.argmin(1), kinds, strict=True)]))


def related(distances: np.ndarray, kinds: Sequence[str]) -> float:
    """`neighbours` among the two mechanisms that are nearest in kind: relu units, trained or frozen."""
    at = [k for k, kind in enumerate(kinds) if kind in ("relu", "frozen")]
    return neighbours(distances[np.ix_(at, at)], [kinds[k] for k in at])


def explained(distances: np.ndarray, kinds: Sequence[str]) -> float:
    """R2 of PERMANOVA."""
    return float(permanova(distances, kinds, n_permutations=99).r_squared)


SCORES: dict[str, Callable[[np.ndarray, Sequence[str]], float]] = {
    "AUROC": auroc,
    "nearest neighbour": neighbours,
    "R2": explained,
    "nearest neighbour, relu and frozen": related,
}


def scored(seed: int, matched: bool, chosen: dict[str, Comparison]) -> dict[str, dict[str, float]]:
    """All scores of all measures on one seed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    trials, found = recorded(seed, "random", matched), {}
    grid = trials if matched else recorded(seed, "test", matched=True)
    kinds = [name.rsplit(" ", 1)[0] for name in trials]
    for name, how in measures(chosen).items():
        distances = compare(grid if name in STATIC else trials, how=how, progress=False).distances
        found[name] = {score: of(distances, kinds) for score, of in SCORES.items()}
    return found


def chosen_on(seed: int) -> dict[str, Comparison]:
    """Delays, rank and horizon of each metric by the automatic choice, and by the AUROC of mechanisms."""
    systems = recorded(seed, "random", matched=False)
    kinds = [name.rsplit(" ", 1)[0] for name in systems]
    found, auto = {}, {"n_delays": "auto", "rank": "auto", "horizon": "auto"}
    for metric, name in METRICS.items():
        base = Comparison(dt=BASE.dt, metric=metric)
        base = base.override(n_starts=8) if metric != "spectral" else base  # which aligns nothing
        found[f"{name}, automatic choice"] = choose_embedding(systems, base, **auto, progress=False).how
        if metric != "spectral":
            cells = [base.override(n_delays=1, rank=rank, horizon=h) for rank in RANKS for h in HORIZONS]
            scores = [auroc(compare(systems, how=cell, progress=False), kinds) for cell in cells]
            found[f"{name}, best cell"] = cells[int(np.argmax(scores))]
    return found


def table(found: Sequence[dict[str, dict[str, float]]]) -> Iterator[str]:
    """A line for each measure, over seeds."""
    yield f"| measure | {' | '.join(SCORES)} |"
    yield "|---|" + "---|" * len(SCORES)
    for measure in found[0]:
        cells = (mean_interval([of[measure][score] for of in found]) for score in SCORES)
        yield f"| {measure} | {' | '.join(f'{c.mean:.2f} [{c.low:.2f}, {c.high:.2f}]' for c in cells)} |"


def differences(found: Sequence[dict[str, dict[str, float]]], score: str = "AUROC") -> Iterator[str]:
    """Ours less each rival, seed by seed."""
    for ours, other in itertools.product(OURS, RIVALS):
        gain = mean_interval([of[ours][score] - of[other][score] for of in found])
        verdict = "met" if gain.low > 0 else "not met" if gain.high < 0 else "undecided"
        yield f"{score}, {ours} above {other}: {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mechanism", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="reported, one set of networks each")
    parser.add_argument("--choice-seed", type=int, default=0, help="on which delays, rank and horizon are chosen")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    arguments = parser.parse_args()
    if arguments.choice_seed in arguments.seeds:
        parser.error(f"--choice-seed {arguments.choice_seed} is one of the seeds reported: give another")
    warnings.simplefilter("ignore")
    parallel = joblib.Parallel(arguments.workers)
    seeds = [arguments.choice_seed, *arguments.seeds]
    parallel(joblib.delayed(_trained)(kind, seed) for seed in seeds for kind in MECHANISMS)
    print("| mechanism | seed | worst rule of each network | CPU s a network |\n|---|---|---|---|")
    for seed in arguments.seeds:
        for kind, worst, seconds in performances(seed):
            short = "" if worst.min() >= LEAST else f", **below {LEAST:g}**"
            print(f"| {kind} | {seed} | {' '.join(f'{p:.3f}' for p in worst)}{short} | {seconds:.0f} |", flush=True)
    chosen = chosen_on(arguments.choice_seed)
    print(f"\nChosen on seed {arguments.choice_seed}:")
    for name, how in chosen.items():
        print(f"{name}: {how.n_delays} delays, rank {how.rank}, {how.horizon:g} ms")
    for matched in (True, False):
        found = parallel(joblib.delayed(scored)(seed, matched, chosen) for seed in arguments.seeds)
        print(f"\n{'Matched' if matched else 'Unmatched'} trials, {len(found)} seeds, mean and 95 % interval:\n")
        print("\n".join([*table(found), "", *differences(found)]), flush=True)


def _trained(kind: str, seed: int) -> None:
    learn(kind, seed)


if __name__ == "__main__":
    main()
