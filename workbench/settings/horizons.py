"""Horizons in model time at which the systems of a section are compared again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dsa_analysis.comparison import Comparison
from dsa_analysis.data import DataError
from workbench.settings.dsa import Dsa, misfits
from workbench.settings.merging import Inherits
from workbench.settings.schema import Positive, Section


@dataclass(frozen=True)
class Horizons(Section):
    """Horizons, and what else differs from the section's ``dsa``."""

    values: Annotated[tuple[Positive, ...], Field(min_length=1)]
    dsa: Annotated[Dsa, Inherits("dsa")]

    def problems(self) -> Iterator[str]:
        if sorted(set(self.values)) != list(self.values):
            yield f"values: must rise, got {list(self.values)}"
        if self.dsa.metric.needs == "trials":
            yield f"dsa.metric: {self.dsa.metric.name} compares trials and has no horizon; choose another metric"

    def how(self, horizon: float, dt: float | Mapping[str, float]) -> Comparison:
        """The comparison at a horizon, for systems sampled at intervals of ``dt``."""
        return self.dsa.override(horizon=horizon, dt=dt)

    def misfits(
        self, intervals: Mapping[str, float], n_times: int, n_channels: int, what: str, advice: str
    ) -> Iterator[str]:
        """Why trials of this length, interval and number of channels do not suffice; see `dsa.misfits`."""
        for value in self.values:
            try:
                problems = list(misfits(self.how(value, dict(intervals)), intervals, n_times, n_channels, what, advice))
            except DataError as error:
                problems = [f"dsa: {error}"]
            if problems:
                yield f"horizons: {value:g}: {problems[0].partition(': ')[2]}"
                return
