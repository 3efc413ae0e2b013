"""Parameters of training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from multitask.network import WEIGHT_GROUPS
from multitask.trials import LOSSES, MultitaskError, check_number, check_whole, unknown

SCHEDULES = ("constant", "cosine")
CLIPS = ("value", "norm", "none")
DIFFICULTIES = ("standard", "easy", "easy_to_standard")
COSINE_END = 0.05  # fraction of the learning rate at the end of the cosine


@dataclass(frozen=True)
class TrainingParameters:
    """How networks are trained. The defaults are those of Yang et al. (2019).

    Attributes
    ----------
    n_steps : int >= 1
        Maximum number of updates. If groups of rules are learned in sequence, updates per rule of a group.
    batch_size : int >= 1
        Trials per step, all of the same rule.
    learning_rate : float > 0
        Learning rate of Adam.
    schedule : "constant" or "cosine"
        "cosine" lowers the learning rate to 5 % at the last step.
    warm_up : float in [0, 1)
        Fraction of the steps over which the learning rate rises linearly from 0.
    clip : "value", "norm" or "none"
        "value" limits each entry of the gradient to +-``clip_at``, "norm" limits the norm of the gradient of each
        network to ``clip_at``.
    clip_at : float > 0
        Limit of the gradient.
    rule_weights : mapping rule -> weight > 0
        How often a rule is drawn, relative to a weight of 1 for rules that are not named. The 20-task networks of the
        paper use 5 for contextdm1 and contextdm2.
    sigma_x : float >= 0
        Input noise, as ``noise`` in `generate_trials`.
    difficulty : "standard", "easy" or "easy_to_standard"
        "easy" uses larger coherences in the decision tasks. "easy_to_standard" starts with these and decreases them to
        the standard coherences over the first half of the steps. Evaluations use the difficulty of the last step.
    loss_type : "lsq" or "cross_entropy"
        Loss, see `task_loss`.
    l1_h, l2_h : float >= 0
        Cost of activity, l1_h mean|h| + l2_h / 2 sum h^2.
    l1_weight, l2_weight, l2_weight_init : float >= 0
        Cost of weights, the sum over weight matrices of l1_weight mean|w| + l2_weight / 2 sum w^2 + l2_weight_init / 2
        sum (w - w_start)^2.
    p_weight_train : float in (0, 1), or None
        Fraction of the weights that are trained freely. Each of the others has a cost of (0.1 (w - w_start))^2 / 2.
        None trains all weights freely.
    frozen : tuple of "input", "rule_input", "recurrent", "output"
        Weights that are not trained.
    c_intsyn, ksi_intsyn : float >= 0
        Strength and damping of intelligent synapses, for groups of rules. The damping must be above 0 if the strength
        is.
    evaluate_every : int >= 1
        Steps between evaluations. There are also evaluations before the first and after the last step.
    n_test_batches, test_batch_size : int >= 1
        Number of batches for each rule in an evaluation, and trials per batch. Event times differ between batches.
    target_performance : float in (0, 1]
        Training stops when the worst rule of every network has a higher performance. If groups of rules are learned in
        sequence, the mean over the rules of the present group counts. With 1, training never stops early.
    checkpoint_steps : "geometric" or tuple of int >= 0
        Steps whose checkpoints are kept, in addition to the first, the last two and those at the ends of groups.
        "geometric" keeps 1, 2, 4, 8, ...

    Raises
    ------
    MultitaskError
        If a value is out of its range or a name is unknown.
    """

    n_steps: int = 156_251
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warm_up: float = 0.0
    clip: str = "value"
    clip_at: float = 1.0
    rule_weights: Mapping[str, float] = field(default_factory=dict)
    sigma_x: float = 0.01
    difficulty: str = "standard"
    loss_type: str = "lsq"
    l1_h: float = 0.0
    l2_h: float = 0.0
    l1_weight: float = 0.0
    l2_weight: float = 0.0
    l2_weight_init: float = 0.0
    p_weight_train: float | None = None
    frozen: tuple[str, ...] = ()
    c_intsyn: float = 0.0
    ksi_intsyn: float = 0.0
    evaluate_every: int = 500
    n_test_batches: int = 16
    test_batch_size: int = 32
    target_performance: float = 1.0
    checkpoint_steps: str | tuple[int, ...] = "geometric"

    def __post_init__(self) -> None:
        choices = {"schedule": SCHEDULES, "clip": CLIPS, "difficulty": DIFFICULTIES, "loss_type": LOSSES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown(f"training.{name}", getattr(self, name), known)
        for group in self.frozen:
            if group not in WEIGHT_GROUPS:
                raise unknown("weights in training.frozen", group, WEIGHT_GROUPS)
        if set(self.frozen) == set(WEIGHT_GROUPS):
            raise MultitaskError(
                "training.frozen names all weights, so there is nothing to train: remove at least one of them"
            )
        for name in ("n_steps", "batch_size", "evaluate_every", "n_test_batches", "test_batch_size"):
            check_whole(f"training.{name}", getattr(self, name), 1)
        for name in ("learning_rate", "clip_at"):
            check_number(f"training.{name}", getattr(self, name), above=0)
        costs = ("l1_h", "l2_h", "l1_weight", "l2_weight", "l2_weight_init", "c_intsyn", "ksi_intsyn")
        for name in ("sigma_x", "warm_up", *costs):
            check_number(f"training.{name}", getattr(self, name), least=0)
        if self.warm_up >= 1:
            raise MultitaskError(f"training.warm_up = {self.warm_up!r}: must be a fraction of the steps, below 1")
        check_number("training.target_performance", self.target_performance, above=0)
        if self.target_performance > 1:
            raise MultitaskError(
                f"training.target_performance = {self.target_performance!r}: must be a fraction of correct "
                f"trials, at most 1 (with 1, training never stops early)"
            )
        if self.p_weight_train is not None:
            check_number("training.p_weight_train", self.p_weight_train, above=0)
            if self.p_weight_train >= 1:
                raise MultitaskError(
                    f"training.p_weight_train = {self.p_weight_train!r}: must be below 1; None trains all weights"
                )
        if self.c_intsyn > 0 and self.ksi_intsyn == 0:
            raise MultitaskError(
                "training.ksi_intsyn = 0: must be > 0 with intelligent synapses (c_intsyn > 0); the paper uses 0.01"
            )
        for rule, weight in self.rule_weights.items():
            check_number(f"training.rule_weights[{rule!r}]", weight, above=0)
        if isinstance(self.checkpoint_steps, str):
            if self.checkpoint_steps != "geometric":
                raise unknown("training.checkpoint_steps", self.checkpoint_steps, ["geometric"])
        else:
            for step in self.checkpoint_steps:
                check_whole("training.checkpoint_steps", step, 0)

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step.

        Parameters
        ----------
        step : int in [0, n_steps)
        n_steps : int >= 1
            Total number of steps.

        Returns
        -------
        float
        """
        warm = self.warm_up * n_steps
        rise = min(1.0, (step + 1) / warm) if warm else 1.0
        if self.schedule == "constant":
            return self.learning_rate * rise
        fall = 0.5 + 0.5 * math.cos(math.pi * max(0.0, (step - warm) / (n_steps - warm)))
        return self.learning_rate * rise * (COSINE_END + (1 - COSINE_END) * fall)

    def easiness(self, progress: float) -> float:
        """Difficulty of the trials at some point of training.

        Parameters
        ----------
        progress : float in [0, 1]
            Fraction of the steps that are completed.

        Returns
        -------
        float
            1 for easy trials, 0 for the standard difficulty, or a value in between.
        """
        return {"standard": 0.0, "easy": 1.0, "easy_to_standard": max(0.0, 1 - 2 * progress)}[self.difficulty]

    def kept(self, n_steps: int) -> set[int]:
        """Steps whose checkpoints are kept, for a run of ``n_steps`` steps."""
        if isinstance(self.checkpoint_steps, str):
            return {0, n_steps, *(2**k for k in range(n_steps.bit_length()))}
        return {0, n_steps, *self.checkpoint_steps}
