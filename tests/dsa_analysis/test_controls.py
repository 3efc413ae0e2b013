"""Controls: fixed points where the equations put them, equal means and covariances, seeds, refusals."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm, solve_continuous_lyapunov

from dsa_analysis import DataError
from dsa_analysis.controls import (
    AttractorParameters,
    ConditionParameters,
    MemoryParameters,
    Readout,
    record_attractors,
    record_conditions,
    record_memories,
)
from dsa_analysis.controls.attractors import attractor_states, deform
from dsa_analysis.controls.conditions import drift, mean_paths, sampled
from dsa_analysis.controls.memories import draw_pulses, memory_states

MEMORIES = MemoryParameters(n_trials=3, n_times=40)
CONDITIONS = ConditionParameters(n_draws=2, n_trials=3, n_times=6)
ATTRACTORS = AttractorParameters(n_draws=2, n_trials=3, n_times=10)
RECORD = {
    "memories": lambda **s: record_memories(MEMORIES, **s),
    "conditions": lambda **s: record_conditions(CONDITIONS, level="covariances", **s),
    "attractors": lambda **s: record_attractors(ATTRACTORS, **s),
}


@pytest.mark.parametrize("record", RECORD.values(), ids=RECORD)
def test_seed_repeats_and_another_seed_does_not(record):
    first, again, other = record(seed=3), record(generator=torch.Generator().manual_seed(3)), record(seed=4)
    assert list(first.systems) == list(again.systems)
    for name, x in first.systems.items():
        assert torch.equal(x, again.systems[name])
        assert not torch.equal(x[..., :2], other.systems[name][..., :2])


@pytest.mark.parametrize("record", RECORD.values(), ids=RECORD)
def test_systems_are_double_precision_with_one_group_each(record):
    control = record(seed=0)
    assert len(control.groups) == len(control.systems)
    assert {x.dtype for x in control.systems.values()} == {torch.float64}
    assert len({x.shape[:2] for x in control.systems.values()}) == 1
    for name, group in zip(control.systems, control.groups, strict=True):
        assert name.startswith(group)


# ---- memories --------------------------------------------------------------------------------------------------------


def settled(kind: str, **changes: object) -> torch.Tensor:
    """Last samples of a memory of one kind without pulses and noise: (trial, value)."""
    p = MemoryParameters(memories={"m": (kind,) * 3}, n_trials=50, process_noise=0.0, **changes)
    generator = torch.Generator().manual_seed(0)
    return memory_states(p, ("m",), torch.zeros(1, 50, 200, 3, dtype=torch.float64), generator)[0]


def test_bits_rest_at_plus_and_minus_one():
    states = settled("bistable")
    assert torch.equal(states[:, 0].abs(), torch.ones(50, 3, dtype=torch.float64))
    assert torch.equal(states[:, -1], states[:, 0])  # x - x^3 is exactly 0 at +-1
    assert set(states[:, 0].flatten().tolist()) == {-1.0, 1.0}


def test_leaky_values_decay_with_their_time_constant():
    p = MemoryParameters(memories={"m": ("leaky",)}, n_trials=1, process_noise=0.0, leak=(2.0, 2.0))
    u = torch.zeros(1, 1, 100, 1, dtype=torch.float64)
    u[:, :, 0] = 0.1
    x = memory_states(p, ("m",), u, torch.Generator().manual_seed(0)).flatten()
    assert x[1] == pytest.approx(0.06)  # 6 u dt
    np.testing.assert_allclose(x[2:] / x[1:-1], 1 - 0.1 / 2, rtol=1e-12)  # an Euler step of x' = -x / 2


def test_lines_keep_any_value():
    states = settled("line")
    assert torch.equal(states[:, 0], states[:, -1])
    assert len(states[:, 0].unique()) == 150


def test_pulse_sets_a_bit():
    p = MemoryParameters(memories={"m": ("bistable",)}, n_trials=200, process_noise=0.0)
    u = torch.zeros(1, 200, 60, 1, dtype=torch.float64)
    u[0, :, 5:9] = -1
    states = memory_states(p, ("m",), u, torch.Generator().manual_seed(0))[0, ..., 0]
    assert set(states[:, 0].tolist()) == {-1.0, 1.0}
    # 47 samples of .1 after the pulse, decay at 2 / tau of at least 4.4: nothing is left
    torch.testing.assert_close(states[:, -1], -torch.ones(200, dtype=torch.float64), rtol=0, atol=1e-8)


def test_pulses_have_their_width_sign_and_rate(generator):
    p = MemoryParameters(n_trials=200, n_times=1000)
    pulses = draw_pulses(p, 2, 1, generator)
    assert pulses.shape == (1, 200, 1000, 2)
    assert set(pulses.flatten().tolist()) == {-1.0, 0.0, 1.0}
    edges = torch.nn.functional.pad(pulses.abs(), (0, 0, 1, 1)).diff(dim=-2)
    n_pulses = int((edges == 1).sum())
    assert float(pulses.abs().sum()) == p.pulse_width * n_pulses  # none is cut short, none overlap
    # the first after 9.5 samples, then one in 4 + 8 + 49.5; 6000 intervals have a standard error of 1 %
    assert n_pulses / 400 == pytest.approx(1 + (1000 - 9.5 - 4) / 61.5, rel=0.04)


def test_matched_memories_share_pulses_and_others_do_not():
    quiet = replace(MEMORIES, process_noise=0.0, readout_noise=0.0, memories={"a": ("leaky",), "b": ("leaky",)})
    quiet = replace(quiet, leak=(2.0, 2.0), n_times=120, readouts={"tanh": Readout("tanh", 4, 1.0)})
    for matched in (True, False):
        control = record_memories(quiet, matched=matched, seed=0)
        first, second = (
            torch.linalg.svd(x.flatten(0, 1) - x.flatten(0, 1).mean(0))[0][:, 0] for x in control.systems.values()
        )
        assert (abs(float(first @ second)) > 0.95) is matched


# ---- equal means, covariances and eigenvalues ------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["means", "covariances", "eigenvalues"])
def test_condition_means_follow_the_same_path(level):
    p = ConditionParameters(n_draws=2, n_trials=3000, n_times=21, kinds=("bistable", "line", "point", "spiral"))
    control = record_conditions(p, level=level, seed=1)
    paths = mean_paths(p, torch.Generator().manual_seed(1))
    assert control.conditions.tolist() == [0] * 3000 + [1] * 3000
    for name, x in control.systems.items():
        for condition, path in enumerate(paths[int(name[-1])]):
            mean = x[control.conditions == condition].mean(0)
            # standard error of a mean of 3000 deviations of about .05 is .001
            torch.testing.assert_close(mean, path, rtol=0, atol=0.006)


@pytest.mark.parametrize("level", ["covariances", "eigenvalues"])
def test_linear_deviations_have_the_given_covariance_at_all_times(level):
    p = ConditionParameters(n_draws=1, n_trials=4000, n_times=11, kinds=("line", "point", "spiral"), coherences=(0.1,))
    for x in record_conditions(p, level=level, seed=2).systems.values():
        for t in (0, 3, 10):
            covariance = torch.cov(x[:, t].T) / p.spread**2
            # the standard error of a variance of 4000 draws is 2.2 %
            torch.testing.assert_close(covariance, torch.eye(2, dtype=torch.float64), rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", ["still", "slow current", "fast current"])
def test_currents_leave_eigenvalues_and_covariance(kind, generator):
    p = ConditionParameters(n_draws=20)
    A = drift(kind, "eigenvalues", p, generator)
    values = torch.linalg.eigvals(A)
    assert float(values.imag.abs().max()) < 1e-6  # rounding, near a double eigenvalue
    low, high = values.real.sort(-1).values.unbind(-1)
    assert bool(((low > -6.6) & (low < -5.4) & (high > -2.2) & (high < -1.8)).all())
    normal = torch.stack([a @ a.T - a.T @ a for a in A]).norm(dim=(-2, -1))
    assert bool((normal < 1e-10).all()) is (kind == "still")
    for a in A.numpy():
        Q = -(a + a.T)
        assert np.linalg.eigvalsh(Q).min() > 0
        np.testing.assert_allclose(solve_continuous_lyapunov(a, -Q), np.eye(2), atol=1e-10)


def test_sampled_noise_is_the_integral_over_a_step(generator):
    A, Q = torch.tensor([[-1.0, 2.0], [-3.0, -0.5]]).double(), torch.tensor([[2.0, 0.3], [0.3, 1.0]]).double()
    step, covariance = sampled(A, Q, 0.2)
    times = np.linspace(0, 0.2, 2001)
    flows = [expm(A.numpy() * t) for t in times]
    integral = np.trapezoid([F @ Q.numpy() @ F.T for F in flows], times, axis=0)
    np.testing.assert_allclose(step, flows[-1], atol=1e-12)
    np.testing.assert_allclose(covariance, integral, atol=1e-7)  # the trapezoids' own error


def test_bistable_mean_leaves_zero_for_a_stable_point():
    p = ConditionParameters(n_draws=3, n_times=120)
    last = mean_paths(p, torch.Generator().manual_seed(0))[:, :, -1]
    for draw in last:
        for coherence, (x, y) in zip(p.coherences, draw.tolist(), strict=True):
            assert math.copysign(1, x) == math.copysign(1, coherence)
            assert 0.85 < abs(x) < 1.2  # sqrt(b / a) of b and a in [4, 5], and the input
            assert abs(coherence) / 4 < abs(y) < abs(coherence) / 3  # c / k


def test_neurons_keep_the_geometry_of_two_dimensions():
    p = replace(CONDITIONS, n_neurons=30)
    bare, seen = (record_conditions(q, level="eigenvalues", seed=0) for q in (CONDITIONS, p))
    for two, many in zip(bare.systems.values(), seen.systems.values(), strict=True):
        assert many.shape[-1] == 30
        lengths = [torch.cdist(x.flatten(0, 1), x.flatten(0, 1)) for x in (two, many)]
        torch.testing.assert_close(
            lengths[1], lengths[0] * 15**0.5, rtol=1e-7, atol=1e-6
        )  # cdist takes differences of squares


# ---- attractors ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resting() -> dict[str, torch.Tensor]:
    """States (trial, time, 4) of each kind without pulses, noise and variation."""
    p = AttractorParameters(n_draws=1, n_trials=40, n_times=400, noise=0.0, pulse_rate=0.0, variation=0.0)
    states = attractor_states(p, False, torch.Generator().manual_seed(0), torch.device("cpu"))
    return dict(zip(p.kinds, states, strict=True))


def test_attractors_are_where_the_equations_put_them(resting):
    last = {kind: states[:, -1, :2] for kind, states in resting.items()}
    for kind in ("ring", "cycle"):
        # an Euler step of omega dt = .025 leaves the cycle outside of the unit circle by omega^2 dt tau / 4 = .004
        torch.testing.assert_close(last[kind].norm(dim=-1), torch.ones(40).double(), rtol=0, atol=0.005)
    assert float((last["two points"].abs() - torch.tensor([1.0, 0.0])).abs().max()) < 1e-6
    assert {x > 0 for x in last["two points"][:, 0].tolist()} == {True, False}
    assert float(last["line"][:, 1].abs().max()) < 1e-6
    start, end = resting["line"][:, 0, 0], last["line"][:, 0]
    assert torch.equal(start, end)  # nothing moves along the line
    assert float(resting["ring"][:, :, 2:].abs()[:, -1].max()) < 1e-6  # further dimensions contract


def test_ring_stays_and_cycle_turns_with_its_period(resting):
    angles = {kind: torch.atan2(resting[kind][..., 1], resting[kind][..., 0]) for kind in ("ring", "cycle")}
    assert torch.equal(angles["ring"][:, 200], angles["ring"][:, 399])
    turned = (angles["cycle"].diff(dim=-1) + math.pi) % (2 * math.pi) - math.pi
    period = 2 * math.pi / float(turned[:, 200:].mean() / 0.05)
    assert period == pytest.approx(math.pi, rel=1e-3)  # 2 pi / omega; the arctangent of an Euler step errs by its cube


def test_matched_systems_share_noise_and_others_do_not():
    p = replace(ATTRACTORS, kinds=("ring",), variation=0.0)
    for matched in (True, False):
        first, second = attractor_states(p, matched, torch.Generator().manual_seed(0), torch.device("cpu"))
        assert torch.equal(first, second) is matched


def test_deformation_is_smooth_and_vanishes_with_its_strength(generator):
    z = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    still = deform(z, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.cdist(still, still), torch.cdist(z, z))  # a rotation alone
    near = [deform(z + shift, 0.4, torch.Generator().manual_seed(1)) for shift in (0.0, 1e-6)]
    assert float((near[1] - near[0]).norm(dim=-1).max()) < 1e-4
    assert not torch.allclose(torch.cdist(near[0], near[0]), torch.cdist(z, z), atol=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("record", RECORD.values(), ids=RECORD)
def test_device_does_not_change_what_is_drawn(record):
    for x, y in zip(record(seed=0).systems.values(), record(seed=0, device="cuda").systems.values(), strict=True):
        assert y.device.type == "cuda"
        torch.testing.assert_close(x, y.cpu(), rtol=1e-6, atol=1e-6)  # sums in another order, amplified by the flow


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: record_memories(), "give exactly one of seed and generator"),
        (lambda: Readout("sigmoid", 3, 1.0), "activation = 'sigmoid' is none of 'tanh', 'softplus', 'relu', 'sinh'"),
        (lambda: Readout("tanh", 3, 0.0), "gain = 0.0 is not a positive number"),
        (lambda: MemoryParameters(dt=-1.0), "dt = -1.0 is not a positive number"),
        (lambda: MemoryParameters(tau=(2.0, 1.0)), "tau = (2.0, 1.0) is not a range (low, high) with 0 < low <= high"),
        (lambda: MemoryParameters(process_noise=math.nan), "process_noise = nan is not a number of at least 0"),
        (lambda: MemoryParameters(memories={}), "memories or readouts is empty"),
        (lambda: MemoryParameters(memories={"m": ("bit",)}), "a value of memory 'm' = 'bit' is none of 'bistable'"),
        (
            lambda: MemoryParameters(memories={"a": ("leaky",), "b": ("leaky",) * 2}),
            "memories have different numbers of values: 'a' 1, 'b' 2; give the same to all",
        ),
        (lambda: record_conditions(level="mean", seed=0), "level = 'mean' is none of 'means', 'covariances', 'eigenv"),
        (lambda: ConditionParameters(kinds=("plane",)), "a kind = 'plane' is none of 'bistable', 'line'"),
        (lambda: ConditionParameters(kinds=("line", "line")), "kinds has a name twice: line, line"),
        (lambda: ConditionParameters(coherences=()), "coherences is empty; at least one is needed"),
        (lambda: ConditionParameters(currents={"fast": 4.0}), "currents: 'fast' = 4.0 is not between -3 and 3"),
        (lambda: ConditionParameters(n_neurons=1), "n_neurons = 1 cannot show two dimensions"),
        (lambda: ConditionParameters(n_times=1), "n_times = 1 is not a whole number of at least 2"),
        (lambda: AttractorParameters(kinds=("torus",)), "one of kinds = 'torus' is none of 'ring', 'line'"),
        (lambda: AttractorParameters(activations=()), "activations = [] needs at least one name"),
        (lambda: AttractorParameters(variation=1.0), "variation = 1.0 is not in [0, 1)"),
        (lambda: AttractorParameters(n_neurons=(0, 5)), "n_neurons = (0, 5) is not a range"),
        (
            lambda: record_attractors(replace(ATTRACTORS, dt=5.0), seed=0),
            "a trajectory diverged: dt = 5.0 is too coarse for these parameters",
        ),
        (lambda: record_attractors(seed=0, device="cuda:99"), "device = 'cuda:99' is not there"),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(DataError, match=re.escape(message)):
        call()
