"""Checks of what is computed: methods against a CPU, batches against their images, compiled steps against eager."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from on_gpu.place import NEAR, STUDENT, TEACHER, Place, Steps
from sftn.data.batch import Batch
from sftn.data.loader import evaluation_batches, training_batches
from sftn.networks import build
from sftn.profiling.throughput import noise
from sftn.runtime.device import make_fabric
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import OBJECTIVES, objective
from sftn.tasks.speedups import speed_up
from sftn.training.loop import LoopOptions, fit

BOUNDS = {"float64": (1e-9, 1e-7), "float32": (1e-4, 1e-2), "bf16": (0.05, 0.3)}
"""How far loss and gradient may be from the CPU's, relatively. A ReLU that opens on one side only, or bf16's rounding
of every activation, moves a gradient far more than a loss."""


def methods(place: Place) -> str:
    """Loss and gradient of every method against a CPU: float64, float32 without TF32, bf16 with a folded teacher."""
    worst = dict.fromkeys(BOUNDS, (0.0, 0.0))
    data = place.data
    batches = {
        copies: next(training_batches(data, batch=32, device="cpu", copies=copies).epoch(0)) for copies in (1, 4)
    }
    for name in place.methods:
        for kind, bound in BOUNDS.items():
            torch.manual_seed(0)
            networks = build(STUDENT, 10), build(TEACHER, 10)
            task = Distiller(*networks, OBJECTIVES[name], data.image, labels=data.train.labels).train()
            batch = batches[task.copies]
            if name == "crd":
                drawn: Tensor = task.methods["crd"].draw(batch.labels)  # type: ignore[operator]
                task.methods["crd"].draw = partial(_drawn, drawn)  # type: ignore[assignment]
            dtype = torch.float64 if kind == "float64" else torch.float32
            task.to(dtype)
            batch = batch._replace(images=batch.images.to(dtype))
            expected = _pulled(copy.deepcopy(task), batch, "cpu", False)
            if kind == "bf16":
                speed_up(task, "bf16")
            loss, gradient = _pulled(task, batch, place.device, kind == "bf16")
            off = (
                abs(loss / expected[0] - 1),
                float((gradient - expected[1]).norm() / expected[1].norm()),
            )
            assert off[0] <= bound[0], f"{name} in {kind}: the loss is off by {off[0]:.1g}, more than {bound[0]:g}"
            assert off[1] <= bound[1], f"{name} in {kind}: the gradient is off by {off[1]:.1g}, more than {bound[1]:g}"
            worst[kind] = (max(worst[kind][0], off[0]), max(worst[kind][1], off[1]))
    said = [f"{kind} {a:.0e} and {b:.0e}" for kind, (a, b) in worst.items()]
    return f"loss and gradient of {len(place.methods)} methods, at most off by: {', '.join(said)}"


def _drawn(columns: Tensor, labels: Tensor) -> Tensor:
    return columns.to(labels.device)


def _pulled(task: Distiller, batch: Batch, device: str, half: bool) -> tuple[float, Tensor]:
    task.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            loss = task(*(part.to(device) for part in batch))["loss"]
        loss.backward()
    gradients = [parameter.grad.flatten() for parameter in task.student.parameters() if parameter.grad is not None]
    return loss.item(), torch.cat(gradients).double().cpu()


def loader(place: Place) -> str:
    """Batches on the device are crops of the images that they name, and an epoch can be taken up anywhere."""
    data, side = place.data, place.data.image[1]
    made = training_batches(data, batch=32, device=place.device)
    batches, again = list(made.epoch(1)), list(made.epoch(1, start=1))
    same = [torch.equal(a, b) for one, other in zip(batches[1:], again, strict=True) for a, b in zip(one, other)]
    assert all(same), "an epoch that is taken up gives other batches"
    assert batches[0].images.device.type == place.device
    index = torch.cat([batch.index for batch in batches]).cpu()
    assert torch.equal(index.sort().values, torch.arange(80)), "not every image once"
    whole = next(evaluation_batches(data.train, batch=80, normalisation=data.normalisation)).images
    whole = whole[batches[0].index[:8].cpu()]
    middle = slice(4, side - 4)  # no crop has padding there
    for shown, own in zip(batches[0].images[:8].cpu(), whole):
        padded = F.pad(own, (4, 4, 4, 4))
        crops = [padded[:, y : y + side, x : x + side] for y in range(9) for x in range(9)]
        offs = [(view - crop)[:, middle, middle].abs().max() for crop in crops for view in (shown, shown.flip(2))]
        assert min(offs) < 1e-4, "a batch holds what is no crop of its image"
    return f"{len(batches)} batches, every image once; 8 images found among the 162 views of each"


def compiled(place: Place, how: str = "compiled") -> str:
    """Twenty compiled steps follow the curve of eager ones."""
    data, curves = noise(images=32, tests=8, classes=10, size=16), []
    fabric = make_fabric(place.device, "float32")
    for step in ("eager", how):
        torch.manual_seed(0)
        callback = Steps()
        task = Distiller(build(STUDENT, 10), build(TEACHER, 10), objective("kd"), data.image)
        phase = task.phases(Schedule(epochs=20, lr=1 / 64, gamma=0.5, batch=32))[-1]
        fit(
            phase,
            training_batches(data, batch=32, device=fabric.device),
            fabric,
            LoopOptions(step=step),
            callback=callback,
        )
        curves.append(callback.losses)
    off = max(abs(a / b - 1) for a, b in zip(*curves, strict=True))
    assert off < NEAR, f"losses of 20 steps are apart by {off:.1g}"
    return f"losses of 20 steps within {off:.0e}"
