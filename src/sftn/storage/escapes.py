"""A person's text in formats that give some characters a meaning: Markdown, and tables that spreadsheets open."""

from __future__ import annotations

import re

from sftn.errors import printable

_BLOCK = r"^(?:[#>+=-](?=\s|$)|\d+(?=[.)](?:\s|$))|\[(?=[ xX]\]))"
"""What begins a heading, a quotation, a list or a task in it."""
_MEANINGFUL = re.compile(rf"[\\`*|$~]|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=[#\w]+;)|(?<!\w)_|_(?!\w)|{_BLOCK}")
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]*( ± [\d.]+)?$)")


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line.

    Punctuation with a meaning gets a backslash: code, emphasis, links, HTML, columns, formulas, and what begins a
    heading, quotation or list. An underscore within a word has none, nor have brackets without an address.
    """

    def escaped(found: re.Match[str]) -> str:
        what = found.group()
        return f"{what[:-1]}{what[-1]}\\" if what.isdigit() else f"\\{what}"

    return _MEANINGFUL.sub(escaped, printable(text))


def code(text: str) -> str:
    """Text as a piece of code in Markdown, between more backticks than it has side by side."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def spreadsheet(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
