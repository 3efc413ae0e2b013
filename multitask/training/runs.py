"""Training runs on disk: start, resume and load them."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from multitask.display import Card, Shown
from multitask.network import LeakyRNN, NetworkParameters, make_network
from multitask.storage import RunFolder, StorageError, open_for_training, tensors_sha256
from multitask.tasks.base import Task, as_tasks, check_fit, check_loss
from multitask.training.loop import Trainer, check_same, network_of
from multitask.training.parameters import TrainingParameters
from multitask.trials import MultitaskError, checked_device, unknown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Run(Shown):
    """A training run on disk.

    Attributes
    ----------
    folder : Path
        The run folder.
    network : LeakyRNN
        The ensemble at the last checkpoint.
    log : DataFrame
        One row for each evaluation, rule and network, with the columns ``step``, ``rule``, ``network``, ``loss``,
        ``penalty`` (all costs except the loss), ``performance`` in [0, 1], ``gradient_norm`` and ``learning_rate`` of
        the previous step, and ``cpu_seconds`` of the whole ensemble so far.
    settings : dict
        ``rules``, ``network``, ``training``, ``n_networks``, ``seed``, ``start``, and the versions of the software.
    checkpoints : tuple of int
        Steps that can be loaded with `load`.
    finished : str
        Why training ended, "target reached" or "all steps". Empty if training is not finished.
    """

    folder: Path
    network: LeakyRNN
    log: "pd.DataFrame"
    settings: dict[str, Any]
    checkpoints: tuple[int, ...]
    finished: str

    def _card(self) -> Card:
        log, ensemble = self.log, self.network.parameters
        rows = {"networks": f"{self.network.n_networks} of {ensemble.n_rnn} units, seed {self.settings['seed']}"}
        if len(log):
            end = log[log["step"] == log["step"].max()]
            by_rule = end.groupby("rule", sort=False)["performance"].mean()
            rules = list(by_rule.index)
            rows["rules"] = ", ".join(rules) if len(rules) <= 4 else f"{len(rules)}: {', '.join(rules[:3])}, ..."
            rows["training"] = f"{int(end['step'].iloc[0])} steps; {self.finished or 'not finished'}"
            worst = f"worst rule {by_rule.idxmin()} {by_rule.min():.3f}"
            rows["performance"] = f"{by_rule.mean():.3f}, {worst}, at {self.difficulty} difficulty"
        rows["checkpoints"] = f"{len(self.checkpoints)}, the last at step {self.checkpoints[-1]}"
        return Card(f"Run in {self.folder}", rows, "record_activity(run.network, rule), .log (a table), .load(step)")

    @property
    def difficulty(self) -> str:
        """Difficulty of the rules in the evaluations of the log, "easy" or "standard"; other tasks have none."""
        return "easy" if self.settings["training"]["difficulty"] == "easy" else "standard"

    def load(self, step: int) -> LeakyRNN:
        """Load the ensemble at one of the ``checkpoints``.

        Parameters
        ----------
        step : int

        Returns
        -------
        LeakyRNN

        Raises
        ------
        MultitaskError
            If there is no checkpoint of this step, or if its file is damaged.
        """
        return network_of(RunFolder(self.folder).load(step), self.network)


def load_run(run_folder: str | os.PathLike[str]) -> Run:
    """Load a run from its folder, whether it is finished or not.

    A damaged checkpoint causes a warning, and the checkpoint before it is used.

    Parameters
    ----------
    run_folder : path

    Returns
    -------
    Run

    Raises
    ------
    MultitaskError
        If the folder contains no complete checkpoint, or if its settings or its log are damaged.
    """
    folder = RunFolder(run_folder)
    settings = folder.settings()
    checkpoint = folder.latest() if settings is not None else None
    if settings is None or checkpoint is None:
        raise MultitaskError(
            f"run folder {folder.path} contains no trained network; create one with train(..., run_folder=...)"
        )
    try:
        parameters = NetworkParameters(**settings["network"])
    except (KeyError, TypeError) as error:
        raise MultitaskError(f"{folder.path / 'settings.json'} describes no network that is known: {error}") from error
    network = network_of(checkpoint, make_network(parameters))
    return Run(
        folder=folder.path,
        network=network,
        log=folder.log(checkpoint.step, checkpoint.log),
        settings=settings,
        checkpoints=tuple(step for step in folder.steps() if step <= checkpoint.step),
        finished=checkpoint.progress["finished"],
    )


def train(
    rules: Sequence[str | Task] | Sequence[Sequence[str | Task]],
    network: NetworkParameters = NetworkParameters(),  # noqa: B008 (frozen)
    training: TrainingParameters = TrainingParameters(),  # noqa: B008 (frozen)
    *,
    run_folder: str | os.PathLike[str],
    n_networks: int = 1,
    seed: int = 0,
    start: LeakyRNN | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Run:
    """Train an ensemble of networks and store the run in a folder.

    If an earlier call with the same arguments was interrupted, training resumes from its last checkpoint. If it was
    finished, its result is loaded.

    Parameters
    ----------
    rules : sequence of str or Task, or sequence of such sequences
        Rules or tasks that are trained together, or groups of them that are trained one after the other. A string is
        the name of a rule, or "module:name" of a task.
    network : NetworkParameters
    training : TrainingParameters
    run_folder : path
        Folder of this run; each run needs its own folder.
    n_networks : int >= 1
        Number of networks. They have different initial weights and different private noise, and see the same trials.
    seed : int >= 0
        Seed of initial weights, trials and noise.
    start : LeakyRNN, optional
        Start from the weights of this ensemble (for example from `load_run`) instead of random weights.
    device : torch.device or str, optional
        CPU by default.
    progress : bool
        Show a progress bar with the loss and the worst rule.

    Returns
    -------
    Run

    Raises
    ------
    MultitaskError
        If arguments do not fit together; if the folder contains a run with other settings, is in use or cannot be
        written; or if a network diverges (the last checkpoint before that is kept).
    """
    groups, tasks = groups_of(rules)
    _check_fit(groups, tasks, network, training, start, n_networks)
    identities = [[tasks[name].identity for name in group] for group in groups]
    settings = {
        "rules": identities[0] if isinstance(rules[0], str | Task) else identities,
        "network": asdict(network),
        "training": asdict(training),
        "n_networks": n_networks,
        "seed": seed,
        "start": tensors_sha256(start.weights) if start is not None else None,
    }
    made = make_network(network, n_networks, seed, checked_device(device))
    weights = made.weights if start is None else start.weights
    ensemble = made.with_weights({n: w.detach().to(made.device, copy=True) for n, w in weights.items()})
    folder = RunFolder(run_folder)
    stored = folder.latest() if folder.holds(settings) else None
    if stored is not None and stored.progress["finished"]:
        return load_run(run_folder)
    with open_for_training(run_folder) as folder:
        if not folder.holds(settings):
            folder.write_settings(settings)
        trainer = Trainer(groups, tasks, training, ensemble, seed)
        if (checkpoint := folder.latest(set_aside=True)) is not None:
            trainer.restore(checkpoint)
            folder.rewind_log(checkpoint.step, checkpoint.log)
        else:
            folder.rewind_log(-1)
        trainer.run(folder, show=progress)
    try:
        return load_run(run_folder)
    except MultitaskError as error:  # it was complete a moment ago
        raise StorageError(f"run folder {folder.path} changed or went away while it was trained: {error}") from error


def groups_of(rules: Any) -> tuple[list[list[str]], dict[str, Task]]:
    """Names of the tasks of each group, and all tasks by name, checked; a plain sequence is one group."""
    flat = isinstance(rules, str) or all(isinstance(rule, str | Task) for rule in rules)
    groups = [as_tasks(group) for group in ([rules] if flat else rules)]
    return [list(group) for group in groups], as_tasks([task for group in groups for task in group.values()])


def _check_fit(
    groups: list[list[str]],
    tasks: dict[str, Task],
    network: NetworkParameters,
    training: TrainingParameters,
    start: LeakyRNN | None,
    n_networks: int,
) -> None:
    """Raise an error unless rules, network, training and start fit together."""
    rules = [rule for group in groups for rule in group]
    for rule in training.rule_weights:
        if rule not in rules:
            raise unknown("rule in training.rule_weights", rule, rules)
    for task in tasks.values():
        check_fit(task, network)
        check_loss(task, training.loss_type)
    steps = training.n_steps * (len(rules) if len(groups) > 1 else 1)
    late = [] if isinstance(training.checkpoint_steps, str) else [k for k in training.checkpoint_steps if k > steps]
    if late:
        raise MultitaskError(
            f"training.checkpoint_steps: step {late[0]} is after the last step, training has {steps} steps"
        )
    if start is not None:
        check_same(start.parameters, network, "in start", "in network")
        if start.n_networks != n_networks:
            raise MultitaskError(
                f"start has {start.n_networks} networks, but n_networks = {n_networks}; use start.subset(...)"
            )
