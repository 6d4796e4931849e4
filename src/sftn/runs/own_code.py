"""The code of networks and methods that are not the package's: a run with an edited loss is another run.

Hashed is the source of what was registered and of every function and class that it refers to in its own package or in
files of one's own, with the plain values of their globals: what the code reaches, but not the rest of a script.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from sftn.methods import METHODS
from sftn.networks import NETWORKS, PACKAGED
from sftn.spec.run import Run, Weights

logger = logging.getLogger(__name__)

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LIBRARIES = frozenset({"sftn", "torch", "torchvision", "timm", "numpy", *sys.stdlib_module_names})
"""Packages whose code is that of their version, which a run's environment records."""


def signed(run: Run) -> Run:
    """A run with the hash of the code that it needs and that is not the package's; its teachers have their own."""
    names = [run.network, *([] if run.friendly is None else run.friendly.student.split("+"))]
    names += [one.network for one in run.teachers if isinstance(one, Weights)]
    own: list[tuple[str, Any]] = [
        (f"network {name}", NETWORKS[name]) for name in names if name in NETWORKS and _foreign(name)
    ]
    for term in () if run.objective is None else run.objective.terms:
        method = METHODS[term.method]
        if not method.__module__.startswith("sftn."):
            own.append((f"method {term.method}", method))
    parts = [f"{what}\n{found}" for what, made in own if (found := source_of(what, made))]
    return replace(run, code=hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16] if parts else "")


def _foreign(name: str) -> bool:
    return PACKAGED.get(name) is not NETWORKS[name]


def source_of(what: str, made: Any) -> str:
    """The source of a class or function, and of what it reaches; a warning is logged for what cannot be read.

    Args:
        what: its name for people.
        made: the class or function; one with the attribute `built_from` stands for these instead.
    """
    parts: dict[str, None] = {}
    for root in getattr(made, "built_from", (made,)):
        for one in _reached(root):
            if not isinstance(one, type | FunctionType):
                parts[repr(one)] = None
                continue
            try:
                parts[inspect.getsource(one)] = None
            except (OSError, TypeError):
                _say(f"the code of {what} cannot be read: if you change it, give --out another folder")
    return "\n".join(parts)


@functools.cache
def _say(text: str) -> None:
    """Log a warning once in a process, as one is due for every run."""
    logger.warning(text)


def _reached(made: Any) -> Iterator[Any]:
    """Functions and classes that something refers to, libraries apart, and (name, value) of plain globals."""
    while isinstance(made, functools.partial):
        yield "partial", [value for value in (*made.args, *made.keywords.items()) if _plain(value)]
        made = made.func
    made = inspect.unwrap(made if isinstance(made, type | FunctionType) else type(made))
    package = _package(made)
    left, seen = [] if package in _LIBRARIES else [made], set[int]()
    while left:
        one = inspect.unwrap(left.pop(0))
        if id(one) in seen or (_package(one) != package and _of_library(one)):
            continue
        seen.add(id(one))
        yield one
        left += one.__mro__[1:] if isinstance(one, type) else []
        for function in _functions(one):
            for name, value in _globals(function):
                if _plain(value):
                    yield name, value
                elif isinstance(value, functools.partial):
                    left.append(value.func)
                elif isinstance(value, type | FunctionType):
                    left.append(value)


def _package(made: Any) -> str:
    return str(getattr(made, "__module__", None) or "").partition(".")[0]


def _of_library(made: Any) -> bool:
    """Whether something is installed, and not a file of a person's own beside the registered one."""
    file = getattr(sys.modules.get(made.__module__ or ""), "__file__", None) or ""
    return _package(made) in _LIBRARIES or not file or bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(part, _PLAIN) for part in value))


def _functions(one: Any) -> Iterator[FunctionType]:
    if isinstance(one, FunctionType):
        yield one
    elif isinstance(one, type):
        for value in vars(one).values():
            value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if isinstance(value, FunctionType):
                yield value


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function's names stand for: globals, attributes of modules that it names, and what it closes over."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or ())
    for name, cell in cells:
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    names = dict.fromkeys(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            yield from ((inner, vars(value)[inner]) for inner in names if inner in vars(value))
        elif name in function.__globals__:
            yield name, value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
