"""Networks with a recurrent connectivity of low rank."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multitask.network.cells.cell import Cell, Weights
from multitask.network.initial import START_SCALES, normal, orthogonal
from multitask.scan import ACTIVATIONS
from multitask.trials import MultitaskError, check_whole

if TYPE_CHECKING:
    from multitask.network.parameters import NetworkParameters


class LowRank(Cell):
    """Leaky currents with connectivity of rank R (Mastrogiuseppe and Ostojic 2018; Dubreuil et al. 2022).

        s' = (1 - alpha) s + alpha (f(s) V M^T / N + x W_in + b),    units r = f(s)

    with alpha = dt / tau and f the ``activation`` of the parameters. The recurrent input lies in the space that the R
    columns of M span. V starts with random orthogonal columns of length sqrt(N), and M with s V, where s is
    ``w_rec_scale``: R patterns last from the start, as all units of a leaky network do that starts with W_rec = s I.
    With the independent Gaussian M and V of Dubreuil et al. (2022) nothing lasts at the start, and memory tasks are
    learned slowly.

    Parameters
    ----------
    parameters : NetworkParameters
    rank : int in [1, n_rnn]
        R.
    """

    outgoing = ("w_from",)

    def __init__(self, parameters: "NetworkParameters", rank: int = 4) -> None:
        super().__init__(parameters)
        check_whole("network.cell_options.rank", rank, 1)
        if rank > self.n_units:
            raise MultitaskError(f"network.cell_options.rank = {rank}: must be at most n_rnn = {self.n_units}")
        self.rank, self.f = rank, ACTIVATIONS[parameters.activation].f

    def start(self, generator: torch.Generator) -> Weights:
        """``w_in``, ``b``, and ``w_from`` (N, R), which is V, and ``w_to`` (N, R), which is M."""
        n, p = self.n_units, self.parameters
        scale = p.w_rec_scale or START_SCALES[p.activation]
        w_in = normal(self.n_input, n, generator) / self.n_input**0.5
        w_from = orthogonal(n, generator)[:, : self.rank] * n**0.5
        return {"w_in": w_in, "w_from": w_from, "w_to": scale * w_from, "b": torch.zeros(1, n)}

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The equation."""
        loop = self.f(state) @ w["w_from"] @ w["w_to"].mT / self.n_units
        return torch.lerp(state, loop + drive, self.parameters.alpha)

    def read(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """f(s)."""
        return self.f(state)
