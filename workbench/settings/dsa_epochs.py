"""The section ``dsa_epochs``: simulated learning, by noise that shrinks and by parameters that move."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dsa_analysis.data import DataError
from dsa_analysis.motifs import Motif, common_dims, grown
from workbench.settings.dsa import Dsa, misfits
from workbench.settings.merging import Inherits
from workbench.settings.schema import Correlation, Count, Positive, Section, Share, Strength


@dataclass(frozen=True)
class Models(Section):
    """What is compared: all sets of ``n_pieces`` motifs, and ``n_recordings`` of each set."""

    n_pieces: Annotated[tuple[Count, ...], Field(min_length=1)]
    n_recordings: tuple[Annotated[int, Field(ge=2)], ...]

    def problems(self) -> Iterator[str]:
        if len(self.n_pieces) != len(self.n_recordings):
            yield f"n_recordings: {len(self.n_recordings)} numbers for {len(self.n_pieces)} n_pieces; give one for each"
        if len(set(self.n_pieces)) < len(self.n_pieces):
            yield f"n_pieces: each number may appear once, got {list(self.n_pieces)}"


@dataclass(frozen=True)
class Growth(Section):
    """Learning by changing parameters: a system that moves from one motif to another."""

    start: Motif
    end: Annotated[Motif, Inherits("start")]
    one_regime: bool

    def problems(self) -> Iterator[str]:
        try:
            grown(self.start, self.end, 1)
        except DataError as error:
            yield f"end: {error}"


@dataclass(frozen=True)
class DsaEpochsClaims(Section):
    """Numbers that the results must reach for dsa_epochs.ipynb to call its claims met."""

    auroc: Share
    growth: Correlation
    above_floor: Positive


@dataclass(frozen=True)
class DsaEpochs(Section):
    """Simulated learning (dsa_epochs.ipynb)."""

    n_seeds: Count
    n_trials: Count
    n_times: Annotated[int, Field(ge=2)]
    motifs: Annotated[Mapping[str, Motif], Field(min_length=2)]
    models: Models
    strengths: Annotated[tuple[Strength, ...], Field(min_length=2)]
    dsa: Annotated[Dsa, Inherits("dsa")]
    estimators: Annotated[Mapping[str, Annotated[Dsa, Inherits("dsa")]], Field(min_length=1)]
    growth: Annotated[Mapping[str, Growth], Field(min_length=1)]
    shares: Annotated[tuple[Share, ...], Field(min_length=3)]
    claims: DsaEpochsClaims

    def problems(self) -> Iterator[str]:
        if self.n_trials < 2:
            yield f"n_trials: the noise floor is the distance of two halves of the trials, got {self.n_trials}; take 2"
        for n_pieces in self.models.n_pieces:
            if n_pieces >= len(self.motifs):
                yield (
                    f"models.n_pieces: {n_pieces} of {len(self.motifs)} motifs make fewer than two models to tell "
                    "apart; add motifs or take fewer pieces"
                )
        if sorted(set(self.strengths), reverse=True) != list(self.strengths):
            yield f"strengths: must fall from epoch to epoch, got {list(self.strengths)}"
        if sorted(set(self.shares)) != list(self.shares) or self.shares[-1] != 1:
            yield f"shares: must rise and end at 1, the end of learning, got {list(self.shares)}"
        try:
            dims = {"motifs": common_dims(self.motifs)}
        except DataError as error:
            yield f"motifs: {error}"
            return
        dims |= {f"growth.{name}": growth.end.n_dims or 3 for name, growth in self.growth.items()}
        intervals = {name: motif.dt for name, motif in self.motifs.items()}
        intervals |= {f"growth.{name}": growth.end.dt for name, growth in self.growth.items()}
        for name, dsa in self.estimators.items():
            for problem in misfits(dsa, intervals, self.n_times, min(dims.values()), "a piece", "or raise n_times"):
                yield f"estimators.{name}.{problem}"
