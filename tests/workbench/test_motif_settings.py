"""config.yaml, sections compositional and dsa_epochs: what cannot run is refused before anything is computed."""

import pytest

from workbench.settings import ConfigError, load_settings


def refusal(config) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config.path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "line", "message"),
    [
        ("compositional.line", "lime: {system: lime, dt: 0.01, parameters: {}}", r"'lime' is none of .*mean 'line'\?"),
        ("compositional.chaos", "chaos: {system: lorenz, dt: 0.01, parameters: {roh: [28]}}", r"'roh'.*mean 'rho'\?"),
        ("compositional.pieces", "pieces: [50, 50, 50, 50, 50, 50]", "6 pieces need as many motifs where repeats are"),
        ("compositional.pieces", "pieces: [50, 50, 50, 50, 50]", "hold the same motifs, so no distance can fall"),
        (
            "compositional.pieces",
            "pieces: [200, 12, 200]",
            r"piece 2 of 3 has 12 samples, .*at most n_delays = 11 fits",
        ),
        ("compositional.length", "length: 700", "700 is more than the 600 samples of all pieces"),
        ("compositional.length", "length: 5", r"a window has 5 samples, .*at most n_delays = 4 fits"),
        ("compositional.rank", "rank: [3, 5, 80]", "80 is more than a window holds, 3 channels x 5 n_delays = 15"),
        ("compositional.n_seeds", "n_seeds: 0", "n_seeds: must be greater than or equal to 1, got 0"),
        ("compositional.n_trials", "n_trials: 1", "n_trials: the noise floor is the distance of two halves"),
        (
            "compositional.chaos",
            "chaos: {system: ring, dt: 0.05, parameters: {}}",
            "unequal dimensions cannot be joined",
        ),
        ("dsa_epochs.strengths", "strengths: [1.0, 0.5]", r"strengths\[0\]: must be less than 1, got 1.0"),
        ("dsa_epochs.strengths", "strengths: [0.5, -0.1]", r"strengths\[1\]: must be greater than or equal to 0"),
        ("dsa_epochs.strengths", "strengths: [0.1, 0.5]", r"must fall from epoch to epoch, got \[0.1, 0.5\]"),
        ("dsa_epochs.strengths", "strengths: [0.5]", "strengths: .*at least 2"),
        ("dsa_epochs.shares", "shares: [0.0, 0.2, 0.5]", "must rise and end at 1, the end of learning"),
        ("dsa_epochs.n_pieces", "n_pieces: [1, 2, 4]", "4 of 4 motifs make fewer than two models"),
        ("dsa_epochs.n_recordings", "n_recordings: [4, 2]", "2 numbers for 3 n_pieces; give one for each"),
        (
            "dsa_epochs.n_times",
            "n_times: 15",
            r"published.n_delays: a piece has 15 samples, .*at most n_delays = 14 fits",
        ),
        ("dsa_epochs.n_trials", "n_trials: 1", "n_trials: the noise floor is the distance of two halves"),
        ("dsa_epochs.end", "end: {system: lorenz, dt: 0.05, parameters: {}}", "a ring does not grow into a lorenz"),
        ("dsa_epochs.rank", "rank: 50", "50 is more than a window holds, 2 channels x 20 n_delays = 40"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(config, key, line, message):
    config.replace(key, line)
    with pytest.raises(ConfigError, match=message):
        load_settings(config.path)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("compositional.pieces", "pieces: [200, 200]"),
        ("compositional.pieces", "pieces: [60, 60, 60, 60]"),
        ("compositional.repeats", "repeats: true"),
        ("compositional.common_starts", "common_starts: true"),
        ("dsa_epochs.strengths", "strengths: [0.99, 0.2, 0.1, 0.05, 0.0]"),
        ("dsa_epochs.n_pieces", "n_pieces: [3, 1, 2]"),
    ],
)
def test_other_experiments_are_read(config, key, line):
    config.replace(key, line)
    load_settings(config.path)


def test_of_several_short_pieces_the_shortest_is_named(config):
    config.replace("compositional.pieces", "pieces: [200, 12, 9]")
    assert "compositional.pieces: piece 3 of 3 has 9 samples" in refusal(config)
