"""The disk that goes wrong has to be as bad as it says: else nothing that it shows means anything."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reliability.calls import watch
from reliability.children import Child, Ended
from reliability.disk import CUT, NEEDS, Disk, Fault
from sftn.storage.atomic import write_atomically

OLD, NEW = b"old" * 100, b"new" * 100


def ended(disk: Path, task: Callable[[], None], fault: Fault | None = None) -> Ended:
    """How a process ended that did something on a watched disk; it says what it did to it."""

    def watched() -> None:
        seen = Disk(disk, fault)
        watch(seen)
        try:
            task()
        finally:
            print(*seen.operations)
        seen.exit()

    return Child(watched, disk.parent / "notes").end()


def outcomes(place: Path, write: Callable[[Path], None], at: int, seeds: int = 4) -> set[bytes | None]:
    """What may be left of a file that is being rewritten when the power is cut; None for nothing."""
    found: set[bytes | None] = set()
    for seed in range(seeds):
        disk = place / f"{at}-{seed}" / "disk"
        disk.mkdir(parents=True)
        (disk / "file").write_bytes(OLD)
        assert ended(disk, lambda disk=disk: write(disk / "file"), Fault("power", at, seed)).code == CUT
        found.add((disk / "file").read_bytes() if (disk / "file").exists() else None)
    return found


def carelessly(path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(NEW)
    os.replace(temporary, path)


def test_a_careless_writer_loses_the_file_and_ours_does_not(tmp_path: Path) -> None:
    found = outcomes(tmp_path / "careless", carelessly, at=4, seeds=20)  # after the last of its three operations
    assert {OLD, NEW, b""} <= found
    assert len(found) > 4, "parts and zeros"
    for at in range(1, 7):
        assert outcomes(tmp_path / "ours", lambda path: write_atomically(path, NEW), at) <= {OLD, NEW}
    assert outcomes(tmp_path / "ours", lambda path: write_atomically(path, NEW), at=99) == {NEW}


def test_a_folder_that_nobody_synced_may_be_gone_with_all_that_is_in_it(tmp_path: Path) -> None:
    there = set()
    for seed in range(6):
        disk = tmp_path / str(seed) / "disk"
        disk.mkdir(parents=True)

        def make(disk: Path = disk) -> None:
            (disk / "runs").mkdir()
            write_atomically(disk / "runs" / "file", NEW)

        ended(disk, make, Fault("power", 99, seed))
        there.add((disk / "runs").exists())
        assert not (disk / "runs").exists() or (disk / "runs" / "file").read_bytes() == NEW
    assert there == {True, False}


def test_operations_are_seen_in_their_order(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()

    def task() -> None:
        (disk / "a").mkdir()
        with open(disk / "a" / "x", "w") as file:
            file.write("x" * 20_000)
        os.truncate(disk / "a" / "x", 3)
        (disk / "a" / "x").rename(disk / "a" / "y")
        assert (disk / "a" / "y").read_text() == "xxx"
        (disk / "a" / "y").unlink()
        (tmp_path / "elsewhere").write_text("not counted")

    seen = ended(disk, task)
    assert seen.code == 0, seen.complained
    assert seen.said.split() == ["mkdir", "create", "write", "truncate", "rename", "open", "unlink"]


def test_errors_come_from_an_operation_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()

    def task() -> None:
        numbers = []
        for name in ("a", "b", "c"):
            try:
                (disk / name).write_bytes(NEW)
            except OSError as error:
                numbers.append(error.errno)
        print(*numbers, "|", (disk / "a").stat().st_size, "|")

    for kind, at, said in (
        ("full", 2, f"{errno.ENOSPC} {errno.ENOSPC} {errno.ENOSPC} | 150 |"),
        ("read-only", 3, f"{errno.EROFS} {errno.EROFS} | 300 |"),
        ("handles", 3, f"{errno.EMFILE} {errno.EMFILE} | 300 |"),
    ):
        assert ended(disk, task, Fault(kind, at)).said.startswith(said)  # type: ignore[arg-type]
        for path in disk.iterdir():
            path.unlink()


@pytest.mark.parametrize("at", [1, 2])
def test_a_torn_write_ends_the_process(at: int, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    assert "create" in NEEDS["torn"]
    assert ended(disk, lambda: (disk / "a").write_bytes(NEW) and None, Fault("torn", at)).code == 137
    assert [path.stat().st_size for path in disk.iterdir()] == ([] if at == 1 else [150])
