"""Figures of a report: a matplotlib figure -> SVG in the colours of the page, with PNG and PDF to download."""

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.plotting import NAMED
from workbench.report.page import Picture, data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN: Any = {"text.parse_math": False, "svg.fonttype": "none"}  # names as they are, and text as text
DOTS = 105  # per inch, of the PNG and of what the SVG holds as pixels


def picture(figure: "Figure", name: str, caption: str) -> Picture:
    """A figure for a page.

    Parameters
    ----------
    figure : matplotlib Figure
    name : str
        Of the files to download, without extension. Unique on the page.
    caption : str

    Returns
    -------
    Picture
        The SVG has a clear background, and what is black takes the colour of the text around it.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    pdf, svg = io.BytesIO(), io.StringIO()
    with rc_context(PLAIN | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # no news for the terminal
        if (layout := figure.get_layout_engine()) is not None:  # once for all formats
            layout.execute(figure)
            figure.set_layout_engine("none")
        figure.set_dpi(DOTS)
        canvas = FigureCanvasAgg(figure)  # canvases draw once, where Figure.savefig draws twice
        canvas.draw()
        png = _few_colours(np.asarray(canvas.buffer_rgba()))
        FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_alpha(0)
        figure.set_dpi(DOTS)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    downloads = [
        ("PNG", f"{name}.png", data_uri(png, "image/png")),
        ("PDF", f"{name}.pdf", data_uri(pdf.getvalue(), "application/pdf")),
    ]
    return Picture(_inline(svg.getvalue(), name), caption, 96 * figure.get_figwidth(), downloads)


def _inline(svg: str, name: str) -> str:
    """An SVG for a page: without prolog and metadata, black as the colour of the text, names of elements its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(rf'<g id="{NAMED}([^"]*)">', r"<g><title>\1</title>", svg)  # shown where the mouse points
    svg = svg.replace("#000000", "currentColor")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)


def _few_colours(pixels: np.ndarray) -> bytes:
    """A PNG of (height, width, 4) bytes in 256 colours, a third of the size of all."""
    from PIL import Image  # a dependency of matplotlib

    # this method keeps rare colours, such as that of a single line
    few = Image.fromarray(pixels).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "png", dpi=(DOTS, DOTS), optimize=True)
    return buffer.getvalue()
