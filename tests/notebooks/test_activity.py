"""Activity_and_Representation.ipynb with small networks hardly trained: it runs, and states every claim."""

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
    },
    "engine": {"kind": "serial"},
    "groups": {
        "n_networks": 2,
        "n_test_trials": 16,
        "network": {"n_rnn": 16},
        "training": {
            "n_steps": 20,
            "batch_size": 8,
            "evaluate_every": 10,
            "n_test_batches": 1,
            "test_batch_size": 8,
            "checkpoint_steps": [5, 10],
        },
        "groups": {
            "untrained": {"rules": []},
            "master": {},
            "delay": {"rules": ["delaydm1"]},
            "both": {"rules": ["dm1", "contextdm1"]},
            "delay_frozen": {"after": "delay", "frozen": ["recurrent"]},
            "both_frozen": {"after": "both", "frozen": ["recurrent"]},
        },
        "comparison": {
            "n_batches": 2,
            "n_trials": 6,
            "measure": {"dsa": {"n_delays": 2, "rank": 3, "n_starts": 2}},
            "measures": {"DSA": {}, "unmatched": {"trials": "unmatched"}, "CKA": {"dsa": {"metric": "cka"}}},
            "shown": ["DSA", "CKA"],
            "also_judged": [],
            "learning": ["both_frozen"],
            "n_splits": 1,
            "n_permutations": 99,
            "jacobians": {"groups": ["delay"], "n_starts": 4, "max_steps": 30, "n_trials": 32, "rank": 2, "n_modes": 1},
        },
    },
}


def test_activity_notebook_states_its_claims_in_numbers_and_saves_its_figures(run_small, tmp_path):
    said = printed(run_small("Activity_and_Representation", SMALL))
    assert "all steps after 20 steps" in said
    verdicts = [line for line in said.splitlines() if line.endswith((" met", " undecided"))]
    of_groups = [line for line in verdicts if "DSA" in line or "CKA" in line]
    assert len(of_groups) == 10
    assert len(verdicts) - len(of_groups) == 7  # on networks of many rules; there are no fixed points to judge
    assert not verdicts[0].endswith("  met")  # networks of 20 steps do not perform
    figures = tmp_path / "results" / "figures"
    assert len(list(figures.glob("activity_*.png"))) == 10
    assert len(list(figures.glob("groups_*.png"))) == 7
    (folder,) = (tmp_path / "results" / "runs").glob("3_rules*")
    assert load_run(folder).network.n_networks == 2
    assert len(list((tmp_path / "results" / "groups").iterdir())) == 10
