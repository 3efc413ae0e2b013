"""How results show themselves: a few lines at a prompt, and a small table in a notebook; never the numbers of an array.

A result inherits from `Shown` and says in ``_card`` what it is, what is in it, and what to do with it next.
"""

import sys
from collections.abc import Iterable
from html import escape
from typing import NamedTuple, TextIO


class Card(NamedTuple):
    """What is shown of a result: a title, rows of a name and a text, and what to do next."""

    title: str
    rows: dict[str, str]
    next: str

    def text(self) -> str:
        rows = {name: text for name, text in self.rows.items() if text} | {"next": self.next}
        width = max(map(len, rows))
        return "\n".join([self.title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())])

    def html(self) -> str:
        """The same as an HTML table, in the colours of the page around it."""
        cells = "".join(
            f'<tr><td style="text-align:left;opacity:.65;vertical-align:top">{escape(name)}</td>'
            f'<td style="text-align:left">{escape(text)}</td></tr>'
            for name, text in self.rows.items()
            if text
        )
        return (
            f'<div><strong>{escape(self.title)}</strong><table style="margin:.3em 0">{cells}</table>'
            f'<span style="opacity:.65">next:</span> <code>{escape(self.next)}</code></div>'
        )


class Shown:
    """Base class of results that show themselves."""

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names separated by commas; of many, the first ones and how many more there are."""
    names = list(names)
    more = f", ... ({len(names) - most + 1} more)" if len(names) > most else ""
    return ", ".join(names[: most - 1] if more else names) + more


def samples(n: int) -> str:
    """A number of samples in words."""
    return f"{n} sample{'s' * (n > 1)}"


def digits(value: float) -> str:
    """Three significant digits, and all digits of a number from 1000 to a million."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def bars_go_to() -> TextIO:
    """The stream for progress bars: stderr, but stdout in Jupyter, where a red field stays of what was on stderr."""
    return sys.stdout if type(sys.stderr).__module__.startswith("ipykernel") else sys.stderr
