"""config.yaml -> Settings: every number of every experiment, checked before anything runs.

    settings = load_settings()      # the argument, else $COMPUTE_ALIKE_CONFIG, else ./config.yaml
    print(settings.lorenz)          # a section prints as the YAML it was read from

The file shows everything: no key has a default, none is ignored, none is converted. All that is wrong comes in one
`ConfigError`, a line for each problem, with the line of the file and the key.

A new section is a frozen dataclass and a line in `Settings`. Parameter classes that steer code live beside that code;
what must hold *between* keys is said by the section's `problems`. Plain scalars are read by the rules of YAML 1.2:
``1e-3`` is a number, ``yes`` is text.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo

from dsa_analysis.compare import ComparisonParameters
from dsa_analysis.systems import LorenzRegime

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


Count = Annotated[int, Field(ge=1)]
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

    def problems(self) -> Iterator[str]:
        needed = self.dsa.window + self.dsa.steps_ahead
        if needed > self.n_times:
            yield (
                f"dsa.n_delays: {self.dsa.n_delays} copies every {self.dsa.delay_interval} samples and "
                f"{self.dsa.steps_ahead} ahead need trials of at least {needed} samples, but lorenz.n_times is "
                f"{self.n_times}; lower n_delays or delay_interval, or raise n_times"
            )
        n_columns = 3 * self.dsa.n_delays
        if self.dsa.rank > n_columns:
            yield (
                f"dsa.rank: {self.dsa.rank} is more than a window holds, 3 channels x {self.dsa.n_delays} n_delays = "
                f"{n_columns}; lower rank or raise n_delays"
            )


@dataclass(frozen=True)
class Settings(Section):
    """config.yaml as a value: frozen, complete and checked, with ``results`` absolute and ``device`` resolved."""

    version: Version
    seed: Annotated[int, Field(ge=0)]
    device: Device
    results: Folder
    lorenz: Lorenz

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
