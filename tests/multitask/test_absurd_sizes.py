"""Sizes that no machine has are refused by name, before anything is computed."""

import pytest

from multitask import LeakyRNN, MultitaskError, NetworkParameters, TrainingParameters, train


@pytest.mark.parametrize(
    ("name", "size"), [("batch_size", 10**15), ("n_steps", 10**18), ("n_test_batches", 10**15), ("n_steps", 10**30)]
)
def test_training_names_the_size(tmp_path, name, size):
    with pytest.raises(MultitaskError, match=rf"^training\.{name} = .*: must be at most 1000000000$"):
        train(["fdgo"], NetworkParameters(n_rnn=4), TrainingParameters(**{name: size}), run_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_networks_name_the_size():
    with pytest.raises(MultitaskError, match=r"^network\.n_rnn = 1000000000000: must be at most 30000$"):
        NetworkParameters(n_rnn=10**12)
    with pytest.raises(MultitaskError, match=r"^n_networks = 10000000000000: must be at most 10000$"):
        LeakyRNN(NetworkParameters(n_rnn=4), n_networks=10**13)
