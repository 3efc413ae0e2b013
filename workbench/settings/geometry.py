"""The section ``geometry_or_dynamics``: controls, of which it is known whether dynamics or geometry differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from dsa_analysis.controls import AttractorParameters, ConditionParameters, MemoryParameters, RingParameters
from dsa_analysis.systems import LorenzRegime
from workbench.settings.dsa import Dsa, embeddings, misfits
from workbench.settings.merging import Inherits
from workbench.settings.schema import Count, Index, Positive, Section, Share

Level = Literal["means", "covariances", "eigenvalues"]


@dataclass(frozen=True)
class Memories(Section):
    """One dynamics in many geometries."""

    recordings: MemoryParameters
    dsa: Annotated[Dsa, Inherits("dsa")]

    def problems(self) -> Iterator[str]:
        p = self.recordings
        n_channels = min(readout.n_neurons for readout in p.readouts.values())
        for problem in misfits(self.dsa, {"dt": p.dt}, p.n_times, n_channels, "a trial", "or raise n_times"):
            yield f"dsa.{problem}"


@dataclass(frozen=True)
class Conditions(Section):
    """Equal condition means, other dynamics."""

    recordings: ConditionParameters
    dsa: Annotated[Dsa, Inherits("dsa")]
    levels: Annotated[Mapping[Level, Annotated[Dsa, Inherits("dsa", twins=True)]], Field(min_length=1)]

    def problems(self) -> Iterator[str]:
        p = self.recordings
        if p.n_trials < 2:
            yield "recordings.n_trials: residuals need at least 2 trials of each condition, got 1"
        for level, dsa in self.levels.items():
            for problem in misfits(dsa, {"dt": p.dt}, p.n_times, p.n_neurons or 2, "a trial", "or raise n_times"):
                yield f"levels.{level}.{problem}"


@dataclass(frozen=True)
class Attractors(Section):
    """Attractors of different topology under deformation."""

    recordings: AttractorParameters
    dsa: Annotated[Dsa, Inherits("dsa")]

    def problems(self) -> Iterator[str]:
        p = self.recordings
        for problem in misfits(self.dsa, {"dt": p.dt}, p.n_times, p.n_neurons[0], "a trial", "or raise n_times"):
            yield f"dsa.{problem}"


@dataclass(frozen=True)
class Ring(Section):
    """A ring attractor network, deformed and cut open."""

    network: RingParameters
    betas: Annotated[tuple[Positive, ...], Field(min_length=1)]
    missing: Annotated[tuple[Index, ...], Field(min_length=2)]
    n_splits: Count
    dsa: Annotated[Dsa, Inherits("dsa")]

    def problems(self) -> Iterator[str]:
        if self.missing[0] != 0 or sorted(set(self.missing)) != list(self.missing):
            yield f"missing: must rise from 0, the closed ring, got {list(self.missing)}"
        if self.network.n_trials < 2:
            yield "network.n_trials: the noise floor is the distance of two halves of the trials, got 1; take 2"
        p = self.network
        for problem in misfits(self.dsa, {"ring": p.dt}, p.n_times, 2 * p.n_cells, "a trial", "or raise n_times"):
            yield f"dsa.{problem}"


@dataclass(frozen=True)
class Rhos(Section):
    """The Lorenz system at several rho, each recorded many times."""

    n_recordings: Annotated[int, Field(ge=2)]
    n_times: Annotated[int, Field(ge=4)]
    regimes: Annotated[Mapping[str, LorenzRegime], Field(min_length=2)]
    dsa: Annotated[Dsa, Inherits("dsa")]

    def problems(self) -> Iterator[str]:
        intervals = {name: regime.dt for name, regime in self.regimes.items()}
        for problem in misfits(self.dsa, intervals, self.n_times, 3, "a trial", "or raise n_times"):
            yield f"dsa.{problem}"
        coarse = {name: 2 * dt for name, dt in intervals.items()}
        yield from (f"dsa.{problem} (every second sample)" for problem in embeddings(self.dsa, coarse)[1])


@dataclass(frozen=True)
class GeometryClaims(Section):
    """Numbers that the results must reach for geometry_or_dynamics.ipynb to call its claims met."""

    memories: Share
    conditions: Share
    conditions_static: tuple[Share, Share]
    attractors: Share
    attractors_static: Share
    floors: Positive
    jump: Positive


@dataclass(frozen=True)
class GeometryOrDynamics(Section):
    """Controls that separate geometry from dynamics (geometry_or_dynamics.ipynb)."""

    seeds: Annotated[tuple[Index, ...], Field(min_length=2)]
    choice_seed: Index
    memories: Memories
    conditions: Conditions
    attractors: Attractors
    ring: Ring
    rhos: Rhos
    claims: GeometryClaims

    def problems(self) -> Iterator[str]:
        if len(set(self.seeds)) < len(self.seeds):
            yield f"seeds: each may appear once, got {list(self.seeds)}"
        if self.choice_seed in self.seeds:
            yield f"choice_seed: {self.choice_seed} is one of the seeds that are reported; choose settings on another"
