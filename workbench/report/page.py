"""The parts of a page and the page itself, as jinja2 templates make it."""

import base64
import gzip
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.terminal import program

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

RUN = re.compile(r"[=+\-@\t\r]")  # what cells begin with that spreadsheets take for a formula
NUMBER = re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?( \[[-\d., ]*\])?( \(n = \d+( seeds)?\))?")  # with its interval
LARGE = 50_000  # bytes from which a table to download is compressed
WRAPPED = 30  # characters of a cell from which its column may wrap
FILTERED = 12  # rows from which a table has a field to search in it


@dataclass(frozen=True)
class Text:
    """A paragraph. ``kind`` is a CSS class: "lead" for the conclusion, "note" for small print."""

    template: ClassVar[str] = "parts/text.html"
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences. ``kind`` is a CSS class, such as "warning"; ``folded`` is the line behind which it hides."""

    template: ClassVar[str] = "parts/bullets.html"
    lines: Sequence[str]
    kind: str = ""
    folded: str = ""


@dataclass(frozen=True)
class Facts:
    """A row of large figures, each (label, value, remark)."""

    template: ClassVar[str] = "parts/facts.html"
    facts: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Code:
    """Text as it was typed, such as settings."""

    template: ClassVar[str] = "parts/code.html"
    text: str
    folded: str = ""


@dataclass(frozen=True)
class Advice:
    """What to do next: the finding, the action, and the option that does it."""

    template: ClassVar[str] = "parts/advice.html"
    finding: str
    action: str
    option: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure as inline SVG, with files to download as (label, file name, data URI)."""

    template: ClassVar[str] = "parts/picture.html"
    svg: str  # made by matplotlib, which escapes text
    caption: str
    width: float  # CSS pixels
    downloads: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True)
class Table:
    """A table whose columns sort at a click; cells are text."""

    template: ClassVar[str] = "parts/table.html"
    columns: Sequence[tuple[str, bool]]  # name, and whether it holds numbers
    rows: Sequence[Sequence[str]]
    caption: str = ""
    downloads: Sequence[tuple[str, str, str]] = ()

    @property
    def filtered(self) -> bool:
        return len(self.rows) >= FILTERED

    @property
    def classes(self) -> str:
        """CSS classes that say which columns hold numbers, and which long text that may wrap, counted from 1."""
        numbers = [f"n{place}" for place, (_, numeric) in enumerate(self.columns, 1) if numeric]
        texts = [place for place, (_, numeric) in enumerate(self.columns, 1) if not numeric]
        long = [f"w{place}" for place in texts if any(len(row[place - 1]) > WRAPPED for row in self.rows)]
        return " ".join([*numbers, *long])

    @classmethod
    def of(
        cls, frame: "pd.DataFrame", caption: str = "", names: Mapping[str, str] | None = None, **more: Any
    ) -> "Table":
        """A table of a data frame, with four significant digits; ``names`` are those of its columns on the page."""
        columns = [(names or {}).get(str(name), str(name).replace("_", " ")) for name in frame]
        numeric = [frame[name].dtype.kind in "iuf" for name in frame]
        cells = [[in_words(value) for value in frame[name]] for name in frame]
        return cls(list(zip(columns, numeric, strict=True)), list(zip(*cells, strict=True)), caption, **more)


@dataclass(frozen=True)
class Section:
    """A title and what is below it. ``name`` is its anchor; sections without a title are the head of the page."""

    name: str
    title: str
    parts: Sequence[Any] = field(default_factory=list)


def in_words(value: Any) -> str:
    """A value as the text of a cell."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return "yes" if value else "no"
    if isinstance(value, complex) or type(value).__name__.startswith("complex"):
        return f"{value.real:.3f} {value.imag:+.3f}i"
    if isinstance(value, tuple):
        return ", ".join(map(in_words, value))
    if isinstance(value, float) or type(value).__name__.startswith("float"):
        return "" if value != value else f"{value:.4g}"
    return str(value)


def data_uri(data: bytes, kind: str) -> str:
    """A file as a link; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def as_csv(frame: "pd.DataFrame", **options: Any) -> str:
    """A table as CSV. A text that spreadsheets would run as a formula gets an apostrophe, as they write one.

    Names of systems come from names of files, which may come from anybody. A carriage return in one becomes a space.
    """
    shown = frame.copy()
    for name in shown:
        if shown[name].dtype.kind not in "biufc":
            shown[name] = [_as_text(cell) if isinstance(cell, str) else cell for cell in shown[name]]
    return str(shown.to_csv(index=False, **options))


def _as_text(cell: str) -> str:
    mark = "'" if RUN.match(cell) and not NUMBER.fullmatch(cell) else ""
    return mark + cell.replace("\r", " ")


def csv_of(frame: "pd.DataFrame", file: str) -> tuple[str, str, str]:
    """A data frame as a download for a `Table`, with seven digits of each number to keep the page small.

    Large ones are compressed. The page unpacks them where the browser can, and hands out CSV.GZ where it cannot.
    """
    data = as_csv(frame, float_format="%.7g").encode()
    if len(data) < LARGE:
        return "CSV", file, data_uri(data, "text/csv")
    return "CSV", f"{file}.gz", data_uri(gzip.compress(data, mtime=0), "application/gzip")


def environment() -> "Environment":
    """The templates of this package; what they are given is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("workbench.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def render(
    title: str, sections: Iterable[Section | None], command: str, seconds: float | None = None, subtitle: str = ""
) -> str:
    """The page.

    Parameters
    ----------
    title, subtitle : str
    sections : iterable of Section or None
        None is left out.
    command : str
        The command that was run, for the foot of the page.
    seconds : float, optional
        How long it took.
    """
    took = "" if seconds is None else f", {seconds:.0f} s"
    return (
        environment()
        .get_template("page.html")
        .render(
            title=title,
            subtitle=subtitle,
            sections=[section for section in sections if section is not None],
            command=command,
            made=f"{time.strftime('%Y-%m-%d %H:%M')}{took}; {program()}",
        )
    )
