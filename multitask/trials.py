"""Batches of trials, and the brush that paints them.

A batch is a scene (stimuli with their directions, strengths and times, the right response, the go event) painted onto
three tensors: what the network sees, what it should say, and how much an error costs. All trials of a batch share their
event times, so nothing is padded, and every stimulus is painted as one outer product of time, trial and channel.

Input channels   0 fixation cue | 1..32 ring of modality 1 | 33..64 ring of modality 2 | 65..84 one unit per rule
Output channels  0 fixation | 1..32 ring

Unit k of a ring prefers p_k = 2 pi k / 32; a direction s of strength g drives it by g * 0.8 exp(-d(s, p_k)^2 / (2
(pi/8)^2)), with d the circular distance.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code. Where the two
differ the code is followed; the differences are
- fixation target 0.8 (paper: 0.85); the peak of the ring is 0.85 in both, 0.8 above a background of 0.05;
- the cost mask stands inside the square of the loss, mean((mask * (output - target))^2), so errors after the go event
weigh 25 times those
  before it on the ring (paper: mask outside the square, 5 times), and 4 and 100 on the fixation unit;
- event times are drawn once a batch, not once a trial.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

N_PER_RING = 32
BACKGROUND, BUMP, FIXATION = 0.05, 0.8, 0.8
GRACE = 100.0  # ms without cost at the start of a trial, and again after the go event
LOSSES = ("lsq", "cross_entropy")


class MultitaskError(ValueError):
    """A rule, parameter or array that `multitask` cannot work with; the message says what came and what would do."""


def unknown(what: str, name: object, known: Iterable[str]) -> MultitaskError:
    """The error for a name that is not among the known ones, with the nearest of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return MultitaskError(f"unknown {what} {name!r}: {hint}")


def check_whole(name: str, value: object, least: int) -> int:
    """The value, if it is a whole number and large enough; an error otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise MultitaskError(f"{name} = {value!r}: must be a whole number >= {least}")
    return value


def checked_device(device: torch.device | str | None) -> torch.device:
    """The device asked for, the CPU for None; an error if this machine does not have it."""
    try:
        device = torch.device(device or "cpu")
    except RuntimeError as error:
        raise MultitaskError(f"device {device!r} is not a device: write 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise MultitaskError(
            f"device {str(device)!r} was asked for, but this machine has {found} CUDA devices; use 'cpu'"
        )
    return device


@dataclass(frozen=True)
class Layout:
    """Which input channel carries what: the fixation cue, then the rings, then one unit for each rule."""

    rules: tuple[str, ...]
    n_rings: int = 2

    @property
    def rule_start(self) -> int:
        return 1 + self.n_rings * N_PER_RING

    @property
    def n_inputs(self) -> int:
        return self.rule_start + len(self.rules)

    def rule_channel(self, rule: str) -> int:
        """Input channel of a rule's own unit."""
        if rule not in self.rules:
            raise unknown("rule", rule, self.rules)
        return self.rule_start + self.rules.index(rule)


@dataclass(frozen=True)
class Stimulus:
    """A direction shown on one or more rings during the steps [on, off)."""

    direction: Tensor  # (trial,), rad
    strengths: Tensor  # (trial, ring), 0 where a ring stays silent
    on: int
    off: int


@dataclass(frozen=True)
class Scene:
    """All that a batch is painted from: times in steps, directions in rad."""

    stimuli: Sequence[Stimulus]
    response: Tensor  # (trial,), nan for "keep fixating"
    go: int
    cue_off: int
    n_times: int


@dataclass(frozen=True, eq=False)
class TrialBatch:
    """Trials of one rule that share their event times.

    Attributes
    ----------
    inputs : Tensor, (n_trials, n_times, 85)
        Fixation cue, two rings, rule units (99 channels with three rings). Strided with time outermost in memory, as
        the recurrence reads it.
    targets : Tensor, (n_trials, n_times, 33)
        What the output units should say.
    cost_mask : Tensor, (n_trials, n_times, 33); (n_trials, n_times) for cross-entropy
        Weight of an error, *inside* the square of the least-squares loss. One mask for all trials, expanded without
        copies.
    response : Tensor, (n_trials,), rad
        Right final direction, nan where the subject should keep fixating.
    periods : dict of name -> (start, stop)
        Steps [start, stop) of ``fix1``, ``stim1``, ``delay1``, ``stim2``, ``delay2``, ``go1``, as far as the rule has
        them, in order.
    conditions : dict of name -> Tensor (n_trials,)
        What was shown: directions (rad), strengths, coherence, modality, match; float64, int64 or bool, on the CPU.
    rule : str
    dt : float, ms
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
        return self.inputs.shape[0]

    @property
    def n_times(self) -> int:
        return self.inputs.shape[1]


def preferred_directions() -> Tensor:
    """Preferred directions of the 32 units of a ring, (32,), rad, float64."""
    return 2 * math.pi * torch.arange(N_PER_RING, dtype=torch.float64) / N_PER_RING


def circular_distance(a: Tensor, b: Tensor) -> Tensor:
    """Angle between directions in [0, 2 pi): min(|a - b|, 2 pi - |a - b|), rad."""
    apart = (a - b).abs()
    return torch.minimum(apart, 2 * math.pi - apart)


def bump(direction: Tensor) -> Tensor:
    """Activity of a ring that holds one direction at strength 1: (...,) rad -> (..., 32), at most 0.8."""
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
    """Inputs of a scene, (n_trials, n_times, n_inputs), float32 on ``device``.

    Stimuli add where they overlap; nothing is clipped. The noise is white with standard deviation ``noise_sd`` and
    falls on every channel, the fixation cue and the silent rule units too.
    """
    inputs = torch.zeros(scene.n_times, len(scene.response), layout.n_inputs, device=device)  # (time, trial, channel)
    if noise_sd > 0:
        inputs.normal_(0.0, noise_sd, generator=_generator_on(device, generator))
    inputs[: scene.cue_off, :, 0] += 1.0
    for stimulus in scene.stimuli:
        rings = (stimulus.strengths[:, :, None] * bump(stimulus.direction)[:, None, :]).flatten(
            1
        )  # (trial, ring * unit)
        inputs[stimulus.on : stimulus.off, :, 1 : 1 + rings.shape[1]] += rings.to(inputs)
    for rule, strength in rule_input.items():
        inputs[:, :, layout.rule_channel(rule)] += strength
    return inputs.transpose(0, 1)


def paint_targets(scene: Scene, loss: str, device: torch.device) -> Tensor:
    """Targets of a scene, (n_trials, n_times, 33), float32 on ``device``.

    ``"lsq"``: fixation 0.8, then 0.05; ring 0.05, then a bump on top of it at the response. ``"cross_entropy"``: one
    unit of the 33 at a time is 1, first the fixation unit, then the ring unit nearest to the response (the first of two
    at equal distance).
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
    """How much errors cost at each step: 0 in the first 100 ms, 1 until the go event, 0 for 100 ms of grace, 5 to the
    end.

    ``"lsq"``: (n_trials, n_times, 33), twice that on the fixation unit. ``"cross_entropy"``: (n_trials, n_times),
    divided by its mean.
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
    """The generator itself on its own device, else one there that is seeded by it."""
    if generator.device == device:
        return generator
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
