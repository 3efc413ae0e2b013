"""Batches of trials, and functions that compute their inputs, targets and cost mask.

A scene describes a batch: stimuli with directions, strengths and times, the correct response, and the go event. Inputs,
targets and cost mask are computed from it. All trials of a batch have the same event times, so no padding is needed.

Input channels   0 fixation cue | 1..32 ring of modality 1 | 33..64 ring of modality 2 | 65..84 one unit per rule
Output channels  0 fixation | 1..32 ring

Unit k of a ring has the preferred direction p_k = 2 pi k / 32. A stimulus of direction s and strength g adds
g * 0.8 exp(-d(s, p_k)^2 / (2 (pi/8)^2)) to its input, where d is the circular distance.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code. Where the two
differ, the code is followed:

- The fixation target is 0.8 (paper: 0.85). The peak of the ring is 0.85 in both, 0.8 above a background of 0.05.
- The cost mask is inside the square of the loss, mean((mask * (output - target))^2). On the ring, errors after the go
  event therefore weigh 25 times as much as errors before it (paper: mask outside the square, 5 times). On the fixation
  unit the weights are 4 and 100.
- Event times are drawn once per batch, not once per trial.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitask.display import Card, Shown, periods_in_ms

N_PER_RING = 32
BACKGROUND, BUMP, FIXATION = 0.05, 0.8, 0.8
GRACE = 100.0  # ms without cost at the start of a trial, and again after the go event
RULE_LOSSES = ("lsq", "cross_entropy")  # of the twenty rules
LOSSES = (*RULE_LOSSES, "mean_square")


class MultitaskError(ValueError):
    """A rule, parameter or array is invalid. The message says what was given and what is expected."""


def unknown(what: str, name: object, known: Iterable[str]) -> MultitaskError:
    """The error for an unknown name, with the most similar known name.

    Parameters
    ----------
    what : str
        What the name stands for, such as "rule".
    name : object
        The unknown name.
    known : iterable of str

    Returns
    -------
    MultitaskError
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
    return MultitaskError(f"unknown {what} {name!r}: {hint}")


LARGEST_SEED = 2**64 - 1  # that generators of torch take


def check_whole(name: str, value: object, least: int, most: int = 10**9) -> int:
    """Return the value if it is a whole number from ``least`` to ``most``; otherwise raise a `MultitaskError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise MultitaskError(f"{name} = {value!r}: must be a whole number >= {least}")
    if value > most:
        told = value if value < 10**20 else f"a number of about 10^{int(math.log10(value))}"
        raise MultitaskError(f"{name} = {told}: must be at most {most}")
    return value


def check_number(name: str, value: object, *, above: float = -math.inf, least: float = -math.inf) -> None:
    """Raise a `MultitaskError` unless the value is a finite number with ``value > above`` and ``value >= least``."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and value > above and value >= least):  # type: ignore[operator]
        bound = f"> {above:g}" if above > least else f">= {least:g}"
        raise MultitaskError(f"{name} = {value!r}: must be a finite number {bound}")


def checked_device(device: torch.device | str | None) -> torch.device:
    """The requested device, or the CPU for None; raises a `MultitaskError` if the device does not exist here."""
    try:
        device = torch.device(device or "cpu")
    except RuntimeError as error:
        raise MultitaskError(f"device {device!r} is not a device: use 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise MultitaskError(
            f"device {str(device)!r} was requested, but this machine has {found} CUDA devices: use 'cpu'"
        )
    return device


@dataclass(frozen=True)
class Layout:
    """Order of the input channels: the fixation cue, then the rings, then one unit for each rule.

    Attributes
    ----------
    rules : tuple of str
        Rules that have a unit.
    n_rings : int
        Rings of 32 units.
    """

    rules: tuple[str, ...]
    n_rings: int = 2

    @property
    def rule_start(self) -> int:
        """Channel of the first rule unit."""
        return 1 + self.n_rings * N_PER_RING

    @property
    def n_inputs(self) -> int:
        """Number of channels."""
        return self.rule_start + len(self.rules)

    def rule_channel(self, rule: str) -> int:
        """Channel of the unit of a rule; raises a `MultitaskError` if the rule has none."""
        if rule not in self.rules:
            raise unknown("rule", rule, self.rules)
        return self.rule_start + self.rules.index(rule)


@dataclass(frozen=True)
class Stimulus:
    """A stimulus that is shown on one or more rings during the time steps [on, off)."""

    direction: Tensor  # (trial,), rad
    strengths: Tensor  # (trial, ring), 0 where nothing is shown
    on: int
    off: int


@dataclass(frozen=True)
class Scene:
    """Description of a batch: times in steps, directions in rad."""

    stimuli: Sequence[Stimulus]
    response: Tensor  # (trial,), nan for "keep fixating"
    go: int
    cue_off: int
    n_times: int


@dataclass(frozen=True, eq=False, repr=False)
class TrialBatch(Shown):
    """Trials of one rule with the same event times.

    Attributes
    ----------
    inputs : Tensor, (n_trials, n_times, 85)
        Fixation cue, two rings, rule units (99 channels with three rings). Time is the outermost axis in memory, in
        the order in which the recurrence reads it.
    targets : Tensor, (n_trials, n_times, 33)
        Correct activity of the output units.
    cost_mask : Tensor, (n_trials, n_times, 33); (n_trials, n_times) for cross-entropy
        Weight of an error, *inside* the square of the least-squares loss. It is the same for all trials (an expanded
        view, without copies).
    response : Tensor, (n_trials,), rad
        Correct direction at the end of the trial, nan where the subject should keep fixating.
    periods : dict of name -> (start, stop)
        Time steps [start, stop) of each period of the rule, in order. Periods are among ``fix1``, ``stim1``,
        ``delay1``, ``stim2``, ``delay2``, ``go1``.
    conditions : dict of name -> Tensor (n_trials,)
        What was shown: directions (rad), strengths, coherence, modality, match; float64, int64 or bool, on the CPU.
    rule : str
    dt : float, ms
        Length of a time step.
    """

    inputs: Tensor
    targets: Tensor
    cost_mask: Tensor
    response: Tensor
    periods: dict[str, tuple[int, int]]
    conditions: dict[str, Tensor]
    rule: str
    dt: float

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return self.inputs.shape[0]

    @property
    def n_times(self) -> int:
        """Number of time steps."""
        return self.inputs.shape[1]

    def _card(self) -> Card:
        stay = int(self.response.isnan().sum())
        rows = {
            "trials": f"{self.n_trials}" + f", {stay} of them without a response" * (0 < stay < self.n_trials),
            "time": f"{self.n_times} steps of {self.dt:g} ms",
            "periods": periods_in_ms(self.periods, self.dt),
            "channels": f"{self.inputs.shape[-1]} inputs, {self.targets.shape[-1]} outputs",
            "conditions": ", ".join(self.conditions),
        }
        scored = "score_trials(outputs, batch); " * (self.targets.shape[-1] == 1 + N_PER_RING)
        doors = f"outputs, hidden = network(batch.inputs); {scored}.conditions, .periods"
        return Card(f"TrialBatch of the rule {self.rule}", rows, doors)


def preferred_directions() -> Tensor:
    """Preferred directions of the 32 units of a ring, (32,), rad, float64."""
    return 2 * math.pi * torch.arange(N_PER_RING, dtype=torch.float64) / N_PER_RING


def circular_distance(a: Tensor, b: Tensor) -> Tensor:
    """Angle between directions in [0, 2 pi): min(|a - b|, 2 pi - |a - b|), rad."""
    apart = (a - b).abs()
    return torch.minimum(apart, 2 * math.pi - apart)


def bump(direction: Tensor) -> Tensor:
    """Activity of a ring for a stimulus of strength 1: directions (...,) in rad -> (..., 32), at most 0.8."""
    distance = circular_distance(direction[..., None], preferred_directions())
    return BUMP * torch.exp(-0.5 * (distance / (math.pi / 8)) ** 2)


def paint_inputs(
    scene: Scene,
    layout: Layout,
    rule_input: Mapping[str, float],
    noise_sd: float,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Inputs of a scene.

    Stimuli that overlap are added; nothing is clipped. White noise is added to every channel, including the fixation
    cue and all rule units.

    Parameters
    ----------
    scene : Scene
    layout : Layout
        Order of the channels.
    rule_input : mapping rule -> strength
        Values of the rule units.
    noise_sd : float >= 0
        Standard deviation of the noise per time step.
    generator : torch.Generator
        Source of the noise.
    device : torch.device

    Returns
    -------
    Tensor, (n_trials, n_times, n_inputs), float32

    Raises
    ------
    MultitaskError
        If ``rule_input`` names a rule that has no unit.
    """
    inputs = torch.zeros(scene.n_times, len(scene.response), layout.n_inputs, device=device)  # (time, trial, channel)
    if noise_sd > 0:
        inputs.normal_(0.0, noise_sd, generator=_generator_on(device, generator))
    inputs[: scene.cue_off, :, 0] += 1.0
    for stimulus in scene.stimuli:
        activity = stimulus.strengths[:, :, None] * bump(stimulus.direction)[:, None, :]  # (trial, ring, unit)
        rings = activity.flatten(1)  # (trial, ring * unit)
        inputs[stimulus.on : stimulus.off, :, 1 : 1 + rings.shape[1]] += rings.to(inputs)
    for rule, strength in rule_input.items():
        inputs[:, :, layout.rule_channel(rule)] += strength
    return inputs.transpose(0, 1)


def paint_targets(scene: Scene, loss: str, device: torch.device) -> Tensor:
    """Targets of a scene.

    Parameters
    ----------
    scene : Scene
    loss : "lsq" or "cross_entropy"
        "lsq": the fixation unit is 0.8 until the go event and then 0.05. The ring is 0.05, and has an additional bump
        at the correct response after the go event. "cross_entropy": one of the 33 units is 1 and all others are 0.
        Until the go event this is the fixation unit, then the ring unit nearest to the correct response (the first one
        on a tie).
    device : torch.device

    Returns
    -------
    Tensor, (n_trials, n_times, 33), float32
    """
    stays = scene.response.isnan()
    direction = scene.response.nan_to_num(0.0)
    if loss == "lsq":
        fixation, background, ring = FIXATION, BACKGROUND, BACKGROUND + bump(direction)
    else:
        nearest = circular_distance(direction[:, None], preferred_directions()).argmin(1)
        fixation, background, ring = 1.0, 0.0, torch.nn.functional.one_hot(nearest, N_PER_RING).double()
    before = torch.full((1 + N_PER_RING,), background, dtype=torch.float64)
    before[0] = fixation
    after = torch.cat([torch.full_like(direction[:, None], background), ring], 1)
    after[stays] = before
    targets = torch.empty(scene.n_times, len(direction), 1 + N_PER_RING, device=device)  # (time, trial, channel)
    targets[: scene.go] = before.to(targets)
    targets[scene.go :] = after.to(targets)
    return targets.transpose(0, 1)


def cost_mask(scene: Scene, dt: float, loss: str, device: torch.device) -> Tensor:
    """Weight of errors at each time step.

    The weight is 0 in the first 100 ms, 1 until the go event, 0 in the 100 ms after it, and 5 until the end.

    Parameters
    ----------
    scene : Scene
    dt : float, ms
        Length of a time step.
    loss : "lsq" or "cross_entropy"
        "lsq" doubles the weights of the fixation unit, "cross_entropy" divides the weights by their mean.
    device : torch.device

    Returns
    -------
    Tensor, (n_trials, n_times, 33) for "lsq", (n_trials, n_times) for "cross_entropy", float32
    """
    grace = int(GRACE / dt)
    mask = torch.zeros(scene.n_times, device=device)
    mask[grace : scene.go] = 1.0
    mask[scene.go + grace :] = 5.0
    if loss == "cross_entropy":
        return (mask / mask.mean()).expand(len(scene.response), -1)
    mask = mask[:, None].repeat(1, 1 + N_PER_RING)
    mask[:, 0] *= 2
    return mask.expand(len(scene.response), -1, -1)


def _generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """The generator itself if it is on the device, otherwise a new one on the device with a seed drawn from it."""
    if generator.device == device:
        return generator
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
