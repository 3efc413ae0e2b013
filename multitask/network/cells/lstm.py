"""Long short-term memory."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multitask.network.cells.cell import Cell, Weights
from multitask.network.initial import glorot, orthogonal

if TYPE_CHECKING:
    from multitask.network.parameters import NetworkParameters


class LSTM(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000) in the form of nn.LSTM.

        i, f, o = sigmoid(x W + h U + b),    g = tanh(x W_g + h U_g + b_g),    c' = f c + i g,    h' = o tanh(c')

    The state is h and c, 2N numbers; the units are h. ``w_in``, ``w_rec`` and ``b`` have four blocks of N columns, in
    the order i, f, g, o of nn.LSTM. W starts Glorot uniform, each block of U orthogonal, b_f at 1 (Jozefowicz et al.
    2015) and the other biases at 0.
    """

    def __init__(self, parameters: "NetworkParameters") -> None:
        super().__init__(parameters)
        self.n_state = 2 * self.n_units

    def start(self, generator: torch.Generator) -> Weights:
        """``w_in``, ``w_rec`` (N, 4N) and ``b``."""
        n = self.n_units
        blocks = [glorot(self.n_input, n, generator) for _ in range(4)]
        loops = [orthogonal(n, generator) for _ in range(4)]
        b = torch.zeros(1, 4 * n)
        b[:, n : 2 * n] = 1
        return {"w_in": torch.cat(blocks, 1), "w_rec": torch.cat(loops, 1), "b": b}

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The equations."""
        h, c = state.chunk(2, -1)
        i, f, g, o = torch.baddbmm(drive, h, w["w_rec"]).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)

    def read(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """h."""
        return state[..., : self.n_units]
