"""Recurrent networks trained on the twenty cognitive tasks of Yang et al. (2019), and the activity of their units.

`generate_trials` draws trials of a task, `train` trains an ensemble of leaky networks, and `record_activity` returns
their hidden states by rule, condition and period. The package does not depend on `dsa_analysis` or on the config file.
"""

from multitask.activity import (
    Activity,
    Clusters,
    PrincipalComponents,
    TaskVariance,
    cluster_units,
    fractional_variance,
    matched_distance,
    principal_components,
    record_activity,
    task_variance,
)
from multitask.evaluation import (
    Performance,
    PsychometricCurve,
    evaluate,
    psychometric_curve,
)
from multitask.fixed_points import FixedPoints, find_fixed_points, perturbed
from multitask.groups import Group, TrainedGroups, train_groups
from multitask.lesions import Lesions, lesion_clusters
from multitask.network import CELLS, Cell, CellNetwork, LeakyGRU, LeakyRNN, NetworkParameters, make_network
from multitask.recording import record
from multitask.scoring import decode_direction, score_trials
from multitask.tasks import RULES, RULESETS, TASKS, generate_trials, one_of_each_family
from multitask.tasks.base import Task
from multitask.tasks.classic import (
    ContextIntegration,
    DelayedDiscrimination,
    FlipFlop,
    PathIntegration,
    SineWave,
)
from multitask.tasks.neurogym import from_neurogym
from multitask.training import Run, TrainingParameters, Verification, load_run, train, verify_run
from multitask.trials import MultitaskError, TrialBatch

__all__ = [
    "CELLS",
    "RULES",
    "RULESETS",
    "TASKS",
    "Activity",
    "Cell",
    "CellNetwork",
    "Clusters",
    "ContextIntegration",
    "DelayedDiscrimination",
    "FixedPoints",
    "FlipFlop",
    "Group",
    "LeakyGRU",
    "LeakyRNN",
    "Lesions",
    "MultitaskError",
    "NetworkParameters",
    "PathIntegration",
    "Performance",
    "PrincipalComponents",
    "PsychometricCurve",
    "Run",
    "SineWave",
    "Task",
    "TaskVariance",
    "TrainedGroups",
    "TrainingParameters",
    "TrialBatch",
    "Verification",
    "cluster_units",
    "decode_direction",
    "evaluate",
    "find_fixed_points",
    "fractional_variance",
    "from_neurogym",
    "generate_trials",
    "lesion_clusters",
    "load_run",
    "make_network",
    "matched_distance",
    "one_of_each_family",
    "perturbed",
    "principal_components",
    "psychometric_curve",
    "record",
    "record_activity",
    "score_trials",
    "task_variance",
    "train",
    "train_groups",
    "verify_run",
]
