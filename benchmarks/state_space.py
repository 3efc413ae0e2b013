"""python -m benchmarks.state_space [--cells LeakyRNN GRU Selective] [--seeds 1 2 3] [--workers 2] [--groups]

Do state-space models change their dynamics while they learn? Networks of each cell learn the six rules of config.yaml.
One table says how well they do, also with the recurrence held at its start, and how far they move: the distance of a
network from its own start, in noise floors and in distances between trained networks of its cell, and the time
constants of its Jacobians on trials before and after. Delays, rank and horizon are chosen on the seed of the choice.

With ``--groups``, networks of each cell also learn a composed rule and its parts, the group comparison of config.yaml,
and its claims are judged for each cell. Networks are stored under results: what is there already is read, and what was
cut short goes on.
"""

import argparse
import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.peer import ROOT
from dsa_analysis import Comparison, choose_embedding, compare, mean_interval, noise_floor, spearman
from multitask import LeakyRNN, Run, evaluate, record_activity, train
from workbench.networks import GroupStudy, verdicts
from workbench.settings import Settings, load_settings

FOLDER = ROOT / "results" / "benchmarks" / "state_space"
CELLS = ("LeakyRNN", "GRU", "LRU", "Selective")
STEPS = (0, 10, 30, 100, 300, 1000)  # checkpoints, beside the last
SEEN = ("delaygo", "contextdm1")  # rules on whose trials networks are compared
N_NETWORKS, N_BATCHES, N_TRIALS, TEST = 2, 4, 16, 4321
N_POINTS, SLOW = 24, 0.9  # states at which Jacobians are taken; quantile of |eigenvalue| whose time constant is shown


@dataclass(frozen=True)
class Course:
    """What one network did over learning."""

    moved: float  # distance between its start and its end
    floor: float  # of its end
    apart: float  # mean distance of its end from those of other networks of this cell
    rho: float  # Spearman's, of distance to the end with performance, over checkpoints
    before: float  # ms, slow time constant at the start
    after: float

    @property
    def in_floors(self) -> float:
        return self.moved / self.floor

    @property
    def in_distances(self) -> float:
        return self.moved / self.apart


def learn(settings: Settings, cell: str, seed: int, frozen: bool = False) -> Run:
    """Networks of a cell that learnt the rules of config.yaml."""
    torch.set_num_threads(1)
    ours = settings.multitask
    return train(
        ours.rules,
        dataclasses.replace(ours.network, rnn_type=cell),
        dataclasses.replace(ours.training, checkpoint_steps=STEPS, frozen=("recurrent",) if frozen else ()),
        run_folder=FOLDER / f"{cell}_{seed}{'_frozen' if frozen else ''}",
        n_networks=N_NETWORKS,
        seed=seed,
        progress=False,
    )


def performance(settings: Settings, network: LeakyRNN) -> pd.DataFrame:
    """On the rules of config.yaml, at the difficulty of training: a row for each network, a column for each rule."""
    easiness = settings.multitask.training.easiness(1.0)
    table = evaluate(network, settings.multitask.rules, easiness=easiness, seed=TEST).to_dataframe()
    return table.pivot(index="network", columns="rule", values="performance")


# ---- how far a network moves -----------------------------------------------------------------------------------------


def trials(network: LeakyRNN) -> list[list[Tensor]]:
    """Of each network: the same trials of `SEEN`, without noise."""
    found: list[list[Tensor]] = [[] for _ in range(network.n_networks)]
    for rule, batch in itertools.product(SEEN, range(N_BATCHES)):
        activity = record_activity(network, rule, N_TRIALS, mode="random", seed=TEST + batch)
        for own, hidden in zip(found, activity.after_fixation(), strict=True):
            own += list(hidden.double())
    return found


def slow(network: LeakyRNN) -> np.ndarray:
    """A slow time constant of each network in ms: of the quantile `SLOW` of |eigenvalue| of Jacobians on trials."""
    batch = record_activity(network, SEEN[0], N_POINTS, mode="random", seed=TEST).batch
    time = batch.n_times // 2
    states = network.states(batch.inputs)[:, :, time]
    sizes = torch.linalg.eigvals(network.jacobian(states, batch.inputs[:, time + 1])).abs().flatten(1)
    return (-network.parameters.dt / sizes.quantile(SLOW, dim=1).clamp(max=1 - 1e-6).log()).numpy()


def courses(settings: Settings, cell: str, seed: int, how: Comparison) -> list[Course]:
    """Of all networks of a cell and a seed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    run = learn(settings, cell, seed)
    stages = {step: run.load(step) for step in run.checkpoints}
    systems = {(step, k): own for step, network in stages.items() for k, own in enumerate(trials(network))}
    known = {step: performance(settings, network).mean(axis=1) for step, network in stages.items()}
    last, found = max(stages), []
    names = [f"{step} {k}" for step, k in systems]
    among = compare(dict(zip(names, systems.values(), strict=True)), how=how, progress=False).to_xarray().distances
    floors = noise_floor([systems[last, k] for k in range(N_NETWORKS)], how=how, progress=False).to_numpy()
    for k in range(N_NETWORKS):
        to_end = [float(among.loc[f"{step} {k}", f"{last} {k}"]) for step in stages]
        others = [float(among.loc[f"{last} {k}", f"{last} {other}"]) for other in range(N_NETWORKS) if other != k]
        rho = spearman(np.array(to_end), np.array([known[step][k] for step in stages]))
        before, after = slow(stages[0])[k], slow(stages[last])[k]
        found.append(Course(to_end[0], float(floors[k]), float(np.mean(others)), rho, before, after))
    return found


def row(settings: Settings, cell: str, seeds: Sequence[int], found: Sequence[list[Course]]) -> str:
    """A line of the table; intervals are Student's over seeds of means over networks."""
    runs = {frozen: [learn(settings, cell, seed, frozen) for seed in seeds] for frozen in (False, True)}
    worst = {
        frozen: " ".join(f"{p:.2f}" for run in of for p in performance(settings, run.network).min(axis=1))
        for frozen, of in runs.items()
    }
    seconds = max(run.log["cpu_seconds"].max() for run in runs[False]) / N_NETWORKS
    moved, apart, rho = (shown(found, value) for value in ("in_floors", "in_distances", "rho"))
    times = f"{shown(found, 'before', 0)} to {shown(found, 'after', 0)}"
    return f"| {cell} | {worst[False]} | {worst[True]} | {seconds:.0f} | {moved} | {apart} | {rho} | {times} |"


def shown(found: Sequence[list[Course]], value: str, digits: int = 2) -> str:
    each = mean_interval([float(np.mean([getattr(course, value) for course in own])) for own in found])
    return f"{each.mean:.{digits}f} [{each.low:.{digits}f}, {each.high:.{digits}f}]"


def six_rules(settings: Settings, cells: Sequence[str], seeds: Sequence[int], choice: int, workers: int) -> None:
    """Print the first table."""
    parallel = joblib.Parallel(workers)
    todo = [(c, s, f) for s in (*seeds, choice) for c in reversed(cells) for f in (False, True) if s != choice or not f]
    parallel(joblib.delayed(_learnt)(settings, *job) for job in todo)
    ends = [own for cell in cells for own in trials(learn(settings, cell, choice).network)]
    how = choose_embedding(
        ends, Comparison(dt=settings.multitask.network.dt, n_starts=8), n_delays="auto", rank="auto", horizon="auto",
        progress=False,
    ).how  # fmt: skip
    print(
        f"chosen on seed {choice}: {how.n_delays} delays, rank {how.rank}, {how.horizon:g} ms; seeds {seeds} reported"
    )
    print(
        "| cell | worst rule of each network | recurrence frozen | CPU s a network | moved, in floors "
        "| moved, in distances between networks | rho with performance | slow time constant, ms |\n|---"
        + "|---" * 7
        + "|"
    )
    for cell in cells:
        found = parallel(joblib.delayed(courses)(settings, cell, seed, how) for seed in seeds)
        print(row(settings, cell, seeds, found), flush=True)


def _learnt(settings: Settings, cell: str, seed: int, frozen: bool) -> None:
    learn(settings, cell, seed, frozen)


# ---- a composed rule and its parts -----------------------------------------------------------------------------------


def groups(settings: Settings, cells: Sequence[str], seeds: Sequence[int], workers: int) -> Iterator[str]:
    """The claims of the group comparison, judged for each cell; line by line."""
    engine = dataclasses.replace(settings.engine, kind="processes", workers=workers)
    for cell in cells:
        network = dataclasses.replace(settings.groups.network, rnn_type=cell)
        own = dataclasses.replace(settings.groups, network=network, seeds=tuple(seeds))
        ours = dataclasses.replace(settings, engine=engine, groups=own, results=FOLDER / "groups" / cell)
        studies = [GroupStudy(ours, seed, progress=False).complete() for seed in seeds]
        judged = verdicts(studies)
        yield f"\n{cell}, seeds {seeds}\n\n| what | seen | claim | verdict |\n|---|---|---|---|"
        yield from (f"| {line.what} | {line.seen} | {line.claim} | {line.verdict} |" for line in judged.itertuples())
        for measure in studies[0].shown:
            yield f"{measure}: distance of the reference from its own start, {start_to_end(studies, measure)}"


def start_to_end(studies: Sequence[GroupStudy], measure: str) -> str:
    """Median over networks of the reference, for each seed; in noise floors where there are some."""
    found = []
    for study in studies:
        own = study.within_runs[study.within_runs["measure"] == measure]
        moved = own[(own["step"] == 0) & (own["other_step"] == own["other_step"].max())].set_index("network")[
            "distance"
        ]
        if study.has_floor(measure):
            floors = study.floors(measure)
            moved = moved / floors[floors["group"] == study.reference].set_index("network")["floor"]
        found.append(moved.median())
    return f"{' '.join(f'{value:.2f}' for value in found)}{' floors' if studies[0].has_floor(measure) else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.state_space", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="reported")
    parser.add_argument("--choice-seed", type=int, default=0, help="on which delays, rank and horizon are chosen")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--groups", action="store_true", help="the group comparison of config.yaml instead")
    arguments = parser.parse_args()
    if arguments.choice_seed in arguments.seeds:
        parser.error(f"--choice-seed {arguments.choice_seed} is one of the seeds reported: give another")
    warnings.simplefilter("ignore")
    settings = load_settings(ROOT / "config.yaml")
    if arguments.groups:
        for line in groups(settings, arguments.cells, arguments.seeds, arguments.workers):
            print(line, flush=True)
    else:
        six_rules(settings, arguments.cells, arguments.seeds, arguments.choice_seed, arguments.workers)


if __name__ == "__main__":
    main()
