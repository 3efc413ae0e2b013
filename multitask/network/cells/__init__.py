"""Cells: recurrent networks given by the equation of one time step.

`CELLS` holds the cells of the package, one in each file. A subclass of `Cell` in a module of yours is used by the name
``module:name``.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from multitask.network.cells.cell import Cell
from multitask.network.cells.dale import Dale
from multitask.network.cells.gru import GRU
from multitask.network.cells.low_rank import LowRank
from multitask.network.cells.lru import LRU
from multitask.network.cells.lstm import LSTM
from multitask.network.cells.selective import Selective
from multitask.network.cells.tanh import Tanh
from multitask.trials import MultitaskError, unknown

CELLS: dict[str, type[Cell]] = {cell.__name__: cell for cell in (Tanh, GRU, LSTM, LowRank, Dale, LRU, Selective)}

__all__ = ["CELLS", "Cell", "check_options", "find_cell"]


def find_cell(name: str) -> type[Cell]:
    """The class of a cell.

    Parameters
    ----------
    name : str
        One of `CELLS`, or ``module:name``.

    Returns
    -------
    type
        A subclass of `Cell`.

    Raises
    ------
    MultitaskError
        If the module or the name does not exist, or if it is no cell.
    """
    if name in CELLS:
        return CELLS[name]
    where, colon, what = name.partition(":")
    if not (where and colon and what):
        raise unknown("cell", name, CELLS)
    try:
        module = importlib.import_module(where)
    except ImportError as error:
        raise MultitaskError(f"cell {name!r}: cannot import module {where!r} ({error})") from error
    cell = getattr(module, what, None)
    if cell is None:
        raise unknown(f"name in {where}", what, [key for key in vars(module) if not key.startswith("_")])
    if not (isinstance(cell, type) and issubclass(cell, Cell)):
        raise MultitaskError(f"cell {name!r} is no cell: must be a subclass of multitask.Cell")
    for method in ("start", "step"):
        if getattr(cell, method) is getattr(Cell, method):
            raise MultitaskError(f"cell {name!r} has no method {method!r}: a cell needs start and step")
    return cell


def check_options(cell: type[Cell], options: Mapping[str, Any]) -> None:
    """Raise a `MultitaskError` for an option that a cell does not have.

    Parameters
    ----------
    cell : type
        A subclass of `Cell`.
    options : mapping name -> value
    """
    known = list(inspect.signature(cell).parameters)[1:]
    for name in options:
        if name not in known:
            raise (
                unknown(f"option of {cell.__name__}", name, known)
                if known
                else MultitaskError(f"unknown option of {cell.__name__} {name!r}: this cell has none")
            )
