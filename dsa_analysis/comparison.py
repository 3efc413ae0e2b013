"""`Comparison`: all choices of a comparison of systems, each defined and explained once.

`compare`, `noise_floor`, `choose_embedding` and `fit_operator`, the command line and config.yaml use these fields with
these names. To add a choice, add a field here.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from dsa_analysis import metrics
from dsa_analysis.alignment import CERTIFICATES
from dsa_analysis.data import (
    LARGEST_COUNT,
    LARGEST_SEED,
    MOST_REPEATS,
    DataError,
    check_choice,
    check_count,
    check_number,
)
from dsa_analysis.embedding import DRIVEN_ESTIMATORS, ESTIMATORS, EmbeddingParameters
from dsa_analysis.metrics import METRICS, Stored, as_metric, takes
from dsa_analysis.windows import as_windows

AUTO = "auto"


class UnknownChoice(DataError, TypeError):
    """A keyword that is not a field of `Comparison`."""


def _choice(default: Any, values: str, help: str, kind: str, group: str = "embedding") -> Any:
    """A field of `Comparison`: its allowed values, its meaning, its kind on a command line, and what uses it."""
    return field(default=default, metadata={"values": values, "help": help, "kind": kind, "group": group})


@dataclass(frozen=True)
class Comparison:
    """Every choice of a comparison of systems."""

    n_delays: int | str | None = _choice(
        None, "int >= 1, or 'auto'", "copies of a sample in a delay window, including the present one; with 'auto' "
        "`choose_embedding` chooses", "count or auto",
    )  # fmt: skip
    rank: int | str | None = _choice(
        None, "int >= 1, or 'auto'", "dimensions kept, which is the size of the operators; with 'auto' "
        "`choose_embedding` chooses", "count or auto",
    )  # fmt: skip
    delay_interval: int = _choice(1, "int >= 1", "spacing of the copies in samples", "count")
    steps_ahead: int | None = _choice(
        None, "int >= 1", "samples from a window to the one it predicts; 1 unless horizon is given", "count"
    )
    horizon: float | str | None = _choice(
        None, "number > 0, or 'auto'", "the same as a time, in the unit of dt; give steps_ahead or horizon. With "
        "'auto' `choose_embedding` chooses", "time or auto",
    )  # fmt: skip
    window: float | None = _choice(
        None, "number > 0", "time that the copies span, n_delays x delay_interval x dt; give n_delays or window",
        "time",
    )  # fmt: skip
    dt: float | Mapping[str, float] | None = _choice(
        None, "number > 0, or mapping from name of a system to that", "sampling interval", "time", "time"
    )
    ridge: float = _choice(1e-8, "number >= 0", "added to the unit variance of whitened coordinates", "number")
    center: bool = _choice(True, "bool", "subtract each channel's mean over all samples", "flag")
    estimator: str = _choice(
        "least_squares", " | ".join(ESTIMATORS), "how operators are estimated; for noisy recordings use "
        "'signal_weighted' with a large rank; 'subspace' is for systems with inputs of which few channels are seen",
        "text",
    )  # fmt: skip
    n_future: int | None = _choice(
        None,
        "int >= 1",
        "samples that the states of estimator 'subspace' have to predict; n_delays by default",
        "count",
    )
    noise_variance: Any = _choice(  # noqa: RUF009
        None, "number >= 0, one for each channel, or mapping from name of a system to these", "variance of white "
        "measurement noise, for estimators that use it; estimated from the windows by default", "number",
    )  # fmt: skip
    windows: Any = _choice(  # noqa: RUF009
        None, "(start, stop) in samples, several, or mapping from name to these", "pieces of the trials that are "
        "compared one by one; the distance is the mean over pieces", "windows", "pieces",
    )  # fmt: skip
    on_rank: str = _choice(
        "lower", "lower | error", "if the rank is too large for some systems: lower it for all and warn, or refuse",
        "text",
    )  # fmt: skip
    metric: Any = _choice(  # noqa: RUF009
        "angular", f"{' | '.join(METRICS)}, or a metric object", "distance between two systems", "text",
        "metric",
    )  # fmt: skip
    n_starts: int | str = _choice(
        "auto", "int >= 1, or 'auto'", "largest number of starts of the alignment of a pair", "count or auto", "metric"
    )
    group: str = _choice(
        "O", "O | SO", "allowed transforms: orthogonal, or rotations without reflections", "text", "metric"
    )
    remove_trace: bool = _choice(False, "bool", "compare operators without their mean eigenvalue", "flag", "metric")
    state_weight: float = _choice(
        0.5, "number in [0, 1]", "weight of the state against the input in metric 'joint': 1 is 'state', 0 is 'input'",
        "number", "metric",
    )  # fmt: skip
    certificate: str = _choice(
        "fast", "fast | tight | auto", "how lower bounds of aligned distances are computed: 'fast' from spectra; "
        "'tight' takes milliseconds a pair at rank 10 and often proves the alignment optimal; 'auto' is 'tight' if "
        "the gap exceeds 5% and rank <= 12", "text", "metric",
    )  # fmt: skip
    n_sweeps: int = _choice(
        0, "int >= 0", "rounds in which each pair is started again through third systems; distances then depend on "
        "the other systems of the comparison", "count from 0", "metric",
    )  # fmt: skip
    seed: int = _choice(0, "int >= 0", "seed of all random numbers", "count from 0", "always")

    def __post_init__(self) -> None:
        metric = as_metric(self.metric)
        object.__setattr__(self, "metric", metric)
        for each in fields(self):  # numpy scalars become Python numbers, which files and seeds need
            if isinstance(value := getattr(self, each.name), np.generic):
                object.__setattr__(self, each.name, value.item())
        for name, least, most in (
            *((name, 1, LARGEST_COUNT) for name in ("n_delays", "rank", "delay_interval", "steps_ahead", "n_future")),
            ("n_starts", 1, MOST_REPEATS), ("n_sweeps", 0, MOST_REPEATS), ("seed", 0, LARGEST_SEED),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("n_delays", "rank", "steps_ahead", "n_future"):
                continue
            if value != AUTO or name not in ("n_delays", "rank", "n_starts"):
                check_count(name, value, least, most)
        for name in ("horizon", "window"):
            if (value := getattr(self, name)) is not None and not (name == "horizon" and value == AUTO):
                _check_time(name, value)
        if isinstance(self.dt, Mapping):
            for system, value in self.dt.items():
                _check_time(f"dt of system {system!r}", value)
        elif self.dt is not None:
            _check_time("dt", self.dt)
        if (
            isinstance(self.ridge, bool)
            or not isinstance(self.ridge, (int, float, np.number))
            or not 0 <= self.ridge < math.inf
        ):
            raise DataError(f"ridge = {self.ridge!r} is not a number of at least 0")
        check_number("state_weight", self.state_weight, "a number from 0 to 1", 0)
        if self.state_weight > 1:
            raise DataError(f"state_weight = {self.state_weight!r} is not a number from 0 to 1")
        for name in ("center", "remove_trace"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(f"{name} = {getattr(self, name)!r} is not True or False")
        check_choice("estimator", self.estimator, ESTIMATORS)
        check_choice("on_rank", self.on_rank, ("lower", "error"))
        check_choice("group", self.group, ("O", "SO"))
        check_choice("certificate", self.certificate, CERTIFICATES)
        if self.windows is not None:
            object.__setattr__(self, "windows", as_windows(self.windows))
        for one, other in (("steps_ahead", "horizon"), ("n_delays", "window")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise DataError(
                    f"{one} = {getattr(self, one)!r} and {other} = {getattr(self, other)!r} say the same thing twice; "
                    f"give one of them"
                )
        if isinstance(self.dt, Mapping) and len(set(self.dt.values())) > 1 and metric.needs != "trials":
            self._refuse_unequal_times()
        if self.n_future is not None and self.estimator != "subspace":
            raise DataError(
                f"n_future = {self.n_future} has no effect with estimator = {self.estimator!r}, whose operators "
                f"predict from a window to the next; leave it out"
            )
        if metric.needs == "driven":
            self._refuse_for_inputs(f"metric = {metric.name!r} compares operators with inputs")
        for name in self._without_effect():
            raise DataError(
                f"{name} = {getattr(self, name)!r} has no effect with metric = {metric.name!r}, which "
                f"{self._why(name)}; leave it out"
            )

    def _refuse_unequal_times(self) -> None:
        """Refuse counts of samples if sampling intervals differ: they are different times in different systems."""
        slow, fast = max(self.dt.values()), min(self.dt.values())  # type: ignore[union-attr]
        by_entry = as_metric(self.metric).needs == "modes"  # whose rates do not depend on the step
        if by_entry and self.window is not None:
            raise DataError(
                f"dt is {fast:g} to {slow:g}, so window = {self.window:g} holds different numbers of samples, and "
                f"metric = {self.metric.name!r} compares eigenvectors entry by entry; give n_delays = 1"
            )
        if self.horizon is None and not by_entry and (self.n_delays, self.window) != (None, None):
            raise DataError(
                f"dt is {fast:g} to {slow:g}, so steps_ahead = {self.steps_ahead or 1} is a different time in each "
                f"system; give horizon"
            )
        if self.n_delays not in (None, 1, AUTO):
            raise DataError(
                f"dt is {fast:g} to {slow:g}, so n_delays = {self.n_delays} is a different time in each system; give "
                + ("n_delays = 1" if by_entry else "window")
            )

    def _refuse_for_inputs(self, why: str) -> None:
        """Refuse choices that operators with inputs do not have; ``why`` there have to be such."""
        check_choice("estimator of operators with inputs", self.estimator, DRIVEN_ESTIMATORS)
        for name in ("n_delays", "rank", "horizon"):
            if getattr(self, name) == AUTO:
                raise DataError(f"{why}, for which {name} = 'auto' is not offered; state {name}")
        if self.steps_ahead not in (None, 1):
            raise DataError(f"{why}, which predict one sample ahead; leave out steps_ahead = {self.steps_ahead}")
        if self.noise_variance is not None:
            raise DataError(f"{why}, for which noise_variance has no effect; leave it out")

    def _why(self, name: str) -> str:
        needs = as_metric(self.metric).needs
        if name == "certificate" and as_metric(self.metric).bounded:
            bounded = ", ".join(known for known in METRICS if takes(METRICS[known], name))
            return f"computes its lower bounds in one way ({bounded} take it)"
        if name == "certificate":
            bounded = ", ".join(known for known in METRICS if takes(METRICS[known], name))
            return f"gives no lower bounds ({bounded} do)"
        if _group(name) == "embedding" and needs == "trials":
            return "compares trials, not operators fitted to them"
        return (
            "compares eigenvalues, which need no alignment" if needs in ("eigenvalues", "modes") else "does not take it"
        )

    def _without_effect(self) -> Iterator[str]:
        """Names of fields that are not at their default and that the metric does not use."""
        for each in fields(self):
            value = getattr(self, each.name)
            given = value is not each.default and not (isinstance(value, (str, int, float)) and value == each.default)
            if given and not has_effect(each.name, as_metric(self.metric)):
                yield each.name

    def override(self, **choices: Any) -> "Comparison":
        """A copy of this comparison in which the given fields are replaced.

        With a new metric, fields that have no effect return to their defaults. ``steps_ahead`` and ``horizon`` replace
        each other, and so do ``n_delays`` and ``window``.

        Raises
        ------
        UnknownChoice
            A keyword that is not a field. The message names the nearest one.
        DataError
            A choice that is invalid, or that has no effect with the metric.
        """
        names = [each.name for each in fields(self)]
        for name in choices:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"choices are {', '.join(names)}"
                raise UnknownChoice(f"unknown choice {name!r}; {hint}")
        kept = {name: getattr(self, name) for name in names}
        for one, other in (("steps_ahead", "horizon"), ("n_delays", "window")):
            for given, replaced in ((one, other), (other, one)):
                if choices.get(given) is not None and choices.get(replaced) is None:
                    kept[replaced] = None
        if "metric" in choices:
            metric = as_metric(choices["metric"])
            kept |= {each.name: each.default for each in fields(self) if not has_effect(each.name, metric)}
        return Comparison(**kept | choices)

    def embedding(self, name: str | None = None, *, inputs: bool = False) -> EmbeddingParameters:
        """The embedding in samples. If ``dt`` is a mapping, give the ``name`` of a system.

        ``inputs`` says that the operator of the system has some.

        Raises
        ------
        DataError
            Delays or a rank that are missing or "auto", no ``dt`` for the system, a horizon or window that is not a
            whole number of its samples (the message names the nearest ones), or choices that are not for operators
            with inputs, or only for these.
        """
        of = f" of system {name!r}" * bool(name)
        if inputs:
            self._refuse_for_inputs(f"inputs{of} came, so this is about operators with inputs")
        elif self.estimator == "subspace":
            raise DataError(
                f"estimator = 'subspace' separates states from inputs, and no inputs{of} came; give inputs, or choose "
                f"another estimator"
            )
        for field_name in ("n_delays", "rank"):
            value = getattr(self, field_name)
            if value is None and (field_name == "rank" or self.window is None):
                raise DataError(
                    "n_delays and rank are needed to fit an operator" + (f" to system {name!r}" * bool(name))
                )
            if value == AUTO:
                raise DataError(f"{field_name} = 'auto' has to be chosen first, by choose_embedding or compare")
        if self.horizon == AUTO:
            raise DataError("horizon = 'auto' has to be chosen first, by choose_embedding or compare")
        steps, delays = self.steps_ahead or 1, self.n_delays
        if self.horizon is not None:
            steps = self._samples("horizon", self.horizon, 1, name)
            if inputs and steps != 1:
                raise DataError(
                    f"horizon = {self.horizon:g} is {steps} samples{of}, and operators with inputs predict one sample "
                    f"ahead; leave it out"
                )
        if self.window is not None:
            delays = self._samples("window", self.window, self.delay_interval, name)
        return EmbeddingParameters(
            int(delays),  # type: ignore[arg-type]
            int(self.rank),  # type: ignore[arg-type]
            self.delay_interval,
            steps,
            self.ridge,
            self.center,
            self.estimator,
        )

    def interval(self, name: str | None = None) -> float | None:
        """The sampling interval of a system; None if ``dt`` is not given."""
        if not isinstance(self.dt, Mapping):
            return self.dt
        if name not in self.dt:
            near = difflib.get_close_matches(str(name).lower(), [str(key).lower() for key in self.dt], n=1)
            near = [str(key) for key in self.dt if [str(key).lower()] == near]
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"dt is given for {', '.join(map(repr, self.dt))}, but not for system {name!r}{hint}")
        return self.dt[str(name)]

    def _samples(self, what: str, time: Any, spacing: int, name: str | None) -> int:
        """A time as a whole number of sampling intervals (times ``spacing``) of a system."""
        interval = self.interval(name)
        if interval is None:
            raise DataError(f"{what} = {time!r} is a time, so dt (the sampling interval) is needed")
        unit = interval * spacing
        of = f" of system {name!r}" * bool(name)
        count, sample = round(time / unit), "sample" if spacing == 1 else "delay interval"
        if count < 1:
            raise DataError(f"{what} = {time:g} is shorter than one {sample}{of}, {unit:g}, which is the minimum")
        if abs(time / unit - count) > 1e-6 * count:
            nearest = [f"{unit * near:.6g}" for near in (math.floor(time / unit), math.ceil(time / unit)) if near]
            raise DataError(
                f"{what} = {time:g} is not a whole number of {sample}s{of}, {unit:g} each; the nearest: "
                f"{' and '.join(nearest)}"
            )
        return count

    def noise_of(self, name: str) -> Any:
        """The noise variance of a system; None if it is to be estimated."""
        return self.noise_variance.get(name) if isinstance(self.noise_variance, Mapping) else self.noise_variance

    def options(self) -> dict[str, Any]:
        """The keyword arguments for ``distances`` of the metric."""
        return {each.name: getattr(self, each.name) for each in fields(self) if metrics.takes(self.metric, each.name)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the metric as its name; `from_dict` reads them."""
        plain = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        metric = as_metric(self.metric)
        return plain | {"metric": metric.name}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], described: Mapping[str, Any] | None = None) -> "Comparison":
        """The comparison from the values of `to_dict`.

        ``described`` holds title, unit, needs and bounded of a metric that is not in `METRICS`. It becomes a `Stored`
        metric.
        """
        known = {each.name for each in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        if kept["metric"] not in METRICS and described is not None:
            kept["metric"] = Stored(name=kept["metric"], **described)
        metric = as_metric(kept["metric"])
        return cls(**{name: value for name, value in kept.items() if has_effect(name, metric)})


def has_effect(name: str, metric: Any) -> bool:
    """Whether a field of `Comparison` has an effect with a metric."""
    group = _group(name)
    if group == "embedding":
        return bool(metric.needs != "trials")
    if group == "metric" and name != "metric":
        return metrics.takes(metric, name) or isinstance(metric, Stored)
    return True


def _group(name: str) -> str:
    return str(Comparison.__dataclass_fields__[name].metadata["group"])


def _check_time(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise DataError(f"{name} = {value!r} is not a time above 0")


def _plain(value: Any) -> Any:
    """Convert arrays, tensors, tuples and mappings to dicts, lists, numbers and text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_plain(own) for own in value]
    return np.asarray(value).tolist() if hasattr(value, "__array__") or hasattr(value, "dtype") else str(value)


def as_comparison(how: Comparison | None, choices: Mapping[str, Any]) -> Comparison:
    """``how`` (by default all defaults) with fields replaced by keywords.

    Raises
    ------
    DataError
        ``how`` is not a `Comparison`, or an unknown keyword, an invalid value, or a choice without effect.
    """
    if how is not None and not isinstance(how, Comparison):
        raise DataError(
            f"how came as {type(how).__name__}; give a Comparison, or its fields as keywords (others= names a second "
            f"set of systems)"
        )
    return (how or Comparison()).override(**choices)


def _documented() -> str:
    """The docstring of `Comparison`, from its fields."""
    lines = [
        "All choices of a comparison of systems, each with a default.",
        "",
        "Fields that have no effect with the metric are refused. For example, 'cka' and 'procrustes' compare trials "
        "and need no embedding.",
        "",
        "Parameters",
        "----------",
    ]
    for each in fields(Comparison):
        default = each.default if each.default is not None else "none"
        lines += [f"{each.name} : {each.metadata['values']}, default {default}", f"    {each.metadata['help']}"]
    return "\n".join(lines)


Comparison.__doc__ = _documented()
