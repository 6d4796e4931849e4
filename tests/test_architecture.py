"""Which room may import which: the plan of the house, checked against its imports.

Imports inside functions and under TYPE_CHECKING count too: an arrow for the type checker is an arrow for the reader.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "sftn"

FLOORS = (  # from the ground up; a room may import any room below its floor, and none beside it or above
    ("errors",),
    ("spec", "storage", "runtime"),
    ("data", "networks"),
    ("training",),
    ("methods",),
    ("tasks",),
    ("runs",),
    ("analysis",),
    ("profiling",),
    ("deploy", "experiments"),
    ("report",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
ONLY = {  # narrower than the floor: a loss sees a batch, a phase and the other processes' rows, no loader and no loop
    ("methods", "data"): {"sftn.data.batch"},
    ("methods", "training"): {"sftn.training.phase"},
    ("methods", "runtime"): {"sftn.runtime.collectives"},
}
TERMINAL = {"rich", "tyro"}
"""Libraries for people: in `cli` and in the terminal form of a report, nowhere else."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # `from sftn.data import loader` is an import of sftn.data.loader, if there is such a file.
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                place = SRC.joinpath(*name.split(".")[1:])
                yield node.lineno, name if place.with_suffix(".py").exists() or place.is_dir() else node.module


FILES = [path for path in sorted(SRC.rglob("*.py")) if path != SRC / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_go_down(path: Path) -> None:
    inside = path.relative_to(SRC)
    room = inside.parts[0] if len(inside.parts) > 1 else inside.stem
    assert room in LEVEL, f"{inside} is in no room: give it one, or give the plan another"
    wrong = []
    for line, name in imports(path):
        top, *rest = name.split(".")
        if top == "sftn" and rest and rest[0] != room:
            other = rest[0]
            allowed = ONLY.get((room, other))
            if LEVEL.get(other, 99) >= LEVEL[room] or (allowed and name not in allowed):
                wrong.append(f"{inside}:{line} imports {name}")
        if top in TERMINAL and room != "cli" and inside.as_posix() != "report/terminal.py":
            wrong.append(f"{inside}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


TORCH_FREE = ("sftn", "sftn.spec", "sftn.cli.options", "sftn.storage.json_files", "sftn.storage.lease")
TORCH_FREE += ("sftn.runs.folder", "sftn.runs.archive")


@pytest.mark.parametrize("module", TORCH_FREE)
def test_plans_and_records_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
