"""Parts of report pages: figures and tables in a single HTML file."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Do they compute alike?</title>
<style>
body {{ font-family: sans-serif; max-width: 70rem; margin: 2rem auto; line-height: 1.4 }}
img {{ max-width: 100% }} figure {{ margin: 1rem 0 }} figcaption, footer {{ color: #555; font-size: .9rem }}
table {{ border-collapse: collapse; font-size: .85rem }} td, th {{ padding: .15rem .8rem; text-align: right }}
tr:nth-child(even) {{ background: #f4f4f4 }} .warning {{ color: #b3261e }} code {{ background: #f4f4f4 }}
</style>
<h1>Do they compute alike?</h1>
{body}
<footer><p><code>{command}</code></p><p>{made}</p></footer>
</html>
"""


def picture(figure: "Figure", caption: str) -> str:
    """HTML of a figure with its caption; the image is part of the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def tabular(table: "pd.DataFrame") -> str:
    """HTML of a table, with four significant digits; a column "eigenvalue" holds complex numbers."""
    shown = table.copy()
    if "eigenvalue" in shown:
        shown["eigenvalue"] = [f"{value.real:.3f} {value.imag:+.3f}i" for value in shown["eigenvalue"]]
    return shown.to_html(index=False, border=0, float_format="{:.4g}".format)


def bullets(lines: list[str], kind: str = "") -> str:
    """HTML of a list of plain lines; ``kind`` is its CSS class."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>'
