"""The section ``engine``: where tasks run that do not depend on each other."""

from dataclasses import dataclass
from typing import Literal

from workbench.settings.schema import Count, Folder, Positive, Section


@dataclass(frozen=True)
class SlurmParameters(Section):
    """Jobs of a SLURM cluster, one for each worker."""

    queue: str | None
    account: str | None
    walltime: Count
    memory: Positive
    interface: str | None
    directives: tuple[str, ...]
    logs: Folder


@dataclass(frozen=True)
class EngineParameters(Section):
    """Where independent tasks run; see `workbench.engine`."""

    kind: Literal["serial", "processes", "dask", "slurm"]
    workers: Count
    address: str | None
    wait: Positive
    slurm: SlurmParameters
