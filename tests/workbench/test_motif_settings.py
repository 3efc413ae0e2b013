"""config.yaml, simulated systems: what cannot run is refused before anything is computed."""

import pytest

from workbench.settings import ConfigError, load_settings


def refusal(config) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config.path)
    return str(caught.value)


RING = "{system: ring, dt: 0.05, parameters: {}}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("compositional.motifs.line.system", "lime", r"'lime' is none of .*mean 'line'\?"),
        ("compositional.motifs.chaos.parameters", "{roh: [28]}", r"'roh'.*mean 'rho'\?"),
        ("compositional.pieces", "[50, 50, 50, 50, 50, 50]", "6 pieces without repeats need 6 motifs"),
        ("compositional.pieces", "[50, 50, 50, 50, 50]", "hold the same motifs, so no distance can fall"),
        ("compositional.pieces", "[200, 12, 200]", r"piece 2 of 3 has 12 samples, .*at most n_delays = 11 fits"),
        ("compositional.sliding.length", "700", "700 is more than the 600 samples of all pieces"),
        ("compositional.sliding.length", "5", r"a window has 5 samples, .*at most n_delays = 4 fits"),
        (
            "compositional.sensitivity.rank",
            "[3, 5, 80]",
            "80 is more than a window holds, 3 channels x 5 n_delays = 15",
        ),
        ("compositional.n_seeds", "0", "n_seeds: must be greater than or equal to 1, got 0"),
        ("compositional.n_trials", "1", "n_trials: the noise floor is the distance of two halves"),
        ("compositional.motifs.chaos", RING, "different numbers of dimensions cannot be joined"),
        ("compositional.horizons.values", "[0.05, 0.055]", r"horizons: 0.055: horizon = 0.055 is not a whole number"),
        ("compositional.horizons.values", "[0.05, 8.0]", "horizons: 8: a sequence has 600 samples, but 10 copies"),
        ("compositional.horizons.values", "[0.1, 0.05]", r"horizons.values: must rise, got \[0.1, 0.05\]"),
        ("compositional.horizons.values", "[]", "horizons.values: .*at least 1"),
        ("compositional.horizons.dsa", "{metric: cka}", "horizons.dsa.metric: cka compares trials and has no horizon"),
        ("compositional.motifs.chaos.dt", "0.02", r"horizons: pieces of one sequence have unequal dt \(line 0.01, "),
        ("lorenz.horizons.values", "[0.015]", "horizons: 0.015: horizon = 0.015 is not a whole number of samples"),
        ("lorenz.horizons.values", "[20]", "horizons: 20: a trial has 1000 samples"),
        ("lorenz.horizons.dsa", "{}", "horizons: 0.01: dt is 0.005 to 0.01, so n_delays = 10 is another time .*window"),
        ("compositional.dsa.metric", "anglar", r"compositional.dsa.metric: .*mean 'angular'\?"),
        ("dsa_epochs.strengths", "[1.0, 0.5]", r"strengths\[0\]: must be less than 1, got 1.0"),
        ("dsa_epochs.strengths", "[0.5, -0.1]", r"strengths\[1\]: must be greater than or equal to 0"),
        ("dsa_epochs.strengths", "[0.1, 0.5]", r"must fall from epoch to epoch, got \[0.1, 0.5\]"),
        ("dsa_epochs.strengths", "[0.5]", "strengths: .*at least 2"),
        ("dsa_epochs.shares", "[0.0, 0.2, 0.5]", "must rise and end at 1, the end of learning"),
        ("dsa_epochs.models.n_pieces", "[1, 2, 4]", "4 of 4 motifs make fewer than two models"),
        ("dsa_epochs.models.n_pieces", "[1, 2, 2]", r"n_pieces: each number may appear once, got \[1, 2, 2\]"),
        ("dsa_epochs.models.n_recordings", "[4, 2]", "2 numbers for 3 n_pieces; give one for each"),
        ("dsa_epochs.n_times", "15", r"published.n_delays: a piece has 15 samples, .*at most n_delays = 14 fits"),
        ("dsa_epochs.n_trials", "1", "n_trials: the noise floor is the distance of two halves"),
        ("dsa_epochs.growth.ring.end", "{system: lorenz, parameters: {}}", "start is a ring and end is a lorenz"),
        ("dsa_epochs.dsa.rank", "50", "50 is more than a window holds, 2 channels x 20 n_delays = 40"),
        ("dsa_epochs.dsa.horizon", "0.12", r"0.12 is not a whole number of samples of system 'growth.ring', 0.05"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(config, key, value, message):
    config.set(key, value)
    with pytest.raises(ConfigError, match=message):
        load_settings(config.path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compositional.pieces", "[200, 200]"),
        ("compositional.pieces", "[60, 60, 60, 60]"),
        ("compositional.repeats", "true"),
        ("compositional.common_starts", "true"),
        ("compositional.dsa.horizon", "0.05"),
        ("compositional.dsa.horizon", "auto"),
        ("compositional.dsa.window", "0.2"),
        ("dsa_epochs.strengths", "[0.99, 0.2, 0.1, 0.05, 0.0]"),
        ("dsa_epochs.models.n_pieces", "[3, 1, 2]"),
    ],
)
def test_other_experiments_are_read(config, key, value):
    config.set(key, value)
    load_settings(config.path)


def test_of_several_short_pieces_the_shortest_is_named(config):
    config.set("compositional.pieces", "[200, 12, 9]")
    assert "compositional.pieces: piece 3 of 3 has 9 samples" in refusal(config)


def test_horizon_too_long_for_a_piece_is_refused_in_samples(config):
    config.set("compositional.dsa.horizon", "1.95")  # 195 samples of 0.01
    assert "pieces: piece 1 of 3 has 200 samples, but 10 copies every 1 samples and 195 ahead need 205" in refusal(
        config
    )


def test_end_of_a_growth_is_its_start_but_for_what_it_states(config):
    growth = load_settings(config.path).dsa_epochs.growth["spiral"]
    assert (growth.end.system, growth.end.dt) == (growth.start.system, growth.start.dt)
    assert growth.end.parameters != growth.start.parameters
