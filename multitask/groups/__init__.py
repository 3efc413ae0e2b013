"""Training of groups of networks with different learning histories.

A group is defined by the last training of its networks: the rules that they learn, the group whose trained networks
they start from, and the weights that are frozen.

    groups = {
        "untrained": Group(),
        "delay": Group(("delaydm1",)),
        "master after delay": Group(("contextdelaydm1",), after="delay", frozen=("recurrent",)),
    }
    trained = train_groups(groups, network, training, folder="results/runs", n_networks=4)
    trained.network("master after delay")  # four networks, as an ensemble

A group that is not `after` another one starts from random networks, which depend on the seed and on the name of the
group. Two groups with the same rules therefore have different networks. A group after an untrained group starts from
the random networks of that group.

Training several networks at once is faster. Groups with the same rules, the same frozen weights and the same number of
preceding trained groups are therefore trained as one *ensemble* in one run folder. They see the same trials and are
otherwise independent. Ensembles whose initial networks are available form a *wave*. The ensembles of a wave can be
trained in parallel with `joblib.parallel_config`.

The name of a run folder depends on everything that determines its networks: rules, parameters, seed, and the groups
with their histories. If you add or remove a group, the ensemble that it belongs to and all ensembles after that are
trained again; all others are kept. In an ensemble that is trained again, networks that come before the group in the
ensemble are the same as before (on a CPU), and networks that come after it have different private noise.
"""

from multitask.groups.histories import (
    Ensemble,
    Group,
    conflicts,
    history,
    identities_of,
    in_waves,
    learnt,
    misfit,
    names_of,
)
from multitask.groups.runs import TrainedGroups, train_groups

__all__ = [
    "Ensemble",
    "Group",
    "TrainedGroups",
    "conflicts",
    "history",
    "identities_of",
    "in_waves",
    "learnt",
    "misfit",
    "names_of",
    "train_groups",
]
