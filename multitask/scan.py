"""Recurrence of an ensemble of leaky networks over a batch of trials, with a gradient written by hand.

    h_t = (1 - alpha) h_{t-1} + alpha f(z_t),    z_t = x_t W_in + h_{t-1} W_rec + noise_t,    h_0 = 0
    o_t = h_t W_out + b_out

The *drive* x W_in + noise does not depend on h and is computed for all time steps by one matrix product before the
loop. Backpropagation through time is written by hand, because autograd records and replays about six operations per
time step and is slower. Let G_t be the total derivative dL/dh_t, q_t and p_t the direct derivatives of L with respect
to h_t and o_t, and e_t = G_t f'(z_t). Then, backwards in time from G_{T+1} = 0,

    G_t = q_t + p_t W_out^T + (1 - alpha) G_{t+1} + alpha e_{t+1} W_rec^T,
    dL/dW_rec = alpha sum_t h_{t-1}^T e_t,    dL/dW_in = alpha sum_t x_t^T e_t,    dL/dx_t = alpha e_t W_in^T.

The slope f'(z_t) is computed while z_t is in the cache and overwrites z_t; e_t later overwrites the slope. The leading
axis holds E independent networks, so that one call multiplies E small matrices.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Buffers = dict[str, Tensor]


class Activation(NamedTuple):
    """A nonlinearity and its slope. Both write into ``out``, since allocating a tensor per step is slower."""

    f: Callable[[Tensor], Tensor]
    write: Callable[[Tensor, Tensor], Tensor]  # (z, out) -> out = f(z)
    slope: Callable[[Tensor, Tensor, Tensor], Tensor]  # (z, f(z), out) -> out = f'(z); out may be z


ACTIVATIONS = {
    "softplus": Activation(
        lambda z: torch.logaddexp(z, z.new_zeros(())),
        lambda z, out: torch.logaddexp(z, z.new_zeros(()), out=out),  # takes half the time of softplus
        lambda z, f, out: torch.sigmoid(z, out=out),
    ),
    "relu": Activation(
        torch.relu,
        lambda z, out: torch.clamp(z, min=0, out=out),
        lambda z, f, out: torch.sign(f, out=out),
    ),
    "tanh": Activation(
        torch.tanh,
        lambda z, out: torch.tanh(z, out=out),
        lambda z, f, out: torch.mul(f, f, out=out).neg_().add_(1),
    ),
    "retanh": Activation(
        lambda z: torch.relu(z).tanh(),
        lambda z, out: torch.clamp(z, min=0, out=out).tanh_(),
        lambda z, f, out: torch.sign(f, out=out).addcmul_(f, f, value=-1),
    ),
    "power": Activation(
        lambda z: torch.relu(z).square(),
        lambda z, out: torch.clamp(z, min=0, out=out).square_(),
        lambda z, f, out: torch.clamp(z, min=0, out=out).mul_(2),
    ),
}


def leaky_scan(
    x: Tensor,
    w_in: Tensor,
    w_rec: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    *,
    alpha: float,
    activation: str,
    noise_sd: float = 0.0,
    generator: torch.Generator | None = None,
    buffers: Buffers | None = None,
) -> tuple[Tensor, Tensor]:
    """Hidden states and outputs of E leaky networks; can be differentiated once.

    Parameters
    ----------
    x : Tensor, (E, T, B, I), or (1, T, B, I) for the same inputs to all networks
        Inputs: time, trial, channel. A bias is the weight of an input that is always 1.
    w_in, w_rec : Tensor, (E, I, N) and (E, N, N)
        Weights; rows are the sending units.
    w_out, b_out : Tensor, (E, N, O) and (E, 1, O)
        Linear read-out.
    alpha : float in (0, 1]
        dt / tau.
    activation : str
        A key of `ACTIVATIONS`.
    noise_sd : float >= 0
        Standard deviation of the noise inside the nonlinearity, per time step.
    generator : torch.Generator, optional
        Source of the noise, on the device of ``x``.
    buffers : dict, optional
        Keeps large tensors for the next call with the same dict, because using new memory takes longer than the
        arithmetic. The returned tensors are then valid until the next call, and each call allows one backward pass
        before the next call.

    Returns
    -------
    hidden : Tensor, (E, T, B, N)
    outputs : Tensor, (E, T, B, O)
        Do not change either of them in place.

    Raises
    ------
    RuntimeError
        In the backward pass, if ``buffers`` were overwritten by a later call.
    """
    settings = _Settings(alpha, activation, noise_sd, generator, buffers)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, w_in, w_rec, w_out, b_out)):
        return _LeakyScan.apply(x, w_in, w_rec, w_out, b_out, settings)
    hidden, _, outputs = _run(x, w_in, w_rec, w_out, b_out, settings, keep_slope=False)
    return hidden[:, 1:], outputs


class _Settings(NamedTuple):
    alpha: float
    activation: str
    noise_sd: float
    generator: torch.Generator | None
    buffers: Buffers | None


class _LeakyScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w_in, w_rec, w_out, b_out, settings):
        hidden, slope, outputs = _run(x, w_in, w_rec, w_out, b_out, settings, keep_slope=True)
        ctx.save_for_backward(x, w_in, w_rec, w_out, hidden, slope)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        return hidden[:, 1:], outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, q, p):
        x, w_in, w_rec, w_out, hidden, slope = ctx.saved_tensors
        alpha = ctx.settings.alpha
        n_networks, n_times, n_trials, n_units = slope.shape
        e = slope if ctx.settings.buffers is not None else torch.empty_like(slope)
        w_back, w_read = (alpha * w_rec).transpose(1, 2), w_out.transpose(1, 2)
        g = slope.new_zeros(n_networks, n_trials, n_units)
        for t in reversed(range(n_times)):
            if t < n_times - 1:
                g.baddbmm_(e[:, t + 1], w_back, beta=1 - alpha)
            if p is not None:
                g.baddbmm_(p[:, t], w_read)
            if q is not None:
                g.add_(q[:, t])
            torch.mul(slope[:, t], g, out=e[:, t])
        rows, needed = n_times * n_trials, ctx.needs_input_grad
        e = e.view(n_networks, rows, n_units)
        before = hidden.view(n_networks, rows + n_trials, n_units)[:, :rows]  # h_0 .. h_{T-1}
        grad_x = alpha * _product(e, w_in.transpose(1, 2), like=x) if needed[0] else None
        grad_in = alpha * torch.bmm(_rows(x, n_networks).transpose(1, 2), e) if needed[1] else None
        grad_rec = alpha * torch.bmm(before.transpose(1, 2), e) if needed[2] else None
        grad_out = grad_b = None
        if p is not None:
            p = p.reshape(n_networks, rows, -1)
            after = hidden.view(n_networks, rows + n_trials, n_units)[:, n_trials:]
            grad_out = torch.bmm(p.transpose(1, 2), after).transpose(1, 2) if needed[3] else None
            grad_b = p.sum(1, keepdim=True) if needed[4] else None
        return grad_x, grad_in, grad_rec, grad_out, grad_b, None


def _run(x, w_in, w_rec, w_out, b_out, settings, keep_slope):
    """h_0 .. h_T, the slopes f'(z_1) .. f'(z_T) (if ``keep_slope``; otherwise z), and the outputs."""
    alpha, buffers = settings.alpha, settings.buffers
    write, slope = ACTIVATIONS[settings.activation][1:]
    (n_networks, _, n_units), (_, n_times, n_trials, _) = w_in.shape, x.shape
    z = buffer(buffers, "z", (n_networks, n_times, n_trials, n_units), w_in)
    drive = z.view(n_networks, n_times * n_trials, n_units)
    if settings.noise_sd:
        drive.normal_(0.0, settings.noise_sd, generator=settings.generator).baddbmm_(_rows(x, n_networks), w_in)
    else:
        torch.bmm(_rows(x, n_networks), w_in, out=drive)
    hidden = buffer(buffers, "hidden", (n_networks, n_times + 1, n_trials, n_units), w_in)
    hidden[:, 0] = 0
    rate = w_in.new_empty(n_networks, n_trials, n_units)
    for t in range(n_times):
        z_t = z[:, t].baddbmm_(hidden[:, t], w_rec)
        write(z_t, rate)
        torch.lerp(hidden[:, t], rate, alpha, out=hidden[:, t + 1])
        if keep_slope:
            slope(z_t, rate, z_t)
    outputs = buffer(buffers, "outputs", (n_networks, n_times, n_trials, w_out.shape[2]), w_in)
    torch.baddbmm(b_out, hidden[:, 1:].flatten(1, 2), w_out, out=outputs.view(n_networks, n_times * n_trials, -1))
    return hidden, z, outputs


def _rows(x: Tensor, n_networks: int) -> Tensor:
    """(E or 1, T, B, I) -> (E, T B, I), without copying shared inputs."""
    return x.flatten(1, 2).expand(n_networks, -1, -1)


def _product(e: Tensor, w: Tensor, like: Tensor) -> Tensor:
    """e w in the shape of the inputs ``like``, summed over networks if they have the same inputs."""
    product = torch.bmm(e, w)
    return (product if like.shape[0] == len(product) else product.sum(0, keepdim=True)).view(like.shape)


def buffer(buffers: Buffers | None, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor in the precision of ``like``, from ``buffers`` if the stored one is large enough."""
    if buffers is None:
        return like.new_empty(shape)
    size = torch.Size(shape).numel()
    if name not in buffers or buffers[name].numel() < size:
        buffers[name] = like.new_empty(size)
    return buffers[name][:size].view(shape)
