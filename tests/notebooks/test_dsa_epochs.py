"""dsa_epochs.ipynb: runs small, reads its results again, and follows config.yaml."""

from tests.notebooks.conftest import printed

STILL = {"system": "lorenz", "dt": 0.01, "parameters": {"rho": [0.5]}}
SMALL = {
    "dsa_epochs": {
        "n_seeds": 2,
        "n_trials": 4,
        "n_times": 40,
        "motifs": {
            "fixed_point": STILL,
            "swings": {"system": "lorenz", "dt": 0.01, "parameters": {"rho": [28.0]}},
            "cycle": {"system": "lorenz", "dt": 0.01, "parameters": {"rho": [157.0]}},
        },
        "models": {"n_pieces": [1, 2], "n_recordings": [2, 2]},
        "strengths": [0.5, 0.0],
        "dsa": {"n_delays": 6, "rank": 4, "n_starts": 1},
        "estimators": {"near": {}, "weighted": {"steps_ahead": 3, "estimator": "signal_weighted"}},
        "growth": {"spiral": {"start": STILL, "end": {"parameters": {"rho": [10.0]}}, "one_regime": False}},
        "shares": [0.0, 0.5, 1.0],
    }
}


def test_two_epochs_under_two_estimators_run_and_results_are_read_again(run_small, tmp_path):
    said = printed(run_small("dsa_epochs", SMALL))
    assert "3 models of 1 motif, 2 recordings each, 2 seeds, 2 epochs" in said
    assert "AUROC, weighted, s = 0.5" in said
    assert "gain under noise, weighted, less near" in said
    assert "spiral (bifurcation): Spearman" in said
    results = tmp_path / "results"
    stored = {path: path.stat().st_mtime_ns for path in (results / "dsa_epochs").glob("*.nc")}
    assert {path.name for path in stored} == {"epochs.nc", "growth.nc"}
    assert len(list((results / "figures").glob("epochs_*.png"))) == 6

    again = printed(run_small("dsa_epochs", SMALL, figures=False))
    assert again == said
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
