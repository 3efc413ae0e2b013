"""Ensembles of leaky recurrent networks (Yang et al. 2019).

    h_t = (1 - alpha) h_{t-1} + alpha f(x_t W_in + h_{t-1} W_rec + b + noise_t),    h_0 = 0
    y_t = sigmoid(h_t W_out + b_out)

with alpha = dt / tau and private white noise of standard deviation sigma_rec sqrt(2 / alpha) a step, inside the
nonlinearity. Row vectors act from the left, so entry (j, i) of a weight matrix leads from j to i. E networks of one
kind lie on the leading axis of every array: one network is an ensemble of one. Network i of an ensemble starts from
the same weights whatever the number of networks.

The second cell is a leaky GRU: gates r and u, and a candidate c that carries the noise,

    r, u = sigmoid(x W + h U + b),    c = f(x W_c + (r h) U_c + b_c + noise),    h' = (1 - alpha u) h + alpha u c.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code. That says
nothing of the weights from which its GRU starts: here they are Glorot uniform, with gate biases of 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from multitask.scan import ACTIVATIONS, Buffers, leaky_scan
from multitask.trials import MultitaskError, check_whole, checked_device, unknown

RNN_TYPES = ("LeakyRNN", "LeakyGRU")
STARTS = ("diag", "randortho", "randgauss")
START_SCALES = {"softplus": 0.5, "relu": 0.5, "tanh": 1.0, "retanh": 0.5, "power": 0.01}
WEIGHT_GROUPS = {
    "input": ("w_in", "b_in"),
    "rule_input": ("w_rule",),
    "recurrent": ("w_rec", "b"),
    "output": ("w_out", "b_out"),
}


@dataclass(frozen=True)
class NetworkParameters:
    """What a network is made of; the defaults are those of the paper's 20-task networks.

    Attributes
    ----------
    n_rnn : int >= 1
        Recurrent units.
    rnn_type : "LeakyRNN" or "LeakyGRU"
    activation : "softplus", "relu", "tanh", "retanh" = tanh(relu(z)), or "power" = relu(z)^2
    w_rec_init : "diag", "randortho" or "randgauss"
        Recurrent weights at the start: s I, s times a random orthogonal matrix, or N(0, s^2 / n_rnn). LeakyRNN only.
    w_rec_scale : float > 0, or None
        s; None takes that of the activation (0.5; tanh 1, power 0.01). relu with s = 0.9 remembers for a second from
        the first step on.
    dt, tau : ms, 0 < dt <= tau
        Length of a step; time constant of a unit.
    sigma_rec : >= 0
        Private noise.
    use_separate_input : bool
        Stimuli and rules enter through Glorot-uniform matrices of their own, stimuli with a bias of their own. LeakyRNN
        only.
    mix_rule : bool
        Mix the rule inputs by a fixed random orthogonal matrix first; needs ``use_separate_input``.
    n_input, n_rule, n_output : int
        All inputs, those at the end that tell the rule, outputs. 85, 20 and 33 for the twenty tasks.
    """

    n_rnn: int = 256
    rnn_type: str = "LeakyRNN"
    activation: str = "softplus"
    w_rec_init: str = "diag"
    w_rec_scale: float | None = None
    dt: float = 20.0
    tau: float = 100.0
    sigma_rec: float = 0.05
    use_separate_input: bool = False
    mix_rule: bool = False
    n_input: int = 85
    n_rule: int = 20
    n_output: int = 33

    def __post_init__(self) -> None:
        choices = {"rnn_type": RNN_TYPES, "activation": tuple(ACTIVATIONS), "w_rec_init": STARTS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown(f"network.{name}", getattr(self, name), known)
        for name, least in (("n_rnn", 1), ("n_input", 1), ("n_rule", 0), ("n_output", 1)):
            check_whole(f"network.{name}", getattr(self, name), least)
        if self.n_rule >= self.n_input:
            raise MultitaskError(
                f"network.n_rule = {self.n_rule}: must be below n_input = {self.n_input}, which counts the rules too"
            )
        for name in ("dt", "tau"):
            check_number(f"network.{name}", getattr(self, name), above=0)
        if self.dt > self.tau:
            raise MultitaskError(
                f"network.dt = {self.dt} ms: must not exceed tau = {self.tau} ms; lower dt or raise tau"
            )
        check_number("network.sigma_rec", self.sigma_rec, least=0)
        if self.w_rec_scale is not None:
            check_number("network.w_rec_scale", self.w_rec_scale, above=0)
        if self.mix_rule and not self.use_separate_input:
            raise MultitaskError(
                "network.mix_rule = True: only separate inputs are mixed; set use_separate_input = True"
            )
        if self.use_separate_input and self.rnn_type != "LeakyRNN":
            raise MultitaskError(f"network.use_separate_input = True: is for LeakyRNN only, not for {self.rnn_type}")

    @property
    def alpha(self) -> float:
        """dt / tau."""
        return self.dt / self.tau

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the private noise of a step."""
        return self.sigma_rec * math.sqrt(2 / self.alpha)

    def misfits(self, other: "NetworkParameters") -> list[str]:
        """Names of the fields by which weights made for ``other`` do not belong in a network with these parameters."""
        free = {"w_rec_init", "w_rec_scale", "dt", "sigma_rec"}
        return [f.name for f in fields(self) if f.name not in free and getattr(self, f.name) != getattr(other, f.name)]


class LeakyRNN:
    """An ensemble of leaky recurrent networks.

    Parameters
    ----------
    parameters : NetworkParameters
    n_networks : int >= 1
        E.
    seed : int >= 0
        Decides the weights at the start.
    device : where the weights live; CPU by default

    Attributes
    ----------
    weights : dict of name -> Tensor, float32
        ``w_in`` (E, 65, N) from fixation and stimuli, ``w_rule`` (E, 20, N) from the rule units, ``w_rec`` (E, N, N),
        ``b`` (E, 1, N), ``w_out`` (E, N, 33), ``b_out`` (E, 1, 33); with separate inputs also ``b_in`` (E, 1, N), and
        the fixed ``mixing`` (E, 20, 20).

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
                f"network.rnn_type = {parameters.rnn_type!r} is not {self.rnn_type!r}: make_network picks the class"
            )
        check_whole("n_networks", n_networks, 1)
        check_whole("seed", seed, 0)
        self.parameters = parameters
        device = checked_device(device)
        seeds = (int(s.generate_state(1, np.uint64)[0]) for s in np.random.SeedSequence(seed).spawn(n_networks))
        starts = [self._start(torch.Generator().manual_seed(s)) for s in seeds]
        self.weights = {name: torch.stack([start[name] for start in starts]).to(device) for name in starts[0]}

    @property
    def n_networks(self) -> int:
        return len(self.weights["w_rec"])

    @property
    def device(self) -> torch.device:
        return self.weights["w_rec"].device

    @property
    def dtype(self) -> torch.dtype:
        return self.weights["w_rec"].dtype

    def __call__(
        self, inputs: Tensor, *, generator: torch.Generator | None = None, buffers: Buffers | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs and hidden states over whole trials.

        Parameters
        ----------
        inputs : (n_trials, n_times, n_input), or (E, n_trials, n_times, n_input)
            Shared by all networks, or one batch for each.
        generator : torch.Generator on the network's device, optional
            Source of the private noise. Without it the network runs without noise.
        buffers : dict, optional
            Keeps the large tensors for the next call with the same dict, which overwrites what comes back here.

        Returns
        -------
        outputs (E, n_trials, n_times, n_output), in (0, 1); hidden (E, n_trials, n_times, n_rnn)
        """
        logits, hidden = self.logits(inputs, generator=generator, buffers=buffers)
        return torch.sigmoid(logits), hidden

    def logits(
        self, inputs: Tensor, *, generator: torch.Generator | None = None, buffers: Buffers | None = None
    ) -> tuple[Tensor, Tensor]:
        """As a call, with outputs before the sigmoid; networks trained with cross-entropy take the softmax of them."""
        if inputs.dim() not in (3, 4) or inputs.shape[-1] != self.parameters.n_input or 0 in inputs.shape:
            raise MultitaskError(
                f"inputs have shape {tuple(inputs.shape)}: needed is (n_trials, n_times, {self.parameters.n_input}), "
                f"or ({self.n_networks}, n_trials, n_times, {self.parameters.n_input}) with a batch for each network"
            )
        if inputs.dim() == 4 and len(inputs) not in (1, self.n_networks):
            raise MultitaskError(
                f"inputs hold {len(inputs)} batches for {self.n_networks} networks: give one for all, or one for each"
            )
        x = inputs if inputs.dim() == 4 else inputs[None]
        x = x.to(self.device, self.dtype).transpose(1, 2)  # (network or 1, time, trial, input)
        hidden, logits = self._run(x, generator, buffers)
        return logits.transpose(1, 2), hidden.transpose(1, 2)  # (network, trial, time, .)

    def step(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """The next states without noise, (E, ..., N).

        Parameters
        ----------
        hidden : (E, ..., N)
        inputs : (E, ..., n_input), or any shape that broadcasts to it
        """
        alpha = self.parameters.alpha
        return (1 - alpha) * hidden + alpha * self._f(self.preactivation(hidden, inputs))

    def preactivation(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """z = x W_in + h W_rec + b, (E, ..., N); arguments as for `step`."""
        return self._onto(hidden, self.weights["w_rec"]) + self._drive(hidden, inputs)

    def slope(self, z: Tensor) -> Tensor:
        """f'(z), elementwise."""
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
        """The ensemble with some units silenced: their outgoing recurrent weights and their output weights are 0.

        Parameters
        ----------
        units : indices, the same units in all networks; or a bool tensor (E, N) with units of its own for each
        """
        n_units = self.parameters.n_rnn
        units = torch.as_tensor(units, device=self.device)
        if units.dtype == torch.bool:
            if units.shape != (self.n_networks, n_units):
                raise MultitaskError(
                    f"units is a mask of shape {tuple(units.shape)}: needed is ({self.n_networks}, {n_units})"
                )
            silent = units
        else:
            units = units.to(torch.long)
            outside = [u for u in units.tolist() if not 0 <= u < n_units]
            if outside:
                raise MultitaskError(f"unit {outside[0]} cannot be lesioned: units are numbered 0 to {n_units - 1}")
            silent = torch.zeros(self.n_networks, n_units, dtype=torch.bool, device=self.device)
            silent[:, units] = True
        cut = {name: self.weights[name].masked_fill(silent[:, :, None], 0) for name in ("w_rec", "w_out")}
        return self.with_weights(self.weights | cut)

    def subset(self, networks: Sequence[int] | slice) -> "LeakyRNN":
        """Some networks of the ensemble, as an ensemble."""
        return self.with_weights({name: weight[networks] for name, weight in self.weights.items()})

    def to(self, where: torch.device | str | torch.dtype) -> "LeakyRNN":
        """The same ensemble on another device, or in another precision."""
        return self.with_weights({name: weight.to(where) for name, weight in self.weights.items()})

    def with_weights(self, weights: dict[str, Tensor]) -> "LeakyRNN":
        """An ensemble of the same kind with these weights (not copied)."""
        other = object.__new__(type(self))
        other.parameters, other.weights = self.parameters, weights
        return other

    def weight_matrices(self) -> list[tuple[str, ...]]:
        """Names of the weights that regularisers take as one matrix: all onto the units, all to the outputs."""
        return [("w_in", "w_rule", "w_rec"), ("w_out",)]

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights of one network at the start; in float64, so that only one rounding follows."""
        p = self.parameters
        scale = p.w_rec_scale or START_SCALES[p.activation]
        n_sensory = p.n_input - p.n_rule
        separate: dict[str, Tensor] = {}
        if p.use_separate_input:
            w_in = _glorot(n_sensory, p.n_rnn, generator)
            w_rule = _glorot(p.n_rule, p.n_rnn, generator)
            separate["b_in"] = torch.zeros(1, p.n_rnn)
            if p.mix_rule:
                separate["mixing"] = _orthogonal(p.n_rule, generator)
        else:
            w_in, w_rule = (_normal(p.n_input, p.n_rnn, generator) / math.sqrt(p.n_input)).split([n_sensory, p.n_rule])
        w_rec = {
            "diag": lambda: torch.eye(p.n_rnn, dtype=torch.float64),
            "randortho": lambda: _orthogonal(p.n_rnn, generator),
            "randgauss": lambda: _normal(p.n_rnn, p.n_rnn, generator) / math.sqrt(p.n_rnn),
        }[p.w_rec_init]()
        start = {"w_in": w_in, "w_rule": w_rule, "w_rec": scale * w_rec, "b": torch.zeros(1, p.n_rnn), **separate}
        start |= {"w_out": _glorot(p.n_rnn, p.n_output, generator), "b_out": torch.zeros(1, p.n_output)}
        return {name: weight.float() for name, weight in start.items()}

    def _run(self, x: Tensor, generator: torch.Generator | None, buffers: Buffers | None) -> tuple[Tensor, Tensor]:
        p, ones = self.parameters, x.new_ones(*x.shape[:-1], 1)
        return leaky_scan(
            torch.cat([x, ones], -1),
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
        """Rows of all that enters: sensory inputs, rules, and the bias as the weight of an input that is always 1."""
        w = self.weights
        rule = w["mixing"] @ w["w_rule"] if "mixing" in w else w["w_rule"]
        return w["w_in"], rule, w["b"] + w["b_in"] if "b_in" in w else w["b"]

    def _drive(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """x W_in + b, for inputs that broadcast against hidden."""
        inputs = inputs.to(hidden).view(*[1] * (hidden.dim() - inputs.dim()), *inputs.shape)
        *w_in, b = self._input_weights()
        inputs = inputs.expand(self.n_networks, *inputs.shape[1:])
        return self._onto(inputs, torch.cat(w_in, 1)) + self._over(b, hidden)[..., 0, :]

    def _onto(self, x: Tensor, weight: Tensor) -> Tensor:
        """(E, ..., I) times (E, I, N) -> (E, ..., N)."""
        return torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[-1])

    def _over(self, weight: Tensor, hidden: Tensor) -> Tensor:
        """A weight (E, I, N) with axes of length 1 where hidden (E, ..., N) has axes between network and unit."""
        return weight.view(len(weight), *[1] * (hidden.dim() - 2), *weight.shape[1:])

    def _f(self, z: Tensor) -> Tensor:
        return ACTIVATIONS[self.parameters.activation].f(z)


class LeakyGRU(LeakyRNN):
    """An ensemble of leaky gated networks: as `LeakyRNN`, with three blocks of columns (r, u, candidate) in ``w_in``,
    ``w_rule``, ``w_rec`` and ``b``."""

    rnn_type = "LeakyGRU"

    def step(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        return self._update(hidden, self._drive(hidden, inputs))[0]

    def preactivation(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Argument of the candidate's nonlinearity, (E, ..., N)."""
        return self._update(hidden, self._drive(hidden, inputs))[3]

    def jacobian(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Derivative of `step` in closed form, (E, ..., N, N): entry (i, j) is d h'_i / d h_j."""
        alpha = self.parameters.alpha
        u_r, u_u, u_c = (self._over(w, hidden).mT for w in self.weights["w_rec"].chunk(3, -1))  # (E, ..., to, from)
        _, r, u, z = self._update(hidden, self._drive(hidden, inputs))
        candidate = u_c * r[..., None, :] + (u_c * (hidden * r * (1 - r))[..., None, :]) @ u_r
        gate = ((self._f(z) - hidden) * u * (1 - u))[..., :, None] * u_u
        return torch.diag_embed(1 - alpha * u) + alpha * (gate + (u * self.slope(z))[..., :, None] * candidate)

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        p = self.parameters
        gates, candidate = (_glorot(p.n_input + p.n_rnn, n * p.n_rnn, generator) for n in (2, 1))
        sizes = [p.n_input - p.n_rule, p.n_rule, p.n_rnn]
        w_in, w_rule, w_rec = torch.cat([gates, candidate], 1).split(sizes)
        b = torch.cat([torch.ones(1, 2 * p.n_rnn), torch.zeros(1, p.n_rnn)], 1)
        start = {"w_in": w_in, "w_rule": w_rule, "w_rec": w_rec, "b": b}
        start |= {"w_out": _glorot(p.n_rnn, p.n_output, generator), "b_out": torch.zeros(1, p.n_output)}
        return {name: weight.float() for name, weight in start.items()}

    def _run(self, x: Tensor, generator: torch.Generator | None, buffers: Buffers | None) -> tuple[Tensor, Tensor]:
        """Autograd over the loop; ``buffers`` has no use here."""
        p = self.parameters
        *w_in, b = self._input_weights()
        rows = x.flatten(1, 2).expand(self.n_networks, -1, -1)
        drive = torch.baddbmm(b, rows, torch.cat(w_in, 1)).unflatten(1, x.shape[1:3])  # (network, time, trial, gates)
        if generator is not None and p.noise_sd:
            noise = torch.randn(*drive.shape[:-1], p.n_rnn, generator=generator, device=self.device, dtype=self.dtype)
            drive = drive + torch.nn.functional.pad(p.noise_sd * noise, (2 * p.n_rnn, 0))
        hidden = [x.new_zeros(self.n_networks, x.shape[2], p.n_rnn)]
        for drive_t in drive.unbind(1):
            hidden.append(self._update(hidden[-1], drive_t)[0])
        states = torch.stack(hidden[1:], 1)
        logits = self._onto(states, self.weights["w_out"]) + self.weights["b_out"][:, None]
        return states, logits

    def _update(self, hidden: Tensor, drive: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h', the gates r and u, and the argument z of the candidate's nonlinearity."""
        n, alpha = self.parameters.n_rnn, self.parameters.alpha
        w_gates, w_candidate = self.weights["w_rec"].split([2 * n, n], -1)
        drive_gates, drive_candidate = drive.split([2 * n, n], -1)
        r, u = torch.sigmoid(drive_gates + self._onto(hidden, w_gates)).chunk(2, -1)
        z = drive_candidate + self._onto(r * hidden, w_candidate)
        return (1 - alpha * u) * hidden + alpha * u * self._f(z), r, u, z


def make_network(
    parameters: NetworkParameters, n_networks: int = 1, seed: int = 0, device: torch.device | str | None = None
) -> LeakyRNN:
    """An ensemble of the class that ``parameters.rnn_type`` names; arguments as for `LeakyRNN`."""
    cell = {"LeakyRNN": LeakyRNN, "LeakyGRU": LeakyGRU}[parameters.rnn_type]
    return cell(parameters, n_networks, seed, device)


def check_number(name: str, value: object, *, above: float = -math.inf, least: float = -math.inf) -> None:
    """An error unless the value is a finite number, above one bound and not below the other."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and value > above and value >= least):  # type: ignore[operator]
        bound = f"> {above:g}" if above > least else f">= {least:g}"
        raise MultitaskError(f"{name} = {value!r}: must be a finite number {bound}")


def _normal(n_rows: int, n_columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n_rows, n_columns, generator=generator, dtype=torch.float64)


def _glorot(n_rows: int, n_columns: int, generator: torch.Generator) -> Tensor:
    """Uniform in +-sqrt(6 / (rows + columns))."""
    unit = torch.rand(n_rows, n_columns, generator=generator, dtype=torch.float64)
    return (2 * unit - 1) * math.sqrt(6 / (n_rows + n_columns))


def _orthogonal(n: int, generator: torch.Generator) -> Tensor:
    """Uniform over the orthogonal matrices: QR of a Gaussian one, with the signs of R undone (Mezzadri 2007)."""
    q, r = torch.linalg.qr(_normal(n, n, generator))
    return q * r.diagonal().sign()
