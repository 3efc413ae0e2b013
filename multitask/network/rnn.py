"""Ensembles of leaky recurrent networks."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from multitask.display import Card, Shown
from multitask.network.initial import START_SCALES, glorot, normal, orthogonal
from multitask.network.parameters import WEIGHT_GROUPS, NetworkParameters
from multitask.network.plain import PlainLeakyRNN, from_arrays, plain
from multitask.scan import ACTIVATIONS, Buffers, leaky_scan
from multitask.trials import LARGEST_SEED, MultitaskError, check_whole, checked_device


class LeakyRNN(Shown):
    """An ensemble of leaky recurrent networks.

    Parameters
    ----------
    parameters : NetworkParameters
    n_networks : int >= 1
        Number of networks, E.
    seed : int >= 0
        Seed of the initial weights.
    device : torch.device or str, optional
        Device of the weights; CPU by default.

    Attributes
    ----------
    weights : dict of name -> Tensor, float32
        ``w_in`` (E, 65, N) from fixation and stimuli, ``w_rule`` (E, 20, N) from the rule units, ``w_rec`` (E, N, N),
        ``b`` (E, 1, N), ``w_out`` (E, N, 33), ``b_out`` (E, 1, 33). With separate inputs also ``b_in`` (E, 1, N) and,
        with ``mix_rule``, the fixed matrix ``mixing`` (E, 20, 20).

    Raises
    ------
    MultitaskError
        If ``parameters.rnn_type`` is another class, or if an argument is out of range.

    Examples
    --------
    >>> network = LeakyRNN(NetworkParameters(n_rnn=8), n_networks=3, seed=0)
    >>> outputs, hidden = network(torch.zeros(5, 40, 85))  # (trial, time, input)
    >>> outputs.shape, hidden.shape
    (torch.Size([3, 5, 40, 33]), torch.Size([3, 5, 40, 8]))
    """

    rnn_type: ClassVar[str] = "LeakyRNN"

    def __init__(
        self,
        parameters: NetworkParameters,
        n_networks: int = 1,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        if parameters.rnn_type != self.rnn_type:
            raise MultitaskError(
                f"network.rnn_type = {parameters.rnn_type!r} is not {self.rnn_type!r}: use make_network"
            )
        check_whole("n_networks", n_networks, 1, 10_000)
        check_whole("seed", seed, 0, LARGEST_SEED)
        self.parameters = parameters
        device = checked_device(device)
        seeds = (int(s.generate_state(1, np.uint64)[0]) for s in np.random.SeedSequence(seed).spawn(n_networks))
        starts = [self._start(torch.Generator().manual_seed(s)) for s in seeds]
        self.weights = {name: torch.stack([start[name] for start in starts]).to(device) for name in starts[0]}

    def _card(self) -> Card:
        p, n = self.parameters, self.n_networks
        n_weights = sum(weights[0].numel() for weights in self.weights.values())
        noise = f", private noise {p.sigma_rec:g}" if p.sigma_rec else ""
        rows = {
            "units": f"{p.n_rnn} ({p.activation}), tau = {p.tau:g} ms, dt = {p.dt:g} ms{noise}",
            "channels": f"{p.n_input} inputs{f', {p.n_rule} of them for rules' * bool(p.n_rule)}; {p.n_output} outputs",
            "weights": f"{n_weights} a network, {str(self.dtype).removeprefix('torch.')}, on {self.device}",
        }
        doors = "outputs, hidden = network(batch.inputs); record_activity(network, rule); train(rules) to train others"
        return Card(f"{type(self).__name__}: {n} network{'s' * (n > 1)}", rows, doors)

    @property
    def n_networks(self) -> int:
        """Number of networks, E."""
        return len(self.weights["w_out"])

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.weights["w_out"].device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.weights["w_out"].dtype

    @property
    def n_state(self) -> int:
        """Numbers in the state of a network that `step` takes; the units."""
        return self.parameters.n_rnn

    def __call__(
        self, inputs: Tensor, *, generator: torch.Generator | None = None, buffers: Buffers | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs and hidden states over whole trials, starting from h = 0.

        Parameters
        ----------
        inputs : Tensor, (n_trials, n_times, n_input), or (E, n_trials, n_times, n_input)
            The same batch for all networks, or one batch for each network.
        generator : torch.Generator, optional
            Source of the private noise, on the device of the network. Without it there is no private noise.
        buffers : dict, optional
            Keeps large tensors for the next call with the same dict. That call overwrites the tensors returned here.

        Returns
        -------
        outputs : Tensor, (E, n_trials, n_times, n_output), in (0, 1)
            Sigmoid of the logits.
        hidden : Tensor, (E, n_trials, n_times, n_rnn)

        Raises
        ------
        MultitaskError
            If the shape of the inputs does not fit the network.
        """
        logits, hidden = self.logits(inputs, generator=generator, buffers=buffers)
        return torch.sigmoid(logits), hidden

    def logits(
        self, inputs: Tensor, *, generator: torch.Generator | None = None, buffers: Buffers | None = None
    ) -> tuple[Tensor, Tensor]:
        """Like calling the ensemble, but with outputs before the sigmoid.

        Networks trained with cross-entropy need the softmax of these logits.

        Parameters
        ----------
        inputs, generator, buffers
            As for calling the ensemble.

        Returns
        -------
        logits : Tensor, (E, n_trials, n_times, n_output)
        hidden : Tensor, (E, n_trials, n_times, n_rnn)

        Raises
        ------
        MultitaskError
            If the shape of the inputs does not fit the network.
        """
        hidden, logits = self._run(self._checked(inputs), generator, buffers)
        return logits.transpose(1, 2), hidden.transpose(1, 2)  # (network, trial, time, .)

    def states(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """States over whole trials, (E, n_trials, n_times, n_state), from which `step` goes on: the hidden states.

        Arguments as for calling the ensemble.
        """
        return self.logits(inputs, generator=generator)[1]

    def step(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """States after one time step without noise.

        Parameters
        ----------
        hidden : Tensor, (E, ..., N)
        inputs : Tensor, (E, ..., n_input), or any shape that broadcasts to it

        Returns
        -------
        Tensor, (E, ..., N)
        """
        alpha = self.parameters.alpha
        return (1 - alpha) * hidden + alpha * self._f(self.preactivation(hidden, inputs))

    def preactivation(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Argument of the nonlinearity, z = x W_in + h W_rec + b, (E, ..., N); arguments as for `step`."""
        return self._onto(hidden, self.weights["w_rec"]) + self._drive(hidden, inputs)

    def slope(self, z: Tensor) -> Tensor:
        """Derivative of the nonlinearity, f'(z), elementwise."""
        activation = ACTIVATIONS[self.parameters.activation]
        return activation.slope(z, activation.f(z), torch.empty_like(z))

    def jacobian(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Derivative of `step` in closed form, (E, ..., N, N); arguments as for `step`.

        Entry (i, j) is d h'_i / d h_j = (1 - alpha) [i = j] + alpha f'(z_i) W_rec(j, i).
        """
        alpha = self.parameters.alpha
        slope = self.slope(self.preactivation(hidden, inputs))
        eye = torch.eye(hidden.shape[-1], dtype=self.dtype, device=self.device)
        return (1 - alpha) * eye + alpha * slope[..., :, None] * self._over(self.weights["w_rec"], hidden).mT

    def lesion(self, units: Sequence[int] | Tensor) -> "LeakyRNN":
        """The ensemble with some units silenced.

        Outgoing recurrent weights and output weights of these units are set to 0 in a copy.

        Parameters
        ----------
        units : sequence of int, or Tensor, (E, N), bool
            Indices of units that are silenced in all networks, or a mask with different units for each network.

        Returns
        -------
        LeakyRNN

        Raises
        ------
        MultitaskError
            If a unit does not exist, or if the mask has another shape.
        """
        n_units = self.parameters.n_rnn
        units = torch.as_tensor(units, device=self.device)
        if units.dtype == torch.bool:
            if units.shape != (self.n_networks, n_units):
                raise MultitaskError(
                    f"units is a mask of shape {tuple(units.shape)}: must be ({self.n_networks}, {n_units})"
                )
            silent = units
        else:
            units = units.to(torch.long)
            outside = [u for u in units.tolist() if not 0 <= u < n_units]
            if outside:
                raise MultitaskError(f"unit {outside[0]} does not exist: units are numbered 0 to {n_units - 1}")
            silent = torch.zeros(self.n_networks, n_units, dtype=torch.bool, device=self.device)
            silent[:, units] = True
        cut = {name: self.weights[name].masked_fill(silent[:, :, None], 0) for name in self._outgoing()}
        return self.with_weights(self.weights | cut)

    def subset(self, networks: Sequence[int] | slice) -> "LeakyRNN":
        """An ensemble of some of the networks, by index or slice. Weights are not copied for a slice."""
        return self.with_weights({name: weight[networks] for name, weight in self.weights.items()})

    def to(self, where: torch.device | str | torch.dtype) -> "LeakyRNN":
        """The ensemble on another device or in another precision."""
        return self.with_weights({name: weight.to(where) for name, weight in self.weights.items()})

    def with_weights(self, weights: dict[str, Tensor]) -> "LeakyRNN":
        """An ensemble with the same parameters and these weights (not copied)."""
        other = object.__new__(type(self))
        other.parameters, other.weights = self.parameters, weights
        return other

    def to_torch(self) -> PlainLeakyRNN:
        """An ordinary nn.Module with the same outputs and hidden states, from an ensemble of one network.

        Raises
        ------
        MultitaskError
            If the ensemble has several networks (choose one by `subset`), or another cell.
        """
        return plain(self)

    @classmethod
    def from_arrays(
        cls,
        *,
        w_in: Any,
        w_rec: Any,
        b: Any,
        w_out: Any,
        b_out: Any,
        dt: float = 20.0,
        tau: float = 100.0,
        activation: str = "softplus",
        sigma_rec: float = 0.05,
        n_rule: int = 0,
        device: torch.device | str | None = None,
    ) -> "LeakyRNN":
        """A network from weights that were trained elsewhere. Entry (j, i) of a matrix is the weight from j to i.

        The networks of the public code of Yang et al. (2019) have the variables ``rnn/leaky_rnn_cell/kernel``, whose
        first n_input rows are ``w_in`` and whose last N rows are ``w_rec``, ``rnn/leaky_rnn_cell/bias`` (``b``),
        ``output/weights`` (``w_out``) and ``output/biases`` (``b_out``).

        Parameters
        ----------
        w_in, w_rec, b, w_out, b_out : arrays (n_input, N), (N, N), (N,), (N, n_output), (n_output,)
            Rule units are the last rows of ``w_in``.
        dt, tau, activation, sigma_rec
            As in `NetworkParameters`.
        n_rule : int >= 0
            Number of rule units among the inputs; 20 for the twenty tasks.
        device : torch.device or str, optional
            CPU by default.

        Raises
        ------
        MultitaskError
            If shapes do not fit together, values are not finite, or a parameter is out of range.
        """
        arrays = {"w_in": w_in, "w_rec": w_rec, "b": b, "w_out": w_out, "b_out": b_out}
        weights = from_arrays(arrays, n_rule)
        parameters = NetworkParameters(
            n_rnn=weights["w_rec"].shape[-1], activation=activation, dt=dt, tau=tau, sigma_rec=sigma_rec,
            n_input=len(weights["w_in"][0]) + n_rule, n_rule=n_rule, n_output=weights["w_out"].shape[-1],
        )  # fmt: skip
        network = object.__new__(LeakyRNN)
        network.parameters, network.weights = parameters, weights
        return network.to(checked_device(device))

    def weight_group(self, group: str) -> tuple[str, ...]:
        """Names of the weights in a group of `WEIGHT_GROUPS`."""
        return WEIGHT_GROUPS[group]

    def weight_matrices(self) -> list[tuple[str, ...]]:
        """Names of the weights that penalties treat as one matrix: onto the recurrent units, and to the outputs."""
        return [("w_in", "w_rule", "w_rec"), ("w_out",)]

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _checked(self, inputs: Tensor) -> Tensor:
        """Inputs as (network or 1, time, trial, input)."""
        if inputs.dim() not in (3, 4) or inputs.shape[-1] != self.parameters.n_input or 0 in inputs.shape:
            raise MultitaskError(
                f"inputs have shape {tuple(inputs.shape)}: must be (n_trials, n_times, {self.parameters.n_input}), or "
                f"({self.n_networks}, n_trials, n_times, {self.parameters.n_input}) with one batch for each network"
            )
        if inputs.dim() == 4 and len(inputs) not in (1, self.n_networks):
            raise MultitaskError(
                f"inputs have {len(inputs)} batches for {self.n_networks} networks: give one batch, or one for each"
            )
        x = inputs if inputs.dim() == 4 else inputs[None]
        return x.to(self.device, self.dtype).transpose(1, 2)

    def _outgoing(self) -> tuple[str, ...]:
        """Names of weights whose row i starts at unit i."""
        return ("w_rec", "w_out")

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial weights of one network, computed in float64 and rounded once to float32."""
        p = self.parameters
        scale = p.w_rec_scale or START_SCALES[p.activation]
        n_sensory = p.n_input - p.n_rule
        separate: dict[str, Tensor] = {}
        if p.use_separate_input:
            w_in = glorot(n_sensory, p.n_rnn, generator)
            w_rule = glorot(p.n_rule, p.n_rnn, generator)
            separate["b_in"] = torch.zeros(1, p.n_rnn)
            if p.mix_rule:
                separate["mixing"] = orthogonal(p.n_rule, generator)
        else:
            w_in, w_rule = (normal(p.n_input, p.n_rnn, generator) / math.sqrt(p.n_input)).split([n_sensory, p.n_rule])
        w_rec = {
            "diag": lambda: torch.eye(p.n_rnn, dtype=torch.float64),
            "randortho": lambda: orthogonal(p.n_rnn, generator),
            "randgauss": lambda: normal(p.n_rnn, p.n_rnn, generator) / math.sqrt(p.n_rnn),
        }[p.w_rec_init]()
        start = {"w_in": w_in, "w_rule": w_rule, "w_rec": scale * w_rec, "b": torch.zeros(1, p.n_rnn), **separate}
        start |= {"w_out": glorot(p.n_rnn, p.n_output, generator), "b_out": torch.zeros(1, p.n_output)}
        return {name: weight.float() for name, weight in start.items()}

    def _run(self, x: Tensor, generator: torch.Generator | None, buffers: Buffers | None) -> tuple[Tensor, Tensor]:
        p = self.parameters
        return leaky_scan(
            _with_ones(x),
            torch.cat(self._input_weights(), 1),
            self.weights["w_rec"],
            self.weights["w_out"],
            self.weights["b_out"],
            alpha=p.alpha,
            activation=p.activation,
            noise_sd=p.noise_sd if generator is not None else 0.0,
            generator=generator,
            buffers=buffers,
        )

    def _input_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights from sensory inputs and rule units, and the bias as the weight of an input that is always 1."""
        w = self.weights
        rule = w["mixing"] @ w["w_rule"] if "mixing" in w else w["w_rule"]
        return w["w_in"], rule, w["b"] + w["b_in"] if "b_in" in w else w["b"]

    def _drives(self, x: Tensor) -> Tensor:
        """x W_in + b at all times, (network, time, trial, .), for inputs (network or 1, time, trial, input)."""
        rows = _with_ones(x).flatten(1, 2).expand(self.n_networks, -1, -1)
        return torch.bmm(rows, torch.cat(self._input_weights(), 1)).unflatten(1, x.shape[1:3])

    def _drive(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """x W_in + b, for inputs that broadcast to hidden."""
        inputs = inputs.to(hidden).view(*[1] * (hidden.dim() - inputs.dim()), *inputs.shape)
        *w_in, b = self._input_weights()
        inputs = inputs.expand(self.n_networks, *inputs.shape[1:])
        return self._onto(inputs, torch.cat(w_in, 1)) + self._over(b, hidden)[..., 0, :]

    def _onto(self, x: Tensor, weight: Tensor) -> Tensor:
        """(E, ..., I) times (E, I, N) -> (E, ..., N)."""
        return torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[-1])

    def _over(self, weight: Tensor, hidden: Tensor) -> Tensor:
        """A weight (E, I, N), reshaped to broadcast over the axes between network and unit of hidden (E, ..., N)."""
        return weight.view(len(weight), *[1] * (hidden.dim() - 2), *weight.shape[1:])

    def _f(self, z: Tensor) -> Tensor:
        return ACTIVATIONS[self.parameters.activation].f(z)


def _with_ones(x: Tensor) -> Tensor:
    """Inputs with one more that is always 1, whose weight is the bias."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)
