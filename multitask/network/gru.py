"""Ensembles of leaky gated recurrent networks."""

import torch
from torch import Tensor

from multitask.network.initial import glorot
from multitask.network.rnn import LeakyRNN
from multitask.scan import Buffers


class LeakyGRU(LeakyRNN):
    """An ensemble of leaky gated recurrent networks.

    It has the same methods as `LeakyRNN`. ``w_in``, ``w_rule``, ``w_rec`` and ``b`` have three blocks of N columns:
    gate r, gate u and candidate.
    """

    rnn_type = "LeakyGRU"

    def step(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """States after one time step without noise, (E, ..., N); arguments as for `LeakyRNN.step`."""
        return self._update(hidden, self._drive(hidden, inputs))[0]

    def preactivation(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Argument of the nonlinearity of the candidate, (E, ..., N); arguments as for `step`."""
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
        gates, candidate = (glorot(p.n_input + p.n_rnn, n * p.n_rnn, generator) for n in (2, 1))
        sizes = [p.n_input - p.n_rule, p.n_rule, p.n_rnn]
        w_in, w_rule, w_rec = torch.cat([gates, candidate], 1).split(sizes)
        b = torch.cat([torch.ones(1, 2 * p.n_rnn), torch.zeros(1, p.n_rnn)], 1)
        start = {"w_in": w_in, "w_rule": w_rule, "w_rec": w_rec, "b": b}
        start |= {"w_out": glorot(p.n_rnn, p.n_output, generator), "b_out": torch.zeros(1, p.n_output)}
        return {name: weight.float() for name, weight in start.items()}

    def _run(self, x: Tensor, generator: torch.Generator | None, buffers: Buffers | None) -> tuple[Tensor, Tensor]:
        """Loop over time, differentiated by autograd; ``buffers`` is not used."""
        p = self.parameters
        drive = self._drives(x)
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
        """The next state h', the gates r and u, and the argument z of the nonlinearity of the candidate."""
        n, alpha = self.parameters.n_rnn, self.parameters.alpha
        w_gates, w_candidate = self.weights["w_rec"].split([2 * n, n], -1)
        drive_gates, drive_candidate = drive.split([2 * n, n], -1)
        r, u = torch.sigmoid(drive_gates + self._onto(hidden, w_gates)).chunk(2, -1)
        z = drive_candidate + self._onto(r * hidden, w_candidate)
        return (1 - alpha * u) * hidden + alpha * u * self._f(z), r, u, z
