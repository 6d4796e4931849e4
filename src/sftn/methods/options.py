"""The options of a method from outside: what its constructor takes beside the pair, and what a text says of them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from sftn.errors import InputError, unknown


@dataclass(frozen=True)
class Option:
    """A hyper-parameter of a method."""

    name: str
    kind: type[float] | type[int] | type[bool]
    default: float | int | bool
    meaning: str
    """As the docstring has it."""


def options(method: Callable[..., Any]) -> dict[str, Option]:
    """The keywords of a method's class (or of a loss) that have defaults, by name, in their order."""
    function = method.__init__ if isinstance(method, type) else inspect.unwrap(method)  # type: ignore[misc]
    hints = get_type_hints(function)
    arguments = _arguments(method.__doc__ or "")
    return {
        name: Option(name, hints[name], parameter.default, arguments.get(name, ""))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and hints.get(name) in (float, int, bool)
    }


def check(name: str, method: Callable[..., Any], given: Mapping[str, float | int | bool]) -> None:
    """Look at options before a method is built with them.

    Args:
        name: of the method, for messages.
        method: its class.
        given: by name.

    Raises:
        InputError: there is no such option, or its value is of another type.
    """
    known = options(method)
    for key, value in given.items():
        if key not in known:
            raise _unknown(name, key, known)
        kind = known[key].kind
        fits = type(value) in ((float, int) if kind is float else (kind,))
        if not fits or not math.isfinite(value):
            raise InputError(f"{name}'s {key} is {value!r}: give {_example(known[key])}")


def parsed(
    name: str, method: Callable[..., Any], text: str, reserved: Mapping[str, Option] | None = None
) -> dict[str, float | int | bool]:
    """The options of a text such as `negatives=4096, temperature=0.1`.

    Args:
        name: of the method, for messages.
        method: its class.
        text: `NAME=VALUE` pairs with commas between them; empty for none.
        reserved: options that every method has.

    Raises:
        InputError: an option is unknown, given twice, or its value is of another type.
    """
    known = {**(reserved or {}), **options(method)}
    found: dict[str, float | int | bool] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"{part!r} among the options of {name} gives no value: write {name}({key}=VALUE)")
        if key not in known:
            raise _unknown(name, key, known)
        if key in found:
            raise InputError(f"{name}'s {key} is given twice: give it once")
        found[key] = _value(name, known[key], value)
    return found


def _value(name: str, option: Option, text: str) -> float | int | bool:
    try:
        if option.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        value = option.kind(text)
        if math.isfinite(value):
            return value
    except (KeyError, ValueError):
        pass
    raise InputError(f"{name}'s {option.name} is {text!r}: give {_example(option)}")


def _example(option: Option) -> str:
    if option.kind is bool:
        return "true or false"
    return f"{'a whole number' if option.kind is int else 'a number'}, such as {option.default:g}"


def _unknown(name: str, key: str, known: Mapping[str, Option]) -> InputError:
    return unknown(f"option of {name}", key, known) if known else InputError(f"{name} has no options, such as {key}")


def _arguments(docstring: str) -> dict[str, str]:
    """What a Google-style docstring says of each argument, on one line each."""
    block = re.search(r"^ *Args:\n(.*?)(?:\n\s*\n|\Z)", inspect.cleandoc(docstring), re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", block[1] if block else "", re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}
