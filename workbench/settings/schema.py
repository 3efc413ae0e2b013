"""What all sections of config.yaml are made of.

A new section is a module with a frozen dataclass, and a field of `Settings`. Parameter classes that steer code live
beside that code; a section's `problems` checks its keys against each other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo

from multitask.tasks.base import as_task
from workbench.settings.report import ConfigError
from workbench.settings.writing import to_table, to_yaml

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Section:
    """A part of config.yaml. It prints as YAML, with inherited values filled in."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def __post_init__(self) -> None:
        problems = tuple(self.problems())
        if problems:
            raise ConfigError(*problems)

    def __str__(self) -> str:
        return self.to_yaml().rstrip()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """What Jupyter shows; the repr stays the whole value, of which digests of results are made."""
        return {"text/plain": self._text()}

    def _text(self) -> str:
        """The text in Jupyter: all values as YAML."""
        return str(self)

    def problems(self) -> Iterator[str]:
        """Values of this section that do not fit together, each as ``"key: what is wrong, and what would do"``."""
        yield from ()

    def to_yaml(self) -> str:
        """The values as YAML text; `load_settings` reads back what `Settings` writes."""
        return to_yaml(self)

    def table(self, *keys: str) -> "pd.DataFrame":
        """Table of some keys, to print at the top of a notebook.

        ``print(section.table("n_seeds", "dsa").to_string(header=False))``

        Parameters
        ----------
        *keys : str
            Such as ``"n_seeds"`` or ``"noise.strengths"``. A mapping of sections, such as ``"noise.estimators"``, has a
            row for each of its names.

        Returns
        -------
        DataFrame
            Indexed by key. The column ``value`` holds YAML text in one line, padded on the right so that it prints
            aligned to the left. A comparison shows only what differs from the defaults of `Comparison`.

        Raises
        ------
        KeyError
            No such key; the nearest one is named.
        """
        return to_table(self, keys)


def _present(device: str) -> str:
    """The device as torch knows it. Torch is imported only if the device may be a GPU."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"must be auto, cpu, cuda or cuda:N, got {device}")
    if device == "cpu":
        return device
    import torch

    gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if device not in gpus and not (device == "cuda" and gpus):
        raise ValueError(f"{device} is not on this machine, which has {', '.join(['cpu', *gpus])}")
    return device


def _beside_config(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context or ".") / path.expanduser()


def _known(rule: str) -> str:
    as_task(rule)
    return rule


Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, lt=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
Rule = Annotated[str, AfterValidator(_known)]
Device = Annotated[str, AfterValidator(_present)]
Folder = Annotated[Path, AfterValidator(_beside_config)]
