"""Tasks as text: "module:Class(keyword=value, ...)", as stored runs and config.yaml name them."""

import ast
import hashlib
import importlib
import inspect
from typing import Any

import numpy as np
from torch import Tensor

from multitask.trials import MultitaskError


def named(task: Any, base: type) -> str:
    """The text for a task: its class with all public attributes of the task and of its classes below ``base``.

    Parameters
    ----------
    task : instance of ``base``
    base : type
        Attributes that the task inherits from this class and does not change are left out.

    Returns
    -------
    str

    Raises
    ------
    MultitaskError
        If an attribute has no description that lasts, such as a function.
    """
    found: dict[str, Any] = {}
    for owner in reversed(type(task).__mro__):
        if owner is not base and issubclass(owner, base):
            found |= {name: value for name, value in vars(owner).items() if _is_plain(value)}
    found |= vars(task)
    own = [f"{name}={_described(task, name, found[name])}" for name in sorted(found) if not name.startswith("_")]
    return f"{type(task).__module__}:{type(task).__qualname__}({', '.join(own)})"


def imported(text: str, base: type) -> Any:
    """The object that "module:name" or "module:Class(keyword=value, ...)" stands for; a class is called.

    Parameters
    ----------
    text : str
    base : type
        The object must be an instance, or the class a subclass, of this class.

    Returns
    -------
    instance of ``base``

    Raises
    ------
    MultitaskError
        If there is no such module or name, if it is not of this class, or if a keyword does not fit.
    """
    where, _, call = text.partition(":")
    try:
        path, options = _parsed(call)
    except (SyntaxError, ValueError) as problem:
        raise MultitaskError(
            f"task {text!r} cannot be read: write 'module:name', or 'module:Class(keyword=value, ...)' with numbers, "
            f"texts and lists of them"
        ) from problem
    try:
        found = importlib.import_module(where)
        for name in path:
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as problem:
        raise MultitaskError(f"task {text!r} cannot be imported: {problem}") from problem
    if isinstance(found, type) and issubclass(found, base):
        return _called(text, found, options or {})
    if not isinstance(found, base):
        raise MultitaskError(f"task {text!r} is {type(found).__name__}: must be a multitask.{base.__name__}")
    if options is not None:
        raise MultitaskError(f"task {text!r}: {'.'.join(path)} is a task, which takes no keywords: leave out (...)")
    return found


def _parsed(call: str) -> tuple[list[str], dict[str, Any] | None]:
    """Names and keywords of "name", "name.name" or "name(keyword=value)"; values are literals, so nothing is run."""
    node: ast.expr = ast.parse(call, mode="eval").body
    options: dict[str, Any] | None = None
    if isinstance(node, ast.Call):
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("not all arguments are keywords")
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        node = node.func
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path, node = [node.attr, *path], node.value
    if not isinstance(node, ast.Name):
        raise ValueError("not a name")
    return [node.id, *path], options


def _called(text: str, kind: type, options: dict[str, Any]) -> Any:
    """An instance of a class. Options that it does not take must be attributes with these values."""
    try:
        taken = inspect.signature(kind).parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        made = kind(**{name: value for name, value in options.items() if open_ended or name in taken})
    except TypeError as problem:
        raise MultitaskError(f"task {text!r} cannot be made: {problem}") from problem
    for name, value in options.items():
        if name not in taken and not open_ended and (not hasattr(made, name) or getattr(made, name) != value):
            known = ", ".join(taken) or "none"
            raise MultitaskError(f"task {text!r}: {kind.__name__} has no option {name!r}; it has {known}")
    return made


def _is_plain(value: Any) -> bool:
    """Whether a value in the body of a class is data, not a method or property."""
    return not callable(value) and not isinstance(value, property | classmethod | staticmethod)


def _described(task: Any, name: str, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(f"{value.dtype} {value.shape} ".encode() + value.tobytes())
        return f"'sha256:{digest.hexdigest()[:16]}'"
    text = repr(value)
    if " at 0x" in text:
        raise MultitaskError(
            f"task {type(task).__name__}: a stored run cannot name the attribute {name} = {text}: rename it _{name}, "
            f"or give the task a property identity of its own"
        )
    return text
