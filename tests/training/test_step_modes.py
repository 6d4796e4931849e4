"""Steps that are captured leave what eager ones leave, bit for bit; those that are compiled, up to rounding.

There is no graph on a CPU: `Rerun` calls the recorded function again on its static tensors. Whatever a step took from
elsewhere, or left elsewhere, would show.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sftn.training.step_modes
from sftn.data.loader import Batch, Loader
from sftn.errors import Diverged, InputError
from sftn.networks.staged import StagedNet
from sftn.runs.cohort import train_together
from sftn.runs.runner import train
from sftn.runs.teacher_cache import TeacherCache
from sftn.runtime.device import make_fabric
from sftn.spec.execution import Execution
from sftn.spec.run import Friendly, Run
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import OBJECTIVES, objective
from sftn.tasks.supervised import Supervised
from sftn.training.cuda_graph import GRAPHS, WARM, HostSync, Seen
from sftn.training.divergence import Sentinel
from sftn.training.loop import LoopOptions, fit
from sftn.training.phase import Phase
from sftn.training.progress import Position
from sftn.training.step_modes import Captured, resolve_step_mode
from tests.support import tiny
from tests.support.bad_images import BadImages
from tests.support.callbacks import Rows
from tests.support.interruptions import Bomb, crash, rows
from tests.support.rerun import Rerun

pytestmark = pytest.mark.usefixtures("tiny_networks")
KINDS = ("plain", "friendly", *OBJECTIVES, "at(warmup=2)")
IMAGES = 40
"""Two batches of 16 images and one of 8."""


class Checked(Captured):
    """Sees that nothing that a step changes was moved since it was recorded."""

    replays = 0

    def __call__(self, step: int, batch: Any) -> Seen:
        seen = super().__call__(step, batch)
        if self._static:
            where = [tensor.data_ptr() for tensor in (*self.changed(), *(g["lr"] for g in self.optimizer.param_groups))]
            assert self.__dict__.setdefault("where", where) == where
            Checked.replays += len(batch.labels) == self.full
        return seen


@pytest.fixture(autouse=True)
def _graphs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRAPHS, "cpu", Rerun)
    monkeypatch.setattr(sftn.training.step_modes, "Captured", Checked)
    monkeypatch.setattr(Checked, "replays", 0)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with a trained teacher; its copy, for runs of their own."""
    folder = tmp_path_factory.mktemp("teachers")

    def copied(out: Path) -> Path:
        data = tiny.dataset(IMAGES)
        train(tiny.run(data, "wide", epochs=1), data, folder)
        return Path(shutil.copytree(folder, out))

    return copied


def run_of(kind: str, **changes: Any) -> Run:
    data = tiny.dataset(IMAGES)
    if kind == "plain":
        return tiny.run(data, **changes)
    if kind == "friendly":
        return tiny.run(data, "wide", friendly=Friendly(student="tiny"), **changes)
    teacher = tiny.run(data, "wide", epochs=1)
    return tiny.run(data, teacher=teacher, objective=objective(kind), **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_captured_steps_leave_the_bits_of_eager_ones(kind: str, teachers: Any, tmp_path: Path) -> None:
    """With a smaller batch at the end, a milestone, first stages, and a run that is broken off and gone on with."""
    data, run = tiny.dataset(IMAGES), run_of(kind)
    eager, captured = teachers(tmp_path / "eager"), teachers(tmp_path / "captured")
    expected = train(run, data, eager)
    assert len({row["lr"] for row in rows(eager, run)}) > 1
    for at in (2, 3):
        with pytest.raises(ConnectionError):
            train(
                run,
                data,
                captured,
                Execution(checkpoint_seconds=0.0, cuda_graphs=True),
                callback=Bomb(at, crash),
            )
    found = train(run, data, captured, Execution(cuda_graphs=True))
    assert Checked.replays >= 4
    assert tiny.weights(captured, run) == tiny.weights(eager, run)
    assert rows(captured, run) == rows(eager, run)
    assert (expected["environment"].pop("step"), found["environment"].pop("step")) == ("eager", "captured")


def test_a_run_may_change_how_its_steps_are_taken(teachers: Any, tmp_path: Path) -> None:
    data, run = tiny.dataset(IMAGES), run_of("crd", precision="bf16")
    eager, mixed = teachers(tmp_path / "eager"), teachers(tmp_path / "mixed")
    train(run, data, eager)
    for step in ("captured", "eager"):
        with pytest.raises(ConnectionError):
            train(
                run,
                data,
                mixed,
                Execution(
                    checkpoint_seconds=0.0,
                    compile=step in ("compiled", "both"),
                    cuda_graphs=step in ("captured", "both"),
                ),
                callback=Bomb(2, crash),
            )
    train(run, data, mixed, Execution(cuda_graphs=True))
    assert tiny.weights(mixed, run) == tiny.weights(eager, run)


def supervised(how: str, loader: type[Loader] = Loader, **more: Any) -> tuple[dict[str, Tensor], list[Any]]:
    torch.manual_seed(1)
    data, task, callback = tiny.dataset(), Supervised(tiny.network()), Rows()
    batches = loader(data.train, batch=16, normalisation=data.normalisation, padding=1)
    phase = Phase("train", task, (task,), Schedule(epochs=3, batch=16))
    fit(phase, batches, make_fabric("cpu", "float32"), LoopOptions(step=how, **more), callback=callback)
    return task.state_dict(), [{k: v for k, v in row.items() if "second" not in k} for row in callback.rows]


@pytest.mark.parametrize("bad", [1, 5])
def test_the_sentinel_sees_captured_steps_too(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.bad_images.BAD", bad)
    (eager, said), (captured, same) = (supervised(how, BadImages, skip=True) for how in ("eager", "captured"))
    assert all(torch.equal(eager[key], captured[key]) for key in eager)
    assert said == same
    assert sum(row["skipped"] for row in said) == 1
    errors = []
    for how in ("eager", "captured"):
        with pytest.raises(Diverged) as caught:
            supervised(how, BadImages)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert f"epoch {(bad + 2) // 3}, step {(bad - 1) % 3 + 1}" in errors[0]


@pytest.mark.parametrize(("asked", "precision"), [(0.0, "float32"), (1.0, "float32"), (0.0, "bf16"), (1.0, "bf16")])
def test_a_cohort_of_captured_steps_ends_with_the_same_bits(
    asked: float, precision: str, teachers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the teacher answers is found before each step, once for all, and copied into the recorded ones."""
    monkeypatch.setattr("sftn.runs.teacher_cache.FLOOR", 2)
    monkeypatch.setattr("sftn.runs.teacher_cache.LEAST", 0.0)
    data = tiny.dataset(IMAGES)
    teacher, alone, together = tiny.run(data, "wide", epochs=1), teachers(tmp_path / "a"), teachers(tmp_path / "t")
    methods = ("kd", "crd", "pkt") if asked else ("kd", "at", "crd", "vid")
    runs = [tiny.run(data, teacher=teacher, objective=objective(method), precision=precision) for method in methods]
    for run in runs:
        train(run, data, alone, Execution(teacher_cache=0.0))
    kept, repeating = [], []
    monkeypatch.setattr(TeacherCache, "record", lambda self: kept.append(self._table))
    replay, asks = Rerun.replay, StagedNet.activations

    def alone_with_its_tensors(self: Rerun) -> None:
        repeating.append(self)
        replay(self)
        repeating.clear()

    def activations(self: StagedNet, images: Tensor) -> Any:
        assert not repeating or self.training, "a graph would not ask again: the teacher is asked before"
        return asks(self, images)

    monkeypatch.setattr(Rerun, "replay", alone_with_its_tensors)
    monkeypatch.setattr(StagedNet, "activations", activations)
    train_together(runs, data, together, Execution(teacher_cache=asked, cuda_graphs=True))
    assert bool(kept and kept[0]) is bool(asked)
    assert Checked.replays >= 4 * len(runs)
    for run in runs:
        assert tiny.weights(together, run) == tiny.weights(alone, run), run.name


def test_terms_keep_their_names_where_a_graph_does_not_say_them_again() -> None:
    task = Supervised(tiny.network())
    sentinel = Sentinel([task], torch.optim.SGD(task.parameters(), lr=0.1, fused=True))
    sentinel.begin(Position("train"))
    task(torch.randn(4, *tiny.IMAGE), torch.arange(4))["loss"].backward()
    seen = sentinel.see({"loss": torch.tensor(2.0), "accuracy": torch.tensor(50.0)})
    for _ in range(2):  # epochs; nothing was seen by Python in the second
        sentinel.begin(Position("train"))
        sentinel.note(1, seen, 4)
        assert sentinel.look() is None
        assert sentinel.totals() == {"loss": 8.0, "accuracy": 200.0}


def test_recording_draws_no_random_numbers_and_moves_no_weight() -> None:
    network = tiny.network()
    labels = torch.arange(24) % tiny.CLASSES
    task = Distiller(network, tiny.network((6, 8, 12)), objective("crd"), tiny.IMAGE, labels=labels)
    fabric, images, index = make_fabric("cpu", "float32"), torch.randn(8, *tiny.IMAGE), torch.arange(8)
    sgd = torch.optim.SGD(task.phases(Schedule())[0].trains[0].parameters(), lr=0.1, momentum=0.9, fused=True)
    taken = []

    def take(step: int, batch: Any) -> Seen:
        loss = task(*batch)["loss"]
        loss.backward()
        sgd.step()
        taken.append(torch.get_rng_state())
        return loss.detach().clone(), loss.detach().clone()

    captured = Captured(take, task.train(), sgd, fabric, 8)
    before, random = [value.clone() for value in captured.changed()], torch.get_rng_state()
    captured._record(captured._inputs(Batch(images, labels[:8], index)))
    assert len(taken) == WARM + 1
    assert not torch.equal(taken[-1], random)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(*pair) for pair in zip(before, captured.changed()))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_cannot_be_captured_is_taken_eagerly_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Waiting(Rerun):
        def warm(self, function: Any) -> None:
            function()
            raise HostSync("called a synchronizing CUDA operation")

    monkeypatch.setitem(GRAPHS, "cpu", Waiting)
    (eager, _), (found, _) = supervised("eager"), supervised("captured")
    assert all(torch.equal(eager[key], found[key]) for key in eager)
    assert caplog.messages == [
        "steps are taken eagerly, not captured: one of them waits for the GPU (called a synchronizing CUDA operation)"
    ]


def test_the_way_is_settled_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert resolve_step_mode("captured", "cuda", "bf16", 1) == "captured"
    assert resolve_step_mode("captured", "cuda", "float16", 1) == "eager"
    assert resolve_step_mode("both", "cuda", "float16", 1) == "compiled"
    assert resolve_step_mode("both", "cuda", "float32", 2) == "eager"
    assert len(caplog.messages) == 3
    with pytest.raises(InputError, match="did you mean captured"):
        resolve_step_mode("capture", "cuda", "bf16", 1)
    monkeypatch.delitem(GRAPHS, "cpu")
    data = tiny.dataset()
    with pytest.raises(InputError, match=r"^CUDA graphs need a CUDA GPU, not cpu: leave --cuda-graphs out$"):
        train(tiny.run(data), data, tmp_path, Execution(device="cpu", cuda_graphs=True))
    with pytest.raises(InputError, match="cannot train a cohort: give --cohort 1"):
        train_together([tiny.run(data)], data, tmp_path, Execution(device="cpu", compile=True))


def losses(how: str, epochs: int = 20) -> list[float]:
    torch.manual_seed(3)
    data, callback = tiny.dataset(16), Rows()
    task = Distiller(tiny.network(), tiny.network((6, 8, 12)), objective("kd"), tiny.IMAGE)
    batches = Loader(data.train, batch=16, normalisation=data.normalisation, padding=1)
    phase = task.phases(Schedule(epochs=epochs, batch=16))[-1]
    fit(phase, batches, make_fabric("cpu", "float32"), LoopOptions(step=how), callback=callback)
    return [row["loss"] for row in callback.rows]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("how", ["compiled", "both"])
def test_compiled_steps_follow_the_eager_curve(how: str) -> None:
    found = losses(how)
    assert found == pytest.approx(losses("eager"), rel=1e-4)
    assert all(map(math.isfinite, found))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "asked"), [*((kind, 0.0) for kind in KINDS), ("kd", 1.0)])
def test_every_task_can_be_traced(
    kind: str, asked: float, teachers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a compiler would, but computed by PyTorch's own operations: the bits stay."""
    compile_with = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compile_with(self, backend="aot_eager", **how))
    monkeypatch.setattr("sftn.runs.teacher_cache.FLOOR", 2)
    monkeypatch.setattr("sftn.runs.teacher_cache.LEAST", 0.0)
    data, run = tiny.dataset(IMAGES), run_of(kind)
    ends = []
    for step in ("eager", "compiled"):
        out = teachers(tmp_path / step)
        found = train(
            run,
            data,
            out,
            Execution(
                teacher_cache=asked, compile=step in ("compiled", "both"), cuda_graphs=step in ("captured", "both")
            ),
        )
        assert ("asked_once" in found) is bool(asked)
        ends.append(tiny.weights(out, run))
    assert ends[0] == ends[1]
