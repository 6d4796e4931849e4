"""Short forms of what `make reliability` shows at length."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from reliability import grid, kills, small, writes
from reliability.children import sftn_command
from reliability.whole import Whole, undisturbed


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    return undisturbed((small.STANDARD, "ab"), tmp_path_factory.mktemp("whole"), writes.EPOCHS)


@pytest.mark.parametrize(("kind", "how"), [("ab", "SIGKILL"), (small.STANDARD, "SIGTERM"), ("ab", "power cut")])
def test_killed_at_a_random_moment_it_ends_the_same(
    kind: str, how: str, wholes: dict[str, Whole], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "EPOCHS", writes.EPOCHS)
    done = kills.trial(kind, how, random.randrange(10**9), wholes, tmp_path)
    assert done.hows[0] == how
    assert done.faults == []
    assert all(seconds < 10 for seconds in done.leaving)


def test_whatever_operation_goes_wrong_it_ends_the_same(wholes: dict[str, Whole], tmp_path: Path) -> None:
    cases = writes.cases(wholes[small.STANDARD])
    assert {case.fault.kind for case in cases} == set(writes.NAMES)
    for kind in writes.NAMES:
        some = random.sample([case for case in cases if case.fault.kind == kind], 2)
        for case in some:
            done = writes.go_wrong(case, wholes, tmp_path)
            assert done.faults == [], case


def test_a_result_is_synced_before_it_is_told_again(wholes: dict[str, Whole], tmp_path: Path) -> None:
    """Whoever made it may have been killed between its rename and the fsync of its folder."""
    whole = wholes[small.STANDARD]
    arguments = small.command(whole.kind, whole.out, epochs=writes.EPOCHS)
    ended = sftn_command(arguments, tmp_path, disk=whole.out.parent).end()
    assert (ended.code, "Written:" in ended.said) == (0, True)
    assert "sync" in (tmp_path / "operations").read_text().split()


def test_a_difference_would_be_seen(wholes: dict[str, Whole], tmp_path: Path) -> None:
    whole = wholes[small.STANDARD]
    assert whole.differences(whole.out) == []
    assert len(replace(whole, folder=wholes["ab"].folder).differences(whole.out)) > 1
    assert "cannot be read" in whole.differences(tmp_path)[0]
    every = {(kind, how) for kind, how, _ in kills.plan(len(small.KINDS) * len(kills.HOWS), seed=1)}
    assert len(every) == len(small.KINDS) * len(kills.HOWS) == 100


def test_a_grid_under_fire_does_every_run_once(tmp_path: Path) -> None:
    planned = grid.runs(1, methods=("kd",), epochs=8)
    whole, out = tmp_path / "whole" / "runs", tmp_path / "day" / "runs"
    grid.undisturbed(planned, whole, 0.3)
    day = grid.disturbed(planned, out, 0.3, seed=random.randrange(10**9), longest=120)
    assert day.faults + grid.judge(planned, whole, out) == []
    assert day.starts == 2 + day.kills
    (out / planned[0].run.folder / "result.json").unlink()
    with open(tmp_path / "day" / "ledger", "a") as ledger:
        ledger.write(f"written {planned[1].run.folder}\n")
    assert len(grid.judge(planned, whole, out)) == 2
