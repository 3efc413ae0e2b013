"""The gated recurrent unit."""

import torch
from torch import Tensor

from multitask.network.cells.cell import Cell, Weights
from multitask.network.initial import glorot, orthogonal


class GRU(Cell):
    """The gated recurrent unit of Cho et al. (2014) in the form of nn.GRU, where the reset gate follows the product.

        r, z = sigmoid(x W + h U + b),    n = tanh(x W_n + b_n + r (h U_n + c)),    h' = (1 - z) n + z h

    ``w_in``, ``w_rec`` and ``b`` have three blocks of N columns, in the order r, z, n of nn.GRU. W starts Glorot
    uniform, each block of U orthogonal, b_z at 1 and the other biases at 0.
    """

    def start(self, generator: torch.Generator) -> Weights:
        """``w_in``, ``w_rec`` (N, 3N), ``b``, and ``b_rec`` (1, N), which is c."""
        n = self.n_units
        blocks = [glorot(self.n_input, n, generator) for _ in range(3)]
        loops = [orthogonal(n, generator) for _ in range(3)]
        b = torch.cat([torch.zeros(1, n), torch.ones(1, n), torch.zeros(1, n)], 1)
        return {"w_in": torch.cat(blocks, 1), "w_rec": torch.cat(loops, 1), "b": b, "b_rec": torch.zeros(1, n)}

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The equations."""
        n = self.n_units
        loop = torch.bmm(state, w["w_rec"])
        r, z = torch.sigmoid(drive[..., : 2 * n] + loop[..., : 2 * n]).chunk(2, -1)
        candidate = torch.tanh(torch.addcmul(drive[..., 2 * n :], r, loop[..., 2 * n :] + w["b_rec"]))
        return torch.lerp(candidate, state, z)
