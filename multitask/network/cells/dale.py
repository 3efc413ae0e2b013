"""Networks of excitatory and inhibitory units."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multitask.network.cells.cell import Cell, Weights
from multitask.network.initial import glorot, normal
from multitask.trials import MultitaskError

if TYPE_CHECKING:
    from multitask.network.parameters import NetworkParameters

LOOP = 0.9  # initial weight of an excitatory unit onto itself: its state lasts ten time constants
RADIUS = 0.1  # spectral radius of the moduli of the other initial weights; with the loops at most 1: nothing grows


class Dale(Cell):
    """Leaky currents of units that only excite or only inhibit others (Song, Yang and Wang 2016).

        s' = (1 - alpha) s + alpha (r D |W_rec| / N + x W_in + b),    units r = max(0, s)

    with alpha = dt / tau. D is diagonal, 1 for the first units (excitatory) and -1 for the others. The moduli are those
    of a Gaussian matrix, those of the inhibitory rows multiplied by n_excitatory / n_inhibitory so that excitation and
    inhibition balance, and scaled to spectral radius 0.1. Then each excitatory unit gets the weight s onto itself,
    which is ``w_rec_scale``, or 0.9: without memory at the start, tasks that need one are hardly learned. Song
    et al. take max(0, W) in place of |W|, which leaves weights at 0 for good, and let only excitatory units reach the
    outputs. Here all units do. Weights of one sign act together, so that a step of the optimiser that moves all of them
    moves the strength of the recurrence N times as far: without the division by N, networks diverge within some tens of
    steps.

    Parameters
    ----------
    parameters : NetworkParameters
    excitatory : float in (0, 1)
        Fraction of excitatory units.
    """

    def __init__(self, parameters: "NetworkParameters", excitatory: float = 0.8) -> None:
        super().__init__(parameters)
        n = round(excitatory * self.n_units)
        if not 0 < n < self.n_units:
            raise MultitaskError(
                f"network.cell_options.excitatory = {excitatory!r}: gives {n} excitatory units of {self.n_units}; "
                f"there must be at least one excitatory and one inhibitory unit"
            )
        self.n_excitatory = n

    @property
    def signs(self) -> Tensor:
        """1 for excitatory units and -1 for inhibitory ones, (N, 1): the diagonal of D."""
        return torch.where(torch.arange(self.n_units) < self.n_excitatory, 1.0, -1.0)[:, None]

    def start(self, generator: torch.Generator) -> Weights:
        """``w_in``, ``w_rec`` (N, N) and ``b``."""
        n, n_e = self.n_units, self.n_excitatory
        w_in, w_rec = glorot(self.n_input, n, generator), normal(n, n, generator).abs()
        w_rec[n_e:] *= n_e / (n - n_e)
        radius = torch.linalg.eigvals(w_rec / n).abs().max()
        w_rec *= RADIUS / radius
        w_rec.diagonal()[:n_e] = n * (self.parameters.w_rec_scale or LOOP)
        return {"w_in": w_in, "w_rec": w_rec, "b": torch.zeros(1, n)}

    def prepare(self, w: Weights) -> Weights:
        """``w_rec`` with the signs of its units, divided by N."""
        return w | {"w_rec": self.signs.to(w["w_rec"]) * w["w_rec"].abs() / self.n_units}

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The equation."""
        return torch.lerp(state, torch.baddbmm(drive, state.relu(), w["w_rec"]), self.parameters.alpha)

    def read(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """r."""
        return state.relu()
