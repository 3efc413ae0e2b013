"""Builds the site from docs/*.md, the notebooks as they are committed, and the docstrings: ``make docs``.

The root of the repository is Sphinx's source folder (``sphinx-build -c docs . results/docs``), so that one link works
on GitHub and on the site. The pages are plain Markdown; their tree is here.
"""

import json
import posixpath
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]
logger = logging.getLogger(__name__)
# Modules that pages link to, from the root of the repository.
LINKED = {
    Path(name)
    for page in (ROOT / "docs").glob("*.md")
    for name in re.findall(r"\(\.\./(\S+?\.py)\)", page.read_text("utf-8"))
}
sys.path.insert(0, str(ROOT))

# The tree of pages: a section of the site, and its pages in reading order.
TREE = {
    "docs/index": {
        "Start": [
            "First steps </docs/first_steps>",
            "Which measure? </docs/which_measure>",
            "How to </docs/how_to>",
            "Notebooks </docs/gallery>",
        ],
        "Understand": [
            "Method </docs/method>",
            "Limits </docs/limits>",
            "Speed </docs/speed>",
            "Reading the code </docs/code_tour>",
        ],
        "Look up": [
            "docs/api",
            "docs/choices",
            "docs/command_line",
            "docs/coming_from_dsa_metric",
            "CONTRIBUTING",
            "CHANGELOG",
        ],
    },
    "docs/how_to": {
        "Data": ["docs/recordings", "docs/nwb", "docs/unequal_trials", "docs/real_data", "docs/your_model"],
        "Choices": ["docs/embedding", "docs/stability", "docs/driven"],
        "Results": ["docs/trust", "docs/groups", "docs/results"],
        "Work": ["docs/sizes", "docs/resume", "docs/clusters"],
        "Networks": ["docs/training"],
        "Extend": ["docs/own_metric", "docs/own_task", "docs/own_cell"],
    },
    "docs/gallery": {
        "Notebooks": [
            "lorenz_sanity_check",
            "compositional",
            "dsa_epochs",
            "Activity_and_Representation",
            "geometry_or_dynamics",
        ]
    },
}


def page_in(entry: str) -> str:
    """The page of an entry of the tree, "page" or "Title </page>"."""
    return entry.partition("</")[2].rstrip(">") or entry


project = "compute-alike"
author = "The compute-alike authors"
version = release = version_of(project)
copyright = author

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
root_doc = "docs/index"
default_role = "py:obj"  # `compare` in a docstring links to its page
include_patterns = ["docs/*.md", "docs/api/*.rst", "*.ipynb", "CHANGELOG.md", "CONTRIBUTING.md"]
templates_path = [str(ROOT / "docs" / "_templates")]  # absolute: autosummary looks from the source folder
html_static_path = ["_static"]

nb_execution_mode = "off"  # they are committed executed
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
autosummary_generate = True
autodoc_typehints = "none"  # types and shapes are in the docstrings
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = project
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}  # the start page is docs/index.html
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without pages below them have nothing to show there.
alone = [page for pages in TREE["docs/index"].values() for page in map(page_in, pages)]
html_sidebars = {page: [] for page in ("docs/index", *alone) if page not in TREE or page == "docs/index"}
del html_sidebars["docs/api"]


def add_tree(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the pages below a page, as hidden tables of contents: on GitHub they would be noise."""
    for section, entries in TREE.get(page, {}).items():
        lines = [entry if ">" in entry else f"/{entry}" for entry in entries]
        source[0] += "\n".join(["\n\n```{toctree}", ":hidden:", f":caption: {section}", "", *lines, "```\n"])


class Gallery(SphinxDirective):
    """A card for each notebook: one of its figures, and its title. A line is ``name number-of-the-figure``."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The cards, as HTML."""
        cards = []
        for line in self.content:
            name, figure = line.split()
            path = ROOT / f"{name}.ipynb"
            self.env.note_dependency(str(path))
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            images = [
                o["data"]["image/png"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
            ]
            image = "".join(images[int(figure)].split())
            topic, _, question = cells[0]["source"][0].lstrip("# ").strip().partition(": ")
            cards.append(
                f'<a class="card-of-notebook" href="../{name}.html"><img alt="A figure of {name}" '
                f'src="data:image/png;base64,{image}"/><b>{topic}</b><span>{question}</span></a>'
            )
        return [nodes.raw("", f'<div class="cards-of-notebooks">{"".join(cards)}</div>', format="html")]


def mathml(node: nodes.Element, as_block: bool) -> str:
    """A formula as MathML, which browsers show without a script; one that cannot be written so is a warning."""
    try:
        return tex2mathml(node.astext().replace(r"\dots", r"\ldots"), as_block=as_block)
    except MathError as error:
        logger.warning("formula: %s", error, location=node)
        return ""


def visit_inline(self, node: nodes.math) -> None:
    """Write a formula in the text."""
    self.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(self, node: nodes.math_block) -> None:
    """Write a formula on its own line."""
    self.body.append(f'<div class="math-block">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def show_source(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Let links to modules lead to a page with their source, in place of a download."""
    for link in list(doctree.findall(download_reference)):
        path = Path(posixpath.normpath(posixpath.join(posixpath.dirname(page), link["reftarget"])))
        if path in LINKED:
            target = app.builder.get_relative_uri(page, page_of(path))
            link.replace_self(nodes.reference("", "", *link.children, internal=True, refuri=target))


def page_of(path: Path) -> str:
    """The page of a module, as sphinx.ext.viewcode names it."""
    return posixpath.join("_modules", *path.with_suffix("").parts).removesuffix("/__init__")


def add_source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """The pages of linked modules which viewcode does not make, because they hold no documented name."""
    made = {name for name, found in getattr(app.env, "_viewcode_modules", {}).items() if found}
    for path in sorted(LINKED):
        if page_of(path).removeprefix("_modules/").replace("/", ".") not in made:
            code = app.builder.highlighter.highlight_block((ROOT / path).read_text(encoding="utf-8"), "python")
            yield page_of(path), {"title": path.as_posix(), "body": f"<h1>{path.as_posix()}</h1>{code}"}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what this file adds to Sphinx."""
    app.connect("source-read", add_tree)
    app.connect("doctree-resolved", show_source)
    app.connect("html-collect-pages", add_source_pages)
    app.add_directive("gallery", Gallery)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
