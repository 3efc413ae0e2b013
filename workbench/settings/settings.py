"""`Settings`, the whole of config.yaml as a value, and `load_settings`, which reads it.

All problems of a file come in one `ConfigError`: a line for each, with the line of the file and the key.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from multitask.groups import identities_of
from multitask.network import NetworkParameters
from multitask.training import TrainingParameters
from workbench.settings.compositional import Compositional
from workbench.settings.dsa import Dsa
from workbench.settings.dsa_epochs import DsaEpochs
from workbench.settings.engine import EngineParameters
from workbench.settings.geometry import GeometryOrDynamics
from workbench.settings.groups import Groups
from workbench.settings.lorenz import Lorenz
from workbench.settings.merging import complete, names_of
from workbench.settings.multitask import Multitask
from workbench.settings.reading import read_values
from workbench.settings.report import Report
from workbench.settings.schema import Device, Folder, Index, Section
from workbench.settings.writing import replacing

VERSION = 2  # of the keys of config.yaml; raise it whenever an old file can no longer be read


def _supported(version: int) -> int:
    if version != VERSION:
        raise ValueError(
            f"this program reads version {VERSION}, got {version}: start from the config.yaml that came with it and "
            "carry your values over"
        )
    return version


@dataclass(frozen=True)
class Settings(Section):
    """config.yaml as a value: frozen, complete and checked, with ``results`` absolute and ``device`` resolved.

    ``dsa``, ``network`` and ``training`` are what the sections below start from; use those of a section.
    """

    version: Annotated[int, AfterValidator(_supported)]
    seed: Index
    device: Device
    results: Folder
    engine: EngineParameters
    dsa: Dsa
    network: NetworkParameters
    training: TrainingParameters
    lorenz: Lorenz
    compositional: Compositional
    dsa_epochs: DsaEpochs
    geometry_or_dynamics: GeometryOrDynamics
    multitask: Multitask
    groups: Groups

    def _text(self) -> str:
        """The text in Jupyter: the names of the sections, because all values fill many screens."""
        sections = [name for name in names_of(type(self)) if isinstance(getattr(self, name), Section)]
        return (
            f"Settings: seed {self.seed}, device {self.device}, results in {self.results}\n"
            f"  sections: {', '.join(sections)}\n"
            f"  next: settings.{sections[-1]} shows a section, print(settings) all values"
        )

    def run_folder(self, rules: Sequence[str] | None = None, seed: int | None = None) -> Path:
        """The folder in results/runs of the training that ``multitask`` describes.

        Its name contains a digest of everything that decides the networks, so other rules, another seed or other
        parameters have a folder of their own.
        """
        ours = self.multitask
        rules, seed = rules or ours.rules, self.seed if seed is None else seed
        trained = [list(identities_of(rules)), ours.n_networks, asdict(ours.network), asdict(ours.training), seed]
        digest = hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()
        return self.results / "runs" / f"{len(rules)}_rules_{ours.network.n_rnn}_units_seed_{seed}_{digest[:8]}"

    def save(self, path: str | Path) -> None:
        """Write the settings as they were used, to be stored beside the results. `load_settings` reads them back."""
        with replacing(Path(path)) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")


@cache
def _adapter() -> TypeAdapter[Settings]:
    return TypeAdapter(Settings)


def load_settings(path: str | Path | None = None) -> Settings:
    """The settings that config.yaml describes.

    Parameters
    ----------
    path : path of the file, optional
        By default the environment variable COMPUTE_ALIKE_CONFIG, else ./config.yaml. Relative paths *in* the file start
        at the file's folder, and modules that it names ("module:name") are looked for there, too.

    Raises
    ------
    ConfigError
        All problems of the file at once, such as
        ``config.yaml:14: lorenz.dsa.n_delay: unknown key; did you mean 'n_delays'?`` A file of another version has only
        that problem.
    """
    path = Path(path or os.environ.get("COMPUTE_ALIKE_CONFIG") or "config.yaml")
    if (folder := str(path.absolute().parent)) not in sys.path:
        sys.path.append(folder)
    report = Report(path)
    values = read_values(path, names_of(Settings), report)
    version = values.get("version")
    try:
        _supported(version if type(version) is int else VERSION)
    except ValueError as error:
        report.problems = {("version",): str(error)}
        raise report.error() from None
    values = complete(Settings, values, report)
    try:
        settings = _adapter().validate_json(json.dumps(values), context=path.absolute().parent)
    except ValidationError as error:
        report.add_validation(error)
    if report.problems:
        raise report.error()
    return settings
