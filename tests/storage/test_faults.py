"""Space, handles and memory that run out, and what makes a run repeatable."""

from __future__ import annotations

import builtins
import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sftn.errors import InputError, Stopped
from sftn.runs.runner import train
from sftn.runtime import environment
from sftn.runtime.device import repeatable
from sftn.runtime.signals import sigterm
from sftn.spec.execution import Execution
from sftn.storage.faults import file_error
from sftn.training.evaluate import collapsed
from tests.support import tiny
from tests.support.interruptions import Bomb, terminate

tiny_networks = pytest.mark.usefixtures("tiny_networks")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space there"),
        (errno.EDQUOT, "free space there"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "make it writable"),
        (errno.EMFILE, "raise the limit on open files, e.g. ulimit -n 4096"),
    ],
)
def test_the_line_names_path_reason_and_remedy(number: int, remedy: str) -> None:
    line = str(file_error("write", Path("runs/x"), OSError(number, os.strerror(number))))
    assert line.startswith(f"cannot write runs/x: {os.strerror(number)}; {remedy}")


@tiny_networks
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 2000 bytes."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_is_not_there(error: Exception, tmp_path: Path) -> None:
    data = tiny.dataset()
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")

    def act() -> None:
        raise error

    with pytest.raises(InputError, match=r"out of memory on cpu, train, epoch 2, after step 1: .*--batch") as caught:
        train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(4, act))
    assert ("were needed" in str(caught.value)) == ("allocate" in str(error))
    assert "bf16" in str(caught.value)
    train(run, data, tmp_path)
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)


@tiny_networks
def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    data = tiny.dataset()

    def act() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        train(tiny.run(data), data, tmp_path, callback=Bomb(1, act))


def swapped(path: str, wanted: Path, *arguments: Any, **options: Any) -> Any:
    return builtins.open(path, *arguments, **options)


@tiny_networks
def test_a_log_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.dataset()
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("sftn.runs.log.open", partial(swapped, "/dev/full"), raising=False)
        with pytest.raises(InputError, match=r"cannot write .*log.jsonl: No space left on device; free space"):
            train(run, data, tmp_path, Execution(checkpoint_seconds=0.0))
    train(run, data, tmp_path)
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)
    lines = (tmp_path / run.folder / "log.jsonl").read_text().splitlines()
    assert len(lines) == 2


@tiny_networks
@pytest.mark.parametrize("name", ["run.json", "weights.safetensors", "result.json"])
def test_a_folder_that_becomes_read_only(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.dataset()
    run = tiny.run(data)
    train(run, data, tmp_path / "whole")
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(InputError, match=rf"cannot write .*{name}: Read-only file system; make it writable"):
            train(run, data, tmp_path)
    callback = Bomb(99, terminate)
    train(run, data, tmp_path, callback=callback)
    assert callback.left == 99 - (6 if name == "run.json" else 0), "what was trained was trained again"
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)


@tiny_networks
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_and_threads_give_the_same_bits(threads: int, tmp_path: Path) -> None:
    data = tiny.dataset()
    run = tiny.run(data, "wide", epochs=1)
    fixed = Execution(threads=str(threads))
    first, second = (train(run, data, tmp_path / str(again), fixed) for again in range(2))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["environment"] == second["environment"]
    assert first["environment"]["threads"] == threads


@tiny_networks
def test_deterministic_is_recorded_and_lasts_for_the_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    data = tiny.dataset()
    found = train(tiny.run(data, epochs=1), data, tmp_path, Execution(deterministic=True))["environment"]
    assert found["deterministic"] is True
    assert found["data_fingerprint"] == tiny.run(data).data.fingerprint
    assert {"numpy", "safetensors", "fabric", "cpu", "cpu_capability", "precision", "changed"} <= found.keys()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(InputError, match=r"^thing_cuda does not .*: leave --deterministic out"), repeatable():
        raise RuntimeError("thing_cuda does not have a deterministic implementation, but you set … . You can …")


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment._commit.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment._commit() == (None, None)
    environment._commit.cache_clear()


def test_sigterm_outside_of_training_ends_at_once() -> None:
    with pytest.raises(Stopped, match="15"), sigterm():
        terminate()


@pytest.mark.parametrize(
    ("favourite", "counts", "is_collapsed"),
    [
        (100.0, [10] * 10, True),
        (91.1, [10] * 10, True),
        (90.9, [10] * 10, False),
        (95.1, [50, 50], True),
        (94.9, [50, 50], False),
        (99.5, [99, 1], False),
        (100.0, [99, 1], True),
        (100.0, [100], False),
    ],
)
def test_collapse_is_measured_against_the_most_frequent_class(
    favourite: float, counts: list[int], is_collapsed: bool
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert collapsed(favourite, labels) is is_collapsed
