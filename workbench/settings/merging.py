"""Checks keys against the schema, and completes sections that state only what differs from another one.

A field ``dsa: Annotated[Comparison, Inherits("dsa")]`` of the schema may leave out any key; it then gets the value of
its base. The base is the nearest key of that path: in the section that holds the field, else in the section around it,
and so on up to the top of the file. Sections merge key by key, at any depth; lists, numbers and mappings of other names
are replaced. Comparisons merge by `Comparison.override`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from dsa_analysis.comparison import Comparison
from dsa_analysis.data import DataError
from workbench.settings.dsa import KEYS, stated
from workbench.settings.report import Key, Report, named_in


@dataclass(frozen=True)
class Inherits:
    """Marks a field of the schema that states only what differs from the nearest ``path``, such as "dsa".

    Several entries of a mapping may state no difference only if ``twins`` is true.
    """

    path: str
    twins: bool = False


def complete(kind: Any, values: Any, report: Report) -> Any:
    """The values with everything inherited filled in and misspelt keys corrected, so that pydantic checks them too.

    Unknown and missing keys are reported. A key is missing even if its dataclass has a default: the file shows
    everything.
    """
    return _Completion(report).value(kind, values, ())


def names_of(kind: Any) -> tuple[str, ...]:
    """The keys that a section may have."""
    return KEYS if kind is Comparison else tuple(field.name for field in fields(kind))


class _Completion:
    """One walk through the schema, in its order: a base comes before the sections that inherit from it."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.done: dict[Key, Any] = {}  # completed sections and comparisons; None if they could not be completed

    def value(self, kind: Any, value: Any, key: Key, base: Key | None = None) -> Any:
        inherits, kind = _unwrapped(kind)
        if get_origin(kind) is Mapping and isinstance(value, dict):
            return self._mapping(get_args(kind)[1], value, key)
        if not is_dataclass(kind):
            return value
        self.done[key] = None
        if not isinstance(value, dict):
            return value  # pydantic reports it
        values = self._known(names_of(kind), value, key)
        if inherits and base is None:
            base = self._nearest(inherits.path, key)
        if (inherits and base is None) or (base is not None and self.done[base] is None):
            self.report.failed.add(key)  # the problem of the base has been reported
            return None
        if kind is Comparison:
            return self._comparison(values, key, base)
        return self._section(kind, values, key, base)

    def _nearest(self, path: str, key: Key) -> Key | None:
        for n in range(len(key) - 1, -1, -1):
            found = (*key[:n], *path.split("."))
            if found != key and key[:n] in self.done and found in self.done:
                return found
        return None

    def _mapping(self, kind: Any, values: dict[str, Any], key: Key) -> dict[str, Any]:
        inherits = _unwrapped(kind)[0]
        if inherits and not inherits.twins:
            empty = [name for name, value in values.items() if value == {}]
            for name in empty[1:]:
                self.report.add((*key, name), f"the same as {empty[0]!r}; state what differs, or leave it out")
        return {name: self.value(kind, value, (*key, name)) for name, value in values.items()}

    def _known(self, names: tuple[str, ...], values: dict[str, Any], key: Key) -> dict[str, Any]:
        """The values under known names; an unknown name is reported and replaced by the nearest known one."""
        free = [name for name in names if name not in values]
        known = {}
        for name, value in values.items():
            right = name
            if name not in names:
                near = get_close_matches(name, free, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
                self.report.add((*key, name), f"unknown key; {hint}")
                if not near:
                    continue
                right = near[0]
                free.remove(right)
                self.report.lines[(*key, right)] = self.report.lines[(*key, name)]
            known[right] = value
        return known

    def _section(self, kind: Any, values: dict[str, Any], key: Key, base: Key | None) -> dict[str, Any]:
        hints = get_type_hints(kind, include_extras=True)
        completed: dict[str, Any] = {}
        self.done[key] = completed  # before its fields, which look for their bases here
        for name in names_of(kind):
            own = (*key, name)
            if name in values:
                of_base = None if base is None else (*base, name)
                completed[name] = self.value(hints[name], values[name], own, of_base if of_base in self.done else None)
            elif base is None:
                self.report.add(own, "missing; every key must be given")
            elif name in self.done[base]:
                completed[name] = self.done[base][name]
                self._inherit(own, (*base, name))
            else:
                self.report.failed.add(own)  # missing in the base, which has been reported
        return completed

    def _inherit(self, key: Key, base: Key) -> None:
        self.report.origins[key] = base
        self.done |= {key + found[len(base) :]: done for found, done in self.done.items() if found[: len(base)] == base}

    def _comparison(self, values: dict[str, Any], key: Key, base: Key | None) -> dict[str, Any] | None:
        how = None
        try:
            how = (Comparison() if base is None else self.done[base]).override(**values)
        except DataError as error:
            self.report.add((*key, *named_in(str(error), KEYS)), str(error))
        wanted = stated(how) if how else dict.fromkeys(KEYS)
        for name in values.keys() - wanted.keys() if base else ():
            self.report.add((*key, name), f"has no effect with metric = {wanted['metric']!r}; leave it out")
        for name in wanted.keys() - values.keys():
            if base is None:
                self.report.add((*key, name), "missing; every key must be given")
            else:
                self.report.origins[(*key, name)] = (*base, name)
        if how is None:
            self.report.failed.add(key)
            return None
        self.done[key] = how
        return wanted


def _unwrapped(kind: Any) -> tuple[Inherits | None, Any]:
    """What a type is annotated with, and the type itself."""
    if get_origin(kind) is not Annotated:
        return None, kind
    kind, *marks = get_args(kind)
    return next((mark for mark in marks if isinstance(mark, Inherits)), None), kind
