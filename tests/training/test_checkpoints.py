from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sftn.training.evaluate
from sftn.errors import InputError, Stopped
from sftn.runs.build import evaluation_interval
from sftn.runs.runner import train
from sftn.spec.execution import Execution
from sftn.spec.run import Friendly, Run
from sftn.storage.atomic import write_atomically
from sftn.storage.tensor_files import load_tensors, save_tensors
from sftn.tasks.recipes import OBJECTIVES, objective
from sftn.training.checkpoints import Checkpoints
from sftn.training.progress import Position
from tests.support import tiny
from tests.support.interruptions import Bomb, crash, interrupt, rows, terminate

Step = Callable[[int], None]


def runs(tmp_path: Path) -> dict[str, Run]:
    """A run of each kind; the teacher that the students need is trained on the way."""
    data = tiny.dataset()
    teacher = tiny.run(data, "wide", epochs=1)
    train(teacher, data, tmp_path)
    kinds = {"plain": tiny.run(data), "friendly": tiny.run(data, "wide", friendly=Friendly(student="tiny"))}
    kinds |= {name: tiny.run(data, teacher=teacher, objective=OBJECTIVES[name]) for name in OBJECTIVES}
    kinds["crd"] = tiny.run(data, teacher=teacher, objective=objective("crd"))
    return kinds


KINDS = ["plain", "friendly", *OBJECTIVES]


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    """An exception in any epoch, a signal in another, checkpoints at every step: weights and log stay the same."""
    data = tiny.dataset()
    whole = tmp_path / "whole"
    run = runs(whole)[kind]
    expected = train(run, data, whole)
    broken = tmp_path / "broken"
    runs(broken)
    for at, act, error in (
        (2, crash, ConnectionError),
        (3, terminate, Stopped),
        (1, interrupt, Stopped),
        (1, crash, ConnectionError),
    ):
        with pytest.raises(error):
            train(run, data, broken, Execution(checkpoint_seconds=0.0), callback=Bomb(at, act))
    found = train(run, data, broken)
    assert tiny.weights(broken, run) == tiny.weights(whole, run)
    for key in ("accuracy", "best_accuracy", "test", "train"):
        assert found[key] == expected[key]
    assert rows(broken, run) == rows(whole, run)
    assert not list((broken / run.folder).glob("*checkpoint*"))


@pytest.mark.usefixtures("tiny_networks")
def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tiny.dataset()
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(5, crash))
    newest = tmp_path / run.folder / "checkpoint.safetensors"
    previous = newest.with_name("checkpoint.previous.safetensors").read_bytes()
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    first: list[bytes] = []

    def look() -> None:
        first.append(newest.with_name("checkpoint.previous.safetensors").read_bytes())
        raise ConnectionError

    with pytest.raises(ConnectionError):  # at the second step the first one's checkpoint is there
        train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(2, look))
    assert any("not a complete checkpoint" in line for line in caplog.messages)
    assert first == [previous], "a torn checkpoint took the place of the good one"
    train(run, data, tmp_path)
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)


@pytest.mark.usefixtures("tiny_networks")
def test_a_kill_between_the_two_renames_leaves_the_one_before(tmp_path: Path) -> None:
    data = tiny.dataset()
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(5, crash))
    newest = tmp_path / run.folder / "checkpoint.safetensors"
    os.replace(newest, newest.with_name("checkpoint.previous.safetensors"))
    newest.with_name(".checkpoint.safetensors.abc.tmp").write_bytes(b"half")
    callback = Bomb(99, crash)
    train(run, data, tmp_path, callback=callback)
    assert callback.left == 99 - 2, "of six steps four were done and saved"
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)
    assert not list((tmp_path / run.folder).glob(".*"))


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_disk_that_fills_up_leaves_the_last_checkpoints(
    attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.dataset()
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(5, crash))
    kept = {path: path.read_bytes() for path in (tmp_path / run.folder).glob("checkpoint*")}
    assert len(kept) == 2

    def full(descriptor: int) -> None:
        if "checkpoint" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")

    for _ in range(attempts):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(InputError, match=r"cannot write .*checkpoint.safetensors: No space left.*; free"):
                train(run, data, tmp_path, Execution(checkpoint_seconds=0.0))
        assert {path: path.read_bytes() for path in (tmp_path / run.folder).glob("*checkpoint*")} == kept
    train(run, data, tmp_path)
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)


def test_a_checkpoint_that_cannot_be_read_just_now_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny.network()
    Checkpoints(tmp_path, network).save(Position("train", 3), None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(InputError, match=r"cannot read .*: Too many open files; raise the limit"):
            Checkpoints(tmp_path, network)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_slow_write_puts_the_next_one_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("sftn.training.checkpoints.time.monotonic", lambda: now[0])
    network = tiny.network()
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    checkpoints = Checkpoints(tmp_path, network, seconds=10.0, guard=lambda: now.__setitem__(0, now[0] + 0.5))
    now[0] = 9.9
    assert not checkpoints.due()
    now[0] = 10.0
    assert checkpoints.due()
    checkpoints.save(Position("train"), sgd)  # takes two looks of the guard, a second in all
    now[0] = 11.0 + 19.9
    assert not checkpoints.due()
    now[0] = 11.0 + 20.0
    assert checkpoints.due()


def test_checkpoints_by_epochs(tmp_path: Path) -> None:
    network = tiny.network()
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    checkpoints = Checkpoints(tmp_path, network, seconds=0.0, epochs=2)
    assert not checkpoints.due()
    there = []
    for epoch in range(1, 6):
        checkpoints.finish_epoch(Position("train", epoch), sgd, {"epoch": epoch})
        there.append(load_tensors(checkpoints.newest)[1]["position"]["epoch"] if checkpoints.newest.exists() else 0)
    assert there == [0, 2, 2, 4, 4]


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize("where", ["test", "train"])
def test_a_signal_during_an_evaluation_ends_it(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the split, with nothing to be trained again."""
    data = tiny.dataset(images=48, tests=600)
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")
    batches = 0
    size = len(getattr(data, where))
    original = sftn.training.evaluate.evaluation_batches

    def evaluation_batches(split: Any, **options: Any) -> Any:
        nonlocal batches
        for batch in original(split, **options | {"batch": 10}):
            if len(split) == size:
                batches += 1
                if batches == 2:
                    terminate()
            yield batch

    monkeypatch.setattr(sftn.training.evaluate, "evaluation_batches", evaluation_batches)
    with pytest.raises(Stopped):
        train(run, data, tmp_path)
    assert batches in (2, 3)
    monkeypatch.setattr(sftn.training.evaluate, "evaluation_batches", original)
    callback = Bomb(99, crash)
    train(run, data, tmp_path, callback=callback)
    assert callback.left == 99 - (0 if where == "train" else 6 - 3 * evaluated_after(data))
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)


def evaluated_after(data: Any) -> int:
    """Epochs before the first evaluation of a run of two epochs."""
    return min(2, evaluation_interval(data))


@pytest.mark.usefixtures("tiny_networks")
def test_a_signal_that_comes_too_late_still_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.dataset()
    run = tiny.run(data)
    monkeypatch.setattr("sftn.runs.result.sha256", lambda path: str(terminate()))
    with pytest.raises(Stopped):
        train(run, data, tmp_path)
    assert (tmp_path / run.folder / "result.json").exists()


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.arange(100.0)}, {"epoch": 3})
    tensors, record = load_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(100.0))
    assert record == {"epoch": 3}
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="digest"):
        load_tensors(path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "])
def test_foreign_files_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a complete checkpoint"):
        load_tensors(path)


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    network = tiny.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    checkpoints = Checkpoints(tmp_path, network)
    for epoch in range(3):
        checkpoints.save(Position("train", epoch), optimizer)
    assert load_tensors(checkpoints.newest)[1]["position"]["epoch"] == 2
    assert load_tensors(checkpoints.previous)[1]["position"]["epoch"] == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoints(tmp_path, tiny.network()).save(Position("train"), None)
    Checkpoints(tmp_path, tiny.network((4, 6, 9)))
    assert "another version" in caplog.messages[0]


def test_a_checkpoint_of_another_network_changes_no_weight(tmp_path: Path) -> None:
    Checkpoints(tmp_path, tiny.network()).save(Position("train"), None)
    other = tiny.network((4, 6, 9))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    Checkpoints(tmp_path, other)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
