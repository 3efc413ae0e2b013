"""The selective state-space model."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multitask.network.cells.cell import Cell, Weights
from multitask.network.cells.linear_scan import linear_scan
from multitask.network.initial import glorot
from multitask.scan import Buffers
from multitask.trials import check_whole

if TYPE_CHECKING:
    from multitask.network.parameters import NetworkParameters

SHORTEST, LONGEST = 1e-3, 1e-1  # steps Delta at the start lie between them, uniform in logarithm, as in Mamba


class Selective(Cell):
    """The selective state-space recurrence S6 of Mamba (Gu and Dao 2023): what is kept depends on the input.

        u = silu(x W_in + b),    Delta = softplus(u W_delta + b_delta),    B = u W_b,    C = u W_c
        s'_dk = exp(-Delta_d exp(log_a_dk)) s_dk + Delta_d B_k u_d,        units y_d = sum_k C_k s'_dk + skip_d u_d

    for channels d = 1..N and K states of each. The recurrence is linear in the state, and its decay is a function of
    the present input. This is the recurrence of a Mamba block without its convolution, its gate, its norm and its
    skip connection; Delta comes from a full matrix, not from one of low rank. exp(log_a_dk) starts at k.

    Parameters
    ----------
    parameters : NetworkParameters
    n_states : int >= 1
        K, states of each channel; 16 in the paper.
    """

    outgoing = ()  # units reach the outputs only

    def __init__(self, parameters: "NetworkParameters", n_states: int = 8) -> None:
        super().__init__(parameters)
        check_whole("network.cell_options.n_states", n_states, 1)
        self.n_states, self.n_state = n_states, self.n_units * n_states

    def start(self, generator: torch.Generator) -> Weights:
        """``w_in``, ``b``, ``w_delta`` (N, N), ``b_delta``, ``w_b`` and ``w_c`` (N, K), ``log_a`` (N, K), ``skip``."""
        n, k = self.n_units, self.n_states
        w_in, w_delta = glorot(self.n_input, n, generator), glorot(n, n, generator)
        w_b, w_c = glorot(n, k, generator), glorot(n, k, generator)
        unit = torch.rand(1, n, generator=generator, dtype=torch.float64)
        delta = torch.exp(math.log(SHORTEST) + unit * math.log(LONGEST / SHORTEST))
        log_a = torch.arange(1, k + 1, dtype=torch.float64).log().expand(n, k).clone()
        start = {"w_in": w_in, "b": torch.zeros(1, n), "w_delta": w_delta, "b_delta": delta.expm1().log()}
        return start | {"w_b": w_b, "w_c": w_c, "log_a": log_a, "skip": torch.ones(1, n)}

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The equation of s'."""
        a, b = self._coefficients(w, drive)
        return (a * state.unflatten(-1, (self.n_units, self.n_states)) + b).flatten(-2)

    def scan(self, w: Weights, drive: Tensor, noise: Tensor | None, buffers: Buffers | None = None) -> Tensor:
        """All times at once: only the linear recurrence runs over time."""
        flat, times = drive.flatten(1, 2), drive.shape[1:3]
        a, b = (x.flatten(-2).unflatten(1, times) for x in self._coefficients(w, flat))
        return linear_scan(a, b if noise is None else b + noise)

    def read(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """y."""
        u = torch.nn.functional.silu(drive)
        s = state.unflatten(-1, (self.n_units, self.n_states))
        return (s @ (u @ w["w_c"])[..., None])[..., 0] + w["skip"] * u

    def _coefficients(self, w: Weights, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Decay and input of each state, (E, trial, N, K)."""
        u = torch.nn.functional.silu(drive)
        delta = torch.nn.functional.softplus(u @ w["w_delta"] + w["b_delta"])[..., None]
        return torch.exp(-delta * w["log_a"].exp()[:, None]), delta * u[..., None] * (u @ w["w_b"])[..., None, :]
