"""Groups of trained networks, compared by their activity on one rule: does similarity of dynamics follow learning?

    study = GroupStudy(settings).complete()  # trains and compares, or reads what is stored
    study.to_reference                       # how far each network is from those that learnt the composed rule
    study.scores                             # what these distances correlate with, by measure
    verdicts([study, ...])                   # the claims of the settings, over seeds: met, not met or undecided

The *master rule* is the composed rule that all networks are tested on. The networks that learnt it from scratch and
nothing else are the *reference*. The *truth*, which no measure sees, are the Jacobians of the networks at their fixed
points.

`families` says how groups relate to the master rule, `measures` what is compared, `tables` what is tabulated over
groups, `truth` what Jacobians say, `verdicts` which claims hold, with several seeds pooled. `study` puts these together
and `storage` keeps the tables on disk. `report` writes a page.
"""

from workbench.networks.families import BEFORE, FAMILIES, FREE, FROZEN, REFERENCE
from workbench.networks.study import GroupStudy
from workbench.networks.tables import between_groups, difference, groups_of, of_runs
from workbench.networks.verdicts import pooled_scores, studies_of, verdicts

__all__ = [
    "BEFORE",
    "FAMILIES",
    "FREE",
    "FROZEN",
    "REFERENCE",
    "GroupStudy",
    "between_groups",
    "difference",
    "groups_of",
    "of_runs",
    "pooled_scores",
    "studies_of",
    "verdicts",
]
