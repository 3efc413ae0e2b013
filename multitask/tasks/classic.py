"""Reference tasks of the field with analogue targets, whose solutions are known beforehand.

Networks for them have linear outputs: ``TrainingParameters(loss_type="mean_square")``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from multitask.tasks.base import Task
from multitask.trials import MultitaskError, TrialBatch, check_number, check_whole


class _Analogue(Task):
    """A task whose fields are its parameters."""

    def _steps(self, duration: float, dt: float) -> int:
        """A duration in ms as a number of time steps, at least 1."""
        if duration < dt:
            raise MultitaskError(f"task {self.name!r}: a period of {duration:g} ms is shorter than dt = {dt:g} ms")
        return int(duration / dt)


@dataclass(frozen=True)
class FlipFlop(_Analogue):
    """Each output holds the sign of the last pulse of its input: 2^n_bits stable states (Sussillo and Barak 2013).

    Attributes
    ----------
    n_bits : int >= 1
    duration : float, ms
        Of a trial.
    pulse_rate : float, per s
        Mean rate of pulses of each input; a pulse of random sign starts each trial.
    pulse_time : float, ms
        Length of a pulse.
    """

    n_bits: int = 3
    duration: float = 2000.0
    pulse_rate: float = 2.0
    pulse_time: float = 50.0
    tolerance: float = 0.2
    name: str = "flip_flop"

    def __post_init__(self) -> None:
        check_whole("n_bits", self.n_bits, 1)
        for field in ("duration", "pulse_rate", "pulse_time", "tolerance"):
            check_number(f"{self.name}.{field}", getattr(self, field), above=0)

    @property
    def n_input(self) -> int:  # type: ignore[override]
        """One input for each bit."""
        return self.n_bits

    @property
    def n_output(self) -> int:  # type: ignore[override]
        """One output for each bit."""
        return self.n_bits

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of trials; errors do not count while a pulse lasts."""
        n_times, n_pulse = self._steps(self.duration, dt), self._steps(self.pulse_time, dt)
        shape = (n_trials, n_times, self.n_bits)
        starts = torch.rand(shape, generator=generator) < self.pulse_rate * dt / 1000
        starts[:, 0] = True
        signs = torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
        last = torch.where(starts, torch.arange(n_times)[:, None], -1).cummax(1).values  # (trial, time, bit)
        state = signs.gather(1, last)
        on = torch.arange(n_times)[:, None] - last < n_pulse
        return self.batch(on * state, state, dt=dt, cost_mask=(~on).float())


@dataclass(frozen=True)
class SineWave(_Analogue):
    """A constant input sets the frequency of a sine wave: one limit cycle for each (Sussillo and Barak 2013, Fig. 5).

    Attributes
    ----------
    frequencies : tuple of float, Hz
        Lowest and highest; each trial draws one between them.
    n_frequencies : int >= 1
        Number of equally spaced frequencies.
    duration : float, ms
    free : float, ms
        Time at the start in which errors do not count.
    """

    frequencies: tuple[float, float] = (0.5, 3.0)
    n_frequencies: int = 51
    duration: float = 2000.0
    free: float = 250.0
    tolerance: float = 0.2
    name: str = "sine_wave"
    n_input: int = 1
    n_output: int = 1

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of trials; the input is the place of the frequency in the range, from 0.25 to 1.25."""
        n_times, free = self._steps(self.duration, dt), self._steps(self.free, dt)
        place = torch.randint(self.n_frequencies, (n_trials,), generator=generator) / max(1, self.n_frequencies - 1)
        low, high = self.frequencies
        frequency = low + (high - low) * place
        times = dt / 1000 * torch.arange(n_times)
        wave = torch.sin(2 * math.pi * frequency[:, None] * times)[..., None]
        inputs = (0.25 + place)[:, None, None].expand(-1, n_times, 1)
        periods = {"free": (0, free), "wave": (free, n_times)}
        conditions = {"frequency": frequency.double()}
        return self.batch(inputs, wave, dt=dt, cost_mask=_from(free, n_times), periods=periods, conditions=conditions)


@dataclass(frozen=True)
class DelayedDiscrimination(_Analogue):
    """Is the first of two stimuli larger, after a delay? A line attractor holds the first (Romo et al. 1999).

    Attributes
    ----------
    stimulus, delay, response : float, ms
        Length of each stimulus, of the delay between them, and of the time in which the answer, 1 or -1, counts.
    values : tuple of float
        Range of the stimuli.
    least : float > 0
        Smallest difference of the two.
    """

    stimulus: float = 250.0
    delay: float = 1000.0
    response: float = 250.0
    values: tuple[float, float] = (0.2, 1.0)
    least: float = 0.1
    tolerance: float = 0.5
    name: str = "delayed_discrimination"
    n_input: int = 1
    n_output: int = 1

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of trials."""
        lengths = [self._steps(t, dt) for t in (self.stimulus, self.delay, self.stimulus, self.response)]
        ends = torch.tensor(lengths).cumsum(0).tolist()
        low, high = self.values
        first, second = low + (high - low) * torch.rand(2, n_trials, generator=generator)
        apart = (second - first).abs() < self.least
        second = torch.where(
            apart, torch.where(first > (low + high) / 2, first - self.least, first + self.least), second
        )
        inputs = torch.zeros(n_trials, ends[-1], 1)
        inputs[:, : ends[0], 0] = first[:, None]
        inputs[:, ends[1] : ends[2], 0] = second[:, None]
        answer = (first - second).sign()[:, None, None].expand(-1, ends[-1], 1)
        names = ("stim1", "delay1", "stim2", "go1")
        periods = dict(zip(names, zip([0, *ends], ends, strict=False), strict=True))
        return self.batch(
            inputs, answer, dt=dt, cost_mask=_from(ends[2], ends[3]), periods=periods,
            conditions={"first": first.double(), "second": second.double()},
        )  # fmt: skip


@dataclass(frozen=True)
class PathIntegration(_Analogue):
    """Velocity in, position out, on a circle or on a line (Cueva and Wei 2018; Sorscher et al. 2019).

    Attributes
    ----------
    circle : bool
        Position on a circle, as sine and cosine, or on a line, as a number.
    duration : float, ms
    speed : float
        Standard deviation of the velocity, rad (or units) per s.
    smooth : float, ms
        Time over which the velocity forgets.
    """

    circle: bool = True
    duration: float = 1500.0
    speed: float = 2.0
    smooth: float = 200.0
    tolerance: float = 0.2
    name: str = "path_integration"

    @property
    def n_input(self) -> int:  # type: ignore[override]
        """The velocity, and the starting position at the first time step."""
        return 1 + self.n_output

    @property
    def n_output(self) -> int:  # type: ignore[override]
        """Coordinates of the position."""
        return 2 if self.circle else 1

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of trials. The velocity is an Ornstein-Uhlenbeck process."""
        n_times, keep = self._steps(self.duration, dt), math.exp(-dt / self.smooth)
        velocity = torch.zeros(n_trials, n_times)
        kicks = self.speed * torch.randn(n_trials, n_times, generator=generator)
        velocity[:, 0] = kicks[:, 0]
        for t in range(1, n_times):
            velocity[:, t] = keep * velocity[:, t - 1] + math.sqrt(1 - keep**2) * kicks[:, t]
        moved = (velocity * dt / 1000).cumsum(1)
        start = (2 * torch.rand(n_trials, 1, generator=generator) - 1) * (math.pi if self.circle else 1.0)
        position = start + moved
        coordinates = torch.stack([position.cos(), position.sin()], -1) if self.circle else position[..., None]
        inputs = torch.cat([velocity[..., None], torch.zeros_like(coordinates)], -1)
        inputs[:, 0, 1:] = torch.cat([start.cos(), start.sin()], -1) if self.circle else start
        return self.batch(inputs, coordinates, dt=dt, conditions={"start": start[:, 0].double()})


@dataclass(frozen=True)
class ContextIntegration(_Analogue):
    """Which of two noisy inputs is positive on average? A context says which counts (Mante et al. 2013).

    Attributes
    ----------
    duration, response : float, ms
        Of the evidence, and of the time in which the answer, 1 or -1, counts.
    coherences : tuple of float
        Sizes of the mean of an input; each trial draws one for each input, of random sign.
    noise : float
        Standard deviation of the evidence per time step of 20 ms.
    """

    duration: float = 750.0
    response: float = 250.0
    coherences: tuple[float, ...] = (0.05, 0.15, 0.3)
    noise: float = 0.5
    tolerance: float = 0.5
    name: str = "context_integration"
    n_input: int = 4
    n_output: int = 1

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of trials; the last two inputs are the contexts."""
        n_stimulus = self._steps(self.duration, dt)
        n_times = n_stimulus + self._steps(self.response, dt)
        size = torch.tensor(self.coherences)[torch.randint(len(self.coherences), (n_trials, 2), generator=generator)]
        mean = torch.where(torch.rand(n_trials, 2, generator=generator) < 0.5, -size, size)
        context = torch.randint(2, (n_trials,), generator=generator)
        evidence = self.noise * math.sqrt(20 / dt) * torch.randn(n_trials, n_stimulus, 2, generator=generator)
        inputs = torch.zeros(n_trials, n_times, 4)
        inputs[:, :n_stimulus, :2] = evidence + mean[:, None]
        inputs[..., 2:] = torch.nn.functional.one_hot(context, 2)[:, None]
        relevant = mean.gather(1, context[:, None])
        return self.batch(
            inputs, relevant.sign()[:, None].expand(-1, n_times, 1), dt=dt, cost_mask=_from(n_stimulus, n_times),
            periods={"stim1": (0, n_stimulus), "go1": (n_stimulus, n_times)},
            conditions={"context": context, "coherence": relevant[:, 0].double()},
        )  # fmt: skip


def _from(start: int, n_times: int) -> Tensor:
    """A mask that is 1 from a time step on, (n_times, 1)."""
    return (torch.arange(n_times) >= start).float()[:, None]
