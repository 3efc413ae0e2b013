"""lorenz_sanity_check.ipynb with few, short recordings: it runs, states every claim, and leaves its results."""

from dsa_analysis import Similarity
from tests.notebooks.conftest import printed

SMALL = {
    "lorenz": {
        "n_seeds": 2,
        "n_recordings": 3,
        "n_trials": 6,
        "n_times": 150,
        "dsa": {"n_starts": 4},
        "horizons": {"values": [0.05, 0.2]},
        "noise": {"n_recordings": 2, "strengths": [0.3]},
    }
}


def test_lorenz_notebook_states_its_claims_in_numbers_and_saves_its_figures(run_small, tmp_path):
    said = printed(run_small("lorenz_sanity_check", SMALL))
    assert "12 recordings, 2 seeds" in said
    assert "h = 0.05  h = 0.2" in said  # samples ahead at each horizon
    assert "limit_cycle           20        10       40" in said  # sampled at half the interval: twice the counts
    verdicts = [line for line in said.splitlines() if line.endswith((" met", " undecided"))]
    assert len(verdicts) == 9
    assert verdicts[-1].split()[-3:] == ["true", "true", "met"]  # no lower bound above its distance
    figures = {path.stem for path in (tmp_path / "results" / "figures").glob("lorenz_*.png")}
    assert len(figures) == 10
    assert len(Similarity.load(tmp_path / "results" / "lorenz" / "similarity.nc").labels) == 12
