from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sftn.cli.progress import Display

TITLE = "resnet8x4-kd-from-resnet32x4-for-resnet8x4, seed 0 and 3 more"


def row(epoch: int) -> dict[str, Any]:
    numbers = {"loss": 1.234, "test_accuracy": 71.26, "images_per_second": 812.3, "seconds": 60.0}
    return {"epoch": epoch, "phase": "distil", **numbers}


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_bar_cuts_titles_but_neither_numbers_nor_times(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    display = Display(console)
    with display.watch(TITLE) as line:
        display.overall("run 3 of 15, 14 min left in all")
        line.start("distil", 240, 100, 0)
        line.epoch(row(1))
        assert display.bars is not None
        shown = Console(file=io.StringIO(), width=width)
        shown.print(display.bars.get_renderable())
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    first, second = text.splitlines()
    assert first.startswith("resnet8x4-kd-from")
    assert "test 71.3 %" in first
    assert "epoch 1/240" in first
    assert first.rstrip().endswith("-:--:--")
    assert ("…" in first) == (width < 160)
    assert second.strip() == "run 3 of 15, 14 min left in all"


def test_plain_lines_end_with_how_far_all_runs_are() -> None:
    console = Console(file=io.StringIO(), width=60)
    display = Display(console, seconds=0)
    with display.watch("student, seed 0") as line:
        line.start("distil", 3, 100, 0)
        line.epoch(row(1))
        display.overall("run 3 of 15, 14 min left in all")
        line.epoch(row(2))
    first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.endswith("812 images/s, 2:00 left")
    assert second.endswith("812 images/s, 1:00 left (run 3 of 15, 14 min left in all)")
