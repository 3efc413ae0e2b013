"""The section ``lorenz``: one flow in several regimes, compared where the answers are known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dsa_analysis.systems import LorenzRegime
from workbench.settings.dsa import Dsa, misfits
from workbench.settings.horizons import Horizons
from workbench.settings.merging import Inherits
from workbench.settings.schema import Correlation, Count, Index, Positive, Section, Share, Strength


@dataclass(frozen=True)
class LorenzClaims(Section):
    """Numbers that the results must reach for lorenz_sanity_check.ipynb to call its claims met."""

    silhouette: Correlation
    auroc: Share
    copies_within_floors: Positive
    auroc_inside_chaos: Share
    auroc_under_noise: Share


@dataclass(frozen=True)
class LorenzNoise(Section):
    """The regimes under measurement noise, with operators estimated in several ways."""

    n_recordings: Annotated[int, Field(ge=2)]
    strengths: Annotated[tuple[Strength, ...], Field(min_length=1)]
    dsa: Annotated[Dsa, Inherits("dsa")]
    estimators: Annotated[Mapping[str, Annotated[Dsa, Inherits("dsa")]], Field(min_length=1)]


@dataclass(frozen=True)
class Lorenz(Section):
    """Regimes of the Lorenz system (lorenz_sanity_check.ipynb)."""

    n_seeds: Count
    n_recordings: Count
    n_trials: Count
    n_times: Count
    discard: Index
    regimes: Annotated[Mapping[str, LorenzRegime], Field(min_length=2)]
    inside_chaos: LorenzRegime
    dsa: Annotated[Dsa, Inherits("dsa")]
    horizons: Horizons
    noise: LorenzNoise
    claims: LorenzClaims

    def problems(self) -> Iterator[str]:
        if self.n_trials < 2:
            yield f"n_trials: the noise floor is the distance of two halves of the trials, got {self.n_trials}; take 2"
        if self.noise.n_recordings > self.n_recordings:
            yield f"noise.n_recordings: there are {self.n_recordings} of each regime, got {self.noise.n_recordings}"
        intervals = {name: regime.dt for name, regime in self.regimes.items()} | {"inside_chaos": self.inside_chaos.dt}
        used = {"dsa": self.dsa} | {f"noise.estimators.{name}": dsa for name, dsa in self.noise.estimators.items()}
        for name, dsa in used.items():
            for problem in misfits(dsa, intervals, self.n_times, 3, "a trial", "or raise n_times"):
                yield f"{name}.{problem}"
        regimes = {name: regime.dt for name, regime in self.regimes.items()}
        yield from self.horizons.misfits(regimes, self.n_times, 3, "a trial", "or raise n_times")
