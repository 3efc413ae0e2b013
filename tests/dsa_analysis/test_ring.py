"""The ring attractor network: its connectivity, its bump, what a gap does, and invariance to sigmoid(beta x)."""

import math
import re

import pytest
import torch

from dsa_analysis import DataError, compare, procrustes_distance
from dsa_analysis.controls import RingParameters, bump_positions, crossings, record_ring, sigmoid
from dsa_analysis.controls.ring import ring_weights

SMALL = RingParameters(n_trials=6, n_times=180)


@pytest.fixture(scope="module")
def networks() -> torch.Tensor:
    """Closed, and with 10 cells missing: (2, trial, time, 200)."""
    return record_ring(SMALL, missing=(0, 10), seed=0)


def test_weights_of_the_ring_are_the_same_at_every_place():
    W = ring_weights(SMALL)
    assert W.shape == (200, 200)
    assert float(W.max()) <= 0
    quadrants = W.unflatten(0, (2, 100)).unflatten(-1, (2, 100)).movedim(1, 2)
    for quadrant in quadrants.flatten(0, 1):
        torch.testing.assert_close(quadrant.roll((1, 1), (0, 1)), quadrant)


def test_inhibition_is_strongest_at_its_distance_and_shifted():
    W = ring_weights(RingParameters(n_cells=400, inhibition=44.0))
    for population, shift in ((0, -2), (1, 2)):
        column = W[:400, 400 * population + 200]  # from cell 200
        at = {200 + shift + 44, 200 + shift - 44}
        assert set(column.topk(2, largest=False).indices.tolist()) == at
        assert float(column.min()) == pytest.approx(-8 / 400)
        assert float(column[200 + shift]) == 0
        assert float(column[:100].abs().max()) == 0  # beyond 2 l


def test_missing_cells_only_take_inhibition_off_near_the_ends():
    ring = ring_weights(RingParameters(n_cells=400, inhibition=44.0))
    cut = ring_weights(RingParameters(n_cells=400, inhibition=44.0), 200)
    middle = slice(100, 300)
    assert torch.equal(ring[middle, middle], cut[middle, middle])
    assert float(cut[0, 395].abs()) == 0 < float(ring[0, 350].abs())


def test_bump_goes_round_the_ring_and_stops_at_the_end_of_the_line(networks):
    counts = crossings(networks, 100)
    assert bool((counts[1] == 0).all())
    assert int(counts[0].sum()) >= 3
    positions = bump_positions(networks, 100)
    turned = (positions.diff(dim=-1) + math.pi) % (2 * math.pi) - math.pi
    speed = turned.mean((1, 2)) / 0.01  # rad per s
    assert float(speed[0]) > 3
    late = turned[1, :, 160:].mean() / 0.01
    assert abs(float(late)) < 0.1 * float(speed[0])


def test_bump_without_drive_noise_and_gap_stays():
    p = RingParameters(n_trials=3, n_times=20, drive=1e-9, noise=0.0, settle=1000)
    positions = bump_positions(record_ring(p, seed=1)[0], 100)
    moved = (positions[:, -1] - positions[:, 0]).abs()
    assert float(moved.max()) < 2 * math.pi / 100  # less than a cell in 190 ms


def test_drive_that_changes_its_sign_moves_the_bump_both_ways():
    p = RingParameters(n_trials=6, n_times=60, drive_time=200.0)
    positions = bump_positions(record_ring(p, seed=0)[0], 100)
    turned = (positions.diff(dim=-1) + math.pi) % (2 * math.pi) - math.pi
    assert float(turned.max()) > 0.02
    assert float(turned.min()) < -0.02


def test_sigmoid_changes_the_geometry_and_not_the_operator(networks):
    ring = networks[0]
    copy = sigmoid(ring, 3.6)
    torch.testing.assert_close(copy, 1 / (1 + (-3.6 * ring).exp()))
    found = compare([ring], [copy, networks[1]], n_delays=1, rank=2, steps_ahead=10, progress=False).distances[0]
    assert found[0] < 0.05 * found[1]
    assert float(procrustes_distance(ring, copy)) > 0.3


def test_seed_repeats_and_another_seed_does_not():
    p = RingParameters(n_trials=2, n_times=3, settle=20.0)
    first = record_ring(p, missing=(0, 3), seed=1)
    assert first.shape == (2, 2, 3, 200)
    assert first.dtype == torch.float64
    assert torch.equal(first, record_ring(p, missing=(0, 3), generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(first, record_ring(p, missing=(0, 3), seed=2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RingParameters(step=20.0), "step = 20.0 ms is longer than tau = 10.0 ms"),
        (lambda: RingParameters(dt=7.0), "dt = 7.0 ms is no multiple of step = 2.0 ms"),
        (lambda: RingParameters(drive_time=0.0), "drive_time = 0.0 is not a positive number"),
        (lambda: RingParameters(n_cells=4), "n_cells = 4 is not a whole number of at least 8"),
        (lambda: record_ring(SMALL, missing=(), seed=0), "missing is empty; at least one number is needed"),
        (lambda: record_ring(SMALL, missing=(0.5,), seed=0), "missing = 0.5 is not a whole number of at least 0"),
        (lambda: record_ring(SMALL), "give exactly one of seed and generator"),
        (lambda: sigmoid(torch.ones(2), 0.0), "beta = 0.0 is not a positive number"),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(DataError, match=re.escape(message)):
        call()
