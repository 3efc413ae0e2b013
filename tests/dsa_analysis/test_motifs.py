"""Motifs: sequences of known composition, by brute force and to the last digit; learning by noise and by growth."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsa_analysis import DataError
from dsa_analysis.motifs import (
    Motif,
    add_noise,
    all_orders,
    compose,
    grown,
    record_motif,
    shared_motifs,
    shared_positions,
    unit_size,
)
from dsa_analysis.systems import SYSTEMS, trajectories

MOTIFS = {
    "line": Motif("line", 0.01, {"spread": (0.3,)}),
    "fixed point": Motif("lorenz", 0.01, {"rho": (0.65,)}),
    "two fixed points": Motif("lorenz", 0.01, {"rho": (11.0,)}),
    "chaos": Motif("lorenz", 0.01, {"rho": (28.0,)}),
    "limit cycle": Motif("lorenz", 0.005, {"rho": (157.0,)}),
}
PIECES = (30, 20, 40)  # of unequal length, so that a border in the wrong place shows
TRIPLES = all_orders(list(MOTIFS), 3)


@pytest.fixture(scope="module")
def sequences():
    return compose(MOTIFS, TRIPLES, PIECES, n_trials=4, seeds=(0, 1))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_five_motifs_give_sixty_ordered_triples_each_once():
    assert len(TRIPLES) == 60
    assert set(TRIPLES) == {t for t in itertools.product(MOTIFS, repeat=3) if len(set(t)) == 3}


def test_repeats_give_all_tuples():
    assert all_orders(["a", "b"], 3, repeats=True) == list(itertools.product("ab", repeat=3))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_shared_counts_are_those_counted_by_hand(n_pieces, n_orders, seed):
    """Brute force: cross out of the other sequence each motif that is found there."""
    draw = np.random.default_rng(seed)
    orders = [tuple(draw.choice(list("abc"), n_pieces)) for _ in range(n_orders)]
    for i, j in itertools.product(range(n_orders), repeat=2):
        left = list(orders[j])
        for name in orders[i]:
            if name in left:
                left.remove(name)
        assert shared_motifs(orders)[i, j] == n_pieces - len(left)
        assert shared_positions(orders)[i, j] == sum(a == b for a, b in zip(orders[i], orders[j], strict=True))


def test_triples_of_five_share_what_combinatorics_says():
    """10 sets of 6 orders each: 15 pairs in a set; 30 pairs of sets share 2 motifs, 15 share 1, by 36 pairs each."""
    pairs = np.triu_indices(60, 1)
    assert np.bincount(shared_motifs(TRIPLES)[pairs]).tolist() == [0, 15 * 36, 30 * 36, 10 * 15]
    # two places: 60 triples, 3 places to change, 2 other motifs, halved; see test above for the rest
    assert np.bincount(shared_positions(TRIPLES)[pairs])[2] == 60 * 3 * 2 // 2


def test_shared_with_others_is_the_block_of_shared_with_all():
    assert np.array_equal(shared_motifs(TRIPLES[:7], TRIPLES[7:]), shared_motifs(TRIPLES)[:7, 7:])
    assert np.array_equal(shared_positions(TRIPLES[:7], TRIPLES[7:]), shared_positions(TRIPLES)[:7, 7:])


# ---- joined sequences ------------------------------------------------------------------------------------------------


def test_sequences_are_batched_over_seeds_sequences_and_trials(sequences):
    assert sequences.trajectories.shape == (2, 60, 4, sum(PIECES), 3)
    assert sequences.trajectories.dtype == torch.float64
    assert sequences.orders == tuple(TRIPLES)
    assert sequences.labels[0] == "line > fixed point > two fixed points"
    assert list(sequences.systems(1)) == list(sequences.labels)
    assert torch.equal(sequences.systems(1)[sequences.labels[5]], sequences.trajectories[1, 5])


def test_recordings_of_one_order_are_counted_in_their_labels_and_differ():
    orders = [("chaos",), ("line",), ("chaos",)]
    twice = compose(MOTIFS, orders, (9,), n_trials=2, seeds=[0])
    assert twice.labels == ("chaos #1", "line", "chaos #2")
    assert not torch.equal(twice.systems(0)["chaos #1"], twice.systems(0)["chaos #2"])


def test_borders_lie_where_the_lengths_of_the_pieces_put_them(sequences):
    assert sequences.borders == ((0, 30), (30, 50), (50, 90))


def test_each_piece_starts_where_the_last_one_ended(sequences):
    for (_, stop), (start, _) in itertools.pairwise(sequences.borders):
        jump = sequences.trajectories[..., start, :] - sequences.trajectories[..., stop - 1, :]
        assert jump.abs().max() < 1e-12  # the sum of two numbers, of size 1 to 10


def test_every_piece_has_unit_size(sequences):
    for start, stop in sequences.borders:
        piece = sequences.trajectories[..., start:stop, :]
        size = (piece - piece.mean(-2, keepdim=True)).square().sum(-1).mean((-2, -1)).sqrt()
        assert size.sub(1).abs().max() < 1e-12  # rounding; pieces lie at most 10 away from the origin


def test_pieces_are_the_motifs_own_trajectories_scaled_and_moved_alone():
    """Independent oracle: the chaotic piece in second place follows the Lorenz equations in its own coordinates."""
    joined = compose(MOTIFS, [("line", "chaos")], (10, 50), n_trials=3, seeds=[4]).trajectories[0, 0, :, 10:]
    alone = generators(4)
    record_motif(MOTIFS["line"], 1, 3, 50, alone)  # what is drawn before
    own = record_motif(MOTIFS["chaos"], 1, 3, 50, alone)[0, 0]
    ratio = (joined - joined[:, :1])[:, 1:] / (own - own[:, :1])[:, 1:]
    assert ratio.std() < 1e-9 * ratio.mean()  # one factor for all trials, times and channels; differences lose digits


def test_motif_is_recorded_as_its_system_is_simulated():
    own = record_motif(MOTIFS["limit cycle"], 1, 5, 40, generators(3))[0, 0]
    assert torch.equal(own, trajectories("lorenz", 5, 40, dt=0.005, seed=3, rho=157.0))


def test_lines_are_straight_of_constant_speed_and_scatter_around_the_first_axis():
    lines = record_motif(MOTIFS["line"], 2, 500, 10, generators(0, 1))
    assert lines.diff(n=2, dim=-2).abs().max() < 1e-12  # rounding
    directions = lines[..., -1, :] / lines[..., -1, :].norm(dim=-1, keepdim=True)
    assert directions.std(-2).min() > 0.01  # one for each trial
    mean = directions.mean((0, 1, 2))
    assert mean[0] > 0.9  # spread .3: cosines around 1 / sqrt(1 + 2 * .09) = .92
    assert mean[1:].abs().max() < 0.05  # .3 / sqrt(2000) = .007 expected


def test_a_line_has_as_many_channels_as_its_company():
    motifs = {"line": MOTIFS["line"], "ring": Motif("ring", 0.05, {}), "cycle": Motif("van_der_pol", 0.05, {})}
    assert compose(motifs, [("line", "ring", "cycle")], (9, 9, 9), n_trials=2, seeds=[0]).trajectories.shape[-1] == 2
    alone = {"line": MOTIFS["line"]}
    assert compose(alone, [("line",)], (9,), n_trials=2, seeds=[0]).trajectories.shape[-1] == 3


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_can_be_a_motif(system):
    motif = Motif(system, SYSTEMS[system].dt, {})
    recorded = record_motif(motif, 2, 3, 20, generators(0, 1))
    assert recorded.shape == (2, 2, 3, 20, motif.n_dims)
    assert recorded.isfinite().all()


def test_recordings_take_the_values_of_a_parameter_in_turn():
    motif = Motif("lorenz", 0.01, {"rho": (0.5, 28.0)})
    both = record_motif(motif, 3, 2, 30, generators(7))[0]
    starts = both[:, :, 0]
    for k, rho in enumerate((0.5, 28.0, 0.5)):
        slope = (both[k, :, 1] - both[k, :, 0]) / 0.01
        x, y, z = starts[k].unbind(-1)
        assert torch.allclose(
            slope[:, 1], x * (rho - z) - y, atol=2.0
        )  # first order in dt; rho 28 and .5 differ by 27 x
    assert len({*starts.flatten(0, 1)[:, 0].tolist()}) == 6  # all starts differ


# ---- repeatable ------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_sequences_whatever_the_other_seeds_are(sequences):
    again = compose(MOTIFS, TRIPLES, PIECES, n_trials=4, seeds=(1,))
    assert torch.equal(again.trajectories[0], sequences.trajectories[1])
    assert not torch.equal(sequences.trajectories[0], sequences.trajectories[1])


def test_nothing_is_drawn_from_the_global_generator():
    before = torch.get_rng_state()
    compose(MOTIFS, TRIPLES[:1], (5, 5, 5), n_trials=2, seeds=[0])
    add_noise(torch.randn(2, 9, 3, generator=generators(0)[0]), 0.5, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_stretches_are_their_own_or_common_as_asked():
    orders = [("chaos", "line"), ("line", "chaos")]
    for common in (False, True):
        (first, second) = compose(MOTIFS, orders, (20, 20), n_trials=3, seeds=[0], common_starts=common).trajectories[0]
        moved = second[:, 20:] - second[:, 20:21]
        assert torch.allclose(first[:, :20] - first[:, :1], moved, atol=1e-12, rtol=0) is common


def test_common_starts_of_pieces_of_unequal_length_share_their_beginning():
    (one, two) = compose(
        MOTIFS, [("chaos", "line"), ("line", "chaos")], (40, 20), n_trials=3, seeds=[0], common_starts=True
    ).trajectories[0]
    first, second = one[:, :20] - one[:, :1], two[:, 40:] - two[:, 40:41]
    ratio = first[:, 1:] / second[:, 1:]
    assert ratio.std() < 1e-6 * ratio.mean().abs()  # each of its own size


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_noise_keeps_the_variance_of_every_channel_and_takes_its_share(strength, generator):
    x = torch.randn(3, 40, 500, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 100.0])
    x = x.cumsum(-2)
    y = add_noise(x, strength, seed=1)
    n = y - (1 - strength**2) ** 0.5 * x
    share = n.var((-3, -2)) / x.var((-3, -2))
    assert torch.allclose(share, torch.full_like(share, strength**2), rtol=0.05)  # 20000 samples: 1 %
    assert torch.allclose(y.var((-3, -2)), x.var((-3, -2)), rtol=0.1)  # cross terms of slow x
    whiteness = (n[..., 1:, :] * n[..., :-1, :]).mean() / n.square().mean()
    assert whiteness.abs() < 0.03  # 1 / sqrt(60000) = .004


def test_no_noise_gives_the_very_trajectories_back(sequences):
    assert torch.equal(add_noise(sequences.trajectories, 0.0, seed=0), sequences.trajectories)


def test_noise_leaves_its_input_as_it_was_and_repeats_with_its_seed(sequences):
    before = sequences.trajectories.clone()
    noisy = add_noise(sequences.trajectories, 0.5, seed=3)
    assert torch.equal(sequences.trajectories, before)
    assert torch.equal(add_noise(sequences.trajectories, 0.5, generator=generators(3)[0]), noisy)


# ---- growth ----------------------------------------------------------------------------------------------------------


def test_growth_starts_at_the_start_ends_at_the_end_and_is_linear_between():
    start = Motif("lorenz", 0.01, {"rho": (8.0, 10.0)})
    end = Motif("lorenz", 0.005, {"rho": (28.0,), "sigma": (16.0,)})
    assert grown(start, end, 0).parameters["rho"] == (8.0, 10.0)
    assert grown(start, end, 1).parameters["rho"] == (28.0, 28.0)
    half = grown(start, end, 0.5)
    assert half.parameters["rho"] == (18.0, 19.0)
    assert half.parameters["sigma"] == (13.0, 13.0)  # 10 where it is not named
    assert half.dt == pytest.approx(0.0075)


# ---- refusals --------------------------------------------------------------------------------------------------------


def still(**parameters):
    return Motif("lorenz", 0.01, parameters)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Motif("lorentz", 0.01, {}), r"system = 'lorentz' is none of 'line', .*did you mean 'lorenz'\?"),
        (lambda: Motif("lorenz", 0.0, {}), "dt = 0.0 is not a positive time"),
        (lambda: still(roh=(28.0,)), r"parameters of lorenz = 'roh' is none of .*did you mean 'rho'\?"),
        (lambda: Motif("line", 0.01, {"rho": (1.0,)}), r"parameters of line = 'rho' is none of 'spread'"),
        (lambda: still(rho=()), "rho of lorenz is empty; at least one value is needed"),
        (
            lambda: all_orders(["a", "b"], 3),
            "3 pieces without repeats need 3 motifs, but there are 2: a, b",
        ),
        (lambda: all_orders(["a", "a"], 1), "motifs has a name twice: a, a"),
        (lambda: all_orders(["a"], 0), "n_pieces = 0 is not a whole number of at least 1"),
        (lambda: compose(MOTIFS, [("caos",)], (9,), n_trials=1, seeds=[0]), "motif = 'caos' .*did you mean 'chaos'"),
        (lambda: compose(MOTIFS, [("chaos",)], (9,), n_trials=1, seeds=[]), "seeds is empty; at least one is needed"),
        (lambda: compose(MOTIFS, [("chaos",)], (9, 9), n_trials=1, seeds=[0]), "chaos has 1 motifs for 2 pieces"),
        (lambda: compose(MOTIFS, [], (9,), n_trials=1, seeds=[0]), "orders or n_times is empty"),
        (lambda: compose(MOTIFS, [("chaos",)], (1,), n_trials=1, seeds=[0]), "n_times = 1 is not a whole number of at"),
        (
            lambda: compose(MOTIFS, [("chaos",)], (9,), n_trials=0, seeds=[0]),
            "n_trials = 0 is not a whole number of at",
        ),
        (
            lambda: compose(MOTIFS | {"ring": Motif("ring", 0.05, {})}, [("ring",)], (9,), n_trials=1, seeds=[0]),
            r"different numbers of dimensions cannot be joined: fixed point 3, .*ring 2 \(a line may",
        ),
        (lambda: unit_size(torch.ones(2, 5, 3)), "a piece is constant, so it cannot be scaled to unit size"),
        (lambda: add_noise(torch.ones(2, 5, 3), 1.0, seed=0), r"strength = 1.0 is not in \[0, 1\)"),
        (lambda: add_noise(torch.ones(2, 5, 3), -0.1, seed=0), r"strength = -0.1 is not in \[0, 1\)"),
        (lambda: add_noise(torch.ones(2, 5, 3), 0.5), "give exactly one of seed and generator"),
        (lambda: grown(still(), still(), 1.5), r"share = 1.5 is not in \[0, 1\]"),
        (
            lambda: grown(still(), Motif("ring", 0.01, {}), 0.5),
            "start is a lorenz and end is a ring; both must be of the same",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(call, message):
    with pytest.raises(DataError, match=message):
        call()
