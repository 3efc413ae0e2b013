"""Checks the built site: links inside it lead to a page and a heading that exist, and no page loads from a network.

``python docs/check_site.py results/docs`` lists what is wrong, and fails if anything is. Sphinx checks the links that
it makes from sources; this reads the pages as a browser would, those of templates, cards and docstrings included.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}  # what a browser fetches by itself


class Page(HTMLParser):
    """The anchors and the links of a page; of each link, whether a browser loads it without a click."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the id and the link of a tag."""
        given = {name: value for name, value in attrs if value is not None}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag in LOADED and LOADED[tag] in given:
            self.links.append((given[LOADED[tag]], True))
        elif tag == "a" and "href" in given:
            self.links.append((given["href"], False))


def problems(site: Path) -> Iterator[str]:
    """One line for each link that leads nowhere, or that would be loaded from a network."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    for path, page in pages.items():
        for link, loaded in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data" or ((parts.scheme or parts.netloc) and not loaded):
                continue
            name = path.relative_to(site.resolve())
            if parts.scheme or parts.netloc:
                yield f"{name} loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{name} links to {link}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name} links to {link}: no such heading"


if __name__ == "__main__":
    found = sorted(set(problems(Path(sys.argv[1]))))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
