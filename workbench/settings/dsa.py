"""How a `Comparison` is written in config.yaml, and what it needs of the trials it is used on."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any

from pydantic import GetPydanticSchema
from pydantic_core import PydanticCustomError, core_schema

from dsa_analysis.comparison import Comparison, has_effect
from dsa_analysis.data import DataError
from dsa_analysis.embedding import EmbeddingParameters
from workbench.settings.report import named_in

ELSEWHERE = ("seed", "windows", "noise_variance", "dt")  # given by the code that compares, not by a dsa section
KEYS = tuple(field.name for field in fields(Comparison) if field.name not in ELSEWHERE)


def stated(how: Comparison) -> dict[str, Any]:
    """The keys of a ``dsa`` section that have an effect under its metric, with their values."""
    values = how.to_dict()
    return {name: values[name] for name in KEYS if has_effect(name, how.metric)}


def _comparison(value: Any) -> Comparison:
    if isinstance(value, Comparison):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("dataclass_type", "must be a section")  # the report has the words
    return Comparison(**value)


# Comparison checks itself, and its metric may be any object: pydantic needs no schema of it.
Dsa = Annotated[
    Comparison, GetPydanticSchema(lambda source, handler: core_schema.no_info_plain_validator_function(_comparison))
]


def embeddings(dsa: Comparison, intervals: Mapping[str, float]) -> tuple[list[EmbeddingParameters], list[str]]:
    """The embedding of systems with these sampling intervals, and problems, each as ``"key: what is wrong"``.

    Both are empty if the metric compares trials. A horizon "auto" counts as one sample here.
    """
    if dsa.metric.needs == "trials":
        return [], []
    fixed = replace(dsa, horizon=None) if dsa.horizon == "auto" else dsa
    found, problems = [], []
    for name, dt in intervals.items():
        try:
            found.append(replace(fixed, dt=dt).embedding(name))
        except DataError as error:
            problems.append(f"{(*named_in(str(error), KEYS), 'n_delays')[0]}: {error}")
    return list(dict.fromkeys(found)), list(dict.fromkeys(problems))


def misfits(
    dsa: Comparison, intervals: Mapping[str, float], n_times: int, n_channels: int, what: str, advice: str
) -> Iterator[str]:
    """Why trials of this length and number of channels do not suffice, each as ``"key: what is wrong"``.

    ``what`` names a trial, such as "a piece"; ``advice`` says what else could be changed.
    """
    found, problems = embeddings(dsa, intervals)
    yield from problems
    short = [problem for embedding in found if (problem := too_short(embedding, n_times))]
    wide = [problem for embedding in found if (problem := rank_problem(embedding, n_channels))]
    yield from (f"{size_key(dsa)}: {what} {problem}, {advice}" for problem in short[:1])
    yield from (f"rank: {problem}" for problem in wide[:1])


def size_key(dsa: Comparison) -> str:
    """The key that sets the number of delays."""
    return "n_delays" if dsa.window is None else "window"


def too_short(embedding: EmbeddingParameters, n_times: int) -> str:
    """Why windows do not fit into ``n_times`` samples, and what would; empty if they fit."""
    needed = embedding.window + embedding.steps_ahead
    if needed <= n_times:
        return ""
    longest = (n_times - embedding.steps_ahead - 1) // embedding.delay_interval + 1
    fits = f"at most n_delays = {longest} fits" if longest > 0 else "no window fits"
    return (
        f"has {n_times} samples, but {embedding.n_delays} copies every {embedding.delay_interval} samples and "
        f"{embedding.steps_ahead} ahead need {needed}; {fits}"
    )


def rank_problem(embedding: EmbeddingParameters, n_channels: int) -> str:
    """Why the rank is larger than a window; empty if it is not."""
    n_columns = n_channels * embedding.n_delays
    if embedding.rank <= n_columns:
        return ""
    return (
        f"{embedding.rank} is more than a window holds, {n_channels} channels x {embedding.n_delays} n_delays = "
        f"{n_columns}; lower rank or raise n_delays"
    )
