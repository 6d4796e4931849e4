from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftn.errors import InputError
from sftn.storage import store_folder
from sftn.storage.row_store import Missing, RowStore
from sftn.storage.store_folder import HEAD, SEAL, clear, stores

PLACES, WIDTH, ROOM = 50, 12, 2**20
SIZE = HEAD + PLACES * (SEAL + WIDTH)


def store(folder: Path, name: str = "one", places: int = PLACES, **how: Any) -> RowStore:
    return RowStore(folder, {"name": name}, {"teacher": name}, places, WIDTH, **{"room": ROOM} | how)


def row(place: int) -> bytes:
    """What belongs there: never zeros alone."""
    return bytes((place * 7 + k) % 251 + 1 for k in range(WIDTH))


def rows(places: list[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.stack([np.frombuffer(row(place), np.uint8) for place in places])


def found(opened: RowStore, places: list[int]) -> dict[int, bytes]:
    known, content = opened.find(places)
    assert not content[~known].any()
    return {place: content[n].tobytes() for n, place in enumerate(places) if known[n]}


def test_rows_are_found_again_by_those_who_come_later(tmp_path: Path) -> None:
    first = store(tmp_path / "new" / "folder")
    assert first.filled == 0
    assert found(first, [3, 4]) == {}
    first.put([3, 49, 0], rows([3, 49, 0]))
    second = store(tmp_path / "new" / "folder")
    everything = list(range(PLACES))
    assert found(first, everything) == found(second, everything) == {place: row(place) for place in (0, 3, 49)}
    assert second.filled == 3 / PLACES
    assert found(store(tmp_path / "new" / "folder", "other"), everything) == {}


def test_a_store_that_is_not_there_is_made_only_if_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        store(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    path = store(tmp_path).path
    assert store(tmp_path, create=False).path == path
    assert path.stat().st_size == SIZE


@pytest.mark.parametrize("part", ["row", "seal"])
def test_a_flipped_bit_is_a_missing_row_and_can_be_written_again(part: str, tmp_path: Path) -> None:
    opened = store(tmp_path)
    opened.put([5, 6], rows([5, 6]))
    at = HEAD + 5 * SEAL if part == "seal" else HEAD + PLACES * SEAL + 5 * WIDTH
    content = bytearray(opened.path.read_bytes())
    content[at + 2] ^= 16
    opened.path.write_bytes(content)
    assert found(opened, [5, 6]) == found(store(tmp_path), [5, 6]) == {6: row(6)}
    opened.put([5], rows([5]))
    assert found(opened, [5]) == {5: row(5)}


def test_a_row_at_another_place_or_in_another_store_is_missing(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path, "other")
    one.put([1], rows([1]))
    content = one.path.read_bytes()
    seal, body = content[HEAD + SEAL : HEAD + 2 * SEAL], row(1)
    for target, place in ((one, 2), (other, 1)):
        with open(target.path, "r+b") as file:
            file.seek(HEAD + place * SEAL)
            file.write(seal)
            file.seek(HEAD + PLACES * SEAL + place * WIDTH)
            file.write(body)
        assert found(target, [place]) == {}
    assert found(one, [1]) == {1: row(1)}


def test_what_is_cut_off_under_a_reader_is_missing(tmp_path: Path) -> None:
    opened = store(tmp_path)
    opened.put([0, 40], rows([0, 40]))
    os.truncate(opened.path, HEAD + PLACES * SEAL + 30 * WIDTH)
    assert found(opened, [0, 40]) == {0: row(0)}
    os.truncate(opened.path, 10)
    assert found(opened, [0, 40]) == {}
    assert opened.filled == 0


def test_a_damaged_or_older_store_is_refused_in_one_line_and_left_alone(tmp_path: Path) -> None:
    path = store(tmp_path).path
    whole = path.read_bytes()
    older = whole.replace(b"sftn rows 1", b"sftn rows 0")
    other = whole.replace(b'"key": "', b'"key": "x')[:SIZE]
    spoilt = (whole[:-1], older, other, b"", b"{" * SIZE, whole.replace(b'"places": 50', b'"places": []'))
    for content in spoilt:
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged; sftn runs cache --clear removes it"):
            store(tmp_path)
        assert path.read_bytes() == content
    assert [entry.record for entry in stores(tmp_path)] == [None]
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="cannot use"):
        store(tmp_path)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, at: int, size: int) -> None:
        os.pwrite(file, b"x", 0)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"cannot use .*No space left on device"):
        store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_row_that_cannot_be_written_whole_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = store(tmp_path)
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, at: write(file, content[:-1], at))
    with pytest.raises(OSError, match="No space left"):
        opened.put([1], rows([1]))
    assert found(opened, [1]) == {}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot use"):
        store(tmp_path / "file")
    before = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return before(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(InputError, match="Read-only file system"):
        store(tmp_path)


def test_the_least_recently_used_stores_make_room_but_none_that_is_in_use(tmp_path: Path) -> None:
    paths = {name: store(tmp_path, name).path for name in "abc"}
    for age, name in enumerate("bca"):  # b is the oldest
        os.utime(paths[name], (1000 + age, 1000 + age))
    used = store(tmp_path, "b", room=3 * SIZE)
    os.utime(paths["b"], (900, 900))
    new = store(tmp_path, "d", room=3 * SIZE)
    assert {entry.path for entry in stores(tmp_path)} == {paths["a"], paths["b"], new.path}
    oldest = stores(tmp_path)[0]
    assert (oldest.path, oldest.busy) == (paths["b"], True)
    with pytest.raises(InputError, match="stores in use leave"):
        store(tmp_path, "e", room=3 * SIZE - 1)
    assert paths["a"].exists(), "nothing is removed in vain"
    store(tmp_path, "d", room=SIZE)
    assert {entry.path for entry in stores(tmp_path)} == {paths["b"], new.path}
    del used, new
    assert store(tmp_path, "d", room=SIZE).path.exists()
    assert len(stores(tmp_path)) == 1


def test_clearing_leaves_what_is_in_use(tmp_path: Path) -> None:
    used, path = store(tmp_path, "used"), store(tmp_path, "free").path
    (tmp_path / "foreign.rows").write_bytes(b"?")
    (tmp_path / "killed.tmp").write_bytes(b"?")
    assert {entry.path for entry in clear(tmp_path)} == {path, tmp_path / "foreign.rows"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", used.path.name]
    assert clear(tmp_path / "none") == []


def test_whoever_waits_for_others_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_folder, "PATIENCE", 0.05)
    with store_folder.alone(tmp_path), pytest.raises(InputError, match="locked"):
        store(tmp_path)
    assert store(tmp_path).path.exists()


def test_without_locks_nothing_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path).path
    monkeypatch.setattr(store_folder, "fcntl", None)
    with pytest.raises(InputError, match="no flock"):
        store(tmp_path)
    assert [(entry.path, entry.busy) for entry in stores(tmp_path)] == [(path, False)]


def test_a_record_may_hold_any_name(tmp_path: Path) -> None:
    about = {"teacher": "\U0001f989" * 200, "data": "\ud800" + "é" * 199}
    path = RowStore(tmp_path, {}, about, 2, 3, room=ROOM).path
    (entry,) = stores(tmp_path)
    assert entry.path == path
    assert entry.record is not None
    assert entry.record["teacher"] == about["teacher"]


WRITER = """
import random, sys
from pathlib import Path
from tests.storage.test_row_store import PLACES, found, row, rows, store
opened, draws = store(Path(sys.argv[1])), random.Random(int(sys.argv[2]))
print("begun", flush=True)
wrong = 0
for _ in range(int(sys.argv[3])):
    places = draws.sample(range(PLACES), 8)
    wrong += any(content != row(place) for place, content in found(opened, places).items())
    opened.put(places, rows(places))
print(wrong)
"""


def writer(folder: Path, seed: int, turns: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(seed), str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_create_and_fill_a_store_at_once(tmp_path: Path) -> None:
    ended = [process.communicate()[0] for process in [writer(tmp_path, seed, 200) for seed in range(3)]]
    assert ended == ["begun\n0\n"] * 3
    opened = store(tmp_path)
    everything = list(range(PLACES))
    assert found(opened, everything) == {place: row(place) for place in everything}
    assert len(stores(tmp_path)) == 1


def test_a_process_that_is_killed_leaves_no_wrong_row_and_no_lock(tmp_path: Path) -> None:
    process = writer(tmp_path, 0, 10**9)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05)
    assert stores(tmp_path)[0].busy
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (entry,) = stores(tmp_path)
    assert not entry.busy
    left = found(store(tmp_path), list(range(PLACES)))
    assert left
    assert all(content == row(place) for place, content in left.items())


def test_a_seal_without_its_row_is_nothing(tmp_path: Path) -> None:
    """As after a power cut, which may keep the seal and lose the row, or half of it."""
    opened = store(tmp_path)
    opened.put([7], rows([7]))
    with open(opened.path, "r+b") as file:
        file.seek(HEAD + PLACES * SEAL + 7 * WIDTH + WIDTH // 2)
        file.write(bytes(WIDTH - WIDTH // 2))
    assert found(opened, [7]) == {}
