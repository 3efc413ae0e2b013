"""The vanilla recurrent network."""

import torch
from torch import Tensor

from multitask.network.cells.cell import Cell, Weights
from multitask.network.initial import glorot, orthogonal


class Tanh(Cell):
    """h' = tanh(x W_in + h W_rec + b) (Elman 1990), the equation of nn.RNN.

    W_in starts Glorot uniform, W_rec orthogonal, b at 0.
    """

    def start(self, generator: torch.Generator) -> Weights:
        """``w_in``, ``w_rec`` (N, N) and ``b``."""
        n = self.n_units
        w_in = glorot(self.n_input, n, generator)
        return {"w_in": w_in, "w_rec": orthogonal(n, generator), "b": torch.zeros(1, n)}

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The equation."""
        return torch.tanh(torch.baddbmm(drive, state, w["w_rec"]))
