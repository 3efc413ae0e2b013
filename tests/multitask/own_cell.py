"""A cell of a user's own, outside the package."""

import torch
from torch import Tensor

from multitask import Cell


class Fading(Cell):
    """h' = a h + (1 - a) tanh(x W_in + h W_rec + b), with a = sigmoid(fade) learned for each unit."""

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        n = self.n_units
        w_in, w_rec = (torch.randn(rows, n, generator=generator) / rows**0.5 for rows in (self.n_input, n))
        return {"w_in": w_in, "w_rec": w_rec, "b": torch.zeros(1, n), "fade": torch.ones(1, n)}

    def step(self, w: dict[str, Tensor], state: Tensor, drive: Tensor) -> Tensor:
        a = torch.sigmoid(w["fade"])
        return a * state + (1 - a) * torch.tanh(drive + state @ w["w_rec"])


# ---- cells with a mistake --------------------------------------------------------------------------------------------


class Stateless(Fading):
    def __init__(self, parameters):
        super().__init__(parameters)
        self.n_state = 0


class NoStep(Cell):
    def start(self, generator):
        return {"w_in": torch.zeros(self.n_input, self.n_units)}


class Vector(Fading):
    def start(self, generator):
        return super().start(generator) | {"fade": torch.ones(self.n_units)}


class FewInputs(Fading):
    def start(self, generator):
        return super().start(generator) | {"w_in": torch.ones(3, self.n_units)}


class LongBias(Fading):
    def start(self, generator):
        return super().start(generator) | {"b": torch.zeros(1, self.n_units + 1)}


class Taken(Fading):
    def start(self, generator):
        return super().start(generator) | {"w_out": torch.zeros(1, 1)}


class NotSquare(Fading):
    def start(self, generator):
        return super().start(generator) | {"w_rec": torch.ones(3, self.n_units)}


class WideState(Fading):
    def step(self, w, state, drive):
        return torch.cat([state, drive], -1)


class WideRead(Fading):
    def read(self, w, state, drive):
        return torch.cat([state, drive], -1)


class NoInput(Fading):
    def start(self, generator):
        return {"w_rec": torch.zeros(1, 1)}


NOT_A_CELL = dict
