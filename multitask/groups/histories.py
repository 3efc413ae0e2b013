"""Groups and their learning histories, and the order in which they are trained."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from multitask.network import WEIGHT_GROUPS, NetworkParameters
from multitask.tasks.base import Task, as_task, as_tasks, kind
from multitask.training import TrainingParameters
from multitask.trials import MultitaskError, check_whole, unknown


@dataclass(frozen=True)
class Group:
    """Last training of a group of networks.

    Attributes
    ----------
    rules : tuple of str or Task
        Rules or tasks that are trained together; "module:name" stands for a task. Without rules the networks are not
        trained.
    after : str, or None
        Name of the group whose trained networks are the initial networks; None for random networks.
    frozen : tuple of "input", "rule_input", "recurrent", "output"
        Weights that are not trained.
    n_networks : int >= 1, or None
        Number of networks. None uses the number given to `train_groups`. It must be None if ``after`` is given, since
        the number is that of the preceding group.

    Raises
    ------
    MultitaskError
        If a rule or a weight is unknown or listed twice, or if fields contradict each other.
    """

    rules: tuple[Any, ...] = ()  # str or Task
    after: str | None = None
    frozen: tuple[str, ...] = ()
    n_networks: int | None = None

    def __post_init__(self) -> None:
        if self.rules:
            as_tasks(self.rules)
        for key, names in (("rules", names_of(self.rules)), ("frozen", self.frozen)):
            if twice := [name for n, name in enumerate(names) if name in names[:n]]:
                raise MultitaskError(f"{key}: {twice[0]!r} is listed twice; keep one")
        for weights in self.frozen:
            if weights not in WEIGHT_GROUPS:
                raise unknown("weights in frozen", weights, WEIGHT_GROUPS)
        if set(self.frozen) == set(WEIGHT_GROUPS):
            raise MultitaskError("frozen names all weights, so there is nothing to train: remove at least one of them")
        if not self.rules and self.frozen:
            raise MultitaskError(f"frozen = {list(self.frozen)}: has no effect without rules; name rules")
        if not self.rules and self.after is not None:
            raise MultitaskError(f"after = {self.after!r}: without rules this would be the same group; name rules")
        if self.n_networks is not None:
            check_whole("n_networks", self.n_networks, 1)
            if self.after is not None:
                raise MultitaskError(
                    f"n_networks = {self.n_networks}: a group after another one has as many networks as that one; "
                    f"set n_networks in {self.after!r}"
                )


@dataclass(frozen=True)
class Ensemble:
    """Groups that are trained in one run, with their networks one after the other on the leading axis.

    Attributes
    ----------
    names : tuple of str
        Names of the groups.
    rules : tuple of str or Task
        Rules that are trained.
    frozen : tuple of str
        Weights that are not trained.
    """

    names: tuple[str, ...]
    rules: tuple[str | Task, ...]
    frozen: tuple[str, ...]


def names_of(rules: Iterable[str | Task]) -> tuple[str, ...]:
    """Names of rules and tasks, as in logs and tables."""
    return tuple(as_task(rule).name for rule in rules)


def identities_of(rules: Iterable[str | Task]) -> tuple[str, ...]:
    """What tells rules and tasks apart: `Task.identity`."""
    return tuple(as_task(rule).identity for rule in rules)


def history(groups: Mapping[str, Group], name: str) -> tuple[str, ...]:
    """The group and its predecessors, from the first one to the group itself.

    Parameters
    ----------
    groups : mapping name -> Group
    name : str

    Returns
    -------
    tuple of str

    Raises
    ------
    MultitaskError
        If a predecessor is unknown, or if groups follow one another in a circle.
    """
    chain = [name]
    while (before := groups[chain[0]].after) is not None:
        if before not in groups:
            raise unknown(f"group that {chain[0]!r} is after,", before, groups)
        if before in chain:
            circle = chain[: chain.index(before) + 1][::-1]
            first = circle.index(min(circle))  # the same start for all groups of the circle
            around = [*circle[first:], *circle[: first + 1]]
            raise MultitaskError(f"groups follow one another in a circle: {' after '.join(around)}")
        chain.insert(0, before)
    return tuple(chain)


def learnt(groups: Mapping[str, Group], name: str) -> tuple[str, ...]:
    """Names of all rules that the networks of a group were trained on, including its predecessors, in this order."""
    return tuple(dict.fromkeys(rule for past in history(groups, name) for rule in names_of(groups[past].rules)))


def in_waves(groups: Mapping[str, Group]) -> list[list[Ensemble]]:
    """The ensembles to train, in waves.

    Parameters
    ----------
    groups : mapping name -> Group

    Returns
    -------
    list of lists of Ensemble
        Ensembles of a wave start from random networks or from networks of earlier waves.
    """
    waves: list[dict[tuple[tuple[str, ...], ...], list[str]]] = []
    for name, group in groups.items():
        stages = [past for past in history(groups, name) if groups[past].rules]
        waves += [{} for _ in range(len(stages) - len(waves))]
        if group.rules:
            waves[len(stages) - 1].setdefault((identities_of(group.rules), tuple(sorted(group.frozen))), []).append(
                name
            )
    return [
        [Ensemble(tuple(names), tuple(groups[names[0]].rules), frozen) for (_, frozen), names in wave.items()]
        for wave in waves
    ]


def conflicts(
    groups: Mapping[str, Group], network: NetworkParameters, training: TrainingParameters
) -> Iterator[tuple[str, str]]:
    """Contradictions between groups, network and training.

    Parameters
    ----------
    groups : mapping name -> Group
    network : NetworkParameters
    training : TrainingParameters

    Yields
    ------
    key : str
        Where the problem is, such as "groups.master.after".
    problem : str
        What is wrong and how to correct it.
    """
    said: set[str] = set()
    ways: dict[object, str] = {}
    for name, group in groups.items():
        try:
            history(groups, name)
        except MultitaskError as error:
            if str(error) not in said:  # not again for all groups after this one
                yield f"groups.{name}.after", str(error)
            said.add(str(error))
        way = (group.after, identities_of(group.rules), frozenset(group.frozen))
        if group.after is not None and (same := ways.setdefault(way, name)) != name:
            yield (
                f"groups.{name}.after",
                f"the group is the same as {same!r}; remove one of them",
            )
        for rule in group.rules:
            if problem := misfit(rule, network):
                yield f"groups.{name}.rules", problem
            elif training.loss_type not in (task := as_task(rule)).losses:
                fitting = " or ".join(task.losses)
                yield "training.loss_type", f"{task.name} needs {fitting}, not {training.loss_type}"
    if training.frozen:
        yield "training.frozen", f"{list(training.frozen)}: each group says what is frozen in it; leave this empty"
    rules = {rule for group in groups.values() for rule in names_of(group.rules)}
    for rule in training.rule_weights:
        if rule not in rules:
            yield "training.rule_weights", f"no group learns {rule!r}; take it out"
    last = training.n_steps * min((len(group.rules) for group in groups.values() if group.rules), default=1)
    if not isinstance(training.checkpoint_steps, str) and max(training.checkpoint_steps, default=0) > last:
        step = max(training.checkpoint_steps)
        yield "training.checkpoint_steps", f"step {step} is after the last step of a group with {last} steps; remove it"


def misfit(rule: str | Task, network: NetworkParameters) -> str:
    """Why networks with these parameters do not fit the trials of a rule; an empty text if they fit."""
    task = as_task(rule)
    called = f"{kind(task)} {task.name!r}"
    if (network.n_input, network.n_rule) != (task.n_input, task.n_rule):
        return (
            f"{called} needs {task.n_input} inputs, {task.n_rule} of them for rules, but the networks have "
            f"n_input = {network.n_input} and n_rule = {network.n_rule}"
        )
    if network.n_output != task.n_output:
        return f"{called} needs {task.n_output} outputs, but the networks have n_output = {network.n_output}"
    return ""
