"""Metrics: objects that compute the distance between two systems and describe themselves to the rest of the package.

`compare` accepts the name of a metric in `METRICS` or any object that has

    name       str, stored with the results
    unit       str, written on axes and in reports
    needs      "operators", "driven", "eigenvalues", "modes" or "trials": what ``distances`` gets for each system
    bounded    bool: whether ``distances`` also returns lower bounds
    distances  (first, second, **options) -> distances of P pairs

``first`` and ``second`` hold one entry for each of P pairs: operators (P, n, n), operators with inputs (P, n, n + k)
that hold [A B], eigenvalues (P, n), modes (P, n, 1 + 2 d) that hold an eigenvalue with its right and left eigenvector
in each row, or lists of P systems, each a list of trials (n_times, n_channels). The result is a tensor (P,). If
``bounded`` is true, it is a tuple of distances and lower bounds, (P,) each, or `Pairs`. Further attributes are
optional. `Metric` lists them with their defaults, and your own class can inherit from it.
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dsa_analysis import alignment, spectra
from dsa_analysis.alignment import Alignment, align_pairs
from dsa_analysis.baselines import cka_distances, procrustes_distances
from dsa_analysis.data import DataError, check_choice
from dsa_analysis.grassmann import SpectralGrassmann
from dsa_analysis.joint import align_inputs, align_jointly
from dsa_analysis.rivals import Autocorrelations, PrincipalVariances

NEEDS = ("operators", "driven", "eigenvalues", "modes", "trials")
REQUIRED = ("name", "unit", "needs", "bounded", "distances")


class Pairs(NamedTuple):
    """Results of P pairs, (P,) each."""

    distance: Tensor
    lower_bound: Tensor  # NaN if the metric has none
    agreement: Tensor  # fraction of the starts that reached this distance; 1 if it is computed exactly
    converged: Tensor  # bool


class Metric:
    """Base class of metrics, with defaults of the optional attributes."""

    name: str
    unit: str
    needs: str
    bounded: bool
    title: str  # in figures; the name by default
    options: tuple[str, ...] = ()  # fields of `Comparison` that ``distances`` takes as keywords, or "names"
    error_exponent: float = 1.0  # small errors of operators give distances in proportion to this power of theirs

    @property
    def matched(self) -> bool:
        """Whether trial k of one system must correspond to trial k of the other, sample by sample."""
        return self.needs == "trials"

    def pairs_at_once(self, size: int, device: torch.device) -> int | None:
        """Number of pairs of operators (size, size) given to one call of ``distances``; None for all of them."""
        return None

    def distances(self, first: Any, second: Any, **options: Any) -> Any:
        """Distances of P pairs; see the top of the module."""
        raise NotImplementedError


@dataclass(frozen=True)
class Aligned(Metric):
    """A distance between operators A and C B C^T after the best orthogonal alignment C; see `alignment`."""

    name: str
    title: str
    unit: str
    # (angle, |A|, |B|, n) -> distance, increasing in the angle
    from_angle: Callable[[Tensor, Tensor, Tensor, int], Tensor] = field(repr=False)
    needs = "operators"
    bounded = True
    options = ("n_starts", "group", "remove_trace", "certificate", "n_sweeps", "seed", "names")

    def pairs_at_once(self, size: int, device: torch.device) -> int | None:
        # a quarter of the pairs that are solved at once: enough for full speed, few enough for several workers
        return max(1, alignment.pairs_at_once(size, device) // 4)

    def align(self, first: Tensor, second: Tensor, names: Any = None, **options: Any) -> Alignment:
        """Align ``second`` to ``first``, (P, n, n) each. Operators that occur in several pairs are prepared once."""
        both = torch.cat([first, second])
        distinct, index = both.flatten(1).unique(dim=0, return_inverse=True)
        called = dict(zip(index.tolist(), [*names[0], *names[1]] if names else (), strict=False))
        return align_pairs(
            distinct.view(-1, *first.shape[1:]), *index.split(len(first)),
            names=[called[k] for k in range(len(distinct))] if names else (), **options,
        )  # fmt: skip

    def of_alignment(self, aligned: Alignment, first: Tensor, second: Tensor, remove_trace: bool = False) -> Pairs:
        """Distances and bounds of this metric from the angles of an alignment."""
        sizes = (_norm(operators, remove_trace) for operators in (first, second))
        a, b, n = *sizes, first.shape[-1]
        distance, bound = (self.from_angle(angle, a, b, n) for angle in (aligned.distance, aligned.lower_bound))
        return Pairs(distance, bound, aligned.agreement, aligned.converged)

    def distances(self, first: Tensor, second: Tensor, **options: Any) -> Pairs:
        aligned = self.align(first, second, **options)
        return self.of_alignment(aligned, first, second, options.get("remove_trace", False))


@dataclass(frozen=True)
class Driven(Metric):
    """An angle between operators with inputs, [A B] and [A' B'], after one orthogonal alignment of both; see `joint`.

    It compares A ("state"), B ("input") or both ("joint", with the weight ``state_weight`` of A).
    """

    name: str
    title: str
    options: tuple[str, ...]
    unit: str = "rad"
    needs = "driven"
    bounded = True

    @property
    def takes_inputs(self) -> bool:
        """Whether B matters, and so has to be determined by the data."""
        return self.name != "state"

    def pairs_at_once(self, size: int, device: torch.device) -> int | None:
        return max(1, alignment.pairs_at_once(size, device) // 4)

    def distances(self, first: Tensor, second: Tensor, **options: Any) -> Pairs:
        n, weight = first.shape[1], {"state": 1.0, "input": 0.0}.get(self.name)
        weight = float(options.pop("state_weight", 0.5)) if weight is None else weight
        if weight == 1:
            aligned = METRICS["angular"].align(first[..., :n], second[..., :n], **options)
        elif weight == 0:
            taken = {name: value for name, value in options.items() if name in ("group", "names")}
            aligned = align_inputs(first[..., n:], second[..., n:], **taken)
        else:
            aligned = align_jointly(first, second, state_weight=weight, **options)
        return Pairs(aligned.distance, aligned.lower_bound, aligned.agreement, aligned.converged)


def _norm(operators: Tensor, remove_trace: bool) -> Tensor:
    """Frobenius norm of each of (P, n, n); with ``remove_trace`` of the operators without their mean eigenvalue."""
    if remove_trace:
        eye = torch.eye(operators.shape[-1], dtype=operators.dtype, device=operators.device)
        operators = operators - operators.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * eye
    return operators.square().sum((-1, -2)).sqrt()


def _angle(angle: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    return angle


def _chord(angle: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    """|A - C B C^T|_F of operators of unit norm."""
    return 2 * (angle / 2).sin()


def _difference(angle: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    """|A - C B C^T|_F / sqrt(n) from the angle, by the law of cosines in a form that keeps small distances accurate."""
    return (((a - b).square() + 4 * a * b * (angle / 2).sin().square()) / n).sqrt()


@dataclass(frozen=True)
class Spectral(Metric):
    """Root mean squared gap between matched eigenvalues; see `spectral_distance`."""

    name: str = "spectral"
    title: str = "matched eigenvalues"
    unit: str = "eigenvalue gap"
    needs = "eigenvalues"
    bounded = False

    def distances(self, first: Tensor, second: Tensor, **options: Any) -> Tensor:
        return spectra.spectral_distance(first, second)


@dataclass(frozen=True)
class Static(Metric):
    """An angle between recordings whose trials match sample by sample; see `baselines`."""

    name: str
    title: str
    compute: Callable[..., Tensor] = field(repr=False)
    unit: str = "rad"
    needs = "trials"
    bounded = False
    options = ("names",)

    def distances(self, first: Any, second: Any, names: Any = None, **options: Any) -> Tensor:
        return self.compute(first, second, names)


@dataclass(frozen=True)
class Stored(Metric):
    """A metric that was read from a file and is not in `METRICS`: it can be shown, but not computed."""

    name: str
    title: str
    unit: str
    needs: str
    bounded: bool

    def distances(self, first: Any, second: Any, **options: Any) -> Any:
        raise DataError(
            f"metric {self.name!r} was read from a file, which holds its results but not its code: "
            f"pass the metric object itself, compare(..., metric=it)"
        )


METRICS: dict[str, Any] = {
    metric.name: metric
    for metric in (
        Aligned("angular", "DSA", "rad", _angle),
        Aligned("euclidean", "DSA (chord)", "chord", _chord),
        Aligned("frobenius", "DSA (size kept)", "operator difference", _difference),
        Spectral(),
        SpectralGrassmann(),
        Driven("state", "state", ("n_starts", "group", "remove_trace", "certificate", "seed", "names")),
        Driven("input", "input", ("group", "names")),
        Driven("joint", "state and input", ("state_weight", "n_starts", "group", "remove_trace", "seed", "names")),
        Static("cka", "CKA", cka_distances),
        Static("procrustes", "Procrustes", procrustes_distances),
        PrincipalVariances(),
        Autocorrelations(),
    )
}


def as_metric(metric: Any) -> Any:
    """The metric of a name, or the object itself after a check of its attributes.

    Raises
    ------
    DataError
        An unknown name, or an object without a required attribute or with a wrong one.
    """
    if isinstance(metric, str):
        check_choice("metric", metric, METRICS)
        return METRICS[metric]
    called = getattr(metric, "name", None) or type(metric).__name__
    if isinstance(metric, type):
        raise DataError(f"metric = {metric.__name__} is a class; pass an object of it, {metric.__name__}()")
    missing = [part for part in REQUIRED if not hasattr(metric, part)]
    if missing:
        raise DataError(f"metric {called!r} has no {', no '.join(missing)}; a metric needs {', '.join(REQUIRED)}")
    for part in ("name", "unit"):
        if not isinstance(getattr(metric, part), str) or not getattr(metric, part):
            raise DataError(f"metric {called!r}: {part} = {getattr(metric, part)!r} is not a text")
    check_choice(f"metric {called!r}: needs", metric.needs, NEEDS)
    if not isinstance(metric.bounded, bool):
        raise DataError(f"metric {called!r}: bounded = {metric.bounded!r} is not True or False")
    if not callable(metric.distances):
        raise DataError(f"metric {called!r}: distances is not a function of (first, second, **options)")
    return metric


def title(metric: Any) -> str:
    """Title of a metric in figures."""
    return getattr(metric, "title", "") or str(metric.name)


def takes(metric: Any, option: str) -> bool:
    """Whether a metric uses this field of `Comparison`."""
    return option in getattr(metric, "options", ())


def is_matched(metric: Any) -> bool:
    """Whether a metric compares trial k of one system with trial k of the other."""
    return bool(getattr(metric, "matched", metric.needs == "trials"))


def solver_key(metric: Any, device: torch.device) -> str:
    """A hash of the code of a metric on a device, so that pairs stored by other code are not read."""
    if isinstance(metric, (Aligned, Driven)):
        source = alignment.solver_key(device)
    else:
        try:
            source = inspect.getsource(type(metric))
        except (OSError, TypeError):  # classes defined at a prompt have no source
            source = repr(metric)
        source += repr(metric) if is_dataclass(metric) else ""  # its parameters
    return hashlib.sha256(f"{metric.name}\n{source}".encode()).hexdigest()


def as_pairs(metric: Any, found: Any, n_pairs: int) -> Pairs:
    """Check what ``distances`` of a metric returned, and complete it to `Pairs`."""
    if isinstance(found, Pairs):
        return found
    if metric.bounded and not (isinstance(found, tuple) and len(found) == 2):
        raise DataError(f"metric {metric.name!r} is bounded, so distances must return (distances, lower bounds)")
    distance, bound = found if metric.bounded else (found, None)
    distance = torch.as_tensor(distance).double()
    if distance.shape != (n_pairs,):
        raise DataError(f"metric {metric.name!r} returned shape {tuple(distance.shape)} for {n_pairs} pairs, not (P,)")
    bound = torch.full_like(distance, torch.nan) if bound is None else torch.as_tensor(bound).to(distance)
    if bound.shape != distance.shape or not bool(torch.isfinite(distance).all()) or bool((distance < 0).any()):
        raise DataError(f"metric {metric.name!r} returned distances or bounds that are not finite numbers >= 0 of (P,)")
    exact = torch.ones_like(distance)
    return Pairs(distance, bound, exact, exact > 0)
