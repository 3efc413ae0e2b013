"""Groups of networks that share a history of learning: which there are, and how all of them are trained.

A group is told by what its networks went through last: the rules they learnt, the group whose networks they were
before, and the weights that stayed as they were meanwhile.

    groups = {
        "untrained": Group(),
        "delay": Group(("delaydm1",)),
        "master after delay": Group(("contextdelaydm1",), after="delay", frozen=("recurrent",)),
    }
    trained = train_groups(groups, network, training, folder="results/runs", n_networks=4)
    trained.network("master after delay")  # the four networks as an ensemble

Every group that is not `after` another starts from random networks of its own, which follow from the seed and the
group's name: two groups with the same rules are twins. A group after an untrained one starts from that one's networks.

Networks are cheapest side by side. Groups that learn the same rules with the same weights frozen, the same number of
groups after their random starts, are therefore trained as one *ensemble*, in one run folder: they see the same trials,
and are independent in all else. Ensembles whose starts exist make a *wave*; its ensembles may be trained at once, by
whatever `joblib.parallel_config` is active.

A run folder is named by all that decides its networks: rules, parameters, seed, and the groups with their histories.
A group that is added or taken out thus has the ensemble that it joins or leaves trained anew, with what comes after
that one, and leaves all others as they are. Of those trained anew, networks that stand before it in their ensemble come
out the same (on a CPU), and networks behind it with other private noise.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from multitask.evaluation import check_rules, evaluate
from multitask.network import WEIGHT_GROUPS, LeakyRNN, NetworkParameters, make_network
from multitask.storage import RunFolder
from multitask.tasks import layout
from multitask.training import Run, TrainingParameters, train
from multitask.trials import MultitaskError, check_whole, unknown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Group:
    """What the networks of a group learnt last, and after what.

    Attributes
    ----------
    rules : tuple of str
        Learnt together; none leaves the networks as they start.
    after : str, or None
        The group whose networks these were before; None for random networks.
    frozen : names among "input", "rule_input", "recurrent", "output"
        Weights that stayed as they were meanwhile.
    n_networks : int >= 1, or None
        Networks in the group; None for as many as are common, and always after another group, whose networks they are.
    """

    rules: tuple[str, ...] = ()
    after: str | None = None
    frozen: tuple[str, ...] = ()
    n_networks: int | None = None

    def __post_init__(self) -> None:
        if self.rules:
            check_rules(self.rules)
        for key, names in (("rules", self.rules), ("frozen", self.frozen)):
            if twice := [name for n, name in enumerate(names) if name in names[:n]]:
                raise MultitaskError(f"{key}: {twice[0]!r} stands there twice; keep one")
        for weights in self.frozen:
            if weights not in WEIGHT_GROUPS:
                raise unknown("weights in frozen", weights, WEIGHT_GROUPS)
        if set(self.frozen) == set(WEIGHT_GROUPS):
            raise MultitaskError("frozen names all weights: nothing is left to train; leave out one of them")
        if not self.rules and self.frozen:
            raise MultitaskError(f"frozen = {list(self.frozen)}: without rules nothing is trained; name rules")
        if not self.rules and self.after is not None:
            raise MultitaskError(f"after = {self.after!r}: without rules the group would be that one; name rules")
        if self.n_networks is not None:
            check_whole("n_networks", self.n_networks, 1)
            if self.after is not None:
                raise MultitaskError(
                    f"n_networks = {self.n_networks}: a group has the networks of the group it is after, "
                    f"{self.after!r}; give their number there"
                )


@dataclass(frozen=True)
class Ensemble:
    """Groups that are trained in one run; their networks stand one after the other on its leading axis."""

    names: tuple[str, ...]
    rules: tuple[str, ...]
    frozen: tuple[str, ...]


def history(groups: Mapping[str, Group], name: str) -> tuple[str, ...]:
    """The groups that the networks of a group belonged to, from the first to this one."""
    chain = [name]
    while (before := groups[chain[0]].after) is not None:
        if before not in groups:
            raise unknown(f"group that {chain[0]!r} is after,", before, groups)
        if before in chain:
            circle = chain[: chain.index(before) + 1][::-1]
            first = circle.index(min(circle))  # where to begin, so that a circle reads alike from all its groups
            around = [*circle[first:], *circle[: first + 1]]
            raise MultitaskError(f"groups follow one another in a circle: {' after '.join(around)}")
        chain.insert(0, before)
    return tuple(chain)


def learnt(groups: Mapping[str, Group], name: str) -> tuple[str, ...]:
    """All rules that the networks of a group ever learnt, in the order of their learning."""
    return tuple(dict.fromkeys(rule for past in history(groups, name) for rule in groups[past].rules))


def in_waves(groups: Mapping[str, Group]) -> list[list[Ensemble]]:
    """The ensembles to train, in waves: those of a wave start from networks that are random or of the waves before."""
    waves: list[dict[tuple[tuple[str, ...], ...], list[str]]] = []
    for name, group in groups.items():
        stages = [past for past in history(groups, name) if groups[past].rules]
        waves += [{} for _ in range(len(stages) - len(waves))]
        if group.rules:
            waves[len(stages) - 1].setdefault((tuple(group.rules), tuple(sorted(group.frozen))), []).append(name)
    return [[Ensemble(tuple(names), *same) for same, names in wave.items()] for wave in waves]


def conflicts(
    groups: Mapping[str, Group], network: NetworkParameters, training: TrainingParameters
) -> Iterator[tuple[str, str]]:
    """What does not go together, each with the key where it stands."""
    said: set[str] = set()
    ways: dict[object, str] = {}
    for name, group in groups.items():
        try:
            history(groups, name)
        except MultitaskError as error:
            if str(error) not in said:  # once, not for all groups that come after
                yield f"groups.{name}.after", str(error)
            said.add(str(error))
        way = (group.after, tuple(group.rules), frozenset(group.frozen))
        if group.after is not None and (same := ways.setdefault(way, name)) != name:
            yield f"groups.{name}.after", f"the group is the same as {same!r}, after the same networks; leave one out"
        for rule in group.rules:
            if problem := misfit(rule, network):
                yield f"groups.{name}.rules", problem
    if training.frozen:
        yield "training.frozen", f"{list(training.frozen)}: each group says what is frozen in it; leave this empty"
    rules = {rule for group in groups.values() for rule in group.rules}
    for rule in training.rule_weights:
        if rule not in rules:
            yield "training.rule_weights", f"no group learns {rule!r}; take it out"
    last = training.n_steps * min((len(group.rules) for group in groups.values() if group.rules), default=1)
    if not isinstance(training.checkpoint_steps, str) and max(training.checkpoint_steps, default=0) > last:
        step = max(training.checkpoint_steps)
        yield "training.checkpoint_steps", f"step {step} never comes where a group learns in {last} steps; leave it out"


def misfit(rule: str, network: NetworkParameters) -> str:
    """Why networks cannot be shown the trials of a rule; empty if they can."""
    wanted = layout(rule)
    if (network.n_input, network.n_rule) == (wanted.n_inputs, len(wanted.rules)):
        return ""
    return (
        f"rule {rule!r} needs {wanted.n_inputs} inputs, {len(wanted.rules)} of them for rules, but the networks have "
        f"n_input = {network.n_input} and n_rule = {network.n_rule}"
    )


@dataclass(frozen=True, eq=False)
class TrainedGroups:
    """Groups and their networks.

    Attributes
    ----------
    groups : dict of name -> Group
    runs : dict of name -> Run
        The run that each group was trained in; none for untrained ones.
    places : dict of name -> slice
        Where the networks of each group stand in the ensemble of its run.
    training : TrainingParameters
        As `train_groups` was given it.
    seed : int
    untrained : dict of name -> LeakyRNN
        The networks of groups that are not trained.
    """

    groups: dict[str, Group]
    runs: dict[str, Run]
    places: dict[str, slice]
    training: TrainingParameters
    seed: int
    untrained: dict[str, LeakyRNN]

    def network(self, name: str, step: int | None = None) -> LeakyRNN:
        """The networks of a group, as they are in the end or were at one of its `steps`, on the CPU."""
        self._check(name)
        if name in self.runs:
            run = self.runs[name]
            return (run.network if step is None else run.load(step)).subset(self.places[name])
        if step not in (None, 0):
            raise MultitaskError(f"group {name!r} is untrained and has no step {step!r}; 0 is all there is")
        return self.untrained[name]

    def steps(self, name: str) -> tuple[int, ...]:
        """Steps of a group's last training that `network` knows, from 0, its start, to the last."""
        self._check(name)
        return self.runs[name].checkpoints if name in self.runs else (0,)

    def learnt(self, name: str) -> tuple[str, ...]:
        """All rules that the networks of a group ever learnt, in the order of their learning."""
        self._check(name)
        return learnt(self.groups, name)

    @property
    def log(self) -> "pd.DataFrame":
        """What was logged while each group learnt its rules: ``group``, ``network`` in the group, and as `Run.log`."""
        import pandas as pd

        logs = []
        for name, run in self.runs.items():
            place = self.places[name]
            log = run.log[run.log["network"].between(place.start, place.stop - 1)]
            logs.append(log.assign(group=name, network=log["network"] - place.start))
        log = pd.concat(logs, ignore_index=True)
        return log[["group", "network", *log.columns.drop(["group", "network"])]]

    def performance(self, rule: str, *, n_trials: int = 512, over_learning: bool = False) -> "pd.DataFrame":
        """Performance of every network on a rule, whether it ever learnt it or not, on trials common to all.

        Parameters
        ----------
        rule : a rule for the inputs of the networks
        n_trials : int >= 1
        over_learning : bool
            At all `steps` of each group, not in the end alone.

        Returns
        -------
        DataFrame
            ``group``, ``step``, ``network`` in the group, ``rule``, ``n_correct``, ``n_trials``, ``performance``.
        """
        import pandas as pd

        tables = []
        for name in self.groups:
            for step in self.steps(name) if over_learning else self.steps(name)[-1:]:
                network = self.network(name, step)
                if problem := misfit(rule, network.parameters):
                    raise MultitaskError(f"group {name!r} cannot be tested: {problem}")
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
    """Train groups of networks wave by wave, going on where an earlier call was stopped, or read what one finished.

    Ensembles of a wave are trained one after the other, or as an active `joblib.parallel_config` says.

    Parameters
    ----------
    groups : mapping name -> Group
    network, training : parameters of all networks and of each training
        ``n_steps`` for each rule that a group learns; ``rule_weights`` go to the groups that learn the rule, and
        ``frozen`` is up to the groups.
    folder : where the run folders of the ensembles are kept
    names : names of groups, optional
        Train these, the groups in the same ensembles, and all that they are after; by default every group.
    n_networks : int >= 1
        Of each group that does not give its own number.
    seed : int >= 0
        Decides starts, trials and noise.
    device : CPU by default
    progress : bool
        Show a bar for the ensembles, and one for the steps of each where one is trained at a time.

    Raises
    ------
    MultitaskError
        For groups that do not fit, before anything is trained; and whatever `train` raises, with the names of the
        groups.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    check_whole("n_networks", n_networks, 1)
    check_whole("seed", seed, 0)
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
    with tqdm(total=sum(map(len, waves)), desc="groups", unit="ensemble", disable=not progress) as bar:
        for wave in waves:
            jobs = [_job(ensemble, trained, drawn, Path(folder), device) for ensemble in wave]
            work = [delayed(job.train)(progress and serial) for job in jobs if not job.finished]
            bar.update(len(jobs) - len(work))
            for done in Parallel(return_as="generator_unordered")(work) if work else ():
                bar.set_postfix_str(done)
                bar.update()
            for job in jobs:
                run = job.run(progress=False)  # what is finished is read
                trained.runs.update(dict.fromkeys(job.starts, run))
                trained.places.update(job.places)
    return trained


def _needed(groups: Mapping[str, Group], names: Sequence[str] | None) -> dict[str, Group]:
    """The named groups, those trained together with them, and the histories of all these."""
    wanted = set(groups if names is None else names)
    for name in wanted:
        if name not in groups:
            raise unknown("group", name, groups)
    for wave in reversed(in_waves(groups)):
        together = [name for ensemble in wave if wanted & set(ensemble.names) for name in ensemble.names]
        wanted |= {past for name in together for past in history(groups, name)}
    return {name: group for name, group in groups.items() if name in wanted}


def _seed(seed: int, name: str) -> int:
    """The seed of a group's random networks."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, eq=False)
class _Job:
    """The training of an ensemble, to be done here or elsewhere."""

    rules: tuple[str, ...]
    training: TrainingParameters
    starts: dict[str, LeakyRNN]  # by group
    folder: Path
    seed: int
    device: torch.device | str | None

    @property
    def places(self) -> dict[str, slice]:
        """Where the networks of each group stand in the ensemble."""
        sizes = [start.n_networks for start in self.starts.values()]
        return {name: slice(end - n, end) for name, n, end in zip(self.starts, sizes, accumulate(sizes), strict=True)}

    @property
    def finished(self) -> bool:
        checkpoint = RunFolder(self.folder).latest()
        return checkpoint is not None and bool(checkpoint.progress["finished"])

    def run(self, progress: bool) -> Run:
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
            raise MultitaskError(f"{error}. The networks of the groups are {whose}") from error

    def train(self, progress: bool) -> str:
        """Train, and say which groups are done: what little goes back from another machine."""
        self.run(progress)
        return ", ".join(self.starts)


def _job(
    ensemble: Ensemble,
    trained: TrainedGroups,
    drawn: Mapping[str, LeakyRNN],
    folder: Path,
    device: torch.device | str | None,
) -> _Job:
    """The training of an ensemble whose starts exist, and the folder for it."""
    groups, rules = trained.groups, ensemble.rules
    weights = {rule: weight for rule, weight in trained.training.rule_weights.items() if rule in rules}
    n_steps = trained.training.n_steps * len(rules)
    training = replace(trained.training, frozen=ensemble.frozen, rule_weights=weights, n_steps=n_steps)
    starts, origins = {}, []
    for name in ensemble.names:
        before = groups[name].after
        starts[name] = drawn[name] if before is None else trained.network(before)
        source = trained.runs[before].folder.name if before in trained.runs else None
        origins.append([name, before, source, starts[name].n_networks])
    network = starts[ensemble.names[0]].parameters
    decisive = [rules, asdict(network), asdict(training), trained.seed, origins]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    title = re.sub(r"\W+", "_", ensemble.names[0]) + (f"_and_{n - 1}_more" if (n := len(ensemble.names)) > 1 else "")
    run = f"{title}_{network.n_rnn}_units_seed_{trained.seed}_{digest[:8]}"
    return _Job(rules, training, starts, folder / run, trained.seed, device)
