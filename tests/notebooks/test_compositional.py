"""compositional.ipynb: runs small, reads its results again, and follows config.yaml."""

from tests.notebooks.conftest import printed

SMALL = {
    "compositional": {
        "n_seeds": 2,
        "n_trials": 4,
        "pieces": [40, 30],
        "motifs": {
            "straight": {"system": "line", "dt": 0.01, "parameters": {"spread": [0.3]}},
            "swings": {"system": "lorenz", "dt": 0.01, "parameters": {"rho": [28.0]}},
            "cycle": {"system": "lorenz", "dt": 0.01, "parameters": {"rho": [157.0]}},
        },
        "n_examples": 2,
        "sliding": {"length": 30, "step": 20},
        "sensitivity": {"n_delays": [5], "rank": [3, 5]},
        "n_permutations": 99,
        "dsa": {"n_delays": 5, "rank": 4, "n_starts": 1},
        "horizons": {"values": [0.01, 0.03]},
    }
}


def test_two_pieces_of_three_motifs_run_and_results_are_read_again(run_small, tmp_path):
    said = printed(run_small("compositional", SMALL))
    assert "6 sequences of 2 of 3 motifs" in said
    assert "15 pairs, 2 seeds" in said
    assert "motifs in the same place, operators per piece" in said
    assert "DSA at horizon 0.03 less horizon 0.01" in said
    results = tmp_path / "results"
    stored = {path: path.stat().st_mtime_ns for path in (results / "compositional").glob("*.nc")}
    assert {path.name for path in stored} == {"distances.nc", "horizons.nc", "sensitivity.nc"}
    assert len(list((results / "figures").glob("compositional_*.png"))) == 7

    again = printed(run_small("compositional", SMALL, figures=False))
    assert again == said
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
