"""A leaky network as an ordinary torch module, and back from arrays: the door to and from other programs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from multitask.scan import ACTIVATIONS
from multitask.trials import MultitaskError

if TYPE_CHECKING:
    from multitask.network.rnn import LeakyRNN


class PlainLeakyRNN(nn.Module):
    """One leaky network in plain torch, without noise.

        h_t = (1 - alpha) h_{t-1} + alpha f(x_t W_in + h_{t-1} W_rec + b),    y_t = sigmoid(h_t W_out + b_out)

    Attributes
    ----------
    w_in : Parameter, (n_input, N)
        All inputs, rule units last. A fixed mixing of the rule units is contained in it.
    w_rec, b, w_out, b_out : Parameter, (N, N), (N,), (N, n_output), (n_output,)
    alpha : float
    activation : str
    """

    def __init__(
        self, w_in: Tensor, w_rec: Tensor, b: Tensor, w_out: Tensor, b_out: Tensor, alpha: float, activation: str
    ) -> None:
        super().__init__()
        self.alpha, self.activation = alpha, activation
        self.w_in, self.w_rec, self.b, self.w_out, self.b_out = (
            nn.Parameter(weight.detach().clone()) for weight in (w_in, w_rec, b, w_out, b_out)
        )

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (n_trials, n_times, n_output) and hidden states (n_trials, n_times, N) for (trial, time, input)."""
        f = ACTIVATIONS[self.activation].f
        drive = inputs @ self.w_in + self.b
        h = drive.new_zeros(len(inputs), len(self.w_rec))
        states = []
        for x in drive.unbind(1):
            h = (1 - self.alpha) * h + self.alpha * f(x + h @ self.w_rec)
            states.append(h)
        hidden = torch.stack(states, 1)
        return torch.sigmoid(hidden @ self.w_out + self.b_out), hidden


def plain(network: "LeakyRNN") -> PlainLeakyRNN:
    """The plain module of an ensemble of one leaky network."""
    if network.rnn_type != "LeakyRNN":
        raise MultitaskError(f"a {network.rnn_type} has no plain module: only LeakyRNN has")
    if network.n_networks != 1:
        raise MultitaskError(f"{network.n_networks} networks: choose one by subset([k]) first")
    *w_in, b = (weight[0] for weight in network._input_weights())
    own = {name: weight[0] for name, weight in network.weights.items()}
    p = network.parameters
    return PlainLeakyRNN(torch.cat(w_in), own["w_rec"], b[0], own["w_out"], own["b_out"][0], p.alpha, p.activation)


def from_arrays(arrays: Mapping[str, Any], n_rule: int) -> dict[str, Tensor]:
    """Weights of an ensemble of one leaky network, float32, from arrays that are checked against each other."""
    tensors = {name: torch.as_tensor(array, dtype=torch.float32) for name, array in arrays.items()}
    if tensors["w_rec"].dim() != 2 or tensors["w_in"].dim() != 2 or tensors["w_out"].dim() != 2:
        shapes = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in ("w_in", "w_rec", "w_out"))
        raise MultitaskError(f"weights are not matrices: {shapes}")
    n, n_input, n_output = len(tensors["w_rec"]), len(tensors["w_in"]), tensors["w_out"].shape[1]
    fits = {"w_in": (n_input, n), "w_rec": (n, n), "b": (n,), "w_out": (n, n_output), "b_out": (n_output,)}
    for name, shape in fits.items():
        if tuple(tensors[name].shape) != shape:
            raise MultitaskError(
                f"{name} has shape {tuple(tensors[name].shape)}: must be {shape}, as w_rec has {n} units; entry (j, i) "
                f"of a matrix is the weight from j to i"
            )
        if not bool(tensors[name].isfinite().all()):
            raise MultitaskError(f"{name} has values that are not finite")
    if not 0 <= n_rule < n_input:
        raise MultitaskError(f"n_rule = {n_rule}: must be from 0 to {n_input - 1}, below the {n_input} inputs of w_in")
    w_in, w_rule = tensors["w_in"].split([n_input - n_rule, n_rule])
    weights = {"w_in": w_in, "w_rule": w_rule, "w_rec": tensors["w_rec"], "b": tensors["b"][None]}
    weights |= {"w_out": tensors["w_out"], "b_out": tensors["b_out"][None]}
    return {name: weight[None].clone() for name, weight in weights.items()}
