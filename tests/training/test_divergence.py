"""Non-finite numbers: found at their step, never saved, and skipped or followed by a restart if requested."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sftn.data.loader import Batch, Loader
from sftn.errors import Diverged, InputError
from sftn.networks import NETWORKS
from sftn.runs.runner import train
from sftn.runtime.device import make_fabric
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.spec.schedule import Schedule
from sftn.storage.tensor_files import load_tensors
from sftn.tasks.recipes import OBJECTIVES
from sftn.tasks.supervised import Supervised
from sftn.training.loop import LoopOptions, fit
from sftn.training.phase import Phase
from tests.support import tiny
from tests.support.bad_images import BAD, BadImages, Without
from tests.support.callbacks import Rows
from tests.support.interruptions import Bomb, crash, rows

pytestmark = pytest.mark.usefixtures("tiny_networks")


class BadGradient(Supervised):
    """All terms are finite, but at one step the gradient is not."""

    steps: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        terms = super().forward(images, labels)
        self.steps += self.training
        nothing = 0 * next(self.parameters()).sum() * float(self.steps == BAD)
        return terms | {"loss": terms["loss"] + (nothing.sqrt() if self.steps == BAD else nothing)}


class TooFast(Supervised):
    """The loss is no number at the second step if the learning rate was above 0.02."""

    steps: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.register_buffer("steps", torch.tensor(0))
        self.clock = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        terms = super().forward(images, labels)
        self.steps += self.training
        bad = self.steps == 2 and self.clock < -0.02
        return terms | {"loss": (terms["loss"] + self.clock) * (math.nan if bad else 1)}


def finite(folder: Path) -> bool:
    """Whether all numbers of all checkpoints are."""
    paths = list(folder.glob("checkpoint*"))
    assert paths
    tensors = [t for path in paths for t in load_tensors(path)[0].values() if t.is_floating_point()]
    return all(bool(t.isfinite().all()) for t in tensors)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_the_step_is_found_and_never_kept(
    where: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.dataset()
    run = tiny.run(data, epochs=3)
    expected = train(run, data, tmp_path / "whole")["weights_sha256"]
    with monkeypatch.context() as patch:
        if where == "loss":
            patch.setattr("sftn.data.loader.Loader", BadImages)
        else:
            patch.setattr("sftn.runs.build.Supervised", BadGradient)
        with pytest.raises(Diverged, match=r"^train, epoch 2, step 2, learning rate 0.05: loss ") as caught:
            train(run, data, tmp_path, Execution(checkpoint_seconds=seconds))
        assert "--on-nan skip" in str(caught.value)
        assert "\n" not in str(caught.value)
    folder = tmp_path / run.folder
    record = json.loads((folder / "diverged.json").read_text())
    assert (record["phase"], record["epoch"], record["step"], record["precision"]) == ("train", 2, 2, "float32")
    loader = Loader(data.train, batch=16, normalisation=data.normalisation, padding=1)
    assert record["images"] == list(loader.epoch(1))[1].index.tolist()
    assert record["terms"]["gradient norm"] == "nan"
    assert (record["terms"]["loss"] == "nan") == (where == "loss")
    if seconds == 0 and where == "loss":
        assert finite(folder)
        found = train(run, data, tmp_path)  # nothing is wrong any more: on from the last good step
        assert found["weights_sha256"] == expected
        assert not (folder / "diverged.json").exists()


def test_weights_that_overflow_are_found_too() -> None:
    class Overflowing(Supervised):
        def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
            return {"loss": next(self.parameters()).sum() * 1e15}

    task = Overflowing(tiny.network())
    phase = Phase("train", task, (task,), Schedule(epochs=1, batch=48, lr=1e30))
    with pytest.raises(Diverged, match="weights nan"):
        fit(phase, plain_loader(Loader, 48), make_fabric("cpu", "float32"))


def plain_loader(kind: type[Loader], batch: int = 16) -> Loader:
    data = tiny.dataset()
    return kind(data.train, batch=batch, normalisation=data.normalisation, padding=1)


@pytest.mark.parametrize("bad", [1, 2, 5, 6])
def test_a_skipped_step_changes_nothing(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, momentum and the statistics of batch norms are those of a run that never saw the batch."""
    monkeypatch.setattr("tests.support.bad_images.BAD", bad)
    ends, logs = [], []
    for kind in (BadImages, Without):
        torch.manual_seed(1)
        task = Supervised(tiny.network())
        callback = Rows()
        phase = Phase("train", task, (task,), Schedule(epochs=3, batch=16))
        fit(
            phase,
            plain_loader(kind),
            make_fabric("cpu", "float32"),
            LoopOptions(skip=kind is BadImages),
            callback=callback,
        )
        ends.append(task.state_dict())
        logs.append(callback.rows)
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]
    assert [row["skipped"] for row in logs[0]] == [int(epoch == (bad - 1) // 3) for epoch in range(3)]


@pytest.mark.parametrize("kind", ["plain", "crd", "oh"])
def test_skipping_survives_kills_and_is_recorded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.dataset()
    teacher = tiny.run(data, "wide", epochs=1)
    for out in (tmp_path / "whole", tmp_path):
        train(teacher, data, out)
    more: dict[str, Any] = {} if kind == "plain" else {"teacher": teacher, "objective": OBJECTIVES[kind]}
    run = tiny.run(data, epochs=3, on_nan="skip", **more)
    assert run.id != tiny.run(data, epochs=3, **more).id
    monkeypatch.setattr("sftn.data.loader.Loader", BadImages)
    expected = train(run, data, tmp_path / "whole")
    assert expected["skipped_steps"] == 1
    for at in (BAD, 1):
        with pytest.raises(ConnectionError):
            train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(at, crash))
        assert finite(tmp_path / run.folder)
    found = train(run, data, tmp_path)
    assert found["skipped_steps"] == 1
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)
    assert rows(tmp_path, run) == rows(tmp_path / "whole", run)


def test_an_epoch_without_a_good_step_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class AllBad(Loader):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for batch in super().epoch(epoch, start):
                yield batch._replace(images=batch.images * math.nan)

    data = tiny.dataset()
    run = tiny.run(data, on_nan="skip")
    monkeypatch.setattr("sftn.data.loader.Loader", AllBad)
    with pytest.raises(Diverged, match=r"step 1, .*every step of this epoch was skipped"):
        train(run, data, tmp_path)
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(3, crash))
    with pytest.raises(Diverged):
        train(run, data, tmp_path, Execution(checkpoint_seconds=0.0))


def test_a_run_begins_again_with_half_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice here; the end is that of a run that had a quarter of the rate from the beginning, whatever kills it."""
    data = tiny.dataset()
    run = tiny.run(data, on_nan="restart")
    monkeypatch.setattr("sftn.runs.build.Supervised", TooFast)
    expected = train(run, data, tmp_path / "whole")
    assert [(r["epoch"], r["step"], r["lr"]) for r in expected["restarts"]] == [(1, 2, 0.05), (1, 2, 0.025)]
    assert [line.split("; ")[1] for line in caplog.messages if "restarting" in line] == [
        "restarting with 1/2 of the learning rate (restart 1 of at most 3)",
        "restarting with 1/4 of the learning rate (restart 2 of at most 3)",
    ]
    slow = replace(run, schedule=replace(run.schedule, lr=0.0125))
    assert train(slow, data, tmp_path / "slow")["restarts"] == []
    from safetensors.torch import load_file

    ours, theirs = (
        load_file(tmp_path / which / r.folder / "weights.safetensors") for which, r in (("whole", run), ("slow", slow))
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for at in (1, 1, 3, 3, 2):
        with pytest.raises(ConnectionError):
            train(run, data, tmp_path, Execution(checkpoint_seconds=0.0), callback=Bomb(at, crash))
    found = train(run, data, tmp_path)
    assert found["restarts"] == expected["restarts"]
    assert tiny.weights(tmp_path, run) == tiny.weights(tmp_path / "whole", run)
    assert rows(tmp_path, run) == rows(tmp_path / "whole", run)


def test_three_restarts_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny.dataset()
    monkeypatch.setattr("sftn.data.loader.Loader", BadImages)
    run = tiny.run(data, on_nan="restart")
    with pytest.raises(Diverged, match=r"learning rate 0.000625: .* after 3 restarts"):
        train(run, data, tmp_path)
    assert sum("restarting with" in line for line in caplog.messages) == 3
    assert len(json.loads((tmp_path / run.folder / "diverged.json").read_text())["restarts"]) == 3


def test_what_to_do_must_be_known() -> None:
    with pytest.raises(InputError, match="did you mean skip"):
        tiny.run(tiny.dataset(), on_nan="skipp")


def test_a_collapsed_student_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def constant(*args: Any, **options: Any) -> Any:
        network = tiny.network(*args, **options)
        with torch.no_grad():
            dict(network.named_parameters())["head.linear.bias"][2] = 50.0
        return network

    data = tiny.dataset(tests=100)
    schedule = Schedule(epochs=1, batch=16, lr=1e-6)
    run: Run = replace(tiny.run(data), schedule=schedule)
    monkeypatch.setitem(NETWORKS, "tiny", constant)
    found = train(run, data, tmp_path)
    assert found["collapsed"]
    assert found["test"]["favourite"] == 100
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("tiny gives 100.0 % of the test images the same class: it has collapsed")
    healthy = train(replace(tiny.run(data, epochs=12), network="wide"), data, tmp_path)
    assert not healthy["collapsed"]
    assert len(caplog.messages) == 1
