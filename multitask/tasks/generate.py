"""Generation of batches of trials."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multitask.tasks.designs import Conditions
from multitask.tasks.rules import RuleData, layout, task_of
from multitask.tasks.timing import MODES, At, Draws, schedule
from multitask.trials import (
    LARGEST_SEED,
    RULE_LOSSES,
    MultitaskError,
    Scene,
    TrialBatch,
    check_whole,
    checked_device,
    cost_mask,
    paint_inputs,
    paint_targets,
    unknown,
)


def generate_trials(
    rule: str,
    n_trials: int | None = None,
    *,
    mode: str = "random",
    dt: float = 20.0,
    tau: float = 100.0,
    noise: float = 0.01,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    conditions: Mapping[str, Any] | None = None,
    loss: str = "lsq",
    easiness: float = 0.0,
    rule_input: Mapping[str, float] | None = None,
    device: torch.device | str | None = None,
) -> TrialBatch:
    """Generate one batch of trials of one rule.

    Parameters
    ----------
    rule : str
        One of `RULES`, or ``"oic"`` or ``"dmc"`` (three rings, 99 inputs).
    n_trials : int >= 1
        Required in ``random`` mode. In ``test`` mode the grid determines the number of trials, in ``psychometric`` mode
        the conditions do; the argument is ignored there.
    mode : "random", "test" or "psychometric"
        Where conditions and times come from, see `multitask.tasks`.
    dt, tau : float, ms, 0 < dt <= tau
        Length of a time step, and time constant of the units. Both scale the noise.
    noise : float >= 0
        sigma_x. Each input channel has white noise with standard deviation sigma_x sqrt(2 tau / dt) per time step. 0
        turns the noise off.
    seed : int >= 0, optional
        Seed of the random numbers. Give exactly one of ``seed`` and ``generator``. The same seed gives the same batch,
        bit for bit. On another device, conditions and times are the same but the noise differs.
    generator : torch.Generator, optional
        CPU generator that random numbers are drawn from.
    conditions : mapping name -> values, only in psychometric mode
        Directions (rad, in [0, 2 pi)) and strengths, with one value per trial, and times (ms), one number each. To see
        the names that a rule requires, pass an empty mapping and read the error message. Rules that draw the modality
        show their stimuli on ring 1.
    loss : "lsq" or "cross_entropy"
        Determines the form of targets and cost mask.
    easiness : float in [0, 1], only in random mode
        0 is the standard difficulty, 1 the easy trials of the published code. Coherences are multiplied by
        10^easiness, or by 2^easiness in decisions with a delay. Rules without coherences do not change.
    rule_input : mapping rule -> strength, optional
        Values of the rule units, {rule: 1.0} by default. You can set another strength, another rule, or a combination
        such as ``{"fdanti": 1, "fdgo": -1, "delaygo": 1}``.
    device : torch.device or str, optional
        Device of the tensors; CPU by default.

    Returns
    -------
    TrialBatch

    Raises
    ------
    MultitaskError
        If the rule is unknown, an argument is out of range, or conditions are missing or have unequal lengths.

    Examples
    --------
    >>> batch = generate_trials("delaygo", 64, seed=0)
    >>> batch.inputs.shape[-1], list(batch.periods)
    (85, ['fix1', 'stim1', 'delay1', 'go1'])
    """
    task = task_of(rule)
    generator, device = _generator(seed, generator), checked_device(device)
    _check_numbers(dt, tau, noise, loss, mode, easiness)
    if conditions is not None and mode != "psychometric":
        raise MultitaskError(
            f"conditions can only be given in mode='psychometric', not in {mode!r}: remove them or change the mode"
        )
    values, times = _given(rule, task, conditions) if mode == "psychometric" else ({}, {})
    draws = Draws(generator, check_whole("n_trials in random mode", n_trials, 1) if mode == "random" else 1, easiness)
    periods = schedule(task.timetable, mode, dt, draws, times)
    if mode == "random":
        values = task.design.draw(draws)
    elif mode == "test":
        values = task.design.grid()
    values = task.design.describe(values)
    stimuli, response = task.design.show(values, periods)
    go, n_times = periods["go1"]
    scene = Scene(stimuli, response, go, n_times if task.cue_stays else go, n_times)
    noise_sd = noise * math.sqrt(2 * tau / dt)
    return TrialBatch(
        inputs=paint_inputs(
            scene, layout(rule), {rule: 1.0} if rule_input is None else rule_input, noise_sd, generator, device
        ),
        targets=paint_targets(scene, loss, device),
        cost_mask=cost_mask(scene, dt, loss, device),
        response=response.to(device, torch.float32),
        periods=periods,
        conditions=values,
        rule=rule,
        dt=dt,
    )


def _check_numbers(dt: float, tau: float, noise: float, loss: str, mode: str, easiness: float) -> None:
    if not 0 < dt <= tau < math.inf:
        raise MultitaskError(f"dt = {dt:g} ms and tau = {tau:g} ms are invalid: dt must be positive and at most tau")
    if not 0 <= noise < math.inf:
        raise MultitaskError(f"noise = {noise!r}: must be a finite number >= 0")
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if loss not in RULE_LOSSES:
        raise unknown("loss", loss, RULE_LOSSES)
    if not 0 <= easiness <= 1:
        raise MultitaskError(f"easiness = {easiness!r}: must be a number in [0, 1]")
    if easiness > 0 and mode != "random":
        raise MultitaskError(
            f"easiness = {easiness:g} has no effect in mode {mode!r}, where conditions are fixed: set it to 0"
        )


def _generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator:
    """The generator that is given, or a new one with the seed."""
    if (seed is None) == (generator is None):
        raise MultitaskError(f"give exactly one of seed and generator, got {'neither' if seed is None else 'both'}")
    if generator is None:
        return torch.Generator().manual_seed(check_whole("seed", seed, 0, LARGEST_SEED))
    if generator.device.type != "cpu":
        raise MultitaskError(
            f"generator is on device {generator.device}, but conditions are drawn on the CPU: use torch.Generator()"
        )
    return generator


def _given(rule: str, task: RuleData, conditions: Mapping[str, Any] | None) -> tuple[Conditions, dict[str, float]]:
    """Checks the conditions of the caller; returns tensors (one value per trial) and times (one number each)."""
    entries = [row[MODES.index("psychometric")] for row in task.timetable.values()]
    names = [entry.time if isinstance(entry, At) else entry for entry in entries]
    needed_times = [name for name in names if isinstance(name, str)]
    needed = [*task.design.asked, *needed_times]
    conditions = conditions or {}
    missing = [name for name in needed if name not in conditions]
    if missing:
        raise MultitaskError(
            f"psychometric trials of {rule!r} need the conditions {', '.join(needed)}; missing: {', '.join(missing)}"
        )
    for name in conditions:
        if name not in needed:
            raise unknown(f"condition of {rule!r} in psychometric mode", name, needed)
    values = {name: torch.as_tensor(conditions[name], dtype=torch.float64, device="cpu") for name in task.design.asked}
    shapes = {tuple(value.shape) for value in values.values()}
    if len(shapes) > 1 or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in values.items())
        raise MultitaskError(
            f"conditions must have one value per trial, shape (n_trials,) each, but their shapes are {found}"
        )
    for name, value in values.items():
        _check_condition(name, value)
    return values, {name: float(conditions[name]) for name in needed_times}


def _check_condition(name: str, value: Tensor) -> None:
    within = (value >= 0) & (value < 2 * math.pi) if name.startswith("direction") else value.isfinite()
    if not within.all():
        trial = int((~within).nonzero()[0])
        wanted = "a direction in [0, 2 pi) rad" if name.startswith("direction") else "a finite strength"
        raise MultitaskError(f"condition {name!r}, trial {trial}: {value[trial].item():g} is not {wanted}")
