"""Checks of a command line before it is parsed, so that each error is one line that suggests the nearest names."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from sftn.errors import InputError, unknown
from sftn.spec.jobs import ELSEWHERE
from sftn.spec.run import Branches

_HELP = {"-h", "--help"}
_POSITIONAL = get_args(tyro.conf.Positional[str])[1]
_HOURS = {"compare": "--teacher resnet20 --student resnet8 --data digits --dry-run"}
"""Commands that could run without any option, but for hours; and an example of how to begin."""
_KINDS = {int: "a whole number", float: "a number"}


def check(commands: Mapping[str, type[Any]], arguments: Sequence[str]) -> None:
    """Check that a command line consists of a known command, known options and valid values.

    Args:
        commands: a record of options for each command; nested records hold options of the same command.
        arguments: the command line without the program's name.

    Raises:
        InputError: something is wrong; the message names the first error and the nearest names.
    """
    if not arguments or _HELP & set(arguments[:1]):
        return
    name, *rest = arguments
    if name not in commands:
        raise unknown("command", name, commands)
    kind, where = commands[name], f"sftn {name}"
    if not rest and name in _HOURS:
        raise InputError(f"{where} needs --teacher and --student, for example {where} {_HOURS[name]}")
    if _HELP & set(rest):
        return
    known = _options(kind)
    for choices in (hint for hint in known.values() if isinstance(hint, dict)):  # a command with subcommands
        if not rest or rest[0] not in choices:
            raise unknown(f"part of {where}", rest[0] if rest else "", choices)
        known, rest = _options(choices[rest[0]]), rest[1:]
    given = set()
    for option, values in _options_given(rest):
        if not option:
            _check_positional(where, kind, values)
            continue
        field = option.removeprefix("--").replace("-", "_")
        hint = known.get(field, known.get(field.removeprefix("no_")))
        if hint is None:
            raise unknown(f"option of {where}", option, [f"--{one.replace('_', '-')}" for one in known])
        _check_values(option, hint, values)
        given.add(field)
    if missing := [f"--{each.replace('_', '-')}" for each in _needed(kind) if each in known and each not in given]:
        raise InputError(f"{where} needs {' and '.join(missing)}: see {where} --help")


def _options(kind: type[Any], elsewhere: Mapping[str, str] = ELSEWHERE) -> dict[str, Any]:
    """The options of a record with the types of their values; a union of records maps to those records by name."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(plain) and isinstance(plain, type):
            inner = _options(plain)
            swap = elsewhere if issubclass(plain, Branches) else {}
            found |= {swap.get(key, key): value for key, value in inner.items()}
        elif get_origin(plain) in (Union, types.UnionType) and is_dataclass(_bare(get_args(plain)[0])):
            found[name] = {_bare(one).__name__.lower(): _bare(one) for one in get_args(plain)}
        else:
            found[name] = plain
    return found


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _check_positional(where: str, kind: type[Any], values: Sequence[str]) -> None:
    hints = get_type_hints(kind, include_extras=True)
    places = [each for each in fields(kind) if _POSITIONAL in getattr(hints[each.name], "__metadata__", ())]
    for place, value in zip(places, [*values, *[None] * len(places)]):
        hint = get_args(hints[place.name])[0]
        if value is None:
            if place.default is MISSING:
                raise InputError(f"{where} needs {place.name.upper()}: see {where} --help")
        else:
            _check_values(place.name.upper(), hint, [value])


def _needed(kind: type[Any]) -> Iterator[str]:
    """The options without a default; positional arguments, which are annotated, do not count."""
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        if (
            each.default is MISSING
            and each.default_factory is MISSING
            and get_origin(hints[each.name]) is not Annotated
        ):
            yield each.name


def _options_given(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the values after it; values before the first option come first, under an empty name."""
    option, values = "", list[str]()
    for token in arguments:
        if token.startswith("--") or re.match(r"-[A-Za-z]", token):
            yield option, values
            option, equals, value = token.partition("=")
            values = [value] if equals else []
        else:
            values.append(token)
    yield option, values


def _check_values(option: str, hint: Any, values: Sequence[str]) -> None:
    kinds = list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]
    optional = type(None) in kinds
    kind, *others = sorted((one for one in kinds if one is not type(None)), key=lambda one: get_origin(one) is Literal)
    words = [word for other in others for word in get_args(other)]  # beside a number, such as off
    many = get_origin(kind) is tuple
    if kind is bool:
        return
    if not values and not many:
        raise InputError(f"{option} needs a value")
    inner = get_args(kind)[0] if many else kind
    for value in values if many else values[:1]:
        if value in words or (optional and value == "None"):
            continue
        if get_origin(inner) is Literal:
            if value not in get_args(inner):
                raise unknown(f"value of {option}", value, get_args(inner))
        elif inner in _KINDS:
            try:
                inner(value)
            except ValueError:
                raise InputError(f"{option} takes {' or '.join([_KINDS[inner], *words])}, not {value!r}") from None
        elif inner not in (str, Path):
            raise TypeError(f"{option} has an unsupported type: {inner}")
