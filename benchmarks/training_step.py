"""One training step of an ensemble: the hand-written recurrence against the loop by the book, network by network.

Both sides do the same work on the same numbers: forward, least-squares loss, backward, clipping of each network's
gradient by its norm, Adam. The book's side is what one would write from the equation with `torch.nn.Linear` and
autograd; it may use the same loss, clipping and Adam. Rounds are interleaved, and times are CPU seconds of the
process.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from multitask.network import LeakyRNN, NetworkParameters
from multitask.scan import ACTIVATIONS
from multitask.training import Adam, SquaredError, TrainingParameters, clipped, gradient_norms

N_INPUTS, N_OUTPUTS = 85, 33


@dataclass(frozen=True)
class StepTimes:
    """CPU milliseconds of one step of one network, by the book and by hand (medians over rounds), and the largest
    relative difference of
    their gradients."""

    n_units: int
    n_networks: int
    activation: str
    sigma_rec: float
    book_ms: float
    hand_ms: float
    difference: float

    @property
    def ratio(self) -> float:
        return self.book_ms / self.hand_ms


def training_step(
    n_units: int,
    n_networks: int = 8,
    *,
    activation: str = "softplus",
    sigma_rec: float = 0.05,
    n_trials: int = 64,
    n_times: int = 100,
    rounds: int = 7,
    seed: int = 0,
) -> StepTimes:
    """Time one training step of an ensemble both ways, in one process with the threads that torch has."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n_times, n_trials, N_INPUTS, generator=generator).transpose(
        0, 1
    )  # time outermost, as trials are made
    targets = torch.rand(n_times, n_trials, N_OUTPUTS, generator=generator).transpose(0, 1)
    mask = torch.rand(n_times, N_OUTPUTS, generator=generator).expand(n_trials, -1, -1)
    parameters = NetworkParameters(n_rnn=n_units, activation=activation, sigma_rec=sigma_rec)
    ensemble = LeakyRNN(parameters, n_networks, seed)
    members = [ensemble.subset([i]) for i in range(n_networks)]
    by_hand, by_book = _Hand(ensemble), [_Book(member) for member in members]
    gradients = by_hand.gradients(inputs, targets, mask, None)
    reference = [book.gradients(inputs, targets, mask, None) for book in by_book]
    difference = max(
        ((ours[i] - theirs[0]).abs().max() / theirs.abs().max()).item()
        for i, network in enumerate(reference)
        for ours, theirs in zip(gradients, network, strict=True)
    )
    noise = generator if sigma_rec else None
    book, hand = _interleaved(
        [
            lambda: [network.step(inputs, targets, mask, noise) for network in by_book],
            lambda: by_hand.step(inputs, targets, mask, noise),
        ],
        rounds,
    )
    per_network = 1000 / n_networks
    return StepTimes(n_units, n_networks, activation, sigma_rec, book * per_network, hand * per_network, difference)


class _Hand:
    """The product: hand-written recurrence, all networks at once."""

    def __init__(self, network: LeakyRNN) -> None:
        self.network, self.buffers = network, {}
        self.weights = {name: weight.clone().requires_grad_() for name, weight in network.weights.items()}
        self.adam = Adam(self.weights)
        self.network = network.with_weights(self.weights)

    def gradients(
        self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None
    ) -> list[Tensor]:
        logits, _ = self.network.logits(inputs, generator=generator, buffers=self.buffers)
        loss = SquaredError.apply(logits, targets, mask).sum()
        return list(torch.autograd.grad(loss, list(self.weights.values())))

    def step(self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None) -> None:
        gradients = self.gradients(inputs, targets, mask, generator)
        training = TrainingParameters(clip="norm")
        with torch.no_grad():
            self.adam.update(clipped(gradients, gradient_norms(gradients), training), 1e-3)


class _Book(_Hand):
    """One network, the loop as the equation reads: two linear maps a step, autograd for the rest."""

    def gradients(
        self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None
    ) -> list[Tensor]:
        w, p = self.weights, self.network.parameters
        f = ACTIVATIONS[p.activation].f
        w_in, w_rec = torch.cat([w["w_in"][0], w["w_rule"][0]]).T, w["w_rec"][0].T
        h = inputs.new_zeros(len(inputs), p.n_rnn)
        states = []
        for x in inputs.unbind(1):
            z = torch.nn.functional.linear(x, w_in, w["b"][0, 0]) + torch.nn.functional.linear(h, w_rec)
            if generator is not None:
                z = z + p.noise_sd * torch.randn(z.shape, generator=generator)
            h = (1 - p.alpha) * h + p.alpha * f(z)
            states.append(h)
        outputs = torch.sigmoid(torch.stack(states, 1) @ w["w_out"][0] + w["b_out"][0])
        loss = (mask * (outputs - targets)).square().mean()
        return list(torch.autograd.grad(loss, list(w.values())))


def _interleaved(sides: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median CPU seconds of each side; the first round warms up and is not counted."""
    spent: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds + 1):
        for times, side in zip(spent, sides, strict=True):
            start = time.process_time()
            side()
            times.append(time.process_time() - start)
    return [statistics.median(times[1:]) for times in spent]
