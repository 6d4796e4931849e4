from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sftn.errors import InputError
from sftn.storage import lease
from sftn.storage.lease import Held, Lease, Lost, Owner, holder


def foreign(folder: Path, number: int = 1, *, age: float = 0.0, seconds: float = 100.0, **changes: object) -> Path:
    """The lease of a process on another machine, renewed so long ago."""
    path = folder / f"lease.{number:06d}"
    owner = {"token": "x", "host": "elsewhere", "place": "another boot", "pid": 7, "born": "1", "seconds": seconds}
    path.write_text(json.dumps(owner | changes))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_only_one_holds_a_lease_and_the_other_is_told_who(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        lease.check()
        assert holder(tmp_path) == lease.owner
        with pytest.raises(Held, match=rf"process {os.getpid()} on "):
            Lease(tmp_path)
    assert holder(tmp_path) is None
    with Lease(tmp_path) as again:
        assert again.number == lease.number + 1, "numbers must not fall while the run is not done"


def test_a_done_run_keeps_no_lease(tmp_path: Path) -> None:
    with Lease(tmp_path):
        (tmp_path / "result.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_of_many_rivals_one_wins(tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        foreign(folder, age=1000)
        won, gate = [], threading.Barrier(8)

        def rival(folder: Path = folder, won: list[Lease] = won, gate: threading.Barrier = gate) -> None:
            gate.wait()
            with suppress(Held):
                won.append(Lease(folder))

        threads = [threading.Thread(target=rival) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].check()


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path) -> None:
    code = "import os; from pathlib import Path; from sftn.storage.lease import Lease; "
    code += f"Lease(Path({str(tmp_path)!r})); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "lease.000001").exists()
    assert holder(tmp_path) is None
    with Lease(tmp_path) as lease:
        assert lease.number == 2
        assert not (tmp_path / "lease.000001").exists()


def test_another_machine_is_believed_until_its_time_is_over(tmp_path: Path) -> None:
    foreign(tmp_path, age=90)
    with pytest.raises(Held, match="process 7 on elsewhere"):
        Lease(tmp_path)
    foreign(tmp_path, age=110)
    assert Lease(tmp_path).number == 2


def test_a_lease_that_is_being_written_is_held(tmp_path: Path) -> None:
    (tmp_path / "lease.000001").write_text('{"token": "x", "ho')
    with pytest.raises(Held, match="another process"):
        Lease(tmp_path)


def test_it_is_renewed_while_it_is_held(tmp_path: Path) -> None:
    with Lease(tmp_path, seconds=0.6) as lease:
        time.sleep(1.0)
        with pytest.raises(Held):
            Lease(tmp_path)
        lease.check()


def test_a_process_that_slept_too_long_has_lost_its_lease_and_harms_no_other(tmp_path: Path) -> None:
    sleeper = Lease(tmp_path, seconds=0.1)
    time.sleep(0.2)
    with Lease(tmp_path) as other:
        with pytest.raises(Lost, match="taken over"):
            sleeper.check()
        sleeper.__exit__(None, None, None)
        other.check()
        assert holder(tmp_path) == other.owner


def test_a_lease_ends_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lease = Lease(folder)
    lease.path.unlink()
    folder.rmdir()
    with pytest.raises(Lost):
        lease.check()
    with pytest.raises(InputError, match="cannot write"):
        Lease(folder)


def test_a_process_number_that_is_used_again_is_another_process() -> None:
    here = Owner.here(1.0)
    assert not here.gone()
    assert Owner(here.token, here.host, here.place, here.pid, "before", 1.0).gone() == bool(here.place)
    assert lease._born(2**22 + 1) == ""


def test_a_full_disk_leaves_no_lease_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file would count as held and delay the mended run for as long as a lease lasts."""

    def full(descriptor: int) -> None:
        if "lease" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"cannot write in .*No space left on device; free space"):
            Lease(tmp_path)
    assert not list(tmp_path.iterdir())
    assert Lease(tmp_path).number == 1


def test_without_file_handles_nothing_is_lost_or_taken(tmp_path: Path) -> None:
    """Neither one's own lease nor a living rival's is given up for a file that cannot be opened just now."""
    mine = Lease(tmp_path)
    folder = tmp_path / "rivals"
    folder.mkdir()
    rival = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner("x", "here", lease._place(), rival.pid, lease._born(rival.pid), 100.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(InputError, match="Too many open files; raise the limit") as caught:
            mine.check()
        assert not isinstance(caught.value, Lost)
        assert not owner.gone()
        with pytest.raises(InputError, match="Too many open files"):
            Lease(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    mine.check()
    assert not owner.gone()
    rival.communicate(b"\n")
    assert owner.gone()


def test_a_lease_from_the_future_ends_too(tmp_path: Path) -> None:
    foreign(tmp_path, age=-90)
    with pytest.raises(Held):
        Lease(tmp_path)
    foreign(tmp_path, age=-200)
    assert Lease(tmp_path).number == 2


def test_a_process_that_the_system_hides_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int, number: int) -> None:
        raise PermissionError

    pid = 2**22 + 1
    owner = Owner("x", "here", lease._place(), pid, "1", 100.0)
    assert owner.gone() == bool(owner.place)
    monkeypatch.setattr(os, "kill", hidden)
    assert not owner.gone()


def test_exactly_who_holds_it_does_not_depend_on_this_machine_s_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(tmp_path, age=10)
    later = time.time() + 10_000
    monkeypatch.setattr(time, "time", lambda: later)
    assert holder(tmp_path) is None
    found = holder(tmp_path, exact=True)
    assert found is not None
    assert found.host == "elsewhere"
    monkeypatch.undo()
    foreign(tmp_path, age=110)
    assert holder(tmp_path, exact=True) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lease.000001"]
