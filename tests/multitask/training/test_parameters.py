"""Parameters of training: learning rate, difficulty, and invalid values."""

import math

import numpy as np
import pytest

from multitask.network import WEIGHT_GROUPS
from multitask.training import (
    TrainingParameters,
)
from multitask.trials import MultitaskError


def test_learning_rate_rises_over_the_warm_up_and_falls_along_a_cosine():
    p = TrainingParameters(learning_rate=0.2, schedule="cosine", warm_up=0.1)
    rates = [p.rate(step, 100) for step in range(101)]
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(0.2)
    assert rates[55] == pytest.approx(0.2 * (1 + 0.05) / 2)  # half-way between the top and 5 %
    assert rates[100] == pytest.approx(0.2 * 0.05)
    assert all(np.diff(rates[10:]) < 0)
    assert TrainingParameters().rate(0, 10) == TrainingParameters().rate(9, 10) == 1e-3


def test_trials_reach_the_standard_difficulty_at_half_time():
    assert [TrainingParameters(difficulty="easy").easiness(x) for x in (0, 0.5, 1)] == [1, 1, 1]
    assert [TrainingParameters().easiness(x) for x in (0, 1)] == [0, 0]
    falling = [TrainingParameters(difficulty="easy_to_standard").easiness(x) for x in (0, 0.25, 0.5, 1)]
    assert falling == [1, 0.5, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps": 0}, r"training.n_steps = 0: must be a whole number >= 1"),
        ({"batch_size": 0}, r"training.batch_size = 0: must be a whole number >= 1"),
        ({"batch_size": 6.4}, r"training.batch_size = 6.4: must be a whole number >= 1"),
        ({"evaluate_every": 0}, r"training.evaluate_every = 0"),
        ({"learning_rate": 0.0}, r"training.learning_rate = 0.0: must be a finite number > 0"),
        ({"learning_rate": math.inf}, r"training.learning_rate = inf: must be a finite number > 0"),
        ({"learning_rate": "1e-3"}, r"training.learning_rate = '1e-3': must be a finite number > 0"),
        ({"clip_at": -1.0}, r"training.clip_at = -1.0: must be a finite number > 0"),
        ({"sigma_x": -0.01}, r"training.sigma_x = -0.01: must be a finite number >= 0"),
        ({"l2_h": -1.0}, r"training.l2_h = -1.0: must be a finite number >= 0"),
        ({"warm_up": 1.0}, r"training.warm_up = 1.0: must be a fraction of the steps, below 1"),
        ({"schedule": "cosin"}, r"unknown training.schedule 'cosin': did you mean 'cosine'\?"),
        ({"clip": "element"}, r"unknown training.clip 'element': choose from value, norm, none"),
        ({"difficulty": "hard"}, r"unknown training.difficulty 'hard'"),
        ({"loss_type": "mse"}, r"unknown training.loss_type 'mse': choose from lsq, cross_entropy"),
        (
            {"target_performance": 1.01},
            r"training.target_performance = 1.01: must be a fraction of correct trials, at most 1",
        ),
        ({"target_performance": 0.0}, r"training.target_performance = 0.0: must be a finite number > 0"),
        ({"p_weight_train": 1.0}, r"training.p_weight_train = 1.0: must be below 1; None trains all weights"),
        ({"p_weight_train": 0.0}, r"training.p_weight_train = 0.0: must be a finite number > 0"),
        ({"c_intsyn": 1.0}, r"training.ksi_intsyn = 0: must be > 0 with intelligent synapses"),
        ({"frozen": ("reccurent",)}, r"unknown weights in training.frozen 'reccurent': did you mean 'recurrent'\?"),
        ({"frozen": tuple(WEIGHT_GROUPS)}, r"training.frozen names all weights, so there is nothing to train"),
        ({"rule_weights": {"dm1": 0.0}}, r"training.rule_weights\['dm1'\] = 0.0: must be a finite number > 0"),
        ({"checkpoint_steps": "linear"}, r"unknown training.checkpoint_steps 'linear': .*geometric"),
        ({"checkpoint_steps": (-1,)}, r"training.checkpoint_steps = -1: must be a whole number >= 0"),
    ],
)
def test_invalid_parameters_are_refused(changes, message):
    with pytest.raises(MultitaskError, match=message):
        TrainingParameters(**changes)
