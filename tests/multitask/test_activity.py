"""Hidden states, task variance, clusters and components, on networks whose units have known tuning."""

import math

import numpy as np
import pytest
import torch

from multitask.activity import (
    Clusters,
    TaskVariance,
    cluster_units,
    fractional_variance,
    matched_distance,
    principal_components,
    record_activity,
    task_variance,
)
from multitask.network import LeakyRNN, NetworkParameters
from multitask.tasks import RULES, generate_trials
from multitask.trials import MultitaskError, bump, preferred_directions

# alpha = 1 and a relu that never cuts: h_t is what enters at t, a linear read-out of the inputs
READ_OUT = NetworkParameters(n_rnn=6, activation="relu", dt=20.0, tau=20.0, sigma_rec=0.0)
RING1, RING2 = slice(1, 33), slice(33, 65)


def silent(parameters: NetworkParameters, n_networks: int = 1) -> LeakyRNN:
    network = LeakyRNN(parameters, n_networks)
    return network.with_weights({name: torch.zeros_like(weight) for name, weight in network.weights.items()})


@pytest.fixture
def tuned() -> LeakyRNN:
    """Six units: 0 and 1 see unit 0 of ring 1, the second twice as much; 2 sees ring 2; 3 the cue; 4 nothing;
    5 sees ring 1 in rule dm1 alone (its rule unit lifts it over the threshold)."""
    network = silent(READ_OUT)
    w_in, w_rule, b = network.weights["w_in"], network.weights["w_rule"], network.weights["b"]
    w_in[0, 1, 0], w_in[0, 1, 1], w_in[0, 33, 2], w_in[0, 0, 3] = 1.0, 2.0, 1.0, 1.0
    w_in[0, 1, 5], b[0, 0, 5], w_rule[0, RULES.index("dm1"), 5] = 1.0, -10.0, 10.0
    return network


# ---- recording -------------------------------------------------------------------------------------------------------


def test_a_read_out_of_the_inputs_is_recorded_as_it_is(tuned):
    activity = record_activity(tuned, "delaygo")
    batch = generate_trials("delaygo", mode="test", tau=20.0, noise=0, seed=0)
    assert activity.hidden.shape == (1, 40, 125, 6)
    torch.testing.assert_close(activity.hidden[0, :, :, 0], batch.inputs[..., 1])
    torch.testing.assert_close(activity.hidden[0, :, :, 3], batch.inputs[..., 0])
    assert activity.periods == batch.periods
    assert activity.rule == "delaygo"
    assert activity.conditions["modality"].equal(batch.conditions["modality"])
    assert activity.outputs.shape == (1, 40, 125, 33)


def test_periods_cut_the_hidden_states(tuned):
    activity = record_activity(tuned, "delaydm1")
    assert activity.during("delay1").shape[2] == 50
    assert activity.during("stim1", "stim2").equal(activity.hidden[:, :, 25:125])
    assert activity.after_fixation().shape[2] == 125
    with pytest.raises(MultitaskError, match=r"unknown period of 'delaydm1' 'delay3': did you mean"):
        activity.during("delay3")


def test_noise_is_off_unless_asked_for():
    network = LeakyRNN(NetworkParameters(n_rnn=8), n_networks=2)
    quiet, again = (record_activity(network, "fdgo").hidden for _ in range(2))
    assert quiet.equal(again)
    for noise in ({"noise": 0.01}, {"private_noise": True}):
        noisy, twin = (record_activity(network, "fdgo", **noise).hidden for _ in range(2))
        assert not noisy.equal(quiet)
        assert noisy.equal(twin)  # the same seed


def test_random_trials_and_composed_rules_can_be_recorded(tuned):
    activity = record_activity(tuned, "fdgo", 7, mode="random", rule_input={"dm1": 1.0}, seed=4)
    assert activity.hidden.shape[1] == 7
    ring1 = activity.batch.inputs[..., 1]
    torch.testing.assert_close(activity.hidden[0, :, :, 5], ring1)  # the unit that only hears rule dm1
    assert record_activity(tuned, "fdgo", 7, mode="random", seed=4).hidden[..., 5].eq(0).all()


# ---- task variance ---------------------------------------------------------------------------------------------------


def variance_by_hand(strengths: np.ndarray, directions: np.ndarray) -> float:
    """Variance over trials of the ring unit that prefers 0, for bumps that add: (trial, stimulus) each."""
    seen = (strengths * bump(torch.as_tensor(directions)).numpy()[..., 0]).sum(1)
    return float(seen.var())


def test_task_variance_of_known_tuning_comes_out_as_constructed(tuned):
    result = task_variance(tuned, ["fdgo", "delaygo", "dm1", "dm2"])
    assert result.variance.shape == (1, 6, 4)
    v = result.variance[0]
    circle = 2 * math.pi * np.arange(20) / 20
    on_ring_1 = np.tile([1.0, 0.0], 20)[:, None]  # modality runs faster than direction
    shown = variance_by_hand(on_ring_1, np.repeat(circle, 2)[:, None])
    levels = 0.8 + 0.4 * np.arange(5) / 5
    g1, first = np.tile(levels, 20), np.repeat(circle, 5)
    pair = variance_by_hand(np.stack([g1, 2 - g1], 1), np.stack([first, (first + math.pi) % (2 * math.pi)], 1))
    expected = np.zeros((6, 4))
    expected[0] = (
        shown,
        shown * 25 / 100,
        pair * 75 / 100,
        0,
    )  # share of the time after fixation that the stimulus is on
    expected[1] = 4 * expected[0]
    expected[2] = expected[0][[0, 1, 3, 2]]
    expected[5, 2] = expected[0, 2]
    np.testing.assert_allclose(v, expected, atol=1e-7)  # float32 states
    np.testing.assert_allclose(v[3:5], 0, atol=1e-15)  # cue and silence do not differ between trials


def test_task_variance_by_period_has_a_column_for_each(tuned):
    result = task_variance(tuned, ["delaygo", "reactgo"], by_period=True)
    assert result.columns == ("delaygo stim1", "delaygo delay1", "delaygo go1", "reactgo go1")
    assert (result.of("delaygo stim1")[0, :3] > 0.01).all()
    np.testing.assert_allclose(result.of("delaygo delay1"), 0, atol=1e-15)  # no memory
    assert result.to_xarray().dims == ("network", "unit", "rule")


def test_fractional_variance_tells_which_rule_a_unit_serves(tuned):
    result = task_variance(tuned, ["dm1", "dm2"])
    (fractions,) = fractional_variance(result, "dm1", "dm2")
    assert fractions.tolist() == [1, 1, -1, 1]  # units 0, 1, 2, 5; the others are not active
    (reversed_,) = fractional_variance(result, "dm2", "dm1")
    assert (reversed_ == -fractions).all()
    (same,) = fractional_variance(task_variance(tuned, ["fdgo", "fdanti"]), "fdgo", "fdanti")
    np.testing.assert_allclose(same, 0, atol=1e-6)  # float32 states


# ---- clusters --------------------------------------------------------------------------------------------------------


def made_up(profiles: np.ndarray, columns=("a", "b", "c")) -> TaskVariance:
    return TaskVariance(profiles[None].astype(float), columns)


def test_units_of_known_tuning_fall_into_the_clusters_they_were_made_for():
    network = silent(NetworkParameters(n_rnn=40, activation="relu", dt=20.0, tau=20.0, sigma_rec=0.0))
    w_in = network.weights["w_in"][0]
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(3, (40,), generator=generator)  # ring 1, ring 2, silent
    gains = 0.5 + torch.rand(40, generator=generator)
    for unit in range(40):
        if kinds[unit] < 2:
            w_in[1 + 32 * kinds[unit] + unit % 32, unit] = gains[unit]
    clusters = cluster_units(task_variance(network, ["dm2", "fdgo", "dm1"]))
    assert clusters.n_clusters == 2
    assert sorted(clusters.units.tolist()) == (kinds < 2).nonzero().flatten().tolist()
    # clusters are in the order of the rule in which they vary most: ring 2 has dm2 (column 0), ring 1 dm1 (column 2)
    assert kinds[clusters.units].tolist() == [1 - label for label in clusters.labels]
    assert clusters.by_rule().argmax(1).tolist() == [0, 2]
    assert clusters.by_rule()[0, 2] == clusters.by_rule()[1, 0] == 0


@pytest.mark.parametrize("n_groups", [2, 3, 5])
def test_silhouette_finds_the_number_of_groups(n_groups):
    generator = np.random.default_rng(0)
    centres = np.eye(n_groups) * 0.9 + 0.05
    profiles = np.repeat(centres, 6, 0) + 0.02 * generator.random((6 * n_groups, n_groups))
    clusters = cluster_units(made_up(generator.permutation(profiles), tuple("abcde"[:n_groups])))
    assert clusters.n_clusters == n_groups
    assert np.bincount(clusters.labels).tolist() == [6] * n_groups
    assert clusters.by_rule().argmax(1).tolist() == list(range(n_groups))  # sorted by preferred rule
    assert max(clusters.silhouettes, key=clusters.silhouettes.get) == n_groups
    np.testing.assert_allclose(clusters.profiles.max(1), 1)


def test_clusters_do_not_depend_on_the_order_or_the_gain_of_units():
    generator = np.random.default_rng(1)
    profiles = np.repeat(np.eye(3), 8, 0) + 0.05 * generator.random((24, 3))
    order = generator.permutation(24)
    gains = generator.uniform(1, 5, (24, 1))
    one, other = cluster_units(made_up(profiles)), cluster_units(made_up((gains * profiles)[order]))
    groups = [{frozenset(c.units[c.labels == k].tolist()) for k in range(3)} for c in (one, other)]
    assert groups[0] == {frozenset(order[list(units)].tolist()) for units in groups[1]}
    np.testing.assert_allclose(one.by_rule(), other.by_rule())


def test_inactive_units_are_left_out():
    profiles = np.array([[1, 0], [0.9, 0], [0, 1], [0, 0.8], [4e-4, 5e-4], [6e-4, 5e-4]])
    clusters = cluster_units(made_up(profiles, ("a", "b")), n_clusters=2)
    assert sorted(clusters.units.tolist()) == [0, 1, 2, 3, 5]


def test_too_few_units_to_cluster_are_refused():
    for profiles in (np.eye(2), np.zeros((5, 2)), np.ones((5, 2))):
        with pytest.raises(MultitaskError, match="clustering requires at least three active units"):
            cluster_units(made_up(profiles, ("a", "b")))
    with pytest.raises(MultitaskError, match=r"n_clusters = 9: must be between 2 and 3 for network 0"):
        cluster_units(made_up(np.repeat(np.eye(3), 5, 0)), n_clusters=9)
    with pytest.raises(MultitaskError, match="network = 1 does not exist: the ensemble has 1"):
        cluster_units(made_up(np.eye(3)), 1)


# ---- principal components --------------------------------------------------------------------------------------------


def test_components_of_states_in_a_plane_span_it():
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(2, 7, 2, generator=generator, dtype=torch.float64)).Q  # (network, unit, 2)
    latent = torch.randn(2, 5, 30, 2, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.0])
    hidden = torch.einsum("ebtk,enk->ebtn", latent, plane) + 4.0
    pca = principal_components(hidden, 3)
    projector = pca.axes[..., :2] @ pca.axes[..., :2].mT
    torch.testing.assert_close(projector, plane @ plane.mT)
    torch.testing.assert_close(pca.explained.sum(-1), torch.ones(2, dtype=torch.float64))
    assert pca.explained[:, 2].max() < 1e-12
    back = pca.scores @ pca.axes.mT[:, None] + pca.mean[:, None, None]
    torch.testing.assert_close(back, hidden)
    torch.testing.assert_close(pca.project(hidden), pca.scores)
    flat = pca.scores[..., :2].flatten(1, 2)
    torch.testing.assert_close(flat.var(1, correction=0)[:, 0] >= flat.var(1, correction=0)[:, 1], torch.ones(2).bool())


def test_components_have_one_sign():
    hidden = torch.randn(1, 4, 20, 6, generator=torch.Generator().manual_seed(1))
    pca, turned = principal_components(hidden), principal_components(-hidden)
    largest = pca.axes.gather(1, pca.axes.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    torch.testing.assert_close(pca.axes, turned.axes)


def test_components_of_nothing_are_refused():
    with pytest.raises(MultitaskError, match="n_components = 7: must be between 1 and 6, the number of units"):
        principal_components(torch.randn(1, 2, 3, 6), 7)
    with pytest.raises(MultitaskError, match="hidden states do not vary"):
        principal_components(torch.ones(1, 2, 3, 6))


def test_ring_of_directions_becomes_a_circle_of_two_components():
    network = silent(NetworkParameters(n_rnn=32, activation="relu", dt=20.0, tau=20.0, sigma_rec=0.0))
    angles = preferred_directions()
    network.weights["w_in"][0, RING1] = (1 + torch.cos(angles[:, None] - angles[None])).float()
    network.weights["w_in"][0, RING2] = network.weights["w_in"][0, RING1]
    pca = principal_components(record_activity(network, "fdgo").during("stim1"), 2)
    radius = pca.scores.norm(dim=-1)
    torch.testing.assert_close(radius, radius.mean().expand_as(radius), rtol=1e-5, atol=0)  # float32 states
    assert pca.explained[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)


def test_clusters_name_their_typical_units_and_their_masks():
    profiles = np.array([[1.0, 0.0], [1.0, 0.3], [1.0, 0.5], [0.2, 1.0]])
    clusters = Clusters(np.array([7, 2, 5, 0]), np.array([0, 0, 0, 1]), profiles, ("a", "b"), {})
    assert clusters.typical_units().tolist() == [2, 0]  # 0.3 is nearest to the mean of 0, 0.3 and 0.5
    masks = clusters.masks(9)
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[2, 5, 7], [0]]
    shuffled = [clusters.shuffled(np.random.default_rng(seed)) for seed in range(10)]
    assert all(sorted(other.labels) == [0, 0, 0, 1] for other in shuffled)
    assert len({tuple(other.labels) for other in shuffled}) > 1
    assert clusters.labels.tolist() == [0, 0, 0, 1]


def test_matched_distance_is_zero_only_where_states_hold_the_direction_that_is_matched():
    stimulus = 2 * math.pi * torch.arange(20) / 20
    response = (stimulus + math.pi) % (2 * math.pi)

    def ring(direction):
        return torch.stack([direction.cos(), direction.sin()], -1)[None]

    seen, done = ring(stimulus), ring(response)  # the states of an anti rule that keeps what it saw, or what it will do
    go = ring(stimulus)
    # float32 angles on a unit circle
    np.testing.assert_allclose(matched_distance(go, seen, stimulus, stimulus), 0, atol=1e-6)
    np.testing.assert_allclose(matched_distance(go, done, stimulus, response), 0, atol=1e-6)
    np.testing.assert_allclose(matched_distance(go, done, stimulus, stimulus), 2, atol=1e-6)
    with pytest.raises(MultitaskError, match="no direction occurs in both sets of trials"):
        matched_distance(go, done, stimulus, stimulus + 0.1)
