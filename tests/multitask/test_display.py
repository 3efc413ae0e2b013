"""Trials, networks, activities and runs show what they are in a few lines, without the numbers of an array."""

import pytest

from multitask import LeakyRNN, NetworkParameters, TrainingParameters, generate_trials, record_activity, train


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, object]:
    network = LeakyRNN(NetworkParameters(n_rnn=8), n_networks=2, seed=0)
    folder = tmp_path_factory.mktemp("<run>")
    brief = TrainingParameters(n_steps=2, batch_size=8, evaluate_every=1, n_test_batches=1, test_batch_size=8)
    run = train(["fdgo"], NetworkParameters(n_rnn=8), brief, run_folder=folder, progress=False)
    return {
        "TrialBatch of the rule delaygo": generate_trials("delaygo", 6, seed=0),
        "LeakyRNN: 2 networks": network,
        "Activity in the rule fdgo": record_activity(network, "fdgo", n_trials=4, mode="random"),
        f"Run in {folder}": run,
    }


def test_results_show_their_size_and_what_to_do_next(results):
    for title, result in results.items():
        text, page = repr(result), result._repr_html_()
        assert text.startswith(title + "\n")
        assert "next" in text
        assert "next" in page
        assert text.count("\n") < 10
        assert "tensor(" not in text
        assert "<run>" not in page


def test_sizes_and_units_are_those_of_the_arrays(results):
    batch, network, activity, run = results.values()
    assert f"{batch.n_times} steps of 20 ms" in repr(batch)
    assert f"fix1 {batch.periods['fix1'][1] * 20} ms" in repr(batch)
    assert "8 (softplus), tau = 100 ms, dt = 20 ms, private noise 0.05" in repr(network)
    n_weights = sum(weights[0].numel() for weights in network.weights.values())
    assert f"{n_weights} a network, float32, on cpu" in repr(network)
    assert f"2 networks x 4 trials x {activity.hidden.shape[2]} steps x 8 units" in repr(activity)
    assert "2 steps; all steps" in repr(run)
