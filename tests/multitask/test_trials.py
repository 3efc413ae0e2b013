"""Inputs, targets and cost masks of a scene: bumps, layout, noise."""

import math

import pytest
import torch

from multitask.trials import (
    Layout,
    MultitaskError,
    Scene,
    Stimulus,
    bump,
    check_whole,
    checked_device,
    circular_distance,
    cost_mask,
    paint_inputs,
    paint_targets,
    preferred_directions,
    unknown,
)

CPU = torch.device("cpu")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def two_trials(stimuli: list[Stimulus] | None = None) -> Scene:
    """20 steps, go at 10: the first trial answers at 1 rad, the second keeps fixating."""
    response = torch.tensor([1.0, math.nan], dtype=torch.float64)
    return Scene(stimuli or [], response, go=10, cue_off=10, n_times=20)


def shown_at(direction: float, strengths: list[float], on: int, off: int) -> Stimulus:
    return Stimulus(torch.full((2,), direction, dtype=torch.float64), torch.tensor([strengths] * 2).double(), on, off)


def test_bump_peaks_at_exactly_point_eight_on_a_preferred_direction():
    peaks = bump(preferred_directions()).diagonal()
    assert (peaks == 0.8).all()


def test_bump_sums_to_the_same_for_every_direction():
    total = bump(2 * math.pi * torch.rand(500, dtype=torch.float64)).sum(-1)
    closed_form = 0.8 * math.sqrt(2 * math.pi) * 2  # width pi/8 is two spacings of the ring
    # 1e-6: sampling a Gaussian two samples wide errs by exp(-8 pi^2); what remains are the tails cut at 180 degrees
    torch.testing.assert_close(total, torch.full_like(total, closed_form), rtol=1e-6, atol=0)
    assert closed_form == pytest.approx(4.0106, abs=5e-5)


def test_circular_distance_goes_the_short_way_round():
    a, b = torch.tensor([0.1, 0.0, 3.0]), torch.tensor([2 * math.pi - 0.1, math.pi, 3.0])
    torch.testing.assert_close(circular_distance(a, b), torch.tensor([0.2, math.pi, 0.0]))
    torch.testing.assert_close(circular_distance(b, a), circular_distance(a, b))


def test_layout_of_the_twenty_rules_has_85_channels():
    rules = tuple(f"rule{k}" for k in range(20))
    layout = Layout(rules)
    assert (layout.n_inputs, layout.rule_start) == (85, 65)
    assert [layout.rule_channel(rule) for rule in rules] == list(range(65, 85))
    assert Layout(("a", "b"), n_rings=3).n_inputs == 99


def test_errors_for_unknown_names_suggest_the_most_similar_one():
    assert "did you mean 'dm1'" in str(unknown("rule", "dm_1", ["dm1", "fdgo"]))
    assert "choose from dm1, fdgo" in str(unknown("rule", "xyz", ["dm1", "fdgo"]))
    with pytest.raises(MultitaskError, match=r"unknown rule 'dmm': did you mean 'dm1'\?"):
        Layout(("dm1",)).rule_channel("dmm")


def test_devices_and_counts_are_checked_by_name():
    assert checked_device(None) == checked_device("cpu") == CPU
    with pytest.raises(MultitaskError, match="device 'gpu' is not a device: use 'cpu', 'cuda' or 'cuda:1'"):
        checked_device("gpu")
    with pytest.raises(MultitaskError, match="device 'cuda:99' was requested, but this machine has"):
        checked_device("cuda:99")
    assert check_whole("n", 3, 1) == 3
    for value in (0, 2.0, True, None, "3"):
        with pytest.raises(MultitaskError, match=rf"n = {value!r}: must be a whole number >= 1"):
            check_whole("n", value, 1)


def test_stimuli_add_without_clipping_on_their_own_rings(generator):
    stimuli = [shown_at(0.0, [1.5, 0.0], 2, 8), shown_at(0.0, [0.7, 0.3], 6, 20)]
    inputs = paint_inputs(two_trials(stimuli), Layout(("a",)), {}, 0.0, generator, CPU)
    assert inputs.shape == (2, 20, 66)
    ring1, ring2 = inputs[0, :, 1], inputs[0, :, 33]  # the units that prefer direction 0
    expected1 = 0.8 * torch.tensor([0.0] * 2 + [1.5] * 4 + [2.2] * 2 + [0.7] * 12)
    torch.testing.assert_close(ring1, expected1)  # float32 sums
    torch.testing.assert_close(ring2, 0.8 * torch.tensor([0.0] * 6 + [0.3] * 14))


def test_cue_and_rule_units_have_the_given_values(generator):
    inputs = paint_inputs(two_trials(), Layout(("a", "b", "c")), {"a": 0.5, "c": -1.0}, 0.0, generator, CPU)
    assert inputs[:, :10, 0].eq(1).all()
    assert inputs[:, 10:, 0].eq(0).all()
    assert inputs[:, :, 65:].eq(torch.tensor([0.5, 0.0, -1.0])).all()


def test_noise_is_white_with_the_same_deviation_on_every_channel(generator):
    scene = Scene([], torch.zeros(100, dtype=torch.float64), go=100, cue_off=100, n_times=200)
    layout = Layout(tuple("abcd"))
    noise = paint_inputs(scene, layout, {"a": 1.0}, 0.1, generator, CPU)
    noise = noise - paint_inputs(scene, layout, {"a": 1.0}, 0.0, generator, CPU)
    flat = noise.reshape(-1, layout.n_inputs)  # 20000 samples a channel
    # standard errors: 0.1 / sqrt(2 n) = 0.0005 and 0.1 / sqrt(n) = 0.0007; correlation 1 / sqrt(n) = 0.007: six of each
    assert (flat.std(0) - 0.1).abs().max() < 0.003
    assert flat.mean(0).abs().max() < 0.0043
    in_time = (noise[:, 1:] * noise[:, :-1]).mean((0, 1)) / 0.01
    assert in_time.abs().max() < 0.043
    between_channels = torch.corrcoef(flat.T) - torch.eye(layout.n_inputs)
    assert between_channels.abs().max() < 0.043


def test_least_squares_targets_go_from_fixation_to_a_bump():
    targets = paint_targets(two_trials(), "lsq", CPU)
    assert targets.shape == (2, 20, 33)
    torch.testing.assert_close(targets[:, :10, 0], torch.full((2, 10), 0.8))
    assert targets[:, :10, 1:].eq(0.05).all()
    torch.testing.assert_close(targets[0, 10:, 0], torch.full((10,), 0.05))
    ring = 0.05 + bump(torch.tensor([1.0], dtype=torch.float64)).float()
    torch.testing.assert_close(targets[0, 10:, 1:], ring.expand(10, -1))
    assert targets[1].eq(targets[1, 0]).all()  # keeps fixating


def test_cross_entropy_targets_are_one_unit_at_a_time():
    targets = paint_targets(two_trials(), "cross_entropy", CPU)
    assert targets.sum(-1).eq(1).all()
    assert targets.argmax(-1)[0].tolist() == [0] * 10 + [1 + 5] * 10  # 1 rad is nearest to unit 5 at 0.98 rad
    assert targets.argmax(-1)[1].eq(0).all()


def test_one_hot_response_takes_the_first_of_two_units_at_equal_distance():
    halfway = preferred_directions()[[1]] / 2
    scene = Scene([], halfway, go=1, cue_off=1, n_times=2)
    assert paint_targets(scene, "cross_entropy", CPU)[0, 1].argmax() == 1


@pytest.mark.parametrize(("dt", "grace"), [(10, 10), (20, 5), (30, 3), (50, 2)])
def test_cost_mask_has_two_silent_windows(dt, grace):
    scene = Scene([], torch.zeros(3, dtype=torch.float64), go=40, cue_off=40, n_times=70)
    mask = cost_mask(scene, dt, "lsq", CPU)
    ring = [0.0] * grace + [1.0] * (40 - grace) + [0.0] * grace + [5.0] * (30 - grace)
    assert mask.shape == (3, 70, 33)
    assert mask[..., 1:].eq(torch.tensor(ring)[:, None]).all()
    assert mask[..., 0].eq(2 * torch.tensor(ring)).all()


def test_cost_mask_of_cross_entropy_has_mean_one_and_no_extra_weight_on_fixation():
    scene = Scene([], torch.zeros(3, dtype=torch.float64), go=40, cue_off=40, n_times=70)
    mask = cost_mask(scene, 20, "cross_entropy", CPU)
    assert mask.shape == (3, 70)
    assert mask.mean().item() == pytest.approx(1, rel=1e-6)  # float32 mean
    assert mask[0, -1] / mask[0, 20] == pytest.approx(5, rel=1e-6)
