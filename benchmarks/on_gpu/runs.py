"""Checks of whole runs: captured against eager, repeated, broken off, gone wrong, out of memory, together."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from on_gpu.place import STUDENT, Broken, Place, Skipped, Steps, apart, compared, complaint, logged
from sftn.data.batch import Batch
from sftn.data.loader import Loader
from sftn.errors import Diverged, InputError
from sftn.networks import build
from sftn.networks.weights import read_state
from sftn.runs.cohort import train_together
from sftn.runtime.device import make_fabric
from sftn.spec.execution import Execution
from sftn.spec.schedule import Schedule
from sftn.tasks.supervised import Supervised
from sftn.training.loop import LoopOptions, fit
from sftn.training.phase import Phase

ROUNDED = ("ft", "sskd")
"""Their first stages have learning rates that float32 rounds, which captured steps see and eager ones do not."""


def captured(place: Place) -> str:
    """Runs of captured steps end as runs of eager ones do."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in place.kinds:
            run = place.run(kind)
            eager, graphed = (
                place.train(
                    run,
                    Path(folder) / step,
                    Execution(compile=step in ("compiled", "both"), cuda_graphs=step in ("captured", "both")),
                )
                for step in ("eager", "captured")
            )
            found[kind] = apart(graphed, eager)
    return compared(found)


def captured_in_bf16(place: Place) -> str:
    """The same in bf16, where the teacher is folded."""
    with tempfile.TemporaryDirectory() as folder:
        run = place.run("kd", "bf16")
        eager, graphed = (
            place.train(
                run,
                Path(folder) / step,
                Execution(compile=step in ("compiled", "both"), cuda_graphs=step in ("captured", "both")),
            )
            for step in ("eager", "captured")
        )
        return compared({"kd": apart(graphed, eager)}, 0.02)


def deterministic(place: Place) -> str:
    """With --deterministic runs repeat their bits, and captured steps have those of eager ones."""
    repeated, graphed, refused = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        for kind in place.kinds:
            run, ends = place.run(kind), []
            try:
                for number, step in enumerate(("eager", "eager", "captured")):
                    ends.append(
                        place.train(
                            run,
                            Path(folder) / str(number),
                            Execution(
                                deterministic=True,
                                compile=step in ("compiled", "both"),
                                cuda_graphs=step in ("captured", "both"),
                            ),
                        )
                    )
            except InputError as error:
                if "leave --deterministic out" not in str(error):
                    raise
                refused.append(f"{kind} ({str(error).partition(' does not')[0]})")
                continue
            repeated[kind], graphed[kind] = apart(ends[1], ends[0]), apart(ends[2], ends[0])
    compared(repeated, 0.0)
    exact = {kind: distance for kind, distance in graphed.items() if kind not in ROUNDED}
    near = {kind: distance for kind, distance in graphed.items() if kind in ROUNDED}
    said = f"repeated and captured, {compared(exact, 0.0)}" + (f"; captured, {compared(near)}" if near else "")
    return said + (f"; PyTorch has no deterministic way for {', '.join(refused)}" if refused else "")


def resumed(place: Place) -> str:
    """A captured run by CRD, whose negatives are random, is broken off twice and goes on to the same end."""
    with tempfile.TemporaryDirectory() as folder:
        run, execution = place.run("crd"), Execution(deterministic=True, cuda_graphs=True)
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        end = place.train(run, whole, execution)
        for step in (2, 3):
            with contextlib.suppress(Broken):
                place.train(run, broken, replace(execution, checkpoint_seconds=0.0), callback=Steps(step))
        return compared({"crd": apart(place.train(run, broken, execution), end)}, 0.0)


class _Bad(Loader):
    """The second step of the second epoch has no numbers for pixels."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(super().epoch(epoch, start), start=start):
            yield batch._replace(images=batch.images * float("nan")) if (epoch, step) == (1, 1) else batch


def sentinel(place: Place) -> str:
    """A loss that is no number is found at its captured step, and can be skipped."""
    data, fabric = place.data, make_fabric(place.device, "float32")
    made = _Bad(data.train, batch=32, normalisation=data.normalisation, padding=4, device=fabric.device)

    def end(step: str, skip: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        task = Supervised(build(STUDENT, 10))
        phase = Phase("train", task, (task,), Schedule(epochs=3, lr=1 / 16, gamma=0.5, batch=32))
        fit(phase, made, fabric, LoopOptions(step=step, skip=skip))
        return {key: value.cpu() for key, value in task.state_dict().items()}

    said = complaint(Diverged, lambda: end("captured", False))
    assert "epoch 2, step 2" in said, f"it should have been found at epoch 2, step 2: {said or 'nothing was'}"
    skipped = end("captured", True)
    assert all(bool(value.isfinite().all()) for value in skipped.values()), "a skipped step left its mark"
    return f"found at epoch 2, step 2; skipped, {compared({'as eager': apart(skipped, end('eager', True))})}"


class _Greedy(Supervised):
    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": super().forward(images, labels)["loss"] + images.new_empty(2**48).sum()}


def memory(place: Place) -> str:
    """Memory that is not there ends a run with one line, and the next run is none the worse for it."""
    for step in ("eager", "captured"):
        with tempfile.TemporaryDirectory() as folder:
            call = partial(
                place.train,
                place.run("plain"),
                Path(folder),
                Execution(compile=step in ("compiled", "both"), cuda_graphs=step in ("captured", "both")),
            )
            with mock.patch("sftn.runs.build.Supervised", _Greedy):
                said = complaint(InputError, call)
            assert "out of memory on" in said, f"{step}: {said or 'nothing was said'}"
            assert "\n" not in said, "more than a line"
            call()
    return said.partition(";")[0]


def float16(place: Place) -> str:
    """float16 trains with its scaler, eagerly even where captured steps were asked for."""
    if place.device == "cpu":
        raise Skipped("float16 needs a GPU")
    with tempfile.TemporaryDirectory() as folder, logged() as said:
        end = place.train(place.run("kd", "float16", epochs=4), Path(folder), Execution(cuda_graphs=True))
    assert all(bool(value.isfinite().all()) for value in end.values()), "weights that are no numbers"
    assert any("float16's scaler" in line for line in said), "nothing was said of eager steps"
    return "four epochs; " + next(line for line in said if "float16's scaler" in line)


def cohort(place: Place) -> str:
    """Students of a cohort end as each does alone; captured on both sides."""
    names = ("kd", "at", "crd")
    with tempfile.TemporaryDirectory() as folder:
        runs, together = [place.run(name) for name in names], Path(folder) / "together"
        alone = [place.train(run, Path(folder) / "alone", Execution(cuda_graphs=True)) for run in runs]
        teacher = runs[0].teacher
        place.train(teacher, together)  # type: ignore[arg-type]
        found: Any = train_together(runs, place.data, together, Execution(device=place.device, cuda_graphs=True))
        assert all(isinstance(outcome, dict) for outcome in found), f"not all have ended well: {found}"
        ends = [read_state(together / run.folder / "weights.safetensors") for run in runs]
        return compared({name: apart(*pair) for name, *pair in zip(names, ends, alone)})


class _Asking(Supervised):
    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        terms = super().forward(images, labels)
        return terms if terms["loss"].item() > -1 else {}


def waiting(place: Place) -> str:
    """A task that waits for the device is noticed, and its steps are taken eagerly."""
    if place.device == "cpu":
        raise Skipped("nothing waits for a CPU")
    with tempfile.TemporaryDirectory() as folder, mock.patch("sftn.runs.build.Supervised", _Asking), logged() as said:
        place.train(place.run("plain"), Path(folder), Execution(cuda_graphs=True))
    waits = [line for line in said if "waits for the GPU" in line]
    assert waits, "nothing was said"
    return waits[0]
