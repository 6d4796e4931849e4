"""The options of a method from outside: what its constructor takes beside the pair, and what a text says of them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from sftn.errors import InputError, unknown

Value: TypeAlias = float | int | bool | str


@dataclass(frozen=True)
class Option:
    """A hyper-parameter of a method."""

    name: str
    kind: type[float] | type[int] | type[bool] | type[str]
    default: Value
    meaning: str
    """As the docstring has it."""
    choices: tuple[str, ...] = ()
    """The words that an option of kind `str` may be."""

    @property
    def shown_default(self) -> str:
        """The default as a text of options has it."""
        return str(self.default).lower() if self.kind in (bool, str) else f"{self.default:.6g}"


def options(method: Callable[..., Any]) -> dict[str, Option]:
    """The keywords of a method's class (or of a loss) that have defaults, by name, in their order."""
    function = method.__init__ if isinstance(method, type) else inspect.unwrap(method)  # type: ignore[misc]
    hints = get_type_hints(function)
    arguments = _arguments(method.__doc__ or "")
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty:
            continue
        hint, meaning = hints.get(name), arguments.get(name, "")
        if get_origin(hint) is Literal:
            found[name] = Option(name, str, parameter.default, meaning, get_args(hint))
        elif hint in (float, int, bool):
            found[name] = Option(name, hint, parameter.default, meaning)
    return found


def check(name: str, method: Callable[..., Any], given: Mapping[str, Value]) -> None:
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
        if not _fits(value, known[key]):
            raise InputError(f"{name}'s {key} is {value!r}: give {_example(known[key])}")


def parsed(
    name: str, method: Callable[..., Any], text: str, reserved: Mapping[str, Option] | None = None
) -> dict[str, Value]:
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
    found: dict[str, Value] = {}
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


def _fits(value: Value, option: Option) -> bool:
    """Whether a value is of the option's kind: a finite number, or one of its words."""
    if type(value) not in ((float, int) if option.kind is float else (option.kind,)):
        return False
    return value in option.choices if isinstance(value, str) else math.isfinite(value)


def _value(name: str, option: Option, text: str) -> Value:
    try:
        value = {"true": True, "false": False}[text.lower()] if option.kind is bool else option.kind(text)
        if _fits(value, option):
            return value
    except (KeyError, ValueError):
        pass
    raise InputError(f"{name}'s {option.name} is {text!r}: give {_example(option)}")


def _example(option: Option) -> str:
    if option.kind is bool or option.choices:
        return " or ".join(option.choices or ("true", "false"))
    return f"{'a whole number' if option.kind is int else 'a number'}, such as {option.default:g}"


def _unknown(name: str, key: str, known: Mapping[str, Option]) -> InputError:
    return unknown(f"option of {name}", key, known) if known else InputError(f"{name} has no options, such as {key}")


def _arguments(docstring: str) -> dict[str, str]:
    """What a Google-style docstring says of each argument, on one line each."""
    block = re.search(r"^ *Args:\n(.*?)(?:\n\s*\n|\Z)", inspect.cleandoc(docstring), re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", block[1] if block else "", re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}
