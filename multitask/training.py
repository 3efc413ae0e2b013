"""Training of an ensemble of networks on some rules: loss, optimiser, stop rule, checkpoints, resume.

One step is one batch of trials of one rule, drawn anew at every step and shared by all networks of the ensemble, and
one update of each network by the gradient of its own loss (Yang et al. 2019):

    lsq             L = mean over trials, times, outputs of (mask (y - target))^2,      y = sigmoid(h W_out + b_out)
    cross_entropy   L = mean over trials, times of mask CE(softmax(h W_out + b_out), target)

The paper's settings are the defaults: Adam at a constant rate of 1e-3, gradients clipped element by element to [-1,
1]. Settings that learn twenty times faster on a CPU (relu from W_rec = 0.9 I, the gradient of each network clipped by
its norm, warm-up and cosine, decisions that start easy) are only a matter of parameters. Given a list of groups of
rules in place of rules, groups are learnt one after the other, protected by intelligent synapses (Zenke et al. 2017)
if ``c_intsyn`` > 0.

The random numbers of step k depend on the seed and on k alone: a run that was killed goes on as if nothing had
happened, bit for bit on a CPU with the same number of threads.

Sources: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code; Zenke, Poole
and Ganguli (2017), Continual learning through synaptic intelligence, ICML.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from tqdm import tqdm

from multitask.evaluation import check_rules, generators, score_trials
from multitask.network import WEIGHT_GROUPS, LeakyRNN, NetworkParameters, check_number, make_network
from multitask.storage import Checkpoint, RunFolder, open_for_training, tensors_sha256
from multitask.tasks import generate_trials, layout
from multitask.trials import LOSSES, MultitaskError, TrialBatch, check_whole, checked_device, unknown

SCHEDULES = ("constant", "cosine")
CLIPS = ("value", "norm", "none")
DIFFICULTIES = ("standard", "easy", "easy_to_standard")
COSINE_END = 0.05  # the cosine falls to this share of the learning rate
LARGEST_STATE = 1e6  # beyond this a network has exploded
TRIALS, NOISE, EVALUATION, HELD_WEIGHTS = range(1, 5)  # streams of random numbers
PROGRESS = ("group", "group_start", "group_ends", "reached", "finished")  # what a checkpoint tells of a trainer


@dataclass(frozen=True)
class TrainingParameters:
    """How networks are trained; the defaults are those of the paper.

    Attributes
    ----------
    n_steps : int >= 1
        Updates at most; with groups of rules, for each rule of a group.
    batch_size : int >= 1
        Trials a step, all of one rule.
    learning_rate : > 0
    schedule : "constant" or "cosine" (to 5 % of the learning rate at the last step)
    warm_up : in [0, 1)
        Share of the steps over which the learning rate rises from 0.
    clip : "value", "norm" or "none"
        Limit each entry of the gradient to +-``clip_at``, or the norm of each network's whole gradient.
    clip_at : > 0
    rule_weights : mapping rule -> weight > 0
        How often a rule is drawn, relative to 1 for those not named. The paper's 20-task runs give contextdm1 and
        contextdm2 a weight of 5.
    sigma_x : >= 0
        Noise on the inputs.
    difficulty : "standard", "easy" or "easy_to_standard"
        "easy": larger coherences in the decision tasks. "easy_to_standard": they fall to the standard ones over the
        first half of the steps. Evaluation uses the difficulty of the last step.
    loss_type : "lsq" or "cross_entropy"
    l1_h, l2_h : >= 0
        Cost of activity, l1_h mean|h| + l2_h / 2 sum h^2.
    l1_weight, l2_weight, l2_weight_init : >= 0
        Cost of weights: sum over weight matrices of l1_weight mean|w| + l2_weight / 2 sum w^2 + l2_weight_init / 2
        sum (w - w_start)^2.
    p_weight_train : in (0, 1), or None
        Share of the weights that are trained; the others are held softly, by a cost of (0.1 (w - w_start))^2 / 2 each.
    frozen : names among "input", "rule_input", "recurrent", "output"
        Weights that stay as they are.
    c_intsyn, ksi_intsyn : >= 0
        Intelligent synapses, for groups of rules: strength, and damping (> 0).
    evaluate_every : int >= 1
        Steps between evaluations; one comes before the first step and one after the last.
    n_test_batches, test_batch_size : int >= 1
        Trials of each rule in an evaluation: batches, each with event times of its own, and trials in a batch.
    target_performance : in (0, 1]
        Training stops once the worst rule (the mean over the group's rules, with groups) of every network is above
        it. 1 cannot be exceeded.
    checkpoint_steps : "geometric" or a tuple of steps
        Checkpoints kept for comparisons over learning, besides the first, the last two and the ends of groups;
        "geometric": 1, 2, 4, 8, ...
    """

    n_steps: int = 156_251
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warm_up: float = 0.0
    clip: str = "value"
    clip_at: float = 1.0
    rule_weights: Mapping[str, float] = field(default_factory=dict)
    sigma_x: float = 0.01
    difficulty: str = "standard"
    loss_type: str = "lsq"
    l1_h: float = 0.0
    l2_h: float = 0.0
    l1_weight: float = 0.0
    l2_weight: float = 0.0
    l2_weight_init: float = 0.0
    p_weight_train: float | None = None
    frozen: tuple[str, ...] = ()
    c_intsyn: float = 0.0
    ksi_intsyn: float = 0.0
    evaluate_every: int = 500
    n_test_batches: int = 16
    test_batch_size: int = 32
    target_performance: float = 1.0
    checkpoint_steps: str | tuple[int, ...] = "geometric"

    def __post_init__(self) -> None:
        choices = {"schedule": SCHEDULES, "clip": CLIPS, "difficulty": DIFFICULTIES, "loss_type": LOSSES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown(f"training.{name}", getattr(self, name), known)
        for group in self.frozen:
            if group not in WEIGHT_GROUPS:
                raise unknown("weights in training.frozen", group, WEIGHT_GROUPS)
        if set(self.frozen) == set(WEIGHT_GROUPS):
            raise MultitaskError("training.frozen names all weights: nothing is left to train; leave out one of them")
        for name in ("n_steps", "batch_size", "evaluate_every", "n_test_batches", "test_batch_size"):
            check_whole(f"training.{name}", getattr(self, name), 1)
        for name in ("learning_rate", "clip_at"):
            check_number(f"training.{name}", getattr(self, name), above=0)
        costs = ("l1_h", "l2_h", "l1_weight", "l2_weight", "l2_weight_init", "c_intsyn", "ksi_intsyn")
        for name in ("sigma_x", "warm_up", *costs):
            check_number(f"training.{name}", getattr(self, name), least=0)
        if self.warm_up >= 1:
            raise MultitaskError(f"training.warm_up = {self.warm_up!r}: must be a share of the steps, below 1")
        check_number("training.target_performance", self.target_performance, above=0)
        if self.target_performance > 1:
            raise MultitaskError(
                f"training.target_performance = {self.target_performance!r}: must be a share of right trials, "
                f"at most 1 (which is never exceeded: training then takes all its steps)"
            )
        if self.p_weight_train is not None:
            check_number("training.p_weight_train", self.p_weight_train, above=0)
            if self.p_weight_train >= 1:
                raise MultitaskError(
                    f"training.p_weight_train = {self.p_weight_train!r}: must be below 1; None trains all weights"
                )
        if self.c_intsyn > 0 and self.ksi_intsyn == 0:
            raise MultitaskError(
                "training.ksi_intsyn = 0: intelligent synapses (c_intsyn > 0) divide by it; the paper takes 0.01"
            )
        for rule, weight in self.rule_weights.items():
            check_number(f"training.rule_weights[{rule!r}]", weight, above=0)
        if isinstance(self.checkpoint_steps, str):
            if self.checkpoint_steps != "geometric":
                raise unknown("training.checkpoint_steps", self.checkpoint_steps, ["geometric"])
        else:
            for step in self.checkpoint_steps:
                check_whole("training.checkpoint_steps", step, 0)

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step, counted from 0, of ``n_steps``."""
        warm = self.warm_up * n_steps
        rise = min(1.0, (step + 1) / warm) if warm else 1.0
        if self.schedule == "constant":
            return self.learning_rate * rise
        fall = 0.5 + 0.5 * math.cos(math.pi * max(0.0, (step - warm) / (n_steps - warm)))
        return self.learning_rate * rise * (COSINE_END + (1 - COSINE_END) * fall)

    def easiness(self, progress: float) -> float:
        """How easy the trials are, 1 easy, 0 standard, when a share ``progress`` of the steps is done."""
        return {"standard": 0.0, "easy": 1.0, "easy_to_standard": max(0.0, 1 - 2 * progress)}[self.difficulty]

    def kept(self, n_steps: int) -> set[int]:
        """Steps whose checkpoints stay, of ``n_steps``."""
        if isinstance(self.checkpoint_steps, str):
            return {0, n_steps, *(2**k for k in range(n_steps.bit_length()))}
        return {0, n_steps, *self.checkpoint_steps}


@dataclass(frozen=True, eq=False)
class Run:
    """A training run on disk.

    Attributes
    ----------
    folder : Path
    network : LeakyRNN
        The ensemble at the last checkpoint.
    log : DataFrame
        A row for each evaluation, rule and network: ``step``, ``rule``, ``network``, ``loss``, ``penalty`` (all costs
        that are not the loss), ``performance`` in [0, 1], ``gradient_norm`` and ``learning_rate`` of the step before,
        ``cpu_seconds`` of the whole ensemble so far.
    settings : dict
        ``rules``, ``network``, ``training``, ``n_networks``, ``seed``, ``start``, and the versions that made the run.
    checkpoints : tuple of int
        Steps that `load` knows.
    finished : str
        Why training ended, "target reached" or "all steps"; empty if it has not.
    """

    folder: Path
    network: LeakyRNN
    log: pd.DataFrame
    settings: dict[str, Any]
    checkpoints: tuple[int, ...]
    finished: str

    def load(self, step: int) -> LeakyRNN:
        """The ensemble as it was at one of the ``checkpoints``."""
        return _network_of(RunFolder(self.folder).load(step), self.network)


def load_run(run_folder: str | os.PathLike[str]) -> Run:
    """The run in a folder, finished or not. A warning tells of a damaged checkpoint, and the one before it is read."""
    folder = RunFolder(run_folder)
    settings = folder.settings()
    checkpoint = folder.latest() if settings is not None else None
    if settings is None or checkpoint is None:
        raise MultitaskError(f"run folder {folder.path} holds no trained network; train(..., run_folder=...) makes one")
    network = _network_of(checkpoint, make_network(NetworkParameters(**settings["network"])))
    return Run(
        folder=folder.path,
        network=network,
        log=folder.log(checkpoint.step),
        settings=settings,
        checkpoints=tuple(step for step in folder.steps() if step <= checkpoint.step),
        finished=checkpoint.progress["finished"],
    )


def train(
    rules: Sequence[str] | Sequence[Sequence[str]],
    network: NetworkParameters = NetworkParameters(),  # noqa: B008 (frozen)
    training: TrainingParameters = TrainingParameters(),
    *,
    run_folder: str | os.PathLike[str],
    n_networks: int = 1,
    seed: int = 0,
    start: LeakyRNN | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Run:
    """Train an ensemble of networks, or go on where an earlier call with the same arguments was stopped, or read what
    it finished.

    Parameters
    ----------
    rules : names of rules, trained together; or a list of groups of names, trained one group after the other
    network, training : parameters of the networks and of their training
    run_folder : where everything is kept; one run a folder
    n_networks : int >= 1
        Networks that differ in their starts and in their private noise, and see the same trials.
    seed : int >= 0
    start : LeakyRNN, optional
        Start from these weights (of `load_run`, for example) in place of random ones.
    device : CPU by default
    progress : bool
        Show a progress bar with the loss and the worst rule.

    Returns
    -------
    Run

    Raises
    ------
    MultitaskError
        For arguments that do not fit; for a folder that holds a run with other settings, is in use or cannot be
        written; and for networks that explode: step, rule and remedy are named, and the last checkpoint, from before,
        stays.
    """
    groups = _groups(rules)
    _check_fit(groups, network, training, start, n_networks)
    settings = {
        "rules": list(rules) if isinstance(rules[0], str) else groups,
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
        trainer = _Trainer(groups, training, ensemble, seed)
        if (checkpoint := folder.latest(set_aside=True)) is not None:
            trainer.restore(checkpoint)
        folder.rewind_log(-1 if checkpoint is None else checkpoint.step)
        trainer.run(folder, show=progress)
    return load_run(run_folder)


class _Trainer:
    """The state of a run, and how it moves on."""

    def __init__(
        self,
        groups: list[list[str]],
        training: TrainingParameters,
        network: LeakyRNN,
        seed: int,
    ) -> None:
        self.groups, self.training, self.network, self.seed = groups, training, network, seed
        frozen = {"mixing", *(name for group in training.frozen for name in WEIGHT_GROUPS[group])}
        self.trained = {name: w.requires_grad_() for name, w in network.weights.items() if name not in frozen}
        self.penalty = Penalty(network, training, _generator(seed, HELD_WEIGHTS))
        self.adam = Adam(self.trained)
        self.synapses = Synapses(self.trained, training)
        self.buffers: dict[str, Tensor] | None = None if self.synapses.on else {}  # they allow for one backward pass
        self.step, self.group, self.group_start, self.group_ends = 0, 0, 0, [0]
        self.reached, self.finished, self.standing = False, "", ""
        self.rate, self.norms = math.nan, torch.full((network.n_networks,), math.nan)  # of the last step
        self.clock = -time.process_time()  # the CPU time of the process, counted from the start of the run

    @property
    def cpu_seconds(self) -> float:
        return round(self.clock + time.process_time(), 3)

    @property
    def rules(self) -> list[str]:
        """Rules of the present group."""
        return self.groups[self.group]

    @property
    def done(self) -> int:
        """Steps of the present group that are done."""
        return self.step - self.group_start

    @property
    def at_end(self) -> bool:
        """Whether those are all of the present group."""
        return self.done == self.n_steps(self.group)

    @property
    def total(self) -> int:
        """Steps of all groups."""
        return sum(map(self.n_steps, range(len(self.groups))))

    def n_steps(self, group: int) -> int:
        return self.training.n_steps * (len(self.groups[group]) if len(self.groups) > 1 else 1)

    def run(self, folder: RunFolder, show: bool) -> None:
        """Train to the end; evaluations, log and checkpoints on the way."""
        with tqdm(total=self.total, initial=self.step, desc="training", unit="step", disable=not show) as bar:
            if not folder.steps():
                bar.set_postfix_str(self.record(folder))
            while not self.finished:
                if self.at_end or self.reached:
                    self.next_group()
                self.advance()
                bar.set_postfix_str(self.record(folder), refresh=False)
                bar.update()

    def record(self, folder: RunFolder) -> str:
        """Log and checkpoint, where they are due; how things stand, for the progress bar."""
        kept = self.training.kept(self.total)
        due = self.at_end or self.done % self.training.evaluate_every == 0
        if due:
            rows = self.evaluate()
            folder.append_log(rows)
            self.standing, self.reached = _summary(rows), self.is_reached(rows)
            if (self.at_end or self.reached) and self.group == len(self.groups) - 1:
                self.finished = "target reached" if self.reached else "all steps"
        if due or self.step in kept:
            folder.save(self.step, self.tensors(), self.progress())
            folder.prune(kept | set(self.group_ends))
        return self.standing

    def advance(self) -> None:
        """One batch of trials, one update of the weights."""
        training, n_steps = self.training, self.n_steps(self.group)
        draw = _generator(self.seed, TRIALS, self.step)
        odds = torch.tensor([float(training.rule_weights.get(rule, 1.0)) for rule in self.rules])
        rule = self.rules[int(torch.multinomial(odds, 1, generator=draw))]
        batch = self.trials(rule, training.batch_size, draw, training.easiness(self.done / n_steps))
        noise = _generator(self.seed, NOISE, self.step, device=self.network.device)
        logits, hidden = self.network.logits(batch.inputs, generator=noise, buffers=self.buffers)
        loss = task_loss(logits, batch, training.loss_type)  # (network,)
        rest = self.penalty(hidden) + self.synapses.cost()
        of_loss, gradients = self.gradients(loss, rest)
        self.norms, self.rate = gradient_norms(gradients), training.rate(self.done, n_steps)
        self.check(rule, hidden, loss, self.norms)
        with torch.no_grad():
            before = self.synapses.snapshot()
            self.adam.update(clipped(gradients, self.norms, training), self.rate)
            self.synapses.follow(before, of_loss)
        self.step += 1

    def gradients(self, loss: Tensor, rest: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Gradients of the loss alone, which only the synapses need, and of all costs."""
        weights = list(self.trained.values())
        if not self.synapses.on:
            return (), torch.autograd.grad((loss + rest).sum(), weights)
        of_loss = torch.autograd.grad(loss.sum(), weights, retain_graph=True)
        of_rest = torch.autograd.grad(rest.sum(), weights, materialize_grads=True)
        return of_loss, [a + b for a, b in zip(of_loss, of_rest, strict=True)]

    def check(self, rule: str, hidden: Tensor, loss: Tensor, *gradient_norms: Tensor) -> None:
        """An error that ends the run if a network has exploded; the last checkpoint is from before."""
        hidden = hidden.detach()
        largest = torch.maximum(hidden.amax((1, 2, 3)), -hidden.amin((1, 2, 3)))
        sound = torch.stack([loss, *gradient_norms]).isfinite().all(0) & (largest <= LARGEST_STATE)  # nan is not
        if not sound.all():
            i = int((~sound).nonzero()[0])
            remedies = ["lower training.learning_rate"]
            if self.training.clip != "norm":
                remedies.append("clip the gradient by its norm (training.clip = 'norm')")
            if self.training.warm_up == 0:
                remedies.append("raise the rate slowly (training.warm_up = 0.03)")
            raise MultitaskError(
                f"training stopped at step {self.step}, rule {rule!r}: network {i} has exploded "
                f"(loss {loss[i].item():.3g}, largest state {largest[i].item():.3g}) at training.learning_rate = "
                f"{self.training.learning_rate:g}. The last checkpoint before it is kept. "
                f"Remedy, in another run_folder: {', or '.join(remedies)}"
            )

    @torch.no_grad()
    def evaluate(self) -> list[dict[str, Any]]:
        """Rows of the log: loss, penalty and performance of each rule and network on fresh trials."""
        training, rows = self.training, []
        easiness = training.easiness(1.0)
        for rule in dict.fromkeys(rule for group in self.groups for rule in group):
            draw, noise = generators(_seed(self.seed, EVALUATION, self.step), rule, self.network.device)
            sums = torch.zeros(3, self.network.n_networks, device=self.network.device)
            for _ in range(training.n_test_batches):
                batch = self.trials(rule, training.test_batch_size, draw, easiness)
                logits, hidden = self.network.logits(batch.inputs, generator=noise, buffers=self.buffers)
                loss = task_loss(logits, batch, training.loss_type)
                outputs = torch.sigmoid(logits) if training.loss_type == "lsq" else torch.softmax(logits, -1)
                self.check(rule, hidden, loss)
                sums += torch.stack([loss, self.penalty(hidden), score_trials(outputs, batch).mean(-1)])
            for network, values in enumerate((sums / training.n_test_batches).T.tolist()):
                rows.append(
                    {
                        "step": self.step,
                        "rule": rule,
                        "network": network,
                        **dict(zip(("loss", "penalty", "performance"), values, strict=True)),
                        "gradient_norm": self.norms[network].item(),
                        "learning_rate": self.rate,
                        "cpu_seconds": self.cpu_seconds,
                    }
                )
        return rows

    def trials(self, rule: str, n_trials: int, draw: torch.Generator, easiness: float) -> TrialBatch:
        p, training = self.network.parameters, self.training
        return generate_trials(
            rule,
            n_trials,
            dt=p.dt,
            tau=p.tau,
            noise=training.sigma_x,
            generator=draw,
            loss=training.loss_type,
            easiness=easiness,
            device=self.network.device,
        )

    def is_reached(self, rows: list[dict[str, Any]]) -> bool:
        """Whether every network is above the target with its worst rule (with groups: on average over the group)."""
        measure = min if len(self.groups) == 1 else np.mean
        return all(
            measure([row["performance"] for row in rows if row["network"] == network and row["rule"] in self.rules])
            > self.training.target_performance
            for network in range(self.network.n_networks)
        )

    def next_group(self) -> None:
        """Go on to the next group of rules: the optimiser begins anew, the synapses remember."""
        self.group, self.group_start, self.reached = self.group + 1, self.step, False
        self.group_ends.append(self.step)
        self.adam = Adam(self.trained)
        self.synapses.consolidate()

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds."""
        return {
            **{f"weights/{name}": weight for name, weight in self.network.weights.items()},
            **{f"adam.mean/{name}": tensor for name, tensor in self.adam.mean.items()},
            **{f"adam.square/{name}": tensor for name, tensor in self.adam.square.items()},
            **{f"synapses.{key}/{name}": t for key, state in self.synapses.state.items() for name, t in state.items()},
        }

    def progress(self) -> dict[str, Any]:
        """All else that the next step needs."""
        return {
            **{key: getattr(self, key) for key in PROGRESS},
            "n_updates": self.adam.n_updates,
            "cpu_seconds": self.cpu_seconds,
            "network": asdict(self.network.parameters),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint."""
        stored = _network_of(checkpoint, self.network).weights
        states = {"adam.mean": self.adam.mean, "adam.square": self.adam.square}
        states |= {f"synapses.{key}": state for key, state in self.synapses.state.items()}
        with torch.no_grad():
            for name, weight in self.network.weights.items():
                weight.copy_(stored[name])
            for prefix, state in states.items():
                for name, tensor in state.items():
                    tensor.copy_(checkpoint.tensors[f"{prefix}/{name}"])
        for key in PROGRESS:
            setattr(self, key, checkpoint.progress[key])
        self.clock += checkpoint.progress["cpu_seconds"]
        self.step, self.adam.n_updates = checkpoint.step, checkpoint.progress["n_updates"]


class Adam:
    """The optimiser of Kingma and Ba (2015), beta 0.9 and 0.999. Elementwise, so that networks on the leading axis do
    not meet.

    Own, because the first optimiser of `torch.optim` in a process imports a compiler for four seconds.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self.mean = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
        self.square = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
        self.n_updates = 0

    def update(self, gradients: Sequence[Tensor], rate: float) -> None:
        """w -= rate m / (sqrt(v) + 1e-8) in place, with debiased running means m of the gradient, v of its square."""
        self.n_updates += 1
        debias_mean, debias_square = (1 - beta**self.n_updates for beta in (0.9, 0.999))
        for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
            mean = self.mean[name].lerp_(gradient, 0.1)
            square = self.square[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            weight.addcdiv_(mean, (square / debias_square).sqrt_().add_(1e-8), value=-rate / debias_mean)


class Penalty:
    """All costs besides the loss, (E,): of activity, of weights, and of leaving the start."""

    def __init__(self, network: LeakyRNN, training: TrainingParameters, generator: torch.Generator) -> None:
        self.network, self.training = network, training
        self.costs_weights = bool(
            training.l1_weight or training.l2_weight or training.l2_weight_init or training.p_weight_train
        )
        self.start = [matrix.detach().clone() for matrix in self.matrices()] if self.costs_weights else []
        self.held = [
            torch.rand(matrix.shape, generator=generator).to(matrix.device) >= (training.p_weight_train or 1.0)
            for matrix in self.start
        ]

    def matrices(self) -> list[Tensor]:
        """The weight matrices, (E, rows, columns): all onto the recurrent units stacked, and the output weights."""
        return [
            torch.cat([self.network.weights[name] for name in names], 1) for names in self.network.weight_matrices()
        ]

    def __call__(self, hidden: Tensor) -> Tensor:
        p, each = self.training, (1, 2)
        cost = hidden.new_zeros(len(hidden))
        if p.l1_h:
            cost = cost + p.l1_h * hidden.abs().mean((1, 2, 3))
        if p.l2_h:
            cost = cost + p.l2_h / 2 * hidden.square().sum((1, 2, 3))
        if self.costs_weights:
            for w, start, held in zip(self.matrices(), self.start, self.held, strict=True):
                cost = cost + p.l1_weight * w.abs().mean(each) + p.l2_weight / 2 * w.square().sum(each)
                moved = (w - start).square()
                cost = cost + p.l2_weight_init / 2 * moved.sum(each) + 0.005 * (moved * held).sum(each)
        return cost


class Synapses:
    """Intelligent synapses: what each parameter did for earlier groups of rules, and the cost of changing it (Zenke
    et al. 2017).

    Within a group omega sums -(change of theta) (gradient of the loss), the share of each parameter in the fall of
    the loss. At the end of a group Omega = max(0, Omega + omega / (total change^2 + ksi)), and from then on c sum
    Omega (theta - anchor)^2 is added to the loss.
    """

    def __init__(self, weights: Mapping[str, Tensor], training: TrainingParameters) -> None:
        self.weights, self.c, self.ksi = weights, training.c_intsyn, training.ksi_intsyn
        self.on = training.c_intsyn > 0
        self.state: dict[str, dict[str, Tensor]] = {}
        if self.on:
            self.state = {
                key: {n: torch.zeros_like(w).detach() for n, w in weights.items()} for key in ("omega", "importance")
            }
            self.state["anchor"] = {name: weight.detach().clone() for name, weight in weights.items()}

    def cost(self) -> Tensor | float:
        """Cost of the distance from the anchor, (E,)."""
        return sum(
            self.c * (self.state["importance"][name] * (weight - self.state["anchor"][name]).square()).sum((1, 2))
            for name, weight in (self.weights.items() if self.on else ())
        )

    def snapshot(self) -> list[Tensor]:
        return [weight.clone() for weight in self.weights.values()] if self.on else []

    def follow(self, before: Sequence[Tensor], of_loss: Sequence[Tensor]) -> None:
        """Credit each parameter for an update."""
        if self.on:
            for (name, weight), old, gradient in zip(self.weights.items(), before, of_loss, strict=True):
                self.state["omega"][name] -= (weight - old) * gradient

    @torch.no_grad()
    def consolidate(self) -> None:
        """End of a group: importance from credit, and a new anchor."""
        if self.on:
            for name, weight in self.weights.items():
                omega, importance, anchor = (self.state[key][name] for key in ("omega", "importance", "anchor"))
                importance.add_(omega / ((weight - anchor).square() + self.ksi)).clamp_(min=0)
                anchor.copy_(weight)
                omega.zero_()


def task_loss(logits: Tensor, batch: TrialBatch, loss_type: str) -> Tensor:
    """Loss of each network on a batch, (E,), from logits (E, n_trials, n_times, n_output)."""
    if loss_type == "lsq":
        return SquaredError.apply(logits, batch.targets, batch.cost_mask)
    surprise = -(torch.log_softmax(logits, -1) * batch.targets).sum(-1)
    return (batch.cost_mask * surprise).mean((1, 2))


class SquaredError(torch.autograd.Function):
    """L = mean (mask (y - target))^2 with y = sigmoid(logits), and dL/dlogits = 2 / n mask^2 (y - target) y (1 - y),
    by hand.

    Autograd spreads the mean over memory in another order than the recurrence has: it needs twice the time here and
    one more copy there.
    """

    @staticmethod
    def forward(ctx, logits, targets, mask):
        y = torch.sigmoid(logits)
        residual = (y - targets).mul_(mask)
        ctx.save_for_backward(y, residual, mask)
        return residual.square().mean((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        y, residual, mask = ctx.saved_tensors
        scale = 2 / residual[0].numel() * gradient[:, None, None, None]
        return torch.ops.aten.sigmoid_backward((residual * mask).mul_(scale), y), None, None


def gradient_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Norm of the whole gradient of each network, (E,)."""
    return torch.stack([gradient.square().sum((1, 2)) for gradient in gradients]).sum(0).sqrt()


def clipped(gradients: Sequence[Tensor], norms: Tensor, training: TrainingParameters) -> Sequence[Tensor]:
    """Gradients limited entry by entry, or by the norm of each network."""
    if training.clip == "value":
        return [gradient.clamp(-training.clip_at, training.clip_at) for gradient in gradients]
    if training.clip == "norm":
        shrink = (training.clip_at / norms).clamp(max=1)[:, None, None]
        return [gradient * shrink for gradient in gradients]
    return gradients


def _seed(*key: int) -> int:
    """A seed that belongs to a key of whole numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed(*key))


def _groups(rules: Sequence[str] | Sequence[Sequence[str]]) -> list[list[str]]:
    """Groups of known rules; a plain list of names is one group."""
    flat = isinstance(rules, str) or all(isinstance(rule, str) for rule in rules)
    groups = [rules] if flat else rules
    for group in groups:
        check_rules(group)  # type: ignore[arg-type]
    return [list(group) for group in groups]  # type: ignore[arg-type]


def _check_fit(
    groups: list[list[str]],
    network: NetworkParameters,
    training: TrainingParameters,
    start: LeakyRNN | None,
    n_networks: int,
) -> None:
    """An error unless rules, network, training and start belong together."""
    rules = [rule for group in groups for rule in group]
    for rule in training.rule_weights:
        if rule not in rules:
            raise unknown("rule in training.rule_weights", rule, rules)
    for rule in rules:
        wanted = layout(rule)
        if (network.n_input, network.n_rule) != (wanted.n_inputs, len(wanted.rules)):
            raise MultitaskError(
                f"network.n_input = {network.n_input}, n_rule = {network.n_rule}: "
                f"rule {rule!r} needs {wanted.n_inputs} inputs, {len(wanted.rules)} of them for rules"
            )
    steps = training.n_steps * (len(rules) if len(groups) > 1 else 1)
    late = [] if isinstance(training.checkpoint_steps, str) else [k for k in training.checkpoint_steps if k > steps]
    if late:
        raise MultitaskError(f"training.checkpoint_steps: step {late[0]} never comes, training has {steps} steps")
    if network.n_output != 33:
        raise MultitaskError(f"network.n_output = {network.n_output}: the tasks need 33, fixation and a ring of 32")
    if start is not None:
        _check_same(start.parameters, network, "in start", "in network")
        if start.n_networks != n_networks:
            raise MultitaskError(
                f"start holds {start.n_networks} networks, but n_networks = {n_networks}; use start.subset(...)"
            )


def _check_same(theirs: NetworkParameters, ours: NetworkParameters, where: str, here: str) -> None:
    misfits = [
        f"{name} {getattr(theirs, name)!r} {where}, {getattr(ours, name)!r} {here}" for name in ours.misfits(theirs)
    ]
    if misfits:
        raise MultitaskError(f"the weights belong to another network: {'; '.join(misfits)}")


def _network_of(checkpoint: Checkpoint, like: LeakyRNN) -> LeakyRNN:
    """The ensemble of a checkpoint, of the same kind as ``like``."""
    _check_same(NetworkParameters(**checkpoint.progress["network"]), like.parameters, "in file", "in config")
    prefix = "weights/"
    weights = {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
    return like.with_weights({name: weights[name].to(like.device) for name in like.weights})


def _summary(rows: list[dict[str, Any]]) -> str:
    """Mean loss and worst rule, for the progress bar."""
    worst = min(rows, key=lambda row: row["performance"])
    return f"loss {np.mean([row['loss'] for row in rows]):.3g}, worst rule {worst['rule']} {worst['performance']:.2f}"
