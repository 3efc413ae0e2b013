"""What a cell is: its initial weights and its equation for one time step."""

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from multitask.scan import Buffers

if TYPE_CHECKING:
    from multitask.network.parameters import NetworkParameters

Weights = dict[str, Tensor]


class Cell:
    """The equation of a recurrent network, s_t = step(s_{t-1}, x_t W_in + b). Subclass it for a cell of your own.

    You write `start` and `step`. The network multiplies inputs with ``w_in``, adds ``b``, applies the cell over time
    from a state of zeros, and reads its outputs from `read`, sigmoid(read(s_t) W_out + b_out).

    All weights are matrices. In `step`, arrays have a leading axis of E networks, so that ``state @ w["w_rec"]`` is the
    product of each network with its own weights. Names that begin with ``w_`` have a cost if weights have one in
    training.

    Parameters
    ----------
    parameters : NetworkParameters
        Sizes, ``alpha`` and ``activation``.
    **options
        ``cell_options`` of the parameters: keywords of ``__init__`` of the subclass.

    Attributes
    ----------
    n_units : int
        Number of units, ``n_rnn``. `read` returns a value for each.
    n_state : int >= 1
        Numbers in the state of a network; ``n_rnn`` unless the subclass sets it.
    outgoing : tuple of str
        Weights whose row i starts at unit i. A lesion of unit i sets these rows to 0.
    """

    outgoing: ClassVar[tuple[str, ...]] = ("w_rec",)

    def __init__(self, parameters: "NetworkParameters") -> None:
        self.parameters = parameters
        self.n_input, self.n_units, self.n_state = parameters.n_input, parameters.n_rnn, parameters.n_rnn

    def start(self, generator: torch.Generator) -> Weights:
        """Initial weights of one network: ``w_in`` (n_input, M), optionally ``b`` (1, M), and matrices of your own."""
        raise NotImplementedError

    def step(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """The next state, (E, trial, n_state), from the present one and ``drive`` = x W_in + b, (E, trial, M)."""
        raise NotImplementedError

    def read(self, w: Weights, state: Tensor, drive: Tensor) -> Tensor:
        """Activity of the units, (E, trial, n_units), from the state after `step` and the drive of that step."""
        return state

    def prepare(self, w: Weights) -> Weights:
        """Weights as `step` and `read` take them; computed once for all time steps."""
        return w

    def scan(self, w: Weights, drive: Tensor, noise: Tensor | None, buffers: Buffers | None = None) -> Tensor:
        """States over time, (E, time, trial, n_state), from a state of zeros; ``noise`` is added after each step.

        ``buffers`` may keep large tensors for the next call, as in `leaky_scan`; this loop does not use it.
        """
        state = drive.new_zeros(len(drive), drive.shape[2], self.n_state)
        states = []
        for t, drive_t in enumerate(drive.unbind(1)):
            state = self.step(w, state, drive_t)
            if noise is not None:
                state = state + noise[:, t]
            states.append(state)
        return torch.stack(states, 1)
