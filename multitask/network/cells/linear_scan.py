"""The linear recurrence h_t = a_t h_{t-1} + b_t, elementwise, in sequence or in parallel.

With g_t = dL/dh_t through all later states, the gradients follow the same recurrence backwards in time:

    g_t = dL/dh_t + conj(a_{t+1}) g_{t+1},    dL/db_t = g_t,    dL/da_t = conj(h_{t-1}) g_t.

In parallel, the recurrence is composed with itself at distances 1, 2, 4, ... (Hillis and Steele 1986): log2(T) rounds
over all times. This is faster on a GPU, where each operation costs the same for one time as for all; in sequence the
work is less.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_scan(a: Tensor, b: Tensor, parallel: bool | None = None) -> Tensor:
    """States of h_t = a_t h_{t-1} + b_t with h_0 = b_0.

    Parameters
    ----------
    a, b : Tensor, (E, time, ...), real or complex
        Of the same type; ``a`` broadcasts to ``b``.
    parallel : bool, optional
        By default on a GPU and nowhere else.

    Returns
    -------
    Tensor, as b
    """
    found: Tensor = LinearScan.apply(a.expand_as(b), b, b.is_cuda if parallel is None else parallel)
    return found


class LinearScan(torch.autograd.Function):
    """The recurrence with its gradient written by hand, so that no step of it is kept but the states."""

    @staticmethod
    def forward(ctx, a, b, parallel):
        h = (_in_parallel if parallel else _in_sequence)(a, b)
        ctx.save_for_backward(a, h)
        ctx.parallel = parallel
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        a, h = ctx.saved_tensors
        if ctx.parallel:
            later = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1).conj()  # a_{t+1}
            g = _in_parallel(later.flip(1), gradient.flip(1)).flip(1)
        else:
            g = _backwards(a, gradient)
        d_a = torch.empty_like(g)
        d_a[:, 0] = 0
        torch.mul(h[:, :-1].conj(), g[:, 1:], out=d_a[:, 1:])
        return d_a, g, None


def _in_sequence(a: Tensor, b: Tensor) -> Tensor:
    h = torch.empty_like(b)
    h[:, 0] = b[:, 0]
    for t in range(1, b.shape[1]):
        torch.addcmul(b[:, t], a[:, t], h[:, t - 1], out=h[:, t])
    return h


def _backwards(a: Tensor, gradient: Tensor) -> Tensor:
    """g_t. Arrays are read backwards where they lie: reversed copies of them would take longer than the sums."""
    g = torch.empty_like(gradient)
    g[:, -1] = gradient[:, -1]
    for t in reversed(range(g.shape[1] - 1)):
        torch.addcmul(gradient[:, t], a[:, t + 1].conj(), g[:, t + 1], out=g[:, t])
    return g


def _in_parallel(a: Tensor, b: Tensor) -> Tensor:
    shift = 1
    while shift < b.shape[1]:
        b = torch.cat([b[:, :shift], torch.addcmul(b[:, shift:], a[:, shift:], b[:, :-shift])], 1)
        a = torch.cat([a[:, :shift], a[:, shift:] * a[:, :-shift]], 1)
        shift *= 2
    return b
