from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sftn.checkpoint import Checkpoints, load_tensors, save_tensors, write_atomically
from sftn.errors import InputError, Stopped
from sftn.recipes import OBJECTIVES, objective
from sftn.run import Friendly, Run
from sftn.train import train
from tests import tiny

Step = Callable[[int], None]


class Bomb:
    """A watcher that does something at the n-th step of a run."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.left, self.act = at, act

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None: ...

    def epoch(self, row: Any) -> None: ...

    def step(self, step: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


def crash() -> None:
    raise ConnectionError("power cut")


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def runs(tmp_path: Path) -> dict[str, Run]:
    """A run of each kind; the teacher that the students need is trained on the way."""
    data = tiny.dataset()
    teacher = tiny.run(data, "wide", epochs=1)
    train(teacher, data, tmp_path, say=lambda _: None)
    kinds = {"plain": tiny.run(data), "friendly": tiny.run(data, "wide", friendly=Friendly("tiny"))}
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
    expected = train(run, data, whole, say=lambda _: None)
    broken = tmp_path / "broken"
    runs(broken)
    for at, act, error in (
        (2, crash, ConnectionError),
        (3, terminate, Stopped),
        (1, interrupt, Stopped),
        (1, crash, ConnectionError),
    ):
        with pytest.raises(error):
            train(run, data, broken, watcher=Bomb(at, act), checkpoint_seconds=0.0, say=lambda _: None)
    found = train(run, data, broken, say=lambda _: None)
    assert tiny.weights(broken, run) == tiny.weights(whole, run)
    for key in ("accuracy", "best_accuracy", "test", "train"):
        assert found[key] == expected[key]
    assert rows(broken, run) == rows(whole, run)
    assert not list((broken / run.folder).glob("*checkpoint*"))


def rows(out: Path, run: Run) -> list[dict[str, Any]]:
    import json

    lines = (out / run.folder / "log.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in ("seconds", "images_per_second")}
        for line in lines
    ]


@pytest.mark.usefixtures("tiny_networks")
def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    data, said = tiny.dataset(), []
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, watcher=Bomb(5, crash), checkpoint_seconds=0.0)
    newest = tmp_path / run.folder / "checkpoint.safetensors"
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    train(run, data, tmp_path, say=said.append)
    assert any("not a whole checkpoint" in line for line in said)
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)


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
    with pytest.raises(InputError, match="not a whole checkpoint"):
        load_tensors(path)


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    network = tiny.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    checkpoints = Checkpoints(tmp_path, network)
    from sftn.fit import Position

    for epoch in range(3):
        checkpoints.save(Position("train", epoch), optimizer)
    assert load_tensors(checkpoints.newest)[1]["position"]["epoch"] == 2
    assert load_tensors(checkpoints.previous)[1]["position"]["epoch"] == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    from sftn.fit import Position

    Checkpoints(tmp_path, tiny.network()).save(Position("train"), None)
    said: list[str] = []
    Checkpoints(tmp_path, tiny.network((4, 6, 9)), say=said.append)
    assert "another version" in said[0]


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
