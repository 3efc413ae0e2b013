"""Families of rules, and conditions for tests."""

import torch

from multitask.tasks import (
    TASKS,
    Draws,
)

DTS = (10, 20, 30, 50)
FAMILIES = {
    "fd": ("fdgo", "fdanti"),
    "react": ("reactgo", "reactanti"),
    "delay": ("delaygo", "delayanti"),
    "dm": ("dm1", "dm2"),
    "ctxdm": ("contextdm1", "contextdm2", "multidm"),
    "dlydm": ("delaydm1", "delaydm2"),
    "ctxdlydm": ("contextdelaydm1", "contextdelaydm2", "multidelaydm"),
    "dms": ("dmsgo", "dmsnogo"),
    "dmc": ("dmcgo", "dmcnogo"),
}
FAMILY = {rule: family for family, rules in FAMILIES.items() for rule in rules}
PAIR = {"direction1": [0.5, 1.0, 2.0], "direction2": [3.0, 4.0, 5.0]}
ONE_MODALITY = PAIR | {"strength1": [1.0, 1.2, 0.7], "strength2": [1.1, 0.8, 0.9]}
TWO_MODALITIES = PAIR | {
    "strength1_modality1": [1.0, 1.2, 0.7],
    "strength2_modality1": [1.1, 0.8, 0.9],
    "strength1_modality2": [1.3, 0.9, 1.5],
    "strength2_modality2": [0.8, 1.4, 1.0],
}


def conditions_of(rule: str, n_trials: int, seed: int = 0, easiness: float = 0.0) -> dict[str, torch.Tensor]:
    design = TASKS[rule].design
    return design.describe(design.draw(Draws(torch.Generator().manual_seed(seed), n_trials, easiness)))
