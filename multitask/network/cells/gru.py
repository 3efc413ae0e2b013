"""The gated recurrent unit, with its gradient over time written by hand.

With dh_t = dL/dh_t through all later states, the gradients of the drive d and of the product q = h U + (0, 0, c) are

    dq_n = dh m,    dd_r = dq_r = dh q_n r (1 - r) s,    dd_z = dq_z = dh (h_{t-1} - n) z (1 - z),    dd_n = dh s,

with s = (1 - z) (1 - n^2) and m = s r, and the state before gets z dh + dq U^T. All factors of dh are known after the
forward pass. They are kept in the order m, r, z, n and last z, so that one product by dh gives all gradients: the first
three blocks are dq, the middle three dd. The gradient of U is one product over all times, where autograd takes one for
each.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multitask.network.cells.cell import Cell, Weights
from multitask.network.initial import glorot, orthogonal
from multitask.scan import Buffers, buffer


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

    def scan(self, w: Weights, drive: Tensor, noise: Tensor | None, buffers: Buffers | None = None) -> Tensor:
        """`step` over time, with the gradient by hand."""
        if not torch.is_grad_enabled():
            return super().scan(w, drive, noise)
        states: Tensor = GRUScan.apply(drive, w["w_rec"], w["b_rec"], noise, buffers)
        return states


class GRUScan(torch.autograd.Function):
    """States of the recurrence, (E, time, trial, N)."""

    @staticmethod
    def forward(ctx, drive, w_rec, b_rec, noise, buffers):
        *before, three_n = drive.shape
        (n_networks, n_times, n_trials), n = before, three_n // 3
        h = buffer(buffers, "hidden", (n_networks, n_times + 1, n_trials, n), drive)
        h[:, 0] = 0
        factors = buffer(buffers, "factors", (*before, 5 * n), drive)
        q, gates, slopes = drive.new_empty(n_networks, n_trials, 7 * n).split([3 * n, 2 * n, 2 * n], -1)
        (r, z), (slope_r, slope_z), one = gates.chunk(2, -1), slopes.chunk(2, -1), drive.new_ones(())
        candidate = torch.empty_like(h[:, 0])
        for t in range(n_times):
            torch.bmm(h[:, t], w_rec, out=q)
            torch.add(drive[:, t, :, : 2 * n], q[..., : 2 * n], out=gates).sigmoid_()
            q_n = q[..., 2 * n :].add_(b_rec)
            torch.addcmul(drive[:, t, :, 2 * n :], r, q_n, out=candidate).tanh_()
            after = torch.lerp(candidate, h[:, t], z, out=h[:, t + 1])
            if noise is not None:
                after += noise[:, t]
            to_m, to_r, to_z, to_n, keep = factors[:, t].chunk(5, -1)
            torch.addcmul(gates, gates, gates, value=-1, out=slopes)
            torch.addcmul(one, candidate, candidate, value=-1, out=to_n)
            to_n.addcmul_(to_n, z, value=-1)
            torch.mul(to_n, r, out=to_m)
            torch.mul(to_n, q_n, out=to_r).mul_(slope_r)
            torch.sub(h[:, t], candidate, out=to_z).mul_(slope_z)
            keep.copy_(z)
        ctx.save_for_backward(w_rec, h, factors)
        ctx.may_overwrite = buffers is not None
        return h[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        w_rec, h, factors = ctx.saved_tensors
        n_networks, n_times, n_trials, five_n = factors.shape
        n, found = five_n // 5, factors if ctx.may_overwrite else torch.empty_like(factors)
        back = torch.cat([w_rec[..., 2 * n :], w_rec[..., : 2 * n]], -1).mT  # in the order n, r, z
        d_h = gradient.new_zeros(n_networks, n_trials, n)
        for t in reversed(range(n_times)):
            d_h += gradient[:, t]
            blocks = [x[:, t].unflatten(-1, (5, n)) for x in (factors, found)]
            torch.mul(blocks[0], d_h[..., None, :], out=blocks[1])
            torch.baddbmm(found[:, t, :, 4 * n :], found[:, t, :, : 3 * n], back, out=d_h)
        rows = n_times * n_trials
        flat = found.view(n_networks, rows, five_n)
        before = h.view(n_networks, rows + n_trials, n)[:, :rows]
        d_n, d_rz = torch.bmm(before.mT, flat[..., : 3 * n]).split([n, 2 * n], -1)
        d_c = flat[..., :n].sum(1, keepdim=True)
        return found[..., n : 4 * n], torch.cat([d_rz, d_n], -1), d_c, None, None
