"""How the groups of the settings relate to the master rule: which one is the reference, and what the others learnt."""

from multitask.groups import learnt, names_of
from workbench.settings import Groups

REFERENCE, BEFORE, FROZEN, FREE = FAMILIES = (
    "reference",
    "never on the master rule",
    "recurrent weights frozen",
    "all weights free",
)


def reference_of(ours: Groups) -> str:
    """Name of the first group that learnt the master rule and nothing else, with all its weights."""
    return next(
        name
        for name, group in ours.groups.items()
        if group.after is None and tuple(group.rules) == (ours.master,) and not group.frozen
    )


def family_of(ours: Groups, group: str) -> str:
    """Family of a group, one of ``FAMILIES``."""
    if group == reference_of(ours):
        return REFERENCE
    if names_of([ours.master])[0] not in learnt(ours.groups, group):
        return BEFORE
    return FROZEN if "recurrent" in ours.groups[group].frozen else FREE


def parts_learnt(ours: Groups, group: str) -> int:
    """Number of parts of the master rule that the networks of a group have learnt at any time."""
    return len(set(learnt(ours.groups, group)) & set(names_of(ours.parts)))
