"""The training loop: updates, evaluations, checkpoints, the stop rule, and resuming from a checkpoint.

The random numbers of step k depend only on the seed and on k, so that a run resumed from a checkpoint continues as if
it had not been interrupted.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from multitask.display import bars_go_to
from multitask.evaluation import generators, read_out
from multitask.network import LeakyRNN, NetworkParameters
from multitask.storage import Checkpoint, RunFolder
from multitask.tasks.base import Task, draw_trials, score
from multitask.training.losses import task_loss
from multitask.training.optimiser import Adam, clipped, gradient_norms
from multitask.training.parameters import TrainingParameters
from multitask.training.penalties import Penalty, Synapses
from multitask.trials import MultitaskError, TrialBatch

LARGEST_STATE = 1e6  # a network with a larger state has diverged
TRIALS, NOISE, EVALUATION, HELD_WEIGHTS = range(1, 5)  # independent streams of random numbers
PROGRESS = ("group", "group_start", "group_ends", "reached", "finished")  # fields of a trainer in a checkpoint


class Trainer:
    """State of a training run, and the methods that advance it.

    Parameters
    ----------
    groups : list of lists of str
        Groups of rules or tasks, trained one after the other, by name.
    tasks : dict of name -> Task
    training : TrainingParameters
    network : LeakyRNN
        Weights are updated in place.
    seed : int >= 0
    """

    def __init__(
        self,
        groups: list[list[str]],
        tasks: dict[str, Task],
        training: TrainingParameters,
        network: LeakyRNN,
        seed: int,
    ) -> None:
        self.tasks = tasks
        self.groups, self.training, self.network, self.seed = groups, training, network, seed
        frozen = {"mixing", *(name for group in training.frozen for name in network.weight_group(group))}
        self.trained = {name: w.requires_grad_() for name, w in network.weights.items() if name not in frozen}
        self.penalty = Penalty(network, training, _generator(seed, HELD_WEIGHTS))
        self.adam = Adam(self.trained)
        self.synapses = Synapses(self.trained, training)
        self.buffers: dict[str, Tensor] | None = None if self.synapses.on else {}  # buffers allow one backward pass
        self.step, self.group, self.group_start, self.group_ends = 0, 0, 0, [0]
        self.reached, self.finished, self.summary = False, "", ""
        self.rate, self.norms = math.nan, torch.full((network.n_networks,), math.nan)  # of the previous step
        self.clock = -time.process_time()  # CPU time of the process at the start of the run, negative

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the run so far, s."""
        return round(self.clock + time.process_time(), 3)

    @property
    def rules(self) -> list[str]:
        """Rules of the current group."""
        return self.groups[self.group]

    @property
    def done(self) -> int:
        """Completed steps of the current group."""
        return self.step - self.group_start

    @property
    def at_end(self) -> bool:
        """Whether all steps of the current group are completed."""
        return self.done == self.n_steps(self.group)

    @property
    def total(self) -> int:
        """Number of steps of all groups."""
        return sum(map(self.n_steps, range(len(self.groups))))

    def n_steps(self, group: int) -> int:
        """Number of steps of a group."""
        return self.training.n_steps * (len(self.groups[group]) if len(self.groups) > 1 else 1)

    def run(self, folder: RunFolder, show: bool) -> None:
        """Train to the end, with evaluations, log and checkpoints in ``folder``; ``show`` displays a progress bar."""
        with tqdm(
            total=self.total, initial=self.step, desc="training", unit="step", file=bars_go_to(), disable=not show
        ) as bar:
            if not folder.steps():
                bar.set_postfix_str(self.record(folder))
            while not self.finished:
                self.follow()
                bar.set_postfix_str(self.record(folder), refresh=False)
                bar.update()

    def follow(self) -> None:
        """One step, the first one of the next group where a group has ended."""
        if self.at_end or self.reached:
            self.next_group()
        self.advance()

    def record(self, folder: RunFolder) -> str:
        """Evaluate and write log and checkpoint if they are due at this step; returns a text for the progress bar."""
        kept = self.training.kept(self.total)
        due = self.at_end or self.done % self.training.evaluate_every == 0
        if due:
            rows = self.evaluate()
            folder.append_log(rows)
            self.summary = _summary(rows)
            self.reached = target_reached(rows, self.groups, self.rules, self.training.target_performance)
            if (self.at_end or self.reached) and self.group == len(self.groups) - 1:
                self.finished = "target reached" if self.reached else "all steps"
        if due or self.step in kept:
            folder.save(self.step, self.tensors(), self.progress())
            folder.prune(kept | set(self.group_ends))
        return self.summary

    def advance(self) -> None:
        """Draw one batch of trials and update the weights once."""
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
        """Gradients of the loss alone (empty unless synapses need them), and of loss and other costs together."""
        weights = list(self.trained.values())
        if not self.synapses.on:
            return (), torch.autograd.grad((loss + rest).sum(), weights)
        of_loss = torch.autograd.grad(loss.sum(), weights, retain_graph=True)
        of_rest = torch.autograd.grad(rest.sum(), weights, materialize_grads=True)
        return of_loss, [a + b for a, b in zip(of_loss, of_rest, strict=True)]

    def check(self, rule: str, hidden: Tensor, loss: Tensor, *gradient_norms: Tensor) -> None:
        """Raise an error if a network has diverged; the last checkpoint was written before that."""
        hidden = hidden.detach()
        largest = torch.maximum(hidden.amax((1, 2, 3)), -hidden.amin((1, 2, 3)))
        sound = torch.stack([loss, *gradient_norms]).isfinite().all(0) & (largest <= LARGEST_STATE)  # false for nan
        if not sound.all():
            i = int((~sound).nonzero()[0])
            remedies = ["lower training.learning_rate"]
            if self.training.clip != "norm":
                remedies.append("clip the gradient by its norm (training.clip = 'norm')")
            if self.training.warm_up == 0:
                remedies.append("use a warm-up (training.warm_up = 0.03)")
            raise MultitaskError(
                f"training stopped at step {self.step}, rule {rule!r}: network {i} has diverged "
                f"(loss {loss[i].item():.3g}, largest state {largest[i].item():.3g}) at training.learning_rate = "
                f"{self.training.learning_rate:g}. The last checkpoint before this step is kept. "
                f"To avoid this, use a new run_folder and {', or '.join(remedies)}"
            )

    @torch.no_grad()
    def evaluate(self) -> list[dict[str, Any]]:
        """Loss, penalty and performance of each rule and network on new trials, as rows of the log."""
        training, rows = self.training, []
        easiness = training.easiness(1.0)
        for rule in dict.fromkeys(rule for group in self.groups for rule in group):
            draw, noise = generators(_seed(self.seed, EVALUATION, self.step), rule, self.network.device)
            sums = torch.zeros(3, self.network.n_networks, device=self.network.device)
            for _ in range(training.n_test_batches):
                batch = self.trials(rule, training.test_batch_size, draw, easiness)
                logits, hidden = self.network.logits(batch.inputs, generator=noise, buffers=self.buffers)
                loss = task_loss(logits, batch, training.loss_type)
                self.check(rule, hidden, loss)
                scores = score(self.tasks[rule], read_out(logits, training.loss_type), batch)
                sums += torch.stack([loss, self.penalty(hidden), scores.mean(-1)])
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
        """One batch of random trials of a rule."""
        p, training = self.network.parameters, self.training
        return draw_trials(
            self.tasks[rule],
            n_trials,
            dt=p.dt,
            tau=p.tau,
            noise=training.sigma_x,
            generator=draw,
            loss=training.loss_type,
            easiness=easiness,
            device=self.network.device,
        )

    def next_group(self) -> None:
        """Start the next group of rules, with a new optimiser and consolidated synapses."""
        self.group, self.group_start, self.reached = self.group + 1, self.step, False
        self.group_ends.append(self.step)
        self.adam = Adam(self.trained)
        self.synapses.consolidate()

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint, by name."""
        return {
            **{f"weights/{name}": weight for name, weight in self.network.weights.items()},
            **{f"adam.mean/{name}": tensor for name, tensor in self.adam.mean.items()},
            **{f"adam.square/{name}": tensor for name, tensor in self.adam.square.items()},
            **{f"synapses.{key}/{name}": t for key, state in self.synapses.state.items() for name, t in state.items()},
        }

    def progress(self) -> dict[str, Any]:
        """Values of a checkpoint that are not tensors."""
        return {
            **{key: getattr(self, key) for key in PROGRESS},
            "n_updates": self.adam.n_updates,
            "cpu_seconds": self.cpu_seconds,
            "network": asdict(self.network.parameters),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load the state of a checkpoint."""
        stored = network_of(checkpoint, self.network).weights
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


def target_reached(
    rows: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[str]], rules: Sequence[str], target: float
) -> bool:
    """Whether training may stop: the performance of every network is above the target.

    Parameters
    ----------
    rows : sequence of mappings
        An evaluation with ``network``, ``rule`` and ``performance``.
    groups : sequence of sequences of str
        All groups of rules. With one group the worst rule counts, with several the mean over the current group.
    rules : sequence of str
        Rules of the current group.
    target : float in (0, 1]

    Returns
    -------
    bool
    """
    measure = min if len(groups) == 1 else np.mean
    performance: dict[int, list[float]] = {}
    for row in rows:
        if row["rule"] in rules:
            performance.setdefault(row["network"], []).append(row["performance"])
    return all(measure(values) > target for values in performance.values())


def check_same(theirs: NetworkParameters, ours: NetworkParameters, where: str, here: str) -> None:
    """Raise an error unless weights made for ``theirs`` fit a network with the parameters ``ours``."""
    misfits = [
        f"{name} {getattr(theirs, name)!r} {where}, {getattr(ours, name)!r} {here}" for name in ours.misfits(theirs)
    ]
    if misfits:
        raise MultitaskError(f"the weights are those of a different network: {'; '.join(misfits)}")


def network_of(checkpoint: Checkpoint, like: LeakyRNN) -> LeakyRNN:
    """The ensemble stored in a checkpoint, with the parameters and on the device of ``like``."""
    check_same(
        NetworkParameters(**checkpoint.progress["network"]), like.parameters, "in the checkpoint", "in the settings"
    )
    prefix = "weights/"
    weights = {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
    shapes, wanted = ({n: tuple(w.shape[1:]) for n, w in found.items()} for found in (weights, like.weights))
    if shapes != wanted:
        raise MultitaskError(
            f"the weights do not fit the cell {like.rnn_type!r}: {shapes} in the checkpoint, {wanted} in the cell. "
            f"The code of the cell has changed since they were stored"
        )
    return like.with_weights({name: weights[name].to(like.device) for name in like.weights})


def _summary(rows: list[dict[str, Any]]) -> str:
    """Mean loss and worst rule, as text for the progress bar."""
    worst = min(rows, key=lambda row: row["performance"])
    return f"loss {np.mean([row['loss'] for row in rows]):.3g}, worst rule {worst['rule']} {worst['performance']:.2f}"


def _seed(*key: int) -> int:
    """A seed derived from a key of whole numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed(*key))
