"""Streamed images: the same batches however they are made, damage, dying workers, and too few file handles."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import _utils

from sftn.data.batch import Batch
from sftn.data.dataset import fingerprint
from sftn.data.decoding import Damaged, decode
from sftn.data.file_split import Files, Names
from sftn.data.load import load
from sftn.data.loader import evaluation_batches, training_batches
from sftn.data.streaming import StreamLoader
from sftn.errors import InputError
from sftn.runs.runner import train
from sftn.spec.execution import Execution
from sftn.spec.run import Data
from tests.support import tiny
from tests.support.messages import of

RAW = (torch.zeros(3), torch.ones(3))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 training and 8 test images of 4 classes, 30×20 noise whose mean tells the class."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, each in (("train", (6, 5, 5, 5)), ("test", (2, 2, 2, 2))):
        for label, count in enumerate(each):
            folder = root / part / "abcd"[label]
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(50 * label, 50 * label + 60, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def streams(place: Path, workers: int = 0, context: str | None = None, copies: int = 1, seed: int = 0) -> StreamLoader:
    train = load(f"folder:{place}", size=16, stream=True, workers=workers).train
    assert isinstance(train, Files)
    return StreamLoader(train, batch=4, normalisation=RAW, flip=True, copies=copies, seed=seed, context=context)


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return bool(pairs) and all(torch.equal(a, b) for both in pairs for a, b in zip(*both))


@pytest.mark.parametrize(("workers", "context"), [(1, None), (3, "fork"), (1, "spawn")])
def test_any_number_of_workers_gives_the_same_batches(place: Path, workers: int, context: str | None) -> None:
    expected = {epoch: list(streams(place, copies=2, seed=7).epoch(epoch)) for epoch in (0, 3)}
    loader = streams(place, workers, context, copies=2, seed=7)
    state = torch.get_rng_state()
    for epoch in (3, 0):
        assert same(loader.epoch(epoch), expected[epoch])
    assert same(loader.epoch(3, start=2), expected[3][2:])
    next(iter(loader.epoch(0)))  # left in the middle
    assert same(loader.epoch(0), expected[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(expected[0], expected[3])


def test_every_image_comes_once_and_its_copies_differ(place: Path) -> None:
    loader = streams(place, copies=3)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == 5, "21 images leave a single one over, which is dropped"
    index = torch.cat([batch.index for batch in batches])
    assert len(set(index.tolist())) == len(index) == 20
    for batch in batches:
        assert batch.images.shape == (12, 3, 16, 16)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.labels, loader.labels[batch.index])
        assert torch.equal((batch.images.mean((1, 2, 3)) / 50 - 0.6).round().long(), batch.labels.repeat_interleave(3))
        first, second = batch.images[::3], batch.images[1::3]
        assert not (first == second).flatten(1).all(1).any()
    other = list(streams(place, copies=3, seed=1).epoch(0))
    assert not same(batches, other)


def test_evaluation_sees_the_centre_in_order(place: Path) -> None:
    data = load(f"folder:{place}", size=16, stream=True, workers=2)
    assert data.resize == 18
    batches = list(evaluation_batches(data.test.to("cpu"), batch=3, normalisation=RAW))
    assert [len(batch.labels) for batch in batches] == [3, 3, 2]
    paths = [place / "test" / name / f"{i}.png" for name in "abcd" for i in range(2)]
    expected = np.stack([decode(path, 16, resize=18) for path in paths])
    assert torch.equal(torch.cat([batch.images for batch in batches]), torch.from_numpy(expected).float())
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_streamed_split_is_described_without_being_read(place: Path, tmp_path: Path) -> None:
    data = load(f"folder:{place}", size=16, stream=True)
    first = fingerprint(data)
    assert first == fingerprint(pickle.loads(pickle.dumps(data)))
    assert first != fingerprint(load(f"folder:{place}", size=24, stream=True))
    assert first != fingerprint(load(f"folder:{place}", size=16, stream=True, limit=20))
    with pytest.raises(InputError, match="streamed"):
        data.train.images  # noqa: B018
    means = torch.stack([image.float().mean((1, 2)) for image in data.train.sample(1000).images])
    torch.testing.assert_close(data.normalisation[0], means.mean(0), atol=1e-3, rtol=0)
    assert len(data.train.sample(5)) == 5
    names = ["ü/a b.png", "", "x" * 300, os.fsdecode(b"\xff.png")]
    assert [Names(names)[i] for i in range(len(names))] == names


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_is_trained_on_streamed_images(place: Path, tmp_path: Path) -> None:
    data = load(f"folder:{place}", size=16, stream=True, workers=2)
    run = tiny.run(data)
    first = train(run, data, tmp_path / "a", Execution(device="cpu"))
    again = load(f"folder:{place}", size=16, stream=True, workers=0)
    train(run, again, tmp_path / "b", Execution(device="cpu"))
    assert tiny.weights(tmp_path / "a", run) == tiny.weights(tmp_path / "b", run)
    assert first["images"]["resize"] == 18
    assert Data("x", "y") == Data("x", "y", stream=False, damaged="refuse"), "as before there were these"


def test_damage_is_named_while_training_or_left_out_before(place: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "images"
    subprocess.run(["cp", "-r", place, root], check=True)
    bad = root / "train" / "b" / "2.png"
    bad.write_bytes(bad.read_bytes()[:300])
    for workers in (0, 2):
        loader = streams(root, workers)
        with pytest.raises(InputError, match=r"b/2\.png is not a readable image") as error:
            list(loader.epoch(1))  # epoch 0 drops it
        assert "\n" not in str(error.value)
    for _ in range(2):
        data = load(f"folder:{root}", size=16, stream=True, damaged="skip", workers=1)
        assert (data.skipped, len(data.train), len(data.test)) == (1, 20, 8)
    assert [line.partition(":")[0] for line in of(caplog, "from_files")] == ["left out", "1 damaged image left out"] * 2
    assert len(list((tmp_path / "cache" / "sftn").iterdir())) == 2, "one for each split"
    with monkeypatch.context() as patch:
        patch.setattr("sftn.data.sources.from_files.unreadable", lambda files: pytest.fail("it is remembered"))
        load(f"folder:{root}", size=16, stream=True, damaged="skip")
    assert len(list(training_batches(data, batch=4, device="cpu").epoch(0))) == 5
    with pytest.raises(Damaged):
        load(f"folder:{root}", size=16, stream=True).normalisation  # noqa: B018


def test_a_worker_that_dies_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    before = signal.getsignal(signal.SIGCHLD)
    loader = streams(place, 2)
    batches = loader.epoch(0)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before, "torch's handler would raise anywhere"
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(InputError, match="a worker that reads images died") as error:
        list(loader.epoch(1))
    assert "\n" not in str(error.value)
    assert same(loader.epoch(1), streams(place).epoch(1)), "new workers begin anew"


def test_too_few_file_handles_are_said(place: Path) -> None:
    script = f"""
        import resource
        from sftn.data.load import load
        from sftn.data.loader import training_batches
        data = load("folder:{place}", size=16, stream=True, workers=8)
        data.normalisation
        used = len(__import__("os").listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
        try:
            list(training_batches(data, batch=2, device="cpu").epoch(0))
        except ValueError as error:
            print(type(error).__name__, error)
    """
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc to count handles in")
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert ran.stdout.startswith("InputError"), ran.stderr
    assert "ulimit -n" in ran.stdout
    assert ran.stdout.count("\n") == 1


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"batch": 2, "copies": 0}])
def test_bad_numbers_are_named(place: Path, wrong: dict[str, int]) -> None:
    data = load(f"folder:{place}", size=16, stream=True)
    assert isinstance(data.train, Files)
    with pytest.raises(InputError, match=list(wrong)[-1]):
        StreamLoader(data.train, normalisation=RAW, **wrong)
