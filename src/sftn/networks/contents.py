"""The sets of weights in a file: which there are, by name, and which of them is a network's.

People save weights beside much else, and often several sets of them: the averaged ones, a student with its teacher, a
network inside a wrapper. A set is found by what it is, not by where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from sftn.errors import InputError, unknown
from sftn.storage.stand_ins import Inert

State: TypeAlias = dict[str, Tensor]

_DEEPEST = 4
"""Levels of dicts in which sets are looked for, and of prefixes that are taken away."""
_LARGEST = 2**17
"""Most tensors and modules of a pickled network; a forged one can hold itself many times."""
_AVERAGED = re.compile(r"(^|[._-])(ema|swa|avg|averaged?|shadow|polyak)([._-]|$)|EMA$", re.IGNORECASE)
_OTHERS = re.compile(r"(^|[._-])(optim\w*|sched\w*|lr_scheduler|scaler|amp|criterion|loss\w*|metrics?)$", re.IGNORECASE)
"""Names of what is saved beside weights and also holds tensors."""
_PROFILED = ("total_ops", "total_params")
"""Ends of the keys that thop adds to a state dict."""


def sets(content: Any) -> dict[str, State]:
    """Every set of weights in what a file holds, by the names that lead to it, joined by dots; "" if it is the whole.

    A set is a dict from text to tensors, of which one at least is a matrix or a kernel, or a pickled module.
    """
    found: dict[str, State] = {}
    _search(content, "", _DEEPEST, found, set())
    return found


def _search(content: Any, name: str, depth: int, found: dict[str, State], seen: set[int]) -> None:
    if id(content) in seen:
        return
    seen.add(id(content))
    if isinstance(content, Inert):
        state = _of_module(content)
    elif isinstance(content, Mapping):
        state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    else:
        return
    state = {key: value for key, value in state.items() if not key.endswith(_PROFILED)}
    if any(tensor.dim() > 1 for tensor in state.values()):
        found[name] = state
    if not depth or (isinstance(content, Inert) and name in found):
        return
    for key, value in (content.held if isinstance(content, Inert) else content).items():
        if isinstance(key, str) and not _OTHERS.search(key):
            _search(value, f"{name}.{key}" if name else key, depth - 1, found, seen)


def _of_module(module: Inert) -> State:
    """The state dict of a pickled `nn.Module` or TorchScript module, as it would write it."""
    state: State = {}
    left = _LARGEST

    def walk(at: Inert, prefix: str, depth: int) -> None:
        nonlocal left
        tables = [at.held.get(table) for table in ("_parameters", "_buffers", "_modules")]
        inside = at.held if tables[2] is None else {key: one for table in tables for key, one in _items(table)}
        for key, value in inside.items():
            left -= 1
            if left < 0 or depth > 64:
                raise ValueError("a module of too many parts")
            if isinstance(value, Tensor):
                state[prefix + key] = value
            elif isinstance(value, Inert):
                walk(value, f"{prefix}{key}.", depth + 1)

    walk(module, "", 0)
    return state


def _items(table: Any) -> Iterator[tuple[str, Any]]:
    held = table.held if isinstance(table, Inert) else table if isinstance(table, Mapping) else {}
    yield from ((key, value) for key, value in held.items() if isinstance(key, str))


def named(found: Mapping[str, State], part: str, where: str) -> dict[str, State]:
    """The sets that a person means by `part`: a name or a word of it, or a prefix of their keys (`student`).

    Raises:
        InputError: there is none.
    """
    chosen = {name: state for name, state in found.items() if name == part or part in name.split(".")}
    if chosen:
        return chosen
    groups: dict[str, State] = {}
    for name, state in found.items():
        for prefix, inside in _groups(state, _DEEPEST):
            if prefix == part or prefix.endswith(f".{part}"):
                groups[f"{name}.{prefix}" if name else prefix] = inside
    if not groups:
        names = [name for state in found.values() for name in roles(state)] + list(filter(None, found))
        names = names or [prefix for state in found.values() for prefix, _ in _groups(state)]
        raise unknown(f"set of weights in {where}", part, dict.fromkeys(names))
    return groups


def fitting(found: Mapping[str, State], fits: Callable[[State], bool]) -> dict[str, State]:
    """The sets, or parts of one behind a prefix of its keys, that fit a network; what is beside a part is left out."""
    fitted: dict[str, State] = {}
    for name, state in found.items():
        fitted.update(_fitting(name, state, fits, _DEEPEST))
    return fitted


def _fitting(name: str, state: State, fits: Callable[[State], bool], depth: int) -> Iterator[tuple[str, State]]:
    if fits(state):
        yield name, state
    elif depth:
        for prefix, inside in _groups(state):
            yield from _fitting(f"{name}.{prefix}" if name else prefix, inside, fits, depth - 1)


def nearest(found: Mapping[str, State], overlap: Callable[[State], int]) -> State:
    """The set, or the part of one behind a prefix, that overlaps most with what a network has."""
    parts = [inside for state in found.values() for _, inside in _groups(state, _DEEPEST)]
    return max([*found.values(), *parts], key=overlap)


def _groups(state: State, depth: int = 1) -> Iterator[tuple[str, State]]:
    """The parts of a state dict by the first components of their keys, without these, down to a depth."""
    groups: dict[str, State] = {}
    for key, value in state.items():
        prefix, dot, rest = key.partition(".")
        if dot:
            groups.setdefault(prefix, {})[rest] = value
    for prefix, inside in groups.items():
        yield prefix, inside
        if depth > 1:
            yield from ((f"{prefix}.{below}", part) for below, part in _groups(inside, depth - 1))


def choose(found: Mapping[str, State], where: str) -> str:
    """The name of the one set to take: the only one, or the averaged one among several.

    Raises:
        InputError: there are several, and no rule among them.
    """
    names = list(found)
    for chosen in (names, list(filter(averaged, names))):
        if len(chosen) == 1:
            return chosen[0]
    raise several(names, where)


def averaged(name: str) -> bool:
    """Whether a set's name says that it is a running average of the weights."""
    return bool(_AVERAGED.search(name))


def several(names: Sequence[str], where: str) -> InputError:
    """The refusal of a file with several sets."""
    short = shortened(names)
    if {"student", "teacher"} <= set(short):  # nobody means the rest of a distiller
        short = ["student", "teacher"]
    ways = " or ".join(f"{where}#{name}" for name in short[:2])
    return InputError(f"{where} holds {listed(short)}: say which, as in {ways}")


def listed(names: Sequence[str]) -> str:
    """A few names as text."""
    *first, last = [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else names
    return f"{', '.join(first)} and {last}" if first else last


def shortened(names: Sequence[str]) -> list[str]:
    """Names by the first words in which they differ, if these tell them apart."""
    words = [name.split(".") for name in names]
    common = set.intersection(*map(set, words))
    own = [next((word for word in each if word not in common), "") for each in words]
    return own if all(own) and len(set(own)) == len(own) else [name or "weights of its own" for name in names]


def roles(state: Mapping[str, Any]) -> list[str]:
    """`student` and `teacher` if a state dict holds both, as a distiller's does; otherwise nothing."""
    firsts = {key.removeprefix("module.").partition(".")[0] for key in state}
    return ["student", "teacher"] if {"student", "teacher"} <= firsts else []
