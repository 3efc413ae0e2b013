"""config.yaml, section geometry_or_dynamics: what cannot run is refused before anything is computed."""

import pytest

from workbench.settings import ConfigError, load_settings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seeds", "[10]", "seeds: .*at least 2"),
        ("seeds", "[10, 10]", r"seeds: each may appear once, got \[10, 10\]"),
        ("choice_seed", "10", "choice_seed: 10 is one of the seeds that are reported; choose settings on another"),
        ("memories.recordings.tau", "[2.0, 1.0]", r"tau = \(2.0, 1.0\) is not a range"),
        ("memories.recordings.readouts.tanh.activation", "than", "'than' is none of .*did you mean 'tanh'"),
        ("memories.recordings.n_trails", "3", "unknown key"),
        ("memories.dsa.horizon", "2.05", "2.05 is not a whole number of samples"),
        ("memories.dsa.horizon", "30.0", "a trial has 250 samples"),
        ("attractors.dsa.rank", "30", "30 is more than a window holds, 20 channels x 1 n_delays = 20"),
        ("attractors.recordings.kinds", "[ring, torus]", "one of kinds = 'torus' is none of"),
        ("conditions.recordings.n_trials", "1", "residuals need at least 2 trials of each condition, got 1"),
        ("conditions.levels", "{mean: {}}", "must be .*means"),
        ("conditions.levels.eigenvalues.rank", "3", "3 is more than a window holds, 2 channels x 1 n_delays = 2"),
        ("ring.missing", "[0, 5, 3]", r"missing: must rise from 0, the closed ring, got \[0, 5, 3\]"),
        ("ring.network.n_trials", "1", "the noise floor is the distance of two halves of the trials, got 1; take 2"),
        ("ring.network.dt", "7.0", "dt = 7.0 ms is no multiple of step"),
        ("ring.dsa.horizon", "105.0", "105 is not a whole number of samples"),
        ("rhos.n_times", "79", "a trial has 79 samples"),
        ("claims.conditions_static", "[0.4]", "conditions_static"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(config, key, value, message):
    config.set(f"geometry_or_dynamics.{key}", value)
    with pytest.raises(ConfigError, match=message):
        load_settings(config.path)


def test_sections_are_the_parameters_of_the_simulators(config):
    study = load_settings(config.path).geometry_or_dynamics
    assert study.memories.recordings.memories["two bits"] == ("bistable", "bistable", "leaky")
    assert study.memories.recordings.readouts["sinh"].gain == 1.5
    assert study.ring.network.drive_time is None
    assert study.conditions.levels["means"] == study.conditions.dsa
    assert study.conditions.levels["eigenvalues"].n_delays == 1
