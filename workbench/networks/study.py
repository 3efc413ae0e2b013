"""A study of groups of trained networks with one seed: everything that is computed about them, stored on disk."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from dsa_analysis import Similarity
from multitask import LeakyRNN, TrainedGroups, train_groups
from workbench.engine import engine
from workbench.networks import families, measures, tables, truth
from workbench.networks.measures import Pieces, Recorder, Systems
from workbench.networks.storage import Concerns, Shelf
from workbench.settings import Measure, Settings

if TYPE_CHECKING:
    import pandas as pd


class GroupStudy:
    """Runs the group comparison described in the settings for one seed.

    Tables are stored under results/groups. They are read again while the settings they depend on, the networks and the
    code of the method are unchanged.

    Parameters
    ----------
    settings : Settings
    seed : int, optional
        Replaces the seed of the settings.
    progress : bool
        Show progress bars on stderr.

    Attributes
    ----------
    ours, how
        The sections ``groups`` and ``groups.comparison`` of the settings.
    measures : dict of name -> Measure
        Those of the settings, with the seed and the sampling interval of the networks (ms).
    concerns : Concerns
        Warnings raised so far, and how often.
    recorder : Recorder
        Records what measures see of networks.
    """

    def __init__(self, settings: Settings, seed: int | None = None, progress: bool = True) -> None:
        self.settings, self.progress = settings, progress
        self.seed = settings.seed if seed is None else seed
        self.ours, self.how = settings.groups, settings.groups.comparison
        self.measures = {  # with the seed and the sampling interval (ms), which the settings leave to this study
            name: replace(measure, dsa=measure.dsa.override(seed=self.seed, dt=self.ours.network.dt))
            for name, measure in self.how.measures.items()
        }
        self.concerns = Concerns()
        self.recorder = Recorder(self.ours.master, self.how, self.ours.training.sigma_x, self.seed)
        self._shelf = Shelf(settings.results / "groups", self.seed, self._depends_on, self.concerns)

    def complete(self) -> "GroupStudy":
        """Train the networks and compute all tables, on the engine of the settings. What is stored is read."""
        with engine(self.settings.engine):
            for name in self.how.judged:
                self.among(name)
            for name in filter(self.has_floor, self.how.shown):
                self.floors(name)
            _ = self.scores, self.over_learning, self.within_runs, self.group_tests
            _ = self.jacobian_modes, self.jacobian_pairs
        return self

    # ---- networks ----

    @cached_property
    def trained(self) -> TrainedGroups:
        """All groups. They are trained now if no run is stored."""
        return train_groups(
            self.ours.groups,
            self.ours.network,
            self.ours.training,
            folder=self.settings.results / "runs",
            n_networks=self.ours.n_networks,
            seed=self.seed,
            device=self.settings.device,
            progress=self.progress,
        )

    @cached_property
    def reference(self) -> str:
        """Name of the first group that learnt the master rule and nothing else, with all its weights."""
        return families.reference_of(self.ours)

    def family(self, group: str) -> str:
        """Family of a group, one of ``FAMILIES``."""
        return families.family_of(self.ours, group)

    def parts_learnt(self, group: str) -> int:
        """Number of parts of the master rule that the networks of a group have learnt at any time."""
        return families.parts_learnt(self.ours, group)

    def stages(self, group: str) -> dict[int, LeakyRNN]:
        """The networks of a group at each checkpoint of their last training, by step."""
        return {step: self.trained.network(group, step) for step in self.trained.steps(group)}

    @property
    def shown(self) -> dict[str, Measure]:
        """The measures of the figures; the first is that of the method."""
        return {name: self.measures[name] for name in self.how.shown}

    def unit(self, name: str) -> str:
        """Unit of the distances of a measure."""
        return str(self.measures[name].dsa.metric.unit)

    # ---- distances ----

    def systems(self, measure: Measure, stages: Mapping[Any, LeakyRNN] | None = None) -> Systems:
        """What a measure sees of the networks of some ensembles, by default of all groups; see `Recorder.systems`."""
        if stages is None:
            stages = {group: self.trained.network(group) for group in self.ours.groups}
        return self.recorder.systems(measure, stages)

    def distances(self, measure: Measure, systems: Mapping[str, Pieces]) -> Similarity:
        """Distances of systems among themselves by one measure, averaged over pieces."""
        return measures.distances_between(measure, systems, device=self.settings.device)

    def distances_to_reference(self, measure: Measure, systems: Systems) -> np.ndarray:
        """Mean distance of each system to the networks of the reference, (k,)."""
        reference = self.systems(measure, {self.reference: self.trained.network(self.reference)})
        return measures.distances_to_group(measure, systems, reference, device=self.settings.device)

    def has_floor(self, name: str) -> bool:
        """Whether two halves of a network's own trials can be compared by a measure."""
        return measures.has_floor(self.measures[name])

    # ---- tables ----

    def among(self, name: str) -> Similarity:
        """Distances between all networks by one measure. Labels are "group k"."""
        return self._shelf.similarity(f"among_{name}", lambda: self._among(self.measures[name]))

    def _among(self, measure: Measure) -> Similarity:
        with self.concerns.listening():
            systems = {f"{group} {k}": pieces for (group, k), pieces in self.systems(measure).items()}
            return self.distances(measure, systems)

    def floors(self, name: str) -> "pd.DataFrame":
        """Distance between halves of each network's own trials: ``group``, ``network``, ``floor``."""
        return self._shelf.table(f"floors_{name}", lambda: self._floors(self.measures[name]))

    def _floors(self, measure: Measure) -> "pd.DataFrame":
        with self.concerns.listening():
            systems = self.systems(measure)
            return measures.floors(measure, systems, n_splits=self.how.n_splits, device=self.settings.device)

    @cached_property
    def to_reference(self) -> "pd.DataFrame":
        """Distance of every network to the reference by every measure, and what the network knows.

        ``measure``, ``group``, ``network`` in the group, ``family``, ``shared`` (number of parts learnt),
        ``performance`` on the master rule, ``distance`` (mean over the networks of the reference; for one of these,
        over the others).
        """
        return self._shelf.table("to_reference", lambda: tables.to_reference(self))

    @cached_property
    def scores(self) -> "pd.DataFrame":
        """Spearman's rho of the distance to the reference with what networks know, by measure and question.

        ``rho``, ``low``, ``high`` (95 % bootstrap over networks), ``n`` (networks). Questions are "performance", over
        all networks but the reference's, and "parts shared, FAMILY" for each family in which that number varies.
        """
        distances = self.to_reference
        return self._shelf.table("scores", lambda: tables.scores(self, distances)).set_index(["measure", "question"])

    @cached_property
    def over_learning(self) -> "pd.DataFrame":
        """Distance to the reference at every checkpoint of the groups that are followed, by the measures shown.

        ``measure``, ``group``, ``network``, ``step``, ``progress`` (fraction of the steps), ``performance`` on the
        master rule, ``distance``.
        """
        return self._shelf.table("over_learning", lambda: tables.over_learning(self))

    @cached_property
    def within_runs(self) -> "pd.DataFrame":
        """Distances between checkpoints of the same network of the reference, by the measures shown.

        ``measure``, ``network``, ``step``, ``other_step``, ``distance``.
        """
        return self._shelf.table("within_runs", lambda: tables.within_runs(self))

    @cached_property
    def group_tests(self) -> "pd.DataFrame":
        """PERMANOVA of whether groups differ, by the measures that the claims compare.

        ``r_squared``, ``p``, ``n_permutations``, ``exact`` as in `dsa_analysis.PermutationTest`, by measure.
        """
        among = {name: self.among(name) for name in self.how.judged}
        return self._shelf.table("group_tests", lambda: tables.group_tests(self, among)).set_index("measure")

    @cached_property
    def jacobian_modes(self) -> "pd.DataFrame":
        """The slowest modes of operators fitted near fixed points beside those of the Jacobians; see `truth`.

        ``group``, ``network``, ``point``, and the columns of `dsa_analysis.match_modes`, a row for each mode.
        """
        return self._shelf.table("jacobian_modes", lambda: self._jacobians[0])

    @cached_property
    def jacobian_pairs(self) -> "pd.DataFrame":
        """Distances between all pairs of these points.

        ``system_a``, ``system_b``, ``operators`` (distance of the fitted operators), ``jacobians`` (distance of the
        Jacobians, restricted to as many slow modes).
        """
        return self._shelf.table("jacobian_pairs", lambda: self._jacobians[1])

    @cached_property
    def _jacobians(self) -> tuple["pd.DataFrame", "pd.DataFrame"]:
        def of_group(group: str) -> list[truth.NearPoint]:
            network = self.trained.network(group)
            return truth.near_fixed_points(network, group, self.ours.master, self.how.jacobians, self.seed)

        found = self.in_parallel(of_group, self.how.jacobians.groups, "fixed points")
        with self.concerns.listening():
            return truth.jacobian_tables([point for points in found for point in points], self.seed)

    # ---- storage ----

    def in_parallel(self, work: Callable[[str], Any], items: Iterable[str], what: str) -> list[Any]:
        """Results of ``work`` for all items, on all workers there are; their warnings are counted in `concerns`."""
        _ = self.trained  # trained once, before each worker gets a copy of this study
        return self.concerns.in_parallel(work, items, what, self.progress)

    def _depends_on(self) -> tuple[Any, ...]:
        """What all tables depend on: the settings except for the claims, the networks, and the code that computes."""
        ours = yaml.safe_load(self.ours.to_yaml())
        del ours["seeds"], ours["comparison"]["claims"]
        runs = sorted({run.folder.name for run in self.trained.runs.values()})
        code = [inspect.getsource(module) for module in (families, measures, tables, truth)]
        return ours, self.seed, self.settings.device, runs, code
