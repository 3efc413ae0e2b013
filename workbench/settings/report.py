"""Problems of a settings file: each with its line and key, all in one error."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

Key = tuple[str | int, ...]  # ("lorenz", "dsa", "rank") is written lorenz.dsa.rank

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


class ConfigError(ValueError):
    """The settings or the arguments of a command cannot be used. Each argument is one problem, printed on one line."""

    def __str__(self) -> str:
        return "\n".join(self.args)


class Report:
    """Collects the problems of one file, at most one for each key.

    Attributes
    ----------
    lines : dict of key -> int
        The line of each key of the file.
    problems : dict of key -> str
        The first problem found with each key.
    origins : dict of key -> key
        For each inherited value, the key it was inherited from. Problems are shown at the line where the value stands,
        and the same problem of the same value only once.
    failed : set of keys
        Keys that have no value because of a problem reported elsewhere. What is found there later is ignored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Key, int] = {(): 1}
        self.problems: dict[Key, str] = {}
        self.origins: dict[Key, Key] = {}
        self.failed: set[Key] = set()

    def add(self, key: Key, message: str) -> None:
        places = key, self.origin(key)
        if not any(place[:n] in self.failed for place in places for n in range(len(place) + 1)):
            self.problems.setdefault(key, message)

    def add_validation(self, error: "ValidationError") -> None:
        """Add what pydantic found, in the words of config.yaml."""
        for key, message in _explain(error):
            self.add(key, message)

    def origin(self, key: Key) -> Key:
        """The key at which the value of ``key`` stands in the file."""
        for n in range(len(key), 0, -1):
            if key[:n] in self.origins:
                return self.origin(self.origins[key[:n]] + key[n:])
        return key

    def line(self, key: Key) -> int:
        """The line of a key; for a missing key, the line of its section."""
        return self.lines[key] if key in self.lines else self.line(key[:-1])

    def error(self) -> ConfigError:
        """All problems in the order of the file."""
        first: dict[tuple[Key, str], Key] = {}
        for key, message in self.problems.items():
            first.setdefault((self.origin(key), message), key)
        found = sorted((self.line(origin), dotted(key), message) for (origin, message), key in first.items())
        return ConfigError(*(f"{self.path}:{line}: {key}: {message}" for line, key, message in found))


def dotted(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def named_in(message: str, names: Iterable[str]) -> tuple[str, ...]:
    """The first of the names that the message contains as a word, or an empty tuple."""
    known = set(names)
    return tuple(word for word in re.findall(r"\w+", message) if word in known)[:1]


def _explain(error: "ValidationError") -> Iterator[tuple[Key, str]]:
    """Keys and messages. An error raised by a dataclass belongs to the key that its message names."""
    for finding in error.errors():
        key, came = finding["loc"], finding["input"]
        cause = finding.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            for problem in cause.args:
                name, message = problem.split(": ", 1)
                yield (*key, *name.split(".")), message
        elif cause is not None:
            yield (*key, *named_in(str(cause), came if isinstance(came, dict) else ())), str(cause)
        elif finding["type"] == "missing" and isinstance(key[-1], int):
            yield key[:-1], f"too few items, got {json.dumps(came)}"
        else:
            words = WORDS.get(finding["type"]) or finding["msg"].replace("Input should be", "must be")
            yield key, f"{words}, got {json.dumps(came)}"
