"""The gated recurrent unit, with its gradient over time written by hand.

With dh_t = dL/dh_t through all later states, the gradients of the drive d, of the product h U + (0, 0, c), and of the
state before are

    dd_n = dh (1 - z) (1 - n^2),    dd_r = dd_n m r (1 - r),    dd_z = dh (h_{t-1} - n) z (1 - z),    dm = dd_n r,
    dh_{t-1} = dL/dh_{t-1} + z dh + (dd_r, dd_z, dm) U^T,       m = h_{t-1} U_n + c.

All factors of dh are known after the forward pass, so the loop backwards is one product of each kind. The gradient of U
is a single product over all times, where autograd takes one for each.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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

    def scan(self, w: Weights, drive: Tensor, noise: Tensor | None) -> Tensor:
        """`step` over time, with the gradient by hand."""
        states: Tensor = GRUScan.apply(drive, w["w_rec"], w["b_rec"], noise)
        return states


class GRUScan(torch.autograd.Function):
    """States of the recurrence; arrays are kept with time first, so that those of one time are contiguous."""

    @staticmethod
    def forward(ctx, drive, w_rec, b_rec, noise):
        n_networks, n_times, n_trials, three_n = drive.shape
        n = three_n // 3
        h = drive.new_zeros(n_times + 1, n_networks, n_trials, n)  # h[t] is the state before step t
        gates = drive.new_empty(n_times, n_networks, n_trials, 2 * n)  # r, z
        m, candidate = drive.new_empty(2, n_times, n_networks, n_trials, n)
        for t in range(n_times):
            loop = torch.bmm(h[t], w_rec)
            torch.add(drive[:, t, :, : 2 * n], loop[..., : 2 * n], out=gates[t]).sigmoid_()
            r, z = gates[t].chunk(2, -1)
            torch.add(loop[..., 2 * n :], b_rec, out=m[t])
            torch.addcmul(drive[:, t, :, 2 * n :], r, m[t], out=candidate[t]).tanh_()
            torch.lerp(candidate[t], h[t], z, out=h[t + 1])
            if noise is not None:
                h[t + 1] += noise[:, t]
        ctx.save_for_backward(w_rec, h, gates, m, candidate)
        return h[1:].transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        w_rec, h, gates, m, candidate = ctx.saved_tensors
        before, (r, z) = h[:-1], gates.chunk(2, -1)
        to_n = (1 - z) * (1 - candidate.square())
        to_loop = torch.stack([to_n * m * r * (1 - r), (before - candidate) * z * (1 - z), to_n * r], -2)
        d_h, d_loop = torch.empty_like(candidate), torch.empty_like(to_loop)
        later = torch.zeros_like(candidate[0])
        for t in range(len(z) - 1, -1, -1):
            torch.add(gradient[:, t], later, out=d_h[t])
            torch.mul(to_loop[t], d_h[t][..., None, :], out=d_loop[t])
            later = torch.baddbmm(d_h[t] * z[t], d_loop[t].flatten(-2), w_rec.mT)
        d_drive = torch.cat([d_loop[..., :2, :].flatten(-2), d_h * to_n], -1).transpose(0, 1)
        rows, columns = (x.transpose(0, 1).flatten(1, 2) for x in (before, d_loop.flatten(-2)))
        d_c = d_loop[..., 2, :].sum((0, 2))[:, None]
        return d_drive, torch.bmm(rows.mT, columns), d_c, None
