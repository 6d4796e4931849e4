"""Names on the command line: those of networks, methods and recipes are checked, those of runs are looked up."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from sftn.cli import analysis_options, catalogue, options
from sftn.data.names import unknown_data
from sftn.errors import InputError, unknown
from sftn.runs.folder import find
from sftn.spec.schedule import Schedule
from sftn.spec.training import Training

_NAMED = {
    **dict.fromkeys(("teacher", "student", "unknown", "network", "teacher_network"), "network"),
    **dict.fromkeys(("method", "methods"), "method"),
    "data": "data",
    "recipe": "recipe",
}
"""What an option names."""
_TARGETS = (analysis_options.Transfer, options.Reproduce)
"""Commands whose `--to` names data sets."""
_ITS_OWN = "paper"
"""The value of `sftn reproduce --data` for a table's own images."""
_RUNS: dict[type[Any], tuple[str, ...]] = {
    options.Compare: ("teacher",),
    options.TrainTeacher: ("teacher",),
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
_NETWORKS = (options.Compare, options.TrainTeacher)
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
                kind = "data" if name == "to" and isinstance(asked, _TARGETS) else _NAMED.get(name)
                if kind is not None and name not in runs:
                    _check(kind, value)
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
        if text.partition(":")[0] not in (*known, _ITS_OWN):
            raise unknown_data(text, known)
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
    if type(asked) in _NETWORKS:  # a network to train, or a run or file to begin with
        listed = catalogue.stored()
        if "torch" in sys.modules or listed is None or str(value) in listed["networks"].names:
            return value
        try:
            return str(find(str(value), asked.out).path)
        except InputError:
            raise unknown("network", str(value), listed["networks"].names) from None
    if "/" in str(value) or Path(value).suffix in _FILES:
        raise InputError(f"{value} does not exist: give the folder, the name or the id of a run, or a file of weights")
    out = getattr(asked, "out", None) or getattr(getattr(asked, "look", None), "out", None) or Path("runs")
    place = Path("runs") if isinstance(asked, options.Export) else out
    return type(value)(find(str(value), place).path)
