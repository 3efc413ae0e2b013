"""A YAML file -> plain values and the line of each key.

Scalars follow the rules of YAML 1.2: ``1e-3`` is a number, ``yes`` is text. Tags are refused, so no file can run code.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from workbench.settings.report import ConfigError, Key, Report


def read_values(path: Path, expected: Sequence[str], report: Report) -> dict[str, Any]:
    """The mapping that a file holds; the report gets the lines, and any duplicate keys, tags and infinite numbers.

    Parameters
    ----------
    path : Path
    expected : names of keys, for the message about an empty file
    report : Report

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or is not a mapping.
    """
    return _values(_parse(path, expected), (), report, ())


def _parse(path: Path, expected: Sequence[str]) -> yaml.Node:
    """The nodes of the file. They know their lines; no Python object is constructed from them."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        above = [folder / path.name for folder in path.absolute().parents[1:]]
        there = next((f"; there is {file}" for file in above if file.is_file()), "")
        raise ConfigError(
            f"{path}: {(error.strerror or str(error)).lower()} (tried {path.absolute()}){there}. Give a settings file "
            "with --config, load_settings(path) or the environment variable COMPUTE_ALIKE_CONFIG, or start in the "
            "folder that has config.yaml"
        ) from None
    try:
        text = raw.decode()
        if text.startswith("\ufeff"):
            raise ConfigError(f"{path}:1: begins with a byte order mark; save the file as UTF-8 without one")
        node = _compose(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: byte {raw[error.start]:#x} is not UTF-8; save the file as UTF-8") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: character {error.character:#x} is not allowed in a text file") from None
    except yaml.MarkedYAMLError as error:
        hint = "; indent with spaces, not with tabs" if r"'\t'" in str(error.problem) else ""
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: {error.context or 'not YAML'}: {error.problem}{hint}") from None
    if node is None:
        raise ConfigError(f"{path}:1: the file is empty; it needs the keys {', '.join(expected)}")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: must be keys and values at the top, such as 'seed: 0'")
    return node


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError:
        return yaml.compose(text, Loader=yaml.BaseLoader)  # slower, with better messages


def _values(node: yaml.Node, key: Key, report: Report, parents: tuple[yaml.Node, ...]) -> Any:
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


def _mapping(node: yaml.MappingNode, key: Key, report: Report, parents: tuple[yaml.Node, ...]) -> dict[str, Any]:
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


def _scalar(node: yaml.ScalarNode, key: Key, report: Report) -> bool | int | float | str | None:
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
