"""One training step of an ensemble: the hand-written recurrence against the loop by the book, network by network, and
against `torch.nn.RNN` where that can do it; and the GRU against `torch.nn.GRU`.

All sides do the same work on the same numbers: forward, least-squares loss, backward, clipping of each network's
gradient by its norm, Adam. The book's side is what one would write from the equation with linear maps and autograd;
it may use the same clipping and Adam. Rounds are interleaved, and times are CPU seconds of the process.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.table import Row
from multitask.network import LeakyRNN, NetworkParameters, make_network
from multitask.scan import ACTIVATIONS, Buffers
from multitask.training import Adam, SquaredError, TrainingParameters, clipped, gradient_norms

PEER = "loop by the book, torch.nn.RNN or torch.nn.GRU"
N_INPUTS, N_OUTPUTS = 85, 33
N_TRIALS, N_TIMES, N_ROUNDS = 64, 100, 5
CLIP = TrainingParameters(clip="norm")
Batch = tuple[Tensor, Tensor, Tensor]


class Case(NamedTuple):
    n_units: int
    n_networks: int
    peer: str  # "book", "nn.RNN" or "nn.GRU"
    target: float


CASES = [
    Case(64, 8, "book", 2.5),
    Case(128, 8, "book", 2),
    Case(256, 8, "book", 1.2),
    Case(64, 1, "book", 1.8),
    Case(64, 8, "nn.RNN", 1),
    Case(128, 8, "nn.RNN", 1),
    Case(64, 8, "nn.GRU", 2),
]


def cases(quick: bool) -> list[Case]:
    return CASES[:1] if quick else CASES


def problem(n_trials: int = N_TRIALS, n_times: int = N_TIMES, seed: int = 0) -> Batch:
    """Inputs, targets and cost mask of one batch; time outermost in memory, as trials are made."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n_times, n_trials, N_INPUTS, generator=generator).transpose(0, 1)
    targets = torch.rand(n_times, n_trials, N_OUTPUTS, generator=generator).transpose(0, 1)
    mask = torch.rand(n_times, N_OUTPUTS, generator=generator).expand(n_trials, -1, -1)
    return inputs, targets, mask


class Hand:
    """The product: hand-written recurrence, all networks at once."""

    def __init__(self, network: LeakyRNN) -> None:
        self.buffers: Buffers = {}
        self.weights = {name: weight.clone().requires_grad_() for name, weight in network.weights.items()}
        self.network, self.adam = network.with_weights(self.weights), Adam(self.weights)

    def gradients(
        self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None
    ) -> Sequence[Tensor]:
        """Of the loss of each network, by weight; with private noise if there is a generator."""
        logits, _ = self.network.logits(inputs, generator=generator, buffers=self.buffers)
        return torch.autograd.grad(SquaredError.apply(logits, targets, mask).sum(), list(self.weights.values()))

    def step(self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None) -> None:
        gradients = self.gradients(inputs, targets, mask, generator)
        with torch.no_grad():
            self.adam.update(clipped(gradients, gradient_norms(gradients), CLIP), 1e-3)


class Book(Hand):
    """One network, the loop as the equation reads: two linear maps a step, autograd for the rest."""

    def gradients(
        self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None
    ) -> Sequence[Tensor]:
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
        return torch.autograd.grad(self.loss(torch.stack(states, 1), targets, mask), list(w.values()))

    def loss(self, hidden: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        outputs = torch.sigmoid(hidden @ self.weights["w_out"][0] + self.weights["b_out"][0])
        return (mask * (outputs - targets)).square().mean()


class Doubled(Book):
    """One relu network without noise, as a `torch.nn.RNN` of twice its units.

    With u_t = relu(z_t) the states s_t = [h_{t-1}, u_t] follow s_t = relu(V s_{t-1} + ...), as h stays positive and is
    linear in the states before; h_t = (1 - alpha) h_{t-1} + alpha u_t is read from them.
    """

    def __init__(self, network: LeakyRNN) -> None:
        super().__init__(network)
        self.rnn = torch.nn.RNN(N_INPUTS, 2 * network.parameters.n_rnn, nonlinearity="relu")
        self.leak = torch.tensor([1 - network.parameters.alpha, network.parameters.alpha])

    def gradients(
        self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None
    ) -> Sequence[Tensor]:
        w, n, n_sensory = self.weights, self.network.parameters.n_rnn, self.weights["w_in"].shape[1]
        w_in, w_rec, b, second_b = self.rnn.parameters()
        with torch.no_grad():
            for parameter in (w_in, b, second_b):
                parameter.zero_()
            w_in[n:] = torch.cat([w["w_in"][0], w["w_rule"][0]]).T
            b[n:] = w["b"][0, 0]
            w_rec[:] = torch.kron(self.leak, torch.cat([torch.eye(n), w["w_rec"][0].T]))
        states = self.rnn(inputs.transpose(0, 1))[0].transpose(0, 1).unflatten(-1, (2, n))
        loss = self.loss(torch.einsum("btkn,k->btn", states, self.leak), targets, mask)
        g_in, g_rec, g_b, g_out, g_b_out = torch.autograd.grad(loss, [w_in, w_rec, b, w["w_out"], w["b_out"]])
        g_rec = torch.einsum("mkn,k->nm", g_rec[n:].unflatten(1, (2, n)), self.leak)
        g_in = g_in[n:].T
        return g_in[None, :n_sensory], g_in[None, n_sensory:], g_rec[None], g_b[None, None, n:], g_out, g_b_out


class Layer(Book):
    """One GRU without noise, as `torch.nn.GRU` and `torch.nn.Linear` with the optimiser and clipping of torch."""

    def __init__(self, network: LeakyRNN) -> None:
        super().__init__(network)
        w, n = self.weights, network.parameters.n_rnn
        self.gru, self.head = torch.nn.GRU(N_INPUTS, n, batch_first=True), torch.nn.Linear(n, N_OUTPUTS)
        own = {"weight_ih_l0": torch.cat([w["w_in"][0], w["w_rule"][0]]).T, "weight_hh_l0": w["w_rec"][0].T}
        own |= {"bias_ih_l0": w["b"][0, 0], "bias_hh_l0": torch.cat([w["b"].new_zeros(2 * n), w["b_rec"][0, 0]])}
        self.gru.load_state_dict(own)
        self.head.load_state_dict({"weight": w["w_out"][0].T, "bias": w["b_out"][0, 0]})
        self.parameters = [*self.gru.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, 1e-3)

    def gradients(
        self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None
    ) -> Sequence[Tensor]:
        """In the order and shapes of ours; leaves them in the parameters."""
        self.optimiser.zero_grad()
        (mask * (torch.sigmoid(self.head(self.gru(inputs)[0])) - targets)).square().mean().backward()
        g_in, g_rec, g_b, g_b_rec, g_out, g_b_out = (p.grad for p in self.parameters)
        n, n_sensory = self.network.parameters.n_rnn, self.weights["w_in"].shape[1]
        ours = {"w_in": g_in.T[:n_sensory], "w_rule": g_in.T[n_sensory:], "w_rec": g_rec.T, "b": g_b[None]}
        ours |= {"b_rec": g_b_rec[None, 2 * n :], "w_out": g_out.T, "b_out": g_b_out[None]}
        return [ours[name][None] for name in self.weights]

    def step(self, inputs: Tensor, targets: Tensor, mask: Tensor, generator: torch.Generator | None) -> None:
        self.gradients(inputs, targets, mask, generator)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()


KINDS = {"book": Book, "nn.RNN": Doubled, "nn.GRU": Layer}


def _one_by_one(networks: Sequence[Hand], *arguments: Any) -> None:
    for network in networks:
        network.step(*arguments)


def difference(ours: Sequence[Tensor], theirs: Sequence[Sequence[Tensor]]) -> float:
    """Largest difference of the gradients of any network, relative to the largest entry of that gradient."""
    return max(
        ((mine[i] - other[0]).abs().max() / other.abs().max()).item()
        for i, network in enumerate(theirs)
        for mine, other in zip(ours, network, strict=True)
    )


def interleaved(sides: Sequence[Callable[[], object]], n_rounds: int = N_ROUNDS) -> list[list[float]]:
    """CPU seconds of each side in each round; a first round warms up and is not counted."""
    spent: list[list[float]] = [[] for _ in sides]
    for _ in range(n_rounds + 1):
        for times, side in zip(spent, sides, strict=True):
            start = time.process_time()
            side()
            times.append(time.process_time() - start)
    return [times[1:] for times in spent]


def flop(n_units: int) -> float:
    """Multiplications and additions in the matrix products of a step of one network, forward and backward."""
    forward = n_units * (N_INPUTS + n_units + N_OUTPUTS)
    backward = forward + n_units * (n_units + N_OUTPUTS)  # of the weights; of the states, but not of the inputs
    return 2 * N_TRIALS * N_TIMES * (forward + backward)


def run(chosen: list[Case]) -> Iterator[list[Row]]:
    """Each case in one process, on one thread."""
    torch.set_num_threads(1)
    batch, square = problem(), torch.randn(2048, 2048)
    for n_units, n_networks, peer, target in chosen:
        activation, noise = ("softplus", torch.Generator().manual_seed(0)) if peer == "book" else ("relu", None)
        cell = "GRU" if peer == "nn.GRU" else "LeakyRNN"
        ensemble = make_network(NetworkParameters(n_rnn=n_units, rnn_type=cell, activation=activation), n_networks)
        hand, others = Hand(ensemble), [KINDS[peer](ensemble.subset([i])) for i in range(n_networks)]
        error = difference(hand.gradients(*batch, None), [other.gradients(*batch, None) for other in others])
        ours, theirs, product = interleaved(
            [
                partial(hand.step, *batch, noise),
                partial(_one_by_one, others, *batch, noise),
                partial(torch.mm, square, square),
            ]
        )
        floor = (3 if cell == "GRU" else 1) * flop(n_units) / (2 * 2048**3 / min(product))
        yield [
            Row(
                "training step",
                f"{n_networks} x {n_units} units, {cell if cell == 'GRU' else activation}, against {peer}",
                "ms a network",
                [1e3 * seconds / n_networks for seconds in ours],
                [1e3 * seconds / n_networks for seconds in theirs],
                target,
                f"gradients agree to {error:.0e}; {100 * floor * n_networks / min(ours):.0f} % of the sgemm floor",
            )
        ]
