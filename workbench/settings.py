"""config.yaml -> Settings: every number of every experiment, checked before anything runs.

    settings = load_settings()      # the argument, else $COMPUTE_ALIKE_CONFIG, else ./config.yaml
    print(settings.lorenz)          # a section prints as the YAML it was read from

The file shows everything: no key has a default, none is ignored, none is converted. All that is wrong comes in one
`ConfigError`, a line for each problem, with the line of the file and the key.

A new section is a frozen dataclass and a line in `Settings`. Parameter classes that steer code live beside that code;
what must hold *between* keys is said by the section's `problems`. Plain scalars are read by the rules of YAML 1.2:
``1e-3`` is a number, ``yes`` is text.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo

from dsa_analysis.baselines import BASELINES
from dsa_analysis.compare import ComparisonParameters
from dsa_analysis.data import DataError
from dsa_analysis.dmd import EmbeddingParameters
from dsa_analysis.motifs import Motif, all_orders, common_dims, grown
from dsa_analysis.systems import LorenzRegime
from multitask.groups import Group, conflicts, learnt, misfit
from multitask.network import NetworkParameters
from multitask.tasks import layout, task_of
from multitask.training import TrainingParameters

VERSION = 1  # of the keys of config.yaml; one more whenever an old file would no longer do

Key = tuple[str | int, ...]  # ("lorenz", "dsa", "rank") is written lorenz.dsa.rank


class ConfigError(ValueError):
    """What was asked for cannot be done as written; one argument, and one line, for each problem."""

    def __str__(self) -> str:
        return "\n".join(self.args)


# ---- the schema ------------------------------------------------------------------------------------------------------


def _supported(version: int) -> int:
    if version != VERSION:
        raise ValueError(
            f"this program reads version {VERSION}, got {version}: start from the config.yaml that came with it and "
            "carry your values over"
        )
    return version


def _present(device: str) -> str:
    """The device as torch knows it; torch is asked only where a GPU could be meant."""
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
    return Path(info.context or ".") / path


def _known(rule: str) -> str:
    task_of(rule)
    return rule


Count = Annotated[int, Field(ge=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
Strength = Annotated[float, Field(ge=0, lt=1)]
Index = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Rule = Annotated[str, AfterValidator(_known)]
Share = Annotated[float, Field(ge=0, le=1)]
Device = Annotated[str, AfterValidator(_present)]
Folder = Annotated[Path, AfterValidator(_beside_config)]
Version = Annotated[int, AfterValidator(_supported)]


class Section:
    """A part of config.yaml; prints as YAML."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def __post_init__(self) -> None:
        problems = tuple(self.problems())
        if problems:
            raise ConfigError(*problems)

    def __str__(self) -> str:
        return self.to_yaml().rstrip()

    def problems(self) -> Iterator[str]:
        """What does not go together in this section, each as ``"key: what, and what would do"``."""
        yield from ()

    def to_yaml(self) -> str:
        """The values as YAML text; `load_settings` reads back what `Settings` writes."""
        plain = json.loads(json.dumps(asdict(self), default=str))  # type: ignore[call-overload]
        return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True)


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
    """Where tasks run that do not depend on each other (`workbench.engine`)."""

    kind: Literal["serial", "processes", "dask", "slurm"]
    workers: Count
    address: str | None
    wait: Positive
    slurm: SlurmParameters


@dataclass(frozen=True)
class LorenzClaims(Section):
    """From which numbers on lorenz_sanity_check.ipynb calls its claims met."""

    silhouette: Correlation
    auroc: Share
    copies_within_floors: Positive
    auroc_inside_chaos: Share
    auroc_under_noise: Share


@dataclass(frozen=True)
class LorenzNoise(Section):
    """The regimes once more under noise of the measurement, by several ways to estimate and cut the operators."""

    n_recordings: Annotated[int, Field(ge=2)]
    strengths: Annotated[tuple[Strength, ...], Field(min_length=1)]
    estimators: Annotated[Mapping[str, ComparisonParameters], Field(min_length=1)]


@dataclass(frozen=True)
class Lorenz(Section):
    """One flow in several regimes, compared under known answers (lorenz_sanity_check.ipynb)."""

    n_seeds: Count
    n_recordings: Count
    n_trials: Count
    n_times: Count
    discard: Annotated[int, Field(ge=0)]
    regimes: Annotated[Mapping[str, LorenzRegime], Field(min_length=2)]
    inside_chaos: LorenzRegime
    dsa: ComparisonParameters
    noise: LorenzNoise
    claims: LorenzClaims

    def problems(self) -> Iterator[str]:
        if self.n_trials < 2:
            yield f"n_trials: the noise floor is the distance of two halves of the trials, got {self.n_trials}; take 2"
        if self.noise.n_recordings > self.n_recordings:
            yield f"noise.n_recordings: there are {self.n_recordings} of each regime, got {self.noise.n_recordings}"
        used = {"dsa": self.dsa} | {f"noise.estimators.{name}": dsa for name, dsa in self.noise.estimators.items()}
        for name, dsa in used.items():
            if problem := _too_short(dsa, self.n_times):
                yield f"{name}.n_delays: a trial {problem}, or raise n_times"
            if problem := _rank_problem(dsa, 3):
                yield f"{name}.rank: {problem}"


@dataclass(frozen=True)
class ActivityShown(Section):
    """Which units and rules the figures of Activity_and_Representation.ipynb show."""

    network: Index
    trial: Annotated[int, Field(ge=0, lt=40)]  # the smallest grid holds 40
    n_units: Count
    n_clusters: Annotated[int, Field(ge=2)] | None
    pairs: Annotated[tuple[tuple[Rule, Rule], ...], Field(min_length=1)]
    n_trials: Count


@dataclass(frozen=True)
class Psychometric(Section):
    """Choices between two stimuli of unequal strength."""

    rules: tuple[Literal["dm1", "dm2", "contextdm1", "contextdm2", "multidm"], ...]
    coherences: Annotated[tuple[float, ...], Field(min_length=2)]
    stim_times: Annotated[tuple[Positive, ...], Field(min_length=1)]
    ignored: Annotated[tuple[float, ...], Field(min_length=1)]
    n_trials: Count


@dataclass(frozen=True)
class LesionTrials(Section):
    """How the costs of lesions are measured."""

    n_trials: Count
    n_controls: Count


@dataclass(frozen=True)
class SlowPoints(Section):
    """Where slow points are looked for."""

    rule: Rule
    beside: Rule
    period: str
    n_starts: Count
    slowest: Positive
    apart: Positive

    def problems(self) -> Iterator[str]:
        for rule in (self.rule, self.beside):
            periods = task_of(rule).timetable
            if self.period not in periods:
                yield f"period: {rule} has no {self.period}; it has {', '.join(periods)}"


@dataclass(frozen=True)
class MultitaskClaims(Section):
    """From which numbers on Activity_and_Representation.ipynb calls its claims met."""

    performance: Share
    silhouette: Annotated[float, Field(ge=-1, le=1)]
    lesion_correlation: Annotated[float, Field(ge=-1, le=1)]
    ignored_effect: Share
    time_constant: Positive
    same_response: Positive


@dataclass(frozen=True)
class Multitask(Section):
    """Networks that learn several rules, and what their units do (Activity_and_Representation.ipynb)."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    n_networks: Count
    network: NetworkParameters
    training: TrainingParameters
    activity: ActivityShown
    psychometric: Psychometric
    lesions: LesionTrials
    slow_points: SlowPoints
    claims: MultitaskClaims

    def problems(self) -> Iterator[str]:
        for n, rule in enumerate(self.rules):
            if rule in self.rules[:n]:
                yield f"rules: {rule} stands there twice; keep one, and see training.rule_weights"
            wanted = layout(rule)
            if (self.network.n_input, self.network.n_rule) != (wanted.n_inputs, len(wanted.rules)):
                yield (
                    f"network.n_input: {rule} needs n_input {wanted.n_inputs} and n_rule {len(wanted.rules)}, got "
                    f"{self.network.n_input} and {self.network.n_rule}"
                )
        if self.activity.network >= self.n_networks:
            yield (
                f"activity.network: {self.activity.network} does not exist, n_networks is {self.n_networks} and they "
                "are counted from 0"
            )
        named = {
            "training.rule_weights": tuple(self.training.rule_weights),
            "activity.pairs": tuple(rule for pair in self.activity.pairs for rule in pair),
            "psychometric.rules": self.psychometric.rules,
            "slow_points.rule": (self.slow_points.rule,),
            "slow_points.beside": (self.slow_points.beside,),
        }
        for key, rules in named.items():
            for rule in rules:
                if rule not in self.rules:
                    yield f"{key}: {rule} is not trained; take it out, or name it in multitask.rules"


@dataclass(frozen=True)
class Measure(Section):
    """One way to say how far two networks are from each other."""

    metric: Literal["angular", "euclidean", "spectral", "cka", "procrustes"]
    dsa: ComparisonParameters | None
    states: Literal["hidden", "readout"]
    inputs: bool
    by: Literal["whole", "period", "response"]
    trials: Literal["matched", "unmatched"]

    @property
    def options(self) -> dict[str, Any]:
        """What `dsa_analysis.compare` is told of operators."""
        return asdict(self.dsa) if self.dsa else {}

    def problems(self) -> Iterator[str]:
        static = self.metric in BASELINES
        if static and self.dsa is not None:
            yield f"dsa: {self.metric} compares states, not operators; null"
        if not static and self.dsa is None:
            yield f"dsa: {self.metric} compares operators; n_delays, rank and so on are needed"
        if static and self.inputs:
            yield f"inputs: only operators have their inputs modelled, and {self.metric} compares states; false"
        if self.inputs and self.dsa and (self.dsa.estimator, self.dsa.steps_ahead) != ("least_squares", 1):
            yield "inputs: are modelled by least_squares, one step ahead; change dsa.estimator and dsa.steps_ahead"


@dataclass(frozen=True)
class JacobianTruth(Section):
    """Where operators are held against the Jacobians of the networks."""

    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    period: str
    n_starts: Count
    max_steps: Count
    n_points: Count
    n_trials: Annotated[int, Field(ge=2, multiple_of=2)]
    n_times: Annotated[int, Field(ge=3)]
    discard: Annotated[int, Field(ge=0)]
    rank: Count
    n_modes: Count

    def problems(self) -> Iterator[str]:
        if self.n_times - self.discard < 3:
            yield f"discard: leaves {self.n_times - self.discard} of n_times = {self.n_times} samples; 3 are needed"
        if self.n_modes > self.rank:
            yield f"n_modes: operators of rank {self.rank} have no {self.n_modes} modes; lower n_modes or raise rank"


@dataclass(frozen=True)
class GroupClaims(Section):
    """From which numbers on Activity_and_Representation.ipynb calls its claims on groups met."""

    performance: Correlation
    learning: Correlation
    unmatched: Annotated[float, Field(ge=0, le=2)]
    p_value: Share
    mode_error: Positive
    jacobians: Correlation


@dataclass(frozen=True)
class GroupComparison(Section):
    """What of the networks' activity is compared, and how."""

    periods: tuple[str, ...]
    n_batches: Count
    n_trials: Count
    noise: bool
    measures: Annotated[Mapping[str, Measure], Field(min_length=1)]
    shown: Annotated[tuple[str, ...], Field(min_length=1)]
    learning: tuple[str, ...]
    n_splits: Count
    n_permutations: Count
    jacobians: JacobianTruth
    claims: GroupClaims

    def problems(self) -> Iterator[str]:
        for name in self.shown:
            if name not in self.measures:
                yield f"shown: {name} is none of the measures, {', '.join(self.measures)}"


@dataclass(frozen=True)
class Groups(Section):
    """Groups of networks that share a history of learning, all tested on one rule."""

    master: Rule
    parts: Annotated[tuple[Rule, ...], Field(min_length=1)]
    n_networks: Count
    n_seeds: Count
    n_test_trials: Count
    network: NetworkParameters
    training: TrainingParameters
    groups: Annotated[Mapping[str, Group], Field(min_length=2)]
    comparison: GroupComparison

    def problems(self) -> Iterator[str]:
        sizes = {"n_networks": self.n_networks} | {
            f"groups.{name}.n_networks": group.n_networks for name, group in self.groups.items() if group.n_networks
        }
        for key, size in sizes.items():
            if size < 2:
                yield (
                    f"{key}: a group of {size} network has no distance within it and no interval over networks; take 2 "
                    "or more"
                )
        wrong = [f"{key}: {problem}" for key, problem in conflicts(self.groups, self.network, self.training)]
        yield from wrong
        if problem := misfit(self.master, self.network):
            yield f"master: groups cannot be tested on it, {problem}"
        for n, part in enumerate(self.parts):
            if part == self.master:
                yield f"parts: {part} is the master rule itself; take it out"
            if part in self.parts[:n]:
                yield f"parts: {part} stands there twice; keep one"
        known = set() if wrong else {rule for name in self.groups for rule in learnt(self.groups, name)}
        for key, rule in (("master", self.master), *(("parts", part) for part in self.parts)):
            if known and rule not in known:
                yield f"{key}: no group learns {rule}; name it in the rules of a group"
        if not any(group == Group((self.master,), n_networks=group.n_networks) for group in self.groups.values()):
            yield f"groups: none learns {self.master} alone, from random networks, which is what all are compared with"
        periods, compared = task_of(self.master).timetable, self.comparison
        for key, names in (("periods", compared.periods), ("jacobians.period", (compared.jacobians.period,))):
            for name in names:
                if name not in periods:
                    yield f"comparison.{key}: {self.master} has no {name}; it has {', '.join(periods)}"
        for key, names in (("learning", compared.learning), ("jacobians.groups", compared.jacobians.groups)):
            for name in names:
                if name not in self.groups:
                    yield f"comparison.{key}: {name} is none of the groups, {', '.join(self.groups)}"
                elif self.master not in self.groups[name].rules and key == "learning":
                    yield f"comparison.learning: {name} does not learn {self.master} last; take it out"
        if compared.jacobians.rank >= self.network.n_rnn:
            yield f"comparison.jacobians.rank: must be below the {self.network.n_rnn} units"


def _too_short(dsa: EmbeddingParameters, n_times: int) -> str:
    """Why windows do not fit into so many samples, and what would do; empty if they fit."""
    needed = dsa.window + dsa.steps_ahead
    if needed <= n_times:
        return ""
    longest = (n_times - dsa.steps_ahead - 1) // dsa.delay_interval + 1
    fits = f"at most n_delays = {longest} fits" if longest > 0 else "no window fits"
    return (
        f"has {n_times} samples, but {dsa.n_delays} copies every {dsa.delay_interval} samples and {dsa.steps_ahead} "
        f"ahead need {needed}; {fits}"
    )


def _rank_problem(dsa: EmbeddingParameters, n_channels: int) -> str:
    """Why the rank is more than a window holds; empty if it is not."""
    n_columns = n_channels * dsa.n_delays
    return (
        f"{dsa.rank} is more than a window holds, {n_channels} channels x {dsa.n_delays} n_delays = {n_columns}; lower "
        "rank or raise n_delays"
        if dsa.rank > n_columns
        else ""
    )


@dataclass(frozen=True)
class Sliding(Section):
    """Windows that slide over trials without knowing where pieces begin."""

    length: Count
    step: Count


@dataclass(frozen=True)
class Sensitivity(Section):
    """Other delays and ranks under which a result is computed again."""

    n_delays: Annotated[tuple[Count, ...], Field(min_length=1)]
    rank: Annotated[tuple[Count, ...], Field(min_length=1)]


@dataclass(frozen=True)
class CompositionalClaims(Section):
    """From which numbers on compositional.ipynb calls its claims met."""

    shared: Correlation
    below_static: Annotated[float, Field(ge=0, le=2)]
    blind: Share
    position: Correlation


@dataclass(frozen=True)
class Compositional(Section):
    """All sequences of some motifs, compared under known composition (compositional.ipynb)."""

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
    dsa: ComparisonParameters
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
                "distance can fall with the number shared; name more motifs, take fewer pieces, or turn repeats on"
            )
        if self.n_trials < 2:
            yield f"n_trials: the noise floor is the distance of two halves of the trials, got {self.n_trials}; take 2"
        shortest = min(self.pieces)
        where = f"piece {self.pieces.index(shortest) + 1} of {len(self.pieces)}"
        if problem := _too_short(self.dsa, shortest):
            yield f"pieces: {where} {problem}, or lengthen the piece"
        if problem := _too_short(replace(self.dsa, n_delays=max(self.sensitivity.n_delays)), shortest):
            yield f"sensitivity.n_delays: {where} {problem}"
        if self.sliding.length > sum(self.pieces):
            yield f"sliding.length: {self.sliding.length} is more than the {sum(self.pieces)} samples of all pieces"
        elif problem := _too_short(self.dsa, self.sliding.length):
            yield f"sliding.length: a window {problem}, or lengthen it"
        if problem := _rank_problem(self.dsa, n_channels):
            yield f"dsa.rank: {problem}"
        for rank in self.sensitivity.rank:
            narrowest = replace(self.dsa, rank=rank, n_delays=min(self.sensitivity.n_delays))
            if problem := _rank_problem(narrowest, n_channels):
                yield f"sensitivity.rank: {problem}"


@dataclass(frozen=True)
class Models(Section):
    """What is compared: all sets of so many motifs, and so many recordings of each."""

    n_pieces: Annotated[tuple[Count, ...], Field(min_length=1)]
    n_recordings: tuple[Annotated[int, Field(ge=2)], ...]

    def problems(self) -> Iterator[str]:
        if len(self.n_pieces) != len(self.n_recordings):
            yield f"n_recordings: {len(self.n_recordings)} numbers for {len(self.n_pieces)} n_pieces; give one for each"
        if len(set(self.n_pieces)) < len(self.n_pieces):
            yield f"n_pieces: a number comes twice, got {list(self.n_pieces)}"


@dataclass(frozen=True)
class Growth(Section):
    """Learning by changing parameters: a system on its way from one motif to another."""

    start: Motif
    end: Motif
    one_regime: bool

    def problems(self) -> Iterator[str]:
        try:
            grown(self.start, self.end, 1)
        except DataError as error:
            yield f"end: {error}"


@dataclass(frozen=True)
class DsaEpochsClaims(Section):
    """From which numbers on dsa_epochs.ipynb calls its claims met."""

    auroc: Share
    growth: Correlation
    above_floor: Positive


@dataclass(frozen=True)
class DsaEpochs(Section):
    """Simulated learning, by noise that shrinks and by parameters that move (dsa_epochs.ipynb)."""

    n_seeds: Count
    n_trials: Count
    n_times: Annotated[int, Field(ge=2)]
    motifs: Annotated[Mapping[str, Motif], Field(min_length=2)]
    models: Models
    strengths: Annotated[tuple[Strength, ...], Field(min_length=2)]
    estimators: Annotated[Mapping[str, ComparisonParameters], Field(min_length=1)]
    growth: Annotated[Mapping[str, Growth], Field(min_length=1)]
    shares: Annotated[tuple[Share, ...], Field(min_length=3)]
    claims: DsaEpochsClaims

    def problems(self) -> Iterator[str]:
        try:
            dims = {"motifs": common_dims(self.motifs)}
        except DataError as error:
            yield f"motifs: {error}"
            dims = {}
        if self.n_trials < 2:
            yield f"n_trials: the noise floor is the distance of two halves of the trials, got {self.n_trials}; take 2"
        dims |= {f"growth.{name}": growth.end.n_dims or 3 for name, growth in self.growth.items()}
        for n_pieces in self.models.n_pieces:
            if n_pieces >= len(self.motifs):
                yield (
                    f"models.n_pieces: {n_pieces} of {len(self.motifs)} motifs make fewer than two models to tell "
                    "apart; name more motifs or take fewer pieces"
                )
        if sorted(set(self.strengths), reverse=True) != list(self.strengths):
            yield f"strengths: must fall from epoch to epoch, got {list(self.strengths)}"
        if sorted(set(self.shares)) != list(self.shares) or self.shares[-1] != 1:
            yield f"shares: must rise and end at 1, the end of learning, got {list(self.shares)}"
        for name, dsa in self.estimators.items():
            if problem := _too_short(dsa, self.n_times):
                yield f"estimators.{name}.n_delays: a piece {problem}, or raise n_times"
            if dims and (problem := _rank_problem(dsa, min(dims.values()))):
                yield f"estimators.{name}.rank: {problem} (motifs and growth)"


@dataclass(frozen=True)
class Settings(Section):
    """config.yaml as a value: frozen, complete and checked, with ``results`` absolute and ``device`` resolved."""

    version: Version
    seed: Annotated[int, Field(ge=0)]
    device: Device
    results: Folder
    engine: EngineParameters
    lorenz: Lorenz
    compositional: Compositional
    dsa_epochs: DsaEpochs
    multitask: Multitask
    groups: Groups

    def run_folder(self, rules: Sequence[str] | None = None, seed: int | None = None) -> Path:
        """Where the training that ``multitask`` describes is kept, in results/runs; other rules or another seed go
        elsewhere, and so does whatever else would give other networks."""
        ours = self.multitask
        rules, seed = rules or ours.rules, self.seed if seed is None else seed
        trained = [list(rules), ours.n_networks, asdict(ours.network), asdict(ours.training), seed]
        digest = hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()
        return self.results / "runs" / f"{len(rules)}_rules_{ours.network.n_rnn}_units_seed_{seed}_{digest[:8]}"

    def save(self, path: str | Path) -> None:
        """Write the settings as they were used, to lie beside what they made."""
        with replacing(Path(path)) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")


# ---- from file to settings -------------------------------------------------------------------------------------------


def load_settings(path: str | Path | None = None) -> Settings:
    """The settings that config.yaml describes.

    Parameters
    ----------
    path : path of the file, optional
        Without it the environment variable COMPUTE_ALIKE_CONFIG decides, and without that ./config.yaml is read.
        Relative paths *in* the file start at the file's folder.

    Raises
    ------
    ConfigError
        All problems of the file at once: ``config.yaml:14: lorenz.dsa.n_delay: unknown key; did you mean 'n_delays'?``
    """
    path = Path(path or os.environ.get("COMPUTE_ALIKE_CONFIG") or "config.yaml")
    report = _Report(path)
    values = _check_keys(Settings, _values(_parse(path), (), report, ()), (), report)
    try:
        settings = TypeAdapter(Settings).validate_json(json.dumps(values), context=path.absolute().parent)
    except ValidationError as error:
        for key, message in _explain(error):
            report.add(key, message)
    if report.problems:
        raise report.error()
    return settings


class _Report:
    """The lines that the keys stand on, and the first problem found with each key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Key, int] = {(): 1}
        self.problems: dict[Key, str] = {}

    def add(self, key: Key, message: str) -> None:
        self.problems.setdefault(key, message)

    def line(self, key: Key) -> int:
        return self.lines[key] if key in self.lines else self.line(key[:-1])  # of a missing key: its section's

    def error(self) -> ConfigError:
        found = sorted((self.line(key), _dotted(key), message) for key, message in self.problems.items())
        return ConfigError(*(f"{self.path}:{line}: {key}: {message}" for line, key, message in found))


def _dotted(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def _parse(path: Path) -> yaml.Node:
    """The file's nodes, which know their lines. Nothing is constructed from them, so no tag can run code."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: {(error.strerror or str(error)).lower()} (tried {path.absolute()}). Name a settings file by "
            "--config or the environment variable COMPUTE_ALIKE_CONFIG, or start where config.yaml lies"
        ) from None
    try:
        text = raw.decode()
        if text.startswith("\ufeff"):
            raise ConfigError(f"{path}:1: begins with a byte order mark; save the file as UTF-8 without one")
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: byte {raw[error.start]:#x} is not UTF-8; save the file as UTF-8") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: character {error.character:#x} cannot stand in a text file") from None
    except yaml.MarkedYAMLError as error:
        hint = "; indent with blanks, never with tabs" if r"'\t'" in str(error.problem) else ""
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: {error.context or 'not YAML'}: {error.problem}{hint}") from None
    if node is None:
        raise ConfigError(f"{path}:1: the file is empty; it needs the keys {', '.join(_names(Settings))}")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: must hold keys and values at its top, as in 'seed: 0'")
    return node


def _values(node: yaml.Node, key: Key, report: _Report, parents: tuple[yaml.Node, ...]) -> Any:
    """Dicts, lists and scalars of a node; on the way the report learns lines, duplicates, tags and infinities."""
    report.lines.setdefault(key, node.start_mark.line + 1)
    if node in parents:
        report.add(key, "refers to itself")
    elif node.tag not in {"tag:yaml.org,2002:" + kind for kind in ("str", "seq", "map")}:
        report.add(key, f"tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is refused; only plain values are read")
    elif isinstance(node, yaml.SequenceNode):
        return [_values(item, (*key, n), report, (*parents, node)) for n, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        return _mapping(node, key, report, (*parents, node))
    else:
        return _scalar(node, key, report)
    return None


def _mapping(node: yaml.MappingNode, key: Key, report: _Report, parents: tuple[yaml.Node, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else "?"
        own, line = (*key, name), name_node.start_mark.line + 1
        if not isinstance(name_node, yaml.ScalarNode):
            report.add(own, f"the key on line {line} is a list or a mapping; keys are words")
        elif name in values:
            report.add(own, f"given twice, on lines {report.lines[own]} and {line}; keep one")
        else:
            report.lines[own] = line
            values[name] = _values(value_node, own, report, parents)
    return values


def _scalar(node: yaml.ScalarNode, key: Key, report: _Report) -> bool | int | float | str | None:
    text, word = node.value, node.value.lower()
    if node.style:  # quoted
        return text
    if word in ("", "~", "null"):
        return None
    if word in ("true", "false"):
        return word == "true"
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?\.inf|\.nan", word):
        number = float(word.replace(".inf", "inf").replace(".nan", "nan"))
        if math.isfinite(number):
            return number
        report.add(key, f"must be a finite number, got {text}")
        return None
    return text


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _check_keys(kind: Any, values: Any, key: Key, report: _Report) -> Any:
    """Report unknown and missing keys; the values come back with misspelt keys put right, so that they are checked too.

    A key is missing even where its dataclass has a default: the file shows everything.
    """
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if not isinstance(values, dict):
        return values  # pydantic says what must stand here
    if get_origin(kind) is Mapping:
        inner = get_args(kind)[1]
        return {name: _check_keys(inner, value, (*key, name), report) for name, value in values.items()}
    if not is_dataclass(kind):
        return values
    names, hints = _names(kind), get_type_hints(kind, include_extras=True)
    missing = [name for name in names if name not in values]
    checked = {}
    for name, value in values.items():
        right = name
        if name not in names:
            near = get_close_matches(name, missing, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
            report.add((*key, name), f"unknown key; {hint}")
            for right in near:
                missing.remove(right)
                report.lines[(*key, right)] = report.lines[(*key, name)]
        checked[right] = _check_keys(hints.get(right), value, (*key, right), report)
    for name in missing:
        report.add((*key, name), "missing; every key must be given")
    return checked


WORDS = {  # pydantic's name of an error -> what would be accepted
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of keys and values",
    "dataclass_type": "must be a section of keys and values",
}


def _explain(error: ValidationError) -> Iterator[tuple[Key, str]]:
    """Pydantic's findings in the words of config.yaml; what a dataclass itself refused, at the key it names."""
    for finding in error.errors():
        key, came = finding["loc"], finding["input"]
        cause = finding.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            for problem in cause.args:
                name, message = problem.split(": ", 1)
                yield (*key, *name.split(".")), message
        elif cause is not None:
            named = [word for word in re.findall(r"\w+", str(cause)) if isinstance(came, dict) and word in came]
            yield (*key, *named[:1]), str(cause)
        elif finding["type"] == "missing" and isinstance(key[-1], int):
            yield key[:-1], f"too few items, got {json.dumps(came)}"
        else:
            words = WORDS.get(finding["type"]) or finding["msg"].replace("Input should be", "must be")
            yield key, f"{words}, got {json.dumps(came)}"


# ---- to disk ---------------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Mappings line by line, lists in one line, as config.yaml is written by hand."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of ``path`` when all went well, and vanishes when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
