"""geometry_or_dynamics.ipynb with few, small systems: it runs, states every claim, and saves its figures."""

from tests.notebooks.conftest import printed

SMALL = {
    "geometry_or_dynamics": {
        "seeds": [1, 2],
        "memories": {
            "recordings": {
                "readouts": {
                    "few": {"activation": "tanh", "n_neurons": 6, "gain": 1.0},
                    "more": {"activation": "relu", "n_neurons": 8, "gain": 1.0},
                },
                "n_trials": 6,
                "n_times": 60,
            },
        },
        "conditions": {"recordings": {"n_draws": 2, "n_trials": 12, "n_times": 30}},
        "attractors": {
            "recordings": {"n_draws": 2, "n_trials": 6, "n_times": 60, "n_substeps": 2, "n_neurons": [8, 12]},
        },
        "ring": {
            "network": {"n_trials": 4, "n_times": 60, "settle": 100.0},
            "betas": [0.6, 3.6],
            "missing": [0, 5, 20],
            "n_splits": 1,
        },
        "rhos": {
            "n_recordings": 2,
            "n_times": 300,
            "regimes": {
                "slow": {"dt": 0.01, "parameters": [[10.0, 20.0, 2.6667]]},
                "fast": {"dt": 0.01, "parameters": [[10.0, 75.0, 2.6667]]},
            },
            "dsa": {"n_delays": 10, "rank": 4},
        },
    }
}


def test_geometry_notebook_states_its_claims_in_numbers_and_saves_its_figures(run_small, tmp_path):
    said = printed(run_small("geometry_or_dynamics", SMALL))
    assert "seeds reported: 1, 2; horizons chosen on seed 0" in said
    assert "6 pairs with bounds" in said
    verdicts = [line.split() for line in said.splitlines() if line.endswith((" met", " undecided"))]
    assert len(verdicts) == 13
    assert verdicts[-1][-3:] == ["true", "true", "met"]  # no lower bound above its distance, however small the data
    figures = {path.stem for path in (tmp_path / "results" / "figures").glob("controls_*.png")}
    assert len(figures) == 10
