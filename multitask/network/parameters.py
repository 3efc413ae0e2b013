"""Parameters of a network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from multitask.network.cells import CELLS, check_options, find_cell
from multitask.scan import ACTIVATIONS
from multitask.trials import MultitaskError, check_number, check_whole, unknown

LEAKY = ("LeakyRNN", "LeakyGRU")
MOST_UNITS = 30_000  # recurrent weights of one network then take 3.6 GB
STARTS = ("diag", "randortho", "randgauss")
WEIGHT_GROUPS = {
    "input": ("w_in", "b_in"),
    "rule_input": ("w_rule",),
    "recurrent": ("w_rec", "b"),
    "output": ("w_out", "b_out"),
}


@dataclass(frozen=True)
class NetworkParameters:
    """Parameters of a network. The defaults are those of the 20-task networks of Yang et al. (2019).

    Attributes
    ----------
    n_rnn : int >= 1
        Number of recurrent units.
    rnn_type : "LeakyRNN", "LeakyGRU", "Tanh", "GRU", "LSTM", "LowRank", "Dale", "LRU", "Selective", or "module:name"
        Cell of the network. The last form imports a subclass of `Cell` of your own.
    cell_options : mapping name -> value
        Options of the cell: ``rank`` of LowRank, ``excitatory`` of Dale, ``n_layers`` of LRU, ``n_states`` of
        Selective, or keywords of your cell. Values are numbers, text or lists of them.
    activation : "softplus", "relu", "tanh", "retanh" or "power"
        Nonlinearity; "retanh" is tanh(relu(z)) and "power" is relu(z)^2. LeakyRNN, LeakyGRU and LowRank only, and cells
        of your own that use it.
    w_rec_init : "diag", "randortho" or "randgauss"
        Initial recurrent weights: s I, s times a random orthogonal matrix, or N(0, s^2 / n_rnn). LeakyRNN only.
    w_rec_scale : float > 0, or None
        s, for LeakyRNN, LowRank and Dale. None uses 0.5, or 1 for tanh and 0.01 for power; 0.9 for Dale. An untrained
        relu network with s = 0.9 keeps its state for about a second.
    dt, tau : float, ms, 0 < dt <= tau
        Length of a time step, and time constant of a unit; tau matters in LeakyRNN, LeakyGRU, LowRank and Dale only.
    sigma_rec : float >= 0
        Strength of the private noise.
    use_separate_input : bool
        Use separate Glorot-uniform matrices for stimuli and rules, and an additional bias for stimuli. LeakyRNN only.
    mix_rule : bool
        Multiply the rule inputs by a fixed random orthogonal matrix first. Requires ``use_separate_input``.
    n_input, n_rule, n_output : int
        Number of all inputs, of rule units among them (the last ones), and of outputs. 85, 20 and 33 for the twenty
        tasks.

    Raises
    ------
    MultitaskError
        If a value is out of its range, a name is unknown, or two values do not fit together.
    """

    n_rnn: int = 256
    rnn_type: str = "LeakyRNN"
    cell_options: Mapping[str, Any] = field(default_factory=dict)
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
        choices = {"activation": tuple(ACTIVATIONS), "w_rec_init": STARTS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown(f"network.{name}", getattr(self, name), known)
        if ":" not in str(self.rnn_type) and self.rnn_type not in (*LEAKY, *CELLS):
            raise unknown("network.rnn_type", self.rnn_type, (*LEAKY, *CELLS))
        for name, least in (("n_rnn", 1), ("n_input", 1), ("n_rule", 0), ("n_output", 1)):
            check_whole(f"network.{name}", getattr(self, name), least, MOST_UNITS)
        if self.n_rule >= self.n_input:
            raise MultitaskError(
                f"network.n_rule = {self.n_rule}: must be below n_input = {self.n_input}, which includes the rule units"
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
            raise MultitaskError("network.mix_rule = True: requires use_separate_input = True")
        if self.use_separate_input and self.rnn_type != "LeakyRNN":
            raise MultitaskError(f"network.use_separate_input = True: available only for LeakyRNN, not {self.rnn_type}")
        if self.rnn_type in LEAKY:
            if self.cell_options:
                raise MultitaskError(f"network.cell_options = {dict(self.cell_options)}: {self.rnn_type} has none")
        else:
            check_options(find_cell(self.rnn_type), self.cell_options)
            find_cell(self.rnn_type)(self, **self.cell_options)  # raises an error if an option is out of range

    @property
    def alpha(self) -> float:
        """dt / tau, in (0, 1]."""
        return self.dt / self.tau

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the private noise per time step."""
        return self.sigma_rec * math.sqrt(2 / self.alpha)

    def misfits(self, other: "NetworkParameters") -> list[str]:
        """Names of the fields that differ, where weights made for ``other`` do not fit these parameters."""
        free = {"w_rec_init", "w_rec_scale", "dt", "sigma_rec"}
        return [f.name for f in fields(self) if f.name not in free and getattr(self, f.name) != getattr(other, f.name)]
