"""Training of groups, ensemble by ensemble, and access to the trained networks."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from multitask.display import bars_go_to
from multitask.evaluation import evaluate
from multitask.groups.histories import (
    Ensemble,
    Group,
    conflicts,
    history,
    identities_of,
    in_waves,
    learnt,
    misfit,
    names_of,
)
from multitask.network import LeakyRNN, NetworkParameters, make_network
from multitask.storage import RunFolder
from multitask.tasks.base import Task, as_task, check_loss
from multitask.training import Run, TrainingParameters, train
from multitask.trials import LARGEST_SEED, MultitaskError, check_whole, unknown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class TrainedGroups:
    """Groups and their trained networks.

    Attributes
    ----------
    groups : dict of name -> Group
    runs : dict of name -> Run
        Run of each group, without groups that are not trained.
    places : dict of name -> slice
        Position of the networks of each group in the ensemble of its run.
    training : TrainingParameters
        As given to `train_groups`.
    seed : int
        As given to `train_groups`.
    untrained : dict of name -> LeakyRNN
        Networks of the groups that are not trained.
    """

    groups: dict[str, Group]
    runs: dict[str, Run]
    places: dict[str, slice]
    training: TrainingParameters
    seed: int
    untrained: dict[str, LeakyRNN]

    def network(self, name: str, step: int | None = None) -> LeakyRNN:
        """The networks of a group, on the CPU.

        Parameters
        ----------
        name : str
            Name of the group.
        step : int, optional
            One of the `steps` of the group; the last one by default.

        Returns
        -------
        LeakyRNN

        Raises
        ------
        MultitaskError
            If there is no such group or step.
        """
        self._check(name)
        if name in self.runs:
            run = self.runs[name]
            return (run.network if step is None else run.load(step)).subset(self.places[name])
        if step not in (None, 0):
            raise MultitaskError(f"group {name!r} is untrained and has no step {step!r}; it has only step 0")
        return self.untrained[name]

    def steps(self, name: str) -> tuple[int, ...]:
        """Steps of a group that can be passed to `network`, from 0 (before its last training) to the last step."""
        self._check(name)
        return self.runs[name].checkpoints if name in self.runs else (0,)

    def learnt(self, name: str) -> tuple[str, ...]:
        """Names of all rules that the networks of a group were trained on, its predecessors included, in this order."""
        self._check(name)
        return learnt(self.groups, name)

    @property
    def log(self) -> "pd.DataFrame":
        """Training log of each group: ``group``, ``network`` (counted in the group), other columns as in `Run.log`."""
        import pandas as pd

        logs = []
        for name, run in self.runs.items():
            place = self.places[name]
            log = run.log[run.log["network"].between(place.start, place.stop - 1)]
            logs.append(log.assign(group=name, network=log["network"] - place.start))
        log = pd.concat(logs, ignore_index=True)
        return log[["group", "network", *log.columns.drop(["group", "network"])]]

    def performance(self, rule: str | Task, *, n_trials: int = 512, over_learning: bool = False) -> "pd.DataFrame":
        """Performance of every network on a rule, whether or not it was trained on it, on the same trials.

        Parameters
        ----------
        rule : str or Task
            A rule or task that fits the networks.
        n_trials : int >= 1
        over_learning : bool
            Evaluate at all `steps` of each group, instead of only at the last step.

        Returns
        -------
        DataFrame
            Columns ``group``, ``step``, ``network`` (counted in the group), ``rule``, ``difficulty``, ``n_correct``,
            ``n_trials``, ``performance`` in [0, 1].

        Raises
        ------
        MultitaskError
            If the rule is unknown or does not fit the networks.
        """
        import pandas as pd

        tables = []
        for name in self.groups:
            for step in self.steps(name) if over_learning else self.steps(name)[-1:]:
                network = self.network(name, step)
                if problem := misfit(rule, network.parameters):
                    raise MultitaskError(f"group {name!r} cannot be tested: {problem}")
                check_loss(as_task(rule), self.training.loss_type)
                table = evaluate(
                    network,
                    [rule],
                    n_trials=n_trials,
                    noise=self.training.sigma_x,
                    easiness=self.training.easiness(1.0),
                    loss=self.training.loss_type,
                    seed=self.seed,
                ).to_dataframe()
                table.insert(0, "group", name)
                table.insert(1, "step", step)
                tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def _check(self, name: str) -> None:
        if name not in self.groups:
            raise unknown("group", name, self.groups)


def train_groups(
    groups: Mapping[str, Group],
    network: NetworkParameters = NetworkParameters(),  # noqa: B008 (frozen)
    training: TrainingParameters = TrainingParameters(),  # noqa: B008 (frozen)
    *,
    folder: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    n_networks: int = 1,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> TrainedGroups:
    """Train groups of networks wave by wave.

    Interrupted ensembles are resumed, and finished ones are loaded. The ensembles of a wave are trained one after the
    other, or in parallel if `joblib.parallel_config` is active.

    Parameters
    ----------
    groups : mapping name -> Group
    network : NetworkParameters
        Parameters of all networks.
    training : TrainingParameters
        Parameters of each training. ``n_steps`` counts for each rule of a group, ``rule_weights`` apply to groups that
        are trained on the rule, and ``frozen`` must be empty, since each group has its own.
    folder : path
        Folder for the run folders of the ensembles.
    names : sequence of str, optional
        Train these groups, the groups in the same ensembles, and all their predecessors. By default all groups.
    n_networks : int >= 1
        Number of networks in each group that does not state its own number.
    seed : int >= 0
        Seed of initial weights, trials and noise.
    device : torch.device or str, optional
        CPU by default.
    progress : bool
        Show a progress bar for the ensembles, and one for the steps if ensembles are trained one at a time.

    Returns
    -------
    TrainedGroups

    Raises
    ------
    MultitaskError
        If groups and parameters do not fit together (before anything is trained), or if `train` raises an error.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    check_whole("n_networks", n_networks, 1)
    check_whole("seed", seed, 0, LARGEST_SEED)
    for key, problem in conflicts(groups, network, training):
        raise MultitaskError(f"{key}: {problem}")
    groups = _needed(groups, names)
    drawn = {
        name: make_network(network, group.n_networks or n_networks, _seed(seed, name))
        for name, group in groups.items()
        if group.after is None
    }
    untrained = {name: networks for name, networks in drawn.items() if not groups[name].rules}
    trained = TrainedGroups(groups, {}, {}, training, seed, untrained)
    waves = in_waves(groups)
    serial = effective_n_jobs(None) == 1
    with tqdm(
        total=sum(map(len, waves)), desc="groups", unit="ensemble", file=bars_go_to(), disable=not progress
    ) as bar:
        for wave in waves:
            jobs = [_job(ensemble, trained, drawn, Path(folder), device) for ensemble in wave]
            work = [delayed(job.train)(progress and serial) for job in jobs if not job.finished]
            bar.update(len(jobs) - len(work))
            for done in Parallel(return_as="generator_unordered")(work) if work else ():
                bar.set_postfix_str(done)
                bar.update()
            for job in jobs:
                run = job.run(progress=False)  # loads the finished run
                trained.runs.update(dict.fromkeys(job.starts, run))
                trained.places.update(job.places)
    return trained


def _needed(groups: Mapping[str, Group], names: Sequence[str] | None) -> dict[str, Group]:
    """The named groups, the groups in the same ensembles, and the predecessors of all of these."""
    wanted = set(groups if names is None else names)
    for name in wanted:
        if name not in groups:
            raise unknown("group", name, groups)
    for wave in reversed(in_waves(groups)):
        together = [name for ensemble in wave if wanted & set(ensemble.names) for name in ensemble.names]
        wanted |= {past for name in together for past in history(groups, name)}
    return {name: group for name, group in groups.items() if name in wanted}


def _seed(seed: int, name: str) -> int:
    """Seed of the random networks of a group."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, eq=False)
class _Job:
    """Training of an ensemble, in this process or in another one."""

    rules: tuple[str | Task, ...]
    training: TrainingParameters
    starts: dict[str, LeakyRNN]  # by group
    folder: Path
    seed: int
    device: torch.device | str | None

    @property
    def places(self) -> dict[str, slice]:
        """Position of the networks of each group in the ensemble."""
        sizes = [start.n_networks for start in self.starts.values()]
        return {name: slice(end - n, end) for name, n, end in zip(self.starts, sizes, accumulate(sizes), strict=True)}

    @property
    def finished(self) -> bool:
        """Whether training is finished."""
        checkpoint = RunFolder(self.folder).latest()
        return checkpoint is not None and bool(checkpoint.progress["finished"])

    def run(self, progress: bool) -> Run:
        """Train or resume, or load the finished run."""
        starts = list(self.starts.values())
        start = starts[0].with_weights(
            {name: torch.cat([each.weights[name] for each in starts]) for name in starts[0].weights}
        )
        try:
            return train(
                self.rules,
                start.parameters,
                self.training,
                run_folder=self.folder,
                n_networks=start.n_networks,
                seed=self.seed,
                start=start,
                device=self.device,
                progress=progress,
            )
        except MultitaskError as error:
            whose = ", ".join(f"{at.start} to {at.stop - 1} of {name!r}" for name, at in self.places.items())
            raise type(error)(f"{error}. The networks of the groups are {whose}") from error

    def train(self, progress: bool) -> str:
        """Train and return the names of the groups; this is short to send back from another machine."""
        self.run(progress)
        return ", ".join(self.starts)


def _job(
    ensemble: Ensemble,
    trained: TrainedGroups,
    drawn: Mapping[str, LeakyRNN],
    folder: Path,
    device: torch.device | str | None,
) -> _Job:
    """Training of an ensemble whose initial networks are available, with its run folder."""
    groups, rules = trained.groups, ensemble.rules
    names = names_of(rules)
    weights = {rule: weight for rule, weight in trained.training.rule_weights.items() if rule in names}
    n_steps = trained.training.n_steps * len(rules)
    training = replace(trained.training, frozen=ensemble.frozen, rule_weights=weights, n_steps=n_steps)
    starts, origins = {}, []
    for name in ensemble.names:
        before = groups[name].after
        starts[name] = drawn[name] if before is None else trained.network(before)
        source = trained.runs[before].folder.name if before in trained.runs else None
        origins.append([name, before, source, starts[name].n_networks])
    network = starts[ensemble.names[0]].parameters
    decisive = [identities_of(rules), asdict(network), asdict(training), trained.seed, origins]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    title = re.sub(r"\W+", "_", ensemble.names[0]) + (f"_and_{n - 1}_more" if (n := len(ensemble.names)) > 1 else "")
    run = f"{title}_{network.n_rnn}_units_seed_{trained.seed}_{digest[:8]}"
    return _Job(rules, training, starts, folder / run, trained.seed, device)
