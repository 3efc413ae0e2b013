"""Activity_and_Representation.ipynb with two small networks hardly trained: it runs, and states every claim."""

from multitask import load_run
from tests.notebooks.conftest import printed

SMALL = {
    "multitask": {
        "rules": ["delaygo", "delayanti", "contextdm1"],
        "n_networks": 2,
        "network": {"n_rnn": 16},
        "training": {"n_steps": 20, "batch_size": 16, "evaluate_every": 10, "n_test_batches": 1, "test_batch_size": 8},
        "activity": {"network": 1, "n_units": 2, "n_clusters": 3, "pairs": [["delaygo", "contextdm1"]], "n_trials": 4},
        "psychometric": {"rules": ["contextdm1"], "coherences": [-0.4, 0.4], "stim_times": [400], "n_trials": 4},
        "lesions": {"n_trials": 8, "n_controls": 1},
        "slow_points": {"n_starts": 5},
    }
}


def test_activity_notebook_states_its_claims_in_numbers_and_saves_its_figures(run_small, tmp_path):
    said = printed(run_small("Activity_and_Representation", SMALL))
    assert "all steps after 20 steps" in said
    _, *verdicts = [line for line in said.splitlines() if line.endswith((" met", " NOT MET"))]  # the header ends so too
    assert len(verdicts) == 7
    assert "NOT MET" in verdicts[0]  # networks of 20 steps do not perform
    figures = {path.stem for path in (tmp_path / "results" / "figures").glob("activity_*.png")}
    assert len(figures) == 10
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert load_run(folder).network.n_networks == 2
