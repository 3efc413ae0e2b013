"""Settings -> YAML text and tables, and files that are written completely or not at all."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pandas as pd


def to_yaml(section: Any) -> str:
    """The values of a section as YAML text, inherited ones included."""
    return yaml.dump(_plain(section), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    from dsa_analysis.comparison import Comparison
    from workbench.settings.dsa import stated

    if isinstance(value, Comparison):
        return stated(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def to_table(section: Any, keys: Iterable[str]) -> "pd.DataFrame":
    """The values of some keys of a section, see `Section.table`."""
    import pandas as pd

    rows = [row for key in keys for row in _rows(key, _value(section, key))]
    width = max((len(text) for _, text in rows), default=0)
    return pd.DataFrame({"value": [text.ljust(width) for _, text in rows]}, index=[key for key, _ in rows])


def _value(section: Any, key: str) -> Any:
    value = section
    for name in key.split("."):
        known = _names(value)
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known) or 'no keys'}"
            raise KeyError(f"{key!r}: no key {name!r}; {hint}")
        value = value[name] if isinstance(value, Mapping) else getattr(value, name)
    return value


def _names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return list(value)
    return [field.name for field in fields(value)] if is_dataclass(value) else []


def _rows(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Key and text; a mapping of sections has a row for each of them."""
    if isinstance(value, Mapping) and value and all(is_dataclass(item) for item in value.values()):
        for name, item in value.items():
            yield f"{key}.{name}", _text(item)
    else:
        yield key, _text(value)


def _text(value: Any) -> str:
    """The value on one line, in the notation of config.yaml. Of a comparison only what differs from its defaults."""
    from dsa_analysis.comparison import Comparison

    if isinstance(value, Comparison):
        default = _plain(Comparison().override(metric=value.metric)) | {"metric": "angular"}
        value = {name: own for name, own in _plain(value).items() if own != default[name]}
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_text, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


class _Dumper(yaml.SafeDumper):
    """Mappings on several lines, lists on one, as in config.yaml; no aliases for equal values."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)

    def ignore_aliases(self, data: Any) -> bool:
        return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. It replaces ``path`` if the block succeeds, and is deleted if it fails.

    Errors of the disk name ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:  # its own text names the temporary path, or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
