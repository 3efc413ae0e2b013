"""What a measure sees of trained networks, and the distances it gives.

A measure of config.yaml states which activity is compared: all hidden states or their projection onto the readout;
whole trials, periods, or trials grouped by response; the same trials for all networks or different ones; with the
inputs modelled or not. It also states the metric and how operators are fitted.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dsa_analysis import Similarity, compare, fit_driven_operator, noise_floor
from dsa_analysis.metrics import is_matched
from multitask import Activity, LeakyRNN, record_activity
from workbench.settings import GroupComparison, Measure

if TYPE_CHECKING:
    import pandas as pd

Pieces = dict[str, Any]  # of one network: name of a piece -> its trials, or the operator fitted to them
Systems = dict[tuple[Hashable, int], Pieces]  # (group or step, number of the network in the group) -> pieces


@dataclass(frozen=True)
class Recorder:
    """Records networks on trials of one rule and returns what a measure sees of them.

    Attributes
    ----------
    rule : str
        The rule that all networks are tested on.
    how : GroupComparison
        Periods, number of trials, and whether inputs and units are noisy.
    sigma_x : float >= 0
        Standard deviation of the input noise, used if ``how.noise`` is true.
    seed : int >= 0
        Seed of the trials and of the noise.
    """

    rule: str
    how: GroupComparison
    sigma_x: float
    seed: int

    def systems(self, measure: Measure, stages: Mapping[Any, LeakyRNN]) -> Systems:
        """Activity, or fitted operators, of all networks of some ensembles.

        Parameters
        ----------
        measure : Measure
        stages : mapping of group or step -> ensemble of networks

        Returns
        -------
        dict of (group or step, network) -> dict of piece -> trials or operator
            Trials are a list of tensors (n_times, n_channels), of unequal length where the task varies its periods.
        """
        found: Systems = {}
        for stage, ensemble in stages.items():
            record = self._on_common_trials if measure.trials == "matched" else self._on_own_trials
            found |= {(stage, k): pieces for k, pieces in enumerate(record(measure, stage, ensemble))}
        return found

    def _on_common_trials(self, measure: Measure, stage: Hashable, ensemble: LeakyRNN) -> list[Pieces]:
        return self._pieces(measure, ensemble, np.random.SeedSequence([self.seed, 0]))

    def _on_own_trials(self, measure: Measure, stage: Hashable, ensemble: LeakyRNN) -> list[Pieces]:
        """Pieces on different trials for each network. They depend on the seed and the network's name only."""
        name = [*str(stage).encode()]
        seeds = [np.random.SeedSequence([self.seed, 1, k, *name]) for k in range(ensemble.n_networks)]
        return [self._pieces(measure, ensemble.subset([k]), own)[0] for k, own in enumerate(seeds)]

    def _pieces(self, measure: Measure, ensemble: LeakyRNN, seeds: np.random.SeedSequence) -> list[Pieces]:
        """Pieces of each network of an ensemble, over all batches of trials."""
        states: list[dict[str, list[Tensor]]] = [defaultdict(list) for _ in range(ensemble.n_networks)]
        inputs: dict[str, list[Tensor]] = defaultdict(list)
        for seed in seeds.generate_state(self.how.n_batches).tolist():
            activity = self._activity(ensemble, seed)
            hidden = activity.hidden if measure.states == "hidden" else project_on_readout(activity.hidden, ensemble)
            for piece, (start, stop), trials in cut(activity, measure.by, self.how.periods):
                inputs[piece] += list(activity.batch.inputs[trials, start:stop])
                for own, of_network in zip(states, hidden, strict=True):
                    own[piece] += list(of_network[trials, start:stop])
        return [{piece: _system(own[piece], inputs[piece], measure) for piece in own if own[piece]} for own in states]

    def _activity(self, ensemble: LeakyRNN, seed: int) -> Activity:
        return record_activity(
            ensemble,
            self.rule,
            self.how.n_trials,
            mode="random",
            noise=self.sigma_x if self.how.noise else 0.0,
            private_noise=self.how.noise,
            seed=seed,
        )


def cut(activity: Activity, by: str, periods: Sequence[str]) -> list[tuple[str, tuple[int, int], Tensor]]:
    """Cut a batch of trials into pieces.

    Parameters
    ----------
    activity : Activity
    by : "whole", "period" or "response"
        One piece, a piece for each period, or a piece for each quarter of the circle that responses point to, with one
        more for trials without a response.
    periods : sequence of str
        The periods that are used, in order; empty for all of them.

    Returns
    -------
    list of (name, (start, stop), trials)
        ``start`` and ``stop`` in samples; ``trials`` are indices into the batch.
    """
    periods, response = periods or tuple(activity.periods), activity.batch.response
    spans = [activity.periods[name] for name in periods]
    whole, trials = (spans[0][0], spans[-1][1]), torch.arange(len(response))
    if by == "period":
        return [(name, span, trials) for name, span in zip(periods, spans, strict=True)]
    if by == "response":
        quarter = (response.remainder(2 * torch.pi) / (torch.pi / 2)).floor().clamp_max(3)
        answered = [(f"response {q}", whole, trials[quarter == q]) for q in range(4)]
        return [*answered, ("no response", whole, trials[response.isnan()])]
    return [("whole", whole, trials)]


def project_on_readout(hidden: Tensor, ensemble: LeakyRNN) -> Tensor:
    """Project states (E, B, T, N) onto the subspace that the outputs read, in orthonormal coordinates."""
    weights = ensemble.weights["w_out"].to(hidden)  # (E, N, n_outputs)
    return torch.einsum("ebtn,enk->ebtk", hidden, torch.linalg.qr(weights)[0])


def _system(trials: list[Tensor], inputs: list[Tensor], measure: Measure) -> Any:
    """Trials as they are, or the operator fitted to them with inputs."""
    if not measure.inputs:
        return trials
    embedding = measure.dsa.embedding()
    return fit_driven_operator(  # a state already contains the input of its own time step: the next one drives it on
        [states[:-1] for states in trials],
        [drive[1:] for drive in inputs],
        **{key: getattr(embedding, key) for key in ("n_delays", "rank", "delay_interval", "ridge", "center")},
    )


# ---- distances -------------------------------------------------------------------------------------------------------


def distances_between(
    measure: Measure,
    systems: Mapping[str, Pieces],
    others: Mapping[str, Pieces] | None = None,
    *,
    device: str | None = None,
) -> Similarity:
    """Distances by one measure, averaged over pieces.

    Parameters
    ----------
    measure : Measure
    systems, others : mappings of name -> pieces
        With ``others``, distances of all systems to all others; without, of the systems among themselves.
    device : str, optional

    Returns
    -------
    Similarity
        Distances and lower bounds are means over pieces; all else is that of the first piece.
    """
    each = [
        compare(
            {name: pieces[piece] for name, pieces in systems.items()},
            None if others is None else {name: pieces[piece] for name, pieces in others.items()},
            measure.dsa,
            device=device,
            progress=False,
        )
        for piece in next(iter(systems.values()))
    ]
    distances, bounds = (np.mean([getattr(one, name) for one in each], 0) for name in ("distances", "lower_bounds"))
    return replace(each[0], distances=distances, lower_bounds=bounds)


def distances_to_group(measure: Measure, systems: Systems, group: Systems, *, device: str | None = None) -> np.ndarray:
    """Mean distance of each system to the networks of a group, (k,); a network is not compared with itself."""
    named = ({str(label): pieces for label, pieces in side.items()} for side in (systems, group))
    distances = distances_between(measure, *named, device=device).distances
    itself = np.array([[one == other for other in group] for one in systems])
    return np.ma.masked_array(distances, itself).mean(1).data


def has_floor(measure: Measure) -> bool:
    """Whether two halves of a network's own trials can be compared by a measure.

    Not if the metric needs matched trials, nor if operators are fitted with inputs.
    """
    return not is_matched(measure.dsa.metric) and not measure.inputs


def floors(measure: Measure, systems: Systems, *, n_splits: int, device: str | None = None) -> "pd.DataFrame":
    """Distance between halves of each network's own trials, averaged over pieces: ``group``, ``network``, ``floor``."""
    import pandas as pd

    each = [
        noise_floor(
            {f"{group} {k}": own[piece] for (group, k), own in systems.items()},
            how=measure.dsa,
            n_splits=n_splits,
            device=device,
            progress=False,
        )
        for piece in next(iter(systems.values()))
    ]
    groups, networks = zip(*systems, strict=True)
    return pd.DataFrame({"group": groups, "network": networks, "floor": np.mean(each, 0)})
