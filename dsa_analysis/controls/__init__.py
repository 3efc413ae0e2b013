"""Controls: simulated systems of which it is known whether they have the same dynamics, the same geometry, or both.

    record_memories      one memory seen through many nonlinear readouts: dynamics equal, geometry not
    record_conditions    equal condition means, covariances, eigenvalues: geometry equal, dynamics not
    record_attractors    ring, line, two points and cycle under random deformations: topology tells the kinds apart
    record_ring          a ring attractor network, for deformation by `sigmoid` and cut open to a line
    record_driven        two dynamics times two effects of the input, few dimensions seen: inputs have to be told apart

Each takes a frozen parameter object and a seed or generator, and returns a `Control` (`record_ring` returns an array,
`record_driven` a `DrivenControl`).
"""

from dsa_analysis.controls.attractors import AttractorParameters, record_attractors
from dsa_analysis.controls.base import Control
from dsa_analysis.controls.conditions import ConditionParameters, record_conditions
from dsa_analysis.controls.driven import DrivenControl, DrivenMatrices, DrivenParameters, record_driven
from dsa_analysis.controls.memories import MemoryParameters, Readout, record_memories
from dsa_analysis.controls.ring import RingParameters, bump_positions, crossings, record_ring, sigmoid

__all__ = [
    "AttractorParameters",
    "ConditionParameters",
    "Control",
    "DrivenControl",
    "DrivenMatrices",
    "DrivenParameters",
    "MemoryParameters",
    "Readout",
    "RingParameters",
    "bump_positions",
    "crossings",
    "record_attractors",
    "record_conditions",
    "record_driven",
    "record_memories",
    "record_ring",
    "sigmoid",
]
