"""The linear recurrent unit."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import gelu

from multitask.network.cells.cell import Cell, Weights
from multitask.network.cells.linear_scan import linear_scan
from multitask.network.initial import glorot, normal
from multitask.scan import Buffers
from multitask.trials import check_whole

if TYPE_CHECKING:
    from multitask.network.parameters import NetworkParameters

INNERMOST, OUTERMOST, WIDEST = 0.8, 0.999, math.pi / 10  # |lambda| and angle of lambda at the start


class LRU(Cell):
    """Layers of the linear recurrent unit (Orvieto et al. 2023), a diagonal complex recurrence.

        s' = lambda s + gamma (u B),    y = Re(s' C) + d u,    lambda = exp(-exp(nu) + i exp(theta))

    u is x W_in + b in the first layer. After each layer but the last follow the nonlinearity and the skip connection
    of the paper, u <- u + g sigmoid(g W_glu) with g = gelu(y). There is no norm. The units are y of the last layer. One
    layer is a linear filter, so tasks that need a decision need two. The state has the real and imaginary parts of N
    numbers for each layer. At the start, lambda is uniform on the ring between 0.8 and 0.999 with angles below pi / 10,
    and gamma = sqrt(1 - |lambda|^2).

    Parameters
    ----------
    parameters : NetworkParameters
    n_layers : int >= 1
    """

    outgoing = ()  # units reach the outputs only

    def __init__(self, parameters: "NetworkParameters", n_layers: int = 2) -> None:
        super().__init__(parameters)
        check_whole("network.cell_options.n_layers", n_layers, 1)
        self.n_layers, self.n_state = n_layers, 2 * self.n_units * n_layers

    def start(self, generator: torch.Generator) -> Weights:
        """``w_in``, ``b``, and the weights of each layer l, whose names end in ``_l``.

        ``nu``, ``theta``, ``log_gamma`` and ``d`` are (1, N); ``w_b`` is Re B beside Im B, (N, 2N), ``w_c`` is Re C
        above -Im C, (2N, N); all layers but the last have ``w_glu``, (N, N).
        """
        n = self.n_units
        start = {"w_in": glorot(self.n_input, n, generator), "b": torch.zeros(1, n)}
        for layer in range(self.n_layers):
            ring, turn = (torch.rand(1, n, generator=generator, dtype=torch.float64) for _ in range(2))
            square = INNERMOST**2 + ring * (OUTERMOST**2 - INNERMOST**2)  # |lambda|^2, uniform in area
            own = {
                "nu": (-0.5 * square.log()).log(),
                "theta": (WIDEST * turn).log(),
                "log_gamma": 0.5 * (1 - square).log(),
                "w_b": normal(n, 2 * n, generator) / math.sqrt(2 * n),
                "w_c": normal(2 * n, n, generator) / math.sqrt(n),
                "d": normal(1, n, generator),
            }
            if layer < self.n_layers - 1:
                own["w_glu"] = glorot(n, n, generator)
            start |= {f"{name}_{layer}": weight for name, weight in own.items()}
        return start

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The equation of s', layer by layer."""
        u, states = drive, []
        for layer, s in enumerate(state.chunk(self.n_layers, -1)):
            decay, into = self._coefficients(w, u, layer)
            states.append(_parts(decay * _complex(s) + into))
            u = self._above(w, states[-1], u, layer)
        return torch.cat(states, -1)

    def scan(self, w: Weights, drive: Tensor, noise: Tensor | None, buffers: Buffers | None = None) -> Tensor:
        """All times of a layer at once: only the linear recurrence runs over time."""
        u, times, states = drive.flatten(1, 2), drive.shape[1:3], []
        kicks = [None] * self.n_layers if noise is None else noise.flatten(1, 2).chunk(self.n_layers, -1)
        for layer, kick in enumerate(kicks):
            decay, into = self._coefficients(w, u, layer)
            b = into if kick is None else into + _complex(kick)
            s = _parts(linear_scan(decay[:, None], b.unflatten(1, times)).flatten(1, 2))
            u = self._above(w, s if kick is None else s - kick, u, layer)  # as in `step`, which knows no noise
            states.append(s)
        return torch.cat(states, -1).unflatten(1, times)

    def read(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """y of the last layer."""
        *below, top = state.chunk(self.n_layers, -1)
        u = drive
        for layer, s in enumerate(below):
            u = self._above(w, s, u, layer)
        return self._output(w, top, u, self.n_layers - 1)

    def _coefficients(self, w: Weights, u: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """lambda, (E, 1, N), and gamma (u B), (E, trial, N), complex."""
        decay = torch.polar((-w[f"nu_{layer}"].exp()).exp(), w[f"theta_{layer}"].exp())
        return decay, w[f"log_gamma_{layer}"].exp() * _complex(u @ w[f"w_b_{layer}"])

    def _output(self, w: Weights, s: Tensor, u: Tensor, layer: int) -> Tensor:
        """y: the real part of s C is the product of both parts with (Re C, -Im C), which ``w_c`` holds."""
        return s @ w[f"w_c_{layer}"] + w[f"d_{layer}"] * u

    def _above(self, w: Weights, s: Tensor, u: Tensor, layer: int) -> Tensor:
        """Input of the next layer; u itself after the last."""
        if layer == self.n_layers - 1:
            return u
        g = gelu(self._output(w, s, u, layer))
        return u + g * torch.sigmoid(g @ w[f"w_glu_{layer}"])


def _complex(parts: Tensor) -> Tensor:
    """Real and imaginary parts side by side (..., 2N) -> (..., N)."""
    return torch.complex(*parts.chunk(2, -1))


def _parts(z: Tensor) -> Tensor:
    return torch.cat([z.real, z.imag], -1)
