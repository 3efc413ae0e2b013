"""Costs that are added to the loss: of activity and weights, and of intelligent synapses."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from multitask.network import LeakyRNN
from multitask.training.parameters import TrainingParameters


class Penalty:
    """Cost of activity, of weights, and of their distance from the start.

    Parameters
    ----------
    network : LeakyRNN
        Its present weights are the start that distances are measured from.
    training : TrainingParameters
    generator : torch.Generator
        CPU generator that selects the weights that are not trained freely (``p_weight_train``).
    """

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
        """Weight matrices that have a cost, (E, rows, columns).

        The first one stacks all weights onto the recurrent units, the second one holds the output weights.
        """
        return [
            torch.cat([self.network.weights[name] for name in names], 1) for names in self.network.weight_matrices()
        ]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Cost of each network, (E,), for hidden states (E, n_trials, n_times, n_units)."""
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
    """Intelligent synapses protect parameters that were important for earlier groups of rules (Zenke et al. 2017).

    While a group is learned, omega accumulates -(change of theta) (gradient of the loss), which is the contribution of
    each parameter to the decrease of the loss. At the end of the group the importance becomes
    Omega = max(0, Omega + omega / (total change^2 + ksi)). From then on, c sum Omega (theta - anchor)^2 is added to
    the loss, where anchor is the value of theta at the end of the group.

    Parameters
    ----------
    weights : mapping name -> Tensor, (E, rows, columns)
        Weights that are trained.
    training : TrainingParameters
        ``c_intsyn`` and ``ksi_intsyn`` are used; without ``c_intsyn`` all methods do nothing.
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
        """Cost of the distance from the anchor, (E,), or 0 without intelligent synapses."""
        return sum(
            self.c * (self.state["importance"][name] * (weight - self.state["anchor"][name]).square()).sum((1, 2))
            for name, weight in (self.weights.items() if self.on else ())
        )

    def snapshot(self) -> list[Tensor]:
        """Copies of the weights before an update, as `follow` needs them."""
        return [weight.clone() for weight in self.weights.values()] if self.on else []

    def follow(self, before: Sequence[Tensor], of_loss: Sequence[Tensor]) -> None:
        """Accumulate the contribution of each parameter in one update.

        Parameters
        ----------
        before : sequence of Tensor
            Weights before the update, from `snapshot`.
        of_loss : sequence of Tensor
            Gradient of the loss without other costs.
        """
        if self.on:
            for (name, weight), old, gradient in zip(self.weights.items(), before, of_loss, strict=True):
                self.state["omega"][name] -= (weight - old) * gradient

    @torch.no_grad()
    def consolidate(self) -> None:
        """Update the importance at the end of a group, and set the anchor to the present weights."""
        if self.on:
            for name, weight in self.weights.items():
                omega, importance, anchor = (self.state[key][name] for key in ("omega", "importance", "anchor"))
                importance.add_(omega / ((weight - anchor).square() + self.ksi)).clamp_(min=0)
                anchor.copy_(weight)
                omega.zero_()
