"""Names on the command line: those of networks, methods and recipes are checked, those of runs are looked up."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from sftn.cli import analysis_options, catalogue, options
from sftn.errors import InputError, unknown
from sftn.runs.folder import find
from sftn.spec.schedule import Schedule
from sftn.spec.training import Training

_NAMED = {
    **dict.fromkeys(("teacher", "student", "unknown", "network", "teacher_network"), "network"),
    **dict.fromkeys(("method", "methods"), "method"),
    **dict.fromkeys(("data", "to"), "data"),
    "recipe": "recipe",
}
"""What an option names."""
_ITS_OWN = "paper"
"""The value of `sftn reproduce --data` for a table's own images."""
_RUNS: dict[type[Any], tuple[str, ...]] = {
    options.Distill: ("teacher",),
    options.Evaluate: ("what",),
    options.Export: ("run",),
    options.Predict: ("what",),
    analysis_options.Corruption: ("runs", "reference"),
    analysis_options.Transfer: ("runs",),
    analysis_options.Similarity: ("runs", "teacher"),
    analysis_options.Entropy: ("runs",),
    analysis_options.Curves: ("runs",),
}
"""Options whose values are runs or files of weights."""
_FILES = {".pth", ".pt", ".ckpt", ".tar", ".bin", ".safetensors", ".onnx", ".pt2", ".zip"}


def settle(asked: Any) -> Any:
    """Check the names in a command's options and replace those of runs by their folders, without importing torch.

    Raises:
        InputError: a network, method, recipe or run is unknown.
    """
    if is_dataclass(asked) and not isinstance(asked, type):
        runs = _RUNS.get(type(asked), ())
        if "torch" not in sys.modules:  # else the registries themselves answer quickly
            for name, value in _values(asked):
                if name in _NAMED and name not in runs:
                    _check(_NAMED[name], value)
            if isinstance(asked, Training):
                numbers = {name: getattr(asked, name) for name in ("epochs", "batch", "lr", "milestones")}
                replace(Schedule(), **{name: value for name, value in numbers.items() if value is not None})
        changed = {name: _found(getattr(asked, name), asked) for name in runs}
        inner = {each.name: getattr(asked, each.name) for each in fields(asked) if each.name not in runs}
        changed |= {name: settle(value) for name, value in inner.items() if is_dataclass(value)}
        return replace(asked, **changed) if changed else asked
    return asked


def _values(asked: Any) -> Iterator[tuple[str, str]]:
    for each in fields(asked):
        value = getattr(asked, each.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):
                yield each.name, one


def _check(kind: str, text: str) -> None:
    listed = catalogue.stored()
    if listed is None:
        return
    if kind == "data":
        known = listed[kind].names
        if (key := text.partition(":")[0]) not in (*known, _ITS_OWN):
            raise unknown("data set", key, known)
        return
    known = listed[f"{kind}s"].names
    # Names with other characters are files, foreign networks or methods with options, which take torch to check.
    names = re.findall(r"(?:^|\+)\s*([\w-]+)(?=[@(:+]|$)", text) if kind == "method" else [text]
    for name in names:
        if re.fullmatch(r"[\w-]+", name) and name.lower() not in known and not Path(name).exists():
            raise unknown(kind, name, known)


def _found(value: Any, asked: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_found(one, asked) for one in value)
    if value is None or Path(value).exists() or re.search("[@#:]", str(value)):
        return value
    if "/" in str(value) or Path(value).suffix in _FILES:
        raise InputError(f"{value} does not exist: give the folder, the name or the id of a run, or a file of weights")
    out = getattr(asked, "out", None) or getattr(getattr(asked, "look", None), "out", None) or Path("runs")
    place = Path("runs") if isinstance(asked, options.Export) else out
    return type(value)(find(str(value), place).path)
