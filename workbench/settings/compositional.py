"""The section ``compositional``: all sequences of some motifs, compared where their composition is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from dsa_analysis.data import DataError
from dsa_analysis.motifs import Motif, all_orders, common_dims
from workbench.settings.dsa import Dsa, embeddings, rank_problem, too_short
from workbench.settings.horizons import Horizons
from workbench.settings.merging import Inherits
from workbench.settings.schema import Correlation, Count, Section, Share


@dataclass(frozen=True)
class Sliding(Section):
    """Windows that slide over trials and ignore where pieces begin."""

    length: Count
    step: Count


@dataclass(frozen=True)
class Sensitivity(Section):
    """Numbers of delays and ranks for which a result is computed again."""

    n_delays: Annotated[tuple[Count, ...], Field(min_length=1)]
    rank: Annotated[tuple[Count, ...], Field(min_length=1)]


@dataclass(frozen=True)
class CompositionalClaims(Section):
    """Numbers that the results must reach for compositional.ipynb to call its claims met."""

    shared: Correlation
    below_static: Annotated[float, Field(ge=0, le=2)]
    blind: Share
    position: Correlation


@dataclass(frozen=True)
class Compositional(Section):
    """Sequences of motifs (compositional.ipynb)."""

    n_seeds: Count
    n_trials: Count
    pieces: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    repeats: bool
    common_starts: bool
    motifs: Annotated[Mapping[str, Motif], Field(min_length=1)]
    n_examples: Count
    sliding: Sliding
    sensitivity: Sensitivity
    n_permutations: Count
    dsa: Annotated[Dsa, Inherits("dsa")]
    horizons: Horizons
    claims: CompositionalClaims

    def problems(self) -> Iterator[str]:
        try:
            n_channels = common_dims(self.motifs)
            all_orders(list(self.motifs), len(self.pieces), self.repeats)
        except DataError as error:
            yield f"motifs: {error}"
            return
        if (len(self.pieces) == len(self.motifs) and not self.repeats) or len(self.motifs) == 1:
            yield (
                f"pieces: all sequences of {len(self.pieces)} of {len(self.motifs)} motifs hold the same motifs, so no "
                "distance can fall with the number shared; add motifs, take fewer pieces, or set repeats to true"
            )
        if self.n_trials < 2:
            yield f"n_trials: the noise floor is the distance of two halves of the trials, got {self.n_trials}; take 2"
        if self.sliding.length > sum(self.pieces):
            yield f"sliding.length: {self.sliding.length} is more than the {sum(self.pieces)} samples of all pieces"
        intervals = {name: motif.dt for name, motif in self.motifs.items()}
        if len(set(intervals.values())) > 1:
            listed = ", ".join(f"{name} {dt:g}" for name, dt in intervals.items())
            yield f"horizons: pieces of one sequence have unequal dt ({listed}); give all motifs the same"
        else:
            yield from self.horizons.misfits(
                {"a sequence": next(iter(intervals.values()))},
                sum(self.pieces),
                n_channels,
                "a sequence",
                "or lengthen it",
            )
        found, problems = embeddings(self.dsa, intervals)
        yield from (f"dsa.{problem}" for problem in problems)
        shortest, varied = min(self.pieces), self.sensitivity
        where = f"piece {self.pieces.index(shortest) + 1} of {len(self.pieces)}"
        for embedding in found:
            if problem := too_short(embedding, shortest):
                yield f"pieces: {where} {problem}, or lengthen the piece"
            if problem := too_short(replace(embedding, n_delays=max(varied.n_delays)), shortest):
                yield f"sensitivity.n_delays: {where} {problem}"
            if problem := too_short(embedding, self.sliding.length):
                yield f"sliding.length: a window {problem}, or lengthen it"
            if problem := rank_problem(embedding, n_channels):
                yield f"dsa.rank: {problem}"
            for rank in varied.rank:
                if problem := rank_problem(replace(embedding, rank=rank, n_delays=min(varied.n_delays)), n_channels):
                    yield f"sensitivity.rank: {problem}"
