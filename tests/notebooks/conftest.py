"""Notebooks as tests: each runs in a temporary folder, beside a config.yaml that makes it small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from workbench.notebooks import run_notebooks
from workbench.settings import load_settings

PROJECT = Path(__file__).parents[2]


NAMED = {"estimators", "groups", "growth", "measures", "motifs", "regimes"}  # mappings whose names are the user's


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes``: sections change key by key, at any depth; new names replace the old ones."""
    merged = dict(values)
    for key, change in changes.items():
        old = values.get(key)
        inside = isinstance(change, dict) and isinstance(old, dict) and (key not in NAMED or set(change) <= set(old))
        merged[key] = changed(old, change) if inside else change
    return merged


NO_FIGURES = """
import matplotlib
import workbench.notebooks
matplotlib.use("agg")
workbench.notebooks.save_figure = lambda *_: None
"""


@pytest.fixture
def run_small(tmp_path: Path) -> Callable[..., nbformat.NotebookNode]:
    """Run a notebook with config.yaml changed as told and give its executed copy; results go to tmp_path/results.

    Without figures, which take most of the time, it tells whether results are read again.
    """

    def run(name: str, changes: dict[str, Any], figures: bool = True) -> nbformat.NotebookNode:
        values = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(changed(values, {"device": "cpu", **changes}), sort_keys=False))
        settings = load_settings(config)
        copy = tmp_path / f"{name}.ipynb"
        notebook = nbformat.read(PROJECT / copy.name, as_version=4)
        if not figures:
            notebook.cells.insert(0, nbformat.v4.new_code_cell(NO_FIGURES))
        nbformat.write(notebook, copy)
        assert run_notebooks([copy], settings) == []
        return nbformat.read(settings.results / "notebooks" / copy.name, as_version=4)

    return run


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that the code cells wrote to stdout."""
    outputs = (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
