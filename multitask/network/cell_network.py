"""Ensembles of networks with any cell, differentiated by autograd."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from multitask.network.cells import Cell, find_cell
from multitask.network.initial import glorot
from multitask.network.parameters import NetworkParameters
from multitask.network.rnn import LeakyRNN
from multitask.scan import Buffers
from multitask.trials import MultitaskError

OURS = ("w_rule", "w_out", "b_out")  # weights that the network adds to those of the cell


class CellNetwork(LeakyRNN):
    """An ensemble of networks whose equation is a `Cell`.

    It has the same methods as `LeakyRNN`. States have ``n_state`` numbers, and `step`, `jacobian` and
    `find_fixed_points` work on them; the hidden states that a call returns are those that the outputs are read from,
    (E, n_trials, n_times, n_rnn). `states` returns the others. Private noise with standard deviation sigma_rec
    sqrt(2 alpha) is added to every number of the state after each step; in leaky networks it has the same effect on the
    state.

    Attributes
    ----------
    weights : dict of name -> Tensor, float32
        The weights of the cell, (E, rows, columns); the last rows of its ``w_in``, those of rule units, are ``w_rule``.
        ``w_out`` (E, N, n_output) and ``b_out`` (E, 1, n_output).
    """

    def __init__(
        self,
        parameters: NetworkParameters,
        n_networks: int = 1,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        self.parameters = parameters
        super().__init__(parameters, n_networks, seed, device)
        _check_cell(self)

    @property
    def rnn_type(self) -> str:  # type: ignore[override]
        """Name of the cell."""
        return self.parameters.rnn_type

    @cached_property
    def cell(self) -> Cell:
        """The cell, with its options."""
        p = self.parameters
        return find_cell(p.rnn_type)(p, **p.cell_options)

    @property
    def n_state(self) -> int:
        """Numbers in the state of a network."""
        return self.cell.n_state

    def step(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """States after one time step without noise, (E, ..., n_state), from states of this shape.

        ``inputs`` broadcast to (E, ..., n_input).
        """
        drive = self._drive(hidden, inputs)
        drive = drive.expand(*hidden.shape[:-1], drive.shape[-1])
        flat = (x.reshape(len(x), -1, x.shape[-1]) for x in (hidden, drive))
        return self.cell.step(self.cell.prepare(self.weights), *flat).view(hidden.shape)

    def states(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """States over whole trials, (E, n_trials, n_times, n_state); arguments as for calling the ensemble."""
        return self._over_time(self._checked(inputs), generator)[0].transpose(1, 2)

    def jacobian(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Derivative of `step` by autograd, (E, ..., n_state, n_state); arguments as for `step`."""
        with torch.enable_grad():
            states = hidden.detach().requires_grad_()
            after = self.step(states, inputs)
            rows = [
                torch.autograd.grad(after[..., i].sum(), states, retain_graph=True, materialize_grads=True)[0]
                for i in range(hidden.shape[-1])
            ]
        return torch.stack(rows, -2)

    def preactivation(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Leaky networks only; raises a `MultitaskError`."""
        raise MultitaskError(f"a {self.rnn_type} has no single nonlinearity: preactivation is for leaky networks")

    def slope(self, z: Tensor) -> Tensor:
        """Leaky networks only; raises a `MultitaskError`."""
        raise MultitaskError(f"a {self.rnn_type} has no single nonlinearity: slope is for leaky networks")

    def weight_group(self, group: str) -> tuple[str, ...]:
        """Names of the weights in a group of `WEIGHT_GROUPS`; "recurrent" are all weights of the cell but ``w_in``."""
        ours = {"input": ("w_in",), "rule_input": ("w_rule",), "output": ("w_out", "b_out")}
        return ours.get(group) or tuple(name for name in self.weights if name not in ("w_in", *OURS))

    def weight_matrices(self) -> list[tuple[str, ...]]:
        """Names of the weights that penalties treat as one matrix: inputs, each ``w_`` of the cell, and outputs."""
        own = [(name,) for name in self.weights if name.startswith("w_") and name not in ("w_in", *OURS)]
        return [("w_in", "w_rule"), *own, ("w_out",)]

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _outgoing(self) -> tuple[str, ...]:
        return (*(name for name in self.cell.outgoing if name in self.weights), "w_out")

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        p = self.parameters
        start = _checked_start(self.cell.start(generator), p)
        w_in, w_rule = start["w_in"].split([p.n_input - p.n_rule, p.n_rule])
        start |= {"w_in": w_in, "w_rule": w_rule}
        start |= {"w_out": glorot(p.n_rnn, p.n_output, generator), "b_out": torch.zeros(1, p.n_output)}
        return {name: weight.float() for name, weight in start.items()}

    def _input_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        w = self.weights
        return w["w_in"], w["w_rule"], w["b"] if "b" in w else torch.zeros_like(w["w_in"][:, :1])

    def _run(self, x: Tensor, generator: torch.Generator | None, buffers: Buffers | None) -> tuple[Tensor, Tensor]:
        """The cell over time, differentiated by autograd."""
        states, drive = self._over_time(x, generator, buffers)
        units = self.cell.read(
            self.cell.prepare(self.weights), *(part.flatten(1, 2) for part in (states, drive))
        ).unflatten(1, x.shape[1:3])
        return units, self._onto(units, self.weights["w_out"]) + self.weights["b_out"][:, None]

    def _over_time(
        self, x: Tensor, generator: torch.Generator | None, buffers: Buffers | None = None
    ) -> tuple[Tensor, Tensor]:
        """States and drive, (network, time, trial, .), for inputs (network or 1, time, trial, input)."""
        p = self.parameters
        drive, noise = self._drives(x), None
        if generator is not None and p.noise_sd:
            shape = (*drive.shape[:-1], self.n_state)
            noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
            noise = p.alpha * p.noise_sd * noise
        return self.cell.scan(self.cell.prepare(self.weights), drive, noise, buffers), drive


def _checked_start(start: Any, p: NetworkParameters) -> dict[str, Tensor]:
    """The initial weights of a cell: matrices with names of their own, of which ``w_in`` has a row for each input."""
    cell = f"cell {p.rnn_type!r}"
    if not isinstance(start, dict) or "w_in" not in start:
        raise MultitaskError(f"{cell}: start must return a dictionary of weights that contains 'w_in'")
    for name, weight in start.items():
        if name in OURS:
            raise MultitaskError(f"{cell}: weights cannot be called {name!r}, the network adds weights of this name")
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            came = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            raise MultitaskError(f"{cell}: {name} came as {came}: weights are matrices, a bias is (1, N)")
    w_in = start["w_in"]
    if len(w_in) != p.n_input:
        raise MultitaskError(
            f"{cell}: w_in has shape {tuple(w_in.shape)}: must have a row for each of the {p.n_input} inputs"
        )
    if "b" in start and tuple(start["b"].shape) != (1, w_in.shape[1]):
        raise MultitaskError(
            f"{cell}: b has shape {tuple(start['b'].shape)}: must be (1, {w_in.shape[1]}), the columns of w_in"
        )
    return dict(start)


@torch.no_grad()
def _check_cell(network: CellNetwork) -> None:
    """Raise an error unless the cell has a state, and `step` and `read` fit it: two trials of one time step."""
    p, cell, called = network.parameters, network.cell, f"cell {network.rnn_type!r}"
    if not isinstance(cell.n_state, int) or cell.n_state < 1:
        raise MultitaskError(f"{called} has no state (n_state = {cell.n_state!r}): set n_state to a number >= 1")
    n, x = network.n_networks, torch.zeros(1, 1, 2, p.n_input, device=network.device)
    try:
        w = cell.prepare(network.weights)
        drive = network._drive(x.new_zeros(n, 2, cell.n_state), x[0])
        state = cell.step(w, x.new_zeros(n, 2, cell.n_state), drive)
        units = cell.read(w, state, drive)
    except (RuntimeError, KeyError, IndexError) as error:
        shapes = ", ".join(f"{name} {tuple(weight.shape[1:])}" for name, weight in network.weights.items())
        raise MultitaskError(f"{called} does not run with weights {shapes}: {error}") from error
    for method, found, size in (("step", state, cell.n_state), ("read", units, p.n_rnn)):
        if not isinstance(found, Tensor) or tuple(found.shape) != (n, 2, size):
            came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise MultitaskError(f"{called}: {method} returned {came}, must be ({n}, 2, {size}) for two trials")
