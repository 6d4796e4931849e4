"""Write docs/architecture.md from the first lines of the package's docstrings: `python docs/architecture.py`.

A test compares the page with what this makes, so that it cannot fall behind the code.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "sftn"
PAGE = ROOT / "docs" / "architecture.md"

sys.path.insert(0, str(ROOT))
from tests.test_architecture import FLOORS, ONLY  # noqa: E402  (the rule stands in one place: the test that enforces it)

INTRODUCTION = """\
# Architecture

This page is a map of the package for people who read or change its code: which room holds what, and which room may
import which. `docs/architecture.py` writes it from the first lines of the docstrings; [Design](design.md) explains the
ideas and the decisions behind them.

`src/sftn` has {rooms} rooms on {floors} floors, above `errors.py` on the ground floor. **A module imports only from its
own room and from lower floors**, never from another room on its floor or above; imports inside functions and for the
type checker count too. {narrower}
`sftn`, `sftn.spec` and `sftn.cli.options` import no torch, so that `sftn --help` is instant.
`tests/test_architecture.py` enforces all of this.

| floor | room | |
|---:|---|---|
"""


def first_line(path: Path) -> str:
    """The first line of a module's docstring; of a package's, for a folder."""
    source = path / "__init__.py" if path.is_dir() else path
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    if not docstring:
        raise SystemExit(f"{source} has no docstring: its first line is its line in docs/architecture.md")
    return docstring.splitlines()[0]


def modules(folder: Path, indent: str = "") -> list[str]:
    """A line for every module in a room; then a line for every folder in it, above those of its own modules."""
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            lines += [f"{indent}- `{path.name}/`: {first_line(path)}", *modules(path, indent + 4 * " ")]
        elif path.suffix == ".py" and not path.stem.startswith("__"):
            lines.append(f"{indent}- `{path.name}`: {first_line(path)}")
    return lines


def page() -> str:
    """The whole page."""
    places = [(floor, name) for floor, rooms in enumerate(FLOORS) for name in rooms]
    rooms = [(floor, name, SRC / name) for floor, name in places if (SRC / name).is_dir()]
    text = INTRODUCTION.format(rooms=len(rooms), floors=len(FLOORS) - 1, narrower=narrower())
    for floor, name in places:
        folder = SRC / name
        path, label = (folder, f"`{name}/`") if folder.is_dir() else (folder.with_suffix(".py"), f"`{name}.py`")
        text += f"| {floor} | {label} | {first_line(path)} |\n".replace("| 0 |", "| ground |")
    for floor, name, folder in rooms:
        text += f"\n## {name}/\n\nFloor {floor}. {first_line(folder)}\n\n" + "\n".join(modules(folder)) + "\n"
    return text


def narrower() -> str:
    """The exceptions to the rule, a line for each room that sees less than its floor allows."""
    lines = []
    for room in sorted({room for room, _ in ONLY}):
        others = [other for inside, other in ONLY if inside == room]
        allowed = sorted(name for other in others for name in ONLY[room, other])
        lines.append(f"Of {words(others)}, `{room}` may import only\n{words(allowed)}.")
    return "\n".join(lines)


def words(names: list[str]) -> str:
    """`a`, `b` and `c`."""
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} and {last}" if most else last


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
