"""config.yaml -> Settings: every number of every experiment, checked before anything runs.

    settings = load_settings()      # the argument, else $COMPUTE_ALIKE_CONFIG, else ./config.yaml
    print(settings.lorenz)          # a section prints as YAML
    settings.lorenz.dsa             # a Comparison

The file shows every value: no key has a default, no key is ignored, no value is converted. A section that has a base
(``dsa``, ``network``, ``training``, named variants) states only what differs from it.

``settings``    `Settings` and `load_settings`
``engine``, ``lorenz``, ``compositional``, ``dsa_epochs``, ``multitask``, ``groups``
                one section each, with the checks between its keys
``schema``      what sections are made of
``horizons``    horizons at which a section compares its systems again
``dsa``         how a `Comparison` is written in a section, and what it needs of trials
``reading``     YAML file -> values and lines
``merging``     checks of keys; fills in what a section inherits
``report``      problems -> `ConfigError`
``writing``     settings -> YAML; files that are written completely or not at all
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.settings.compositional import Compositional
    from workbench.settings.dsa_epochs import DsaEpochs
    from workbench.settings.engine import EngineParameters, SlurmParameters
    from workbench.settings.groups import GroupComparison, Groups, JacobianTruth, Measure
    from workbench.settings.lorenz import Lorenz, LorenzNoise
    from workbench.settings.multitask import Multitask
    from workbench.settings.report import ConfigError
    from workbench.settings.schema import Section
    from workbench.settings.settings import VERSION, Settings, load_settings
    from workbench.settings.writing import replacing

# Loaded when first used: `workbench compare` needs ConfigError and replacing, but neither multitask nor pydantic.
_MODULES = {
    "compositional": ("Compositional",),
    "dsa_epochs": ("DsaEpochs",),
    "engine": ("EngineParameters", "SlurmParameters"),
    "groups": ("GroupComparison", "Groups", "JacobianTruth", "Measure"),
    "lorenz": ("Lorenz", "LorenzNoise"),
    "multitask": ("Multitask",),
    "report": ("ConfigError",),
    "schema": ("Section",),
    "settings": ("VERSION", "Settings", "load_settings"),
    "writing": ("replacing",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "VERSION",
    "Compositional",
    "ConfigError",
    "DsaEpochs",
    "EngineParameters",
    "GroupComparison",
    "Groups",
    "JacobianTruth",
    "Lorenz",
    "LorenzNoise",
    "Measure",
    "Multitask",
    "Section",
    "Settings",
    "SlurmParameters",
    "load_settings",
    "replacing",
]
