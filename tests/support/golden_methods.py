"""The golden values, and the tiny pairs and hostile activations that every method's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sftn.data.loader import Batch
from sftn.methods.base import Method
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, Shapes, StagedNet, Tap

FOLDER = Path(__file__).parents[1] / "golden"
CASES = ("equal", "halved")
NEWER = ("a", "b")
DTYPES = (torch.float32, torch.float64)
CLASSES = 10

TEACHER = Shapes(
    CLASSES, 64, features=((16, 16, 16), (32, 8, 8), (64, 4, 4)), flows=((16, 16, 16), (32, 8, 8), (64, 4, 4))
)
STUDENTS = {
    "equal": Shapes(
        CLASSES, 32, features=((8, 16, 16), (16, 8, 8), (32, 4, 4)), flows=((8, 16, 16), (16, 8, 8), (32, 4, 4))
    ),
    "halved": Shapes(
        CLASSES, 40, features=((10, 8, 8), (20, 4, 4), (40, 2, 2)), flows=((10, 8, 8), (20, 4, 4), (40, 2, 2))
    ),
    "doubled": Shapes(
        CLASSES, 24, features=((6, 32, 32), (12, 16, 16), (24, 8, 8)), flows=((6, 32, 32), (12, 16, 16), (24, 8, 8))
    ),
}
HOSTILE = ("random", "identical rows", "zero", "one zero row", "saturated")


def load(case: str, name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The numbers of `golden/<case>/<name>.npz`: floats as `dtype`, the rest as it is, words left out."""
    with np.load(FOLDER / case / f"{name}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind in "fiub"}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def newer(case: str, name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The numbers of a newer method, of the small case `a` or the larger one `b`."""
    return load(f"newer/{case}", name, dtype)


def numbers(values: dict[str, Tensor], *names: str) -> dict[str, float]:
    """Hyper-parameters among golden values, for keywords."""
    return {name: values[name].item() for name in names}


def of_classes(classes: int, case: str = "equal") -> Pair:
    """`pair` for images of other classes."""
    given = pair(case)
    ours, theirs = given.student._replace(logits=classes), given.teacher._replace(logits=classes)
    return replace(given, student=ours, teacher=theirs, classes=classes, labels=torch.arange(200) % classes)


def with_logits(method: Method, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The loss of a method that reads nothing but logits, (B, K) each, and labels, (B,)."""
    ours, theirs = both(method, len(labels))
    given = Batch(torch.zeros(len(labels), 3, 8, 8), labels, torch.arange(len(labels)))
    return method(ours._replace(logits=student), theirs._replace(logits=teacher), given)


def assert_golden_logits(method: Method, values: dict[str, Tensor], dtype: torch.dtype) -> None:
    """The loss of golden logits, and its gradient, are the golden ones."""
    student = leaf(values["student_logits"])
    loss = with_logits(method, student, values["teacher_logits"], values["labels"])
    loss.backward()
    assert_golden(loss, values["loss"], dtype)
    assert_golden(student.grad, values["grad_student"], dtype)


def leaf(value: Tensor) -> Tensor:
    """A fresh tensor that collects a gradient."""
    return value.detach().clone().requires_grad_()


def assert_golden(actual: Tensor | None, expected: Tensor, dtype: torch.dtype) -> None:
    """Within 1e-4 (float32) or 1e-9 (float64) of each value, or of a hundredth of the largest one if that is more."""
    assert actual is not None
    assert actual.dtype == dtype
    rtol = 1e-4 if dtype == torch.float32 else 1e-9
    expected = expected.to(dtype)
    torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=rtol * 1e-2 * float(expected.abs().max()))


def pair(case: str) -> Pair:
    """A teacher and a student of three stages, the student's maps equal, halved or doubled."""
    labels = torch.arange(200) % CLASSES
    return Pair(
        teacher=TEACHER,
        student=STUDENTS[case],
        closing_norms=tuple(nn.BatchNorm2d(channels) for channels, _, _ in TEACHER.features),
        labels=labels,
        classes=CLASSES,
        alignment=((0, 0), (1, 1), (2, 2)),
    )


def activations(shapes: Shapes, size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Activations:
    """Random activations of `size` images, all of them leaves that collect a gradient."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=draw).to(dtype)

    preacts = [random(*shape) for shape in shapes.features]
    return Activations(
        logits=leaf(random(shapes.logits)),
        embedding=leaf(random(shapes.embedding).relu()),
        features=tuple(leaf(preact.relu()) for preact in preacts),
        preacts=tuple(leaf(preact) for preact in preacts),
    )


def changed(given: Activations, kind: str) -> Activations:
    """The same activations made hostile in one of the ways of `HOSTILE`."""

    def change(value: Tensor) -> Tensor:
        if kind == "identical rows":
            return leaf(value[:1].expand_as(value))
        if kind == "zero":
            return leaf(torch.zeros_like(value))
        if kind == "one zero row":
            return leaf(torch.cat([torch.zeros_like(value[:1]), value[1:]]))
        if kind == "saturated":
            return leaf(value.sign() * 3e4)
        return leaf(value)

    return Activations(
        change(given.logits),
        change(given.embedding),
        tuple(map(change, given.features)),
        tuple(map(change, given.preacts)),
    )


def both(method: Method, size: int) -> tuple[Activations, Activations]:
    """The random activations of the student and of the teacher."""
    return activations(method.pair.student, size), activations(method.pair.teacher, size)


def batch(size: int, views: int = 1) -> Batch:
    """A batch whose labels fit `pair`'s."""
    index = torch.arange(size) * 3 % 200
    return Batch(torch.zeros(size * views, 3, 8, 8), index % CLASSES, index)


def leaves(given: Activations) -> Iterator[Tensor]:
    """Every tensor of the activations."""
    yield given.logits
    yield given.embedding
    yield from given.features
    yield from given.preacts


def assert_loss_and_gradient(
    method: Method, values: dict[str, Tensor], dtype: torch.dtype, stage: int | None = None
) -> None:
    """The loss and the student's gradient are the golden ones, given the golden features of a stage or, without one,
    the golden embeddings; what else the activations hold is random and must not matter.
    """
    what = "embedding" if stage is None else "feature"
    ours, theirs = leaf(values[f"student_{what}"]), values[f"teacher_{what}"]

    def given(random: Activations, value: Tensor) -> Activations:
        if stage is None:
            return random._replace(embedding=value)
        return random._replace(features=tuple(value if k == stage else one for k, one in enumerate(random.features)))

    student, teacher = both(method, 1)
    loss = method(given(student, ours), given(teacher, theirs), batch(1))
    loss.backward()
    assert_golden(loss, values["loss"], dtype)
    assert_golden(ours.grad, values["grad_student"], dtype)


def hostile(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with each `kind` of hostile activations, in each half precision `dtype`, for each `size` of batch."""
    for name, values in {"kind": HOSTILE, "dtype": (torch.float16, torch.bfloat16), "size": (1, 2, 64)}.items():
        test = pytest.mark.parametrize(name, values)(test)
    return test


def assert_survives(method: Method, kind: str, dtype: torch.dtype, size: int) -> None:
    """The loss and every gradient are finite, the loss is a float32 scalar, and nothing reaches the teacher."""
    student = changed(activations(method.pair.student, size, dtype, seed=1), kind)
    for theirs in ("random", kind):
        teacher = changed(activations(method.pair.teacher, size, dtype, seed=2), theirs)
        method.zero_grad()
        loss = method(student, teacher, batch(size))
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite(), f"{kind}, teacher {theirs}: {loss.item()}"
        if loss.requires_grad:
            loss.backward()
        for value in [*leaves(student), *method.parameters()]:
            assert value.grad is None or value.grad.isfinite().all(), f"{kind}, teacher {theirs}"
        assert all(value.grad is None for value in leaves(teacher))


def assert_round_trip(method: Method, fresh: Method) -> None:
    """`fresh`, built the same way, computes what `method` computes once it has its state, and not before."""
    student, teacher = activations(method.pair.student, 4, seed=3), activations(method.pair.teacher, 4, seed=4)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1)
    assert not torch.equal(method(student, teacher, batch(4)), fresh(student, teacher, batch(4)))
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(method(student, teacher, batch(4)), fresh(student, teacher, batch(4)))


def losses(task: Callable[[], Tensor], optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """What `task` loses in each of so many steps of training."""
    found = []
    for _ in range(steps):
        loss = task()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


class Stage(nn.Module):
    """A strided convolution with the batch norm and ReLU that close it."""

    def __init__(self, source: int, target: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(source, target, 3, stride, 1)
        self.closing_norm = nn.BatchNorm2d(target)

    def forward(self, flow: Tensor) -> Tap:
        preact = self.closing_norm(self.conv(flow))
        return Tap(preact.relu(), preact, preact.relu())


class Head(nn.Module):
    """Pooling and classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        embedding = flow.mean((2, 3))
        return embedding, self.classifier(embedding)


def network(*widths: int) -> StagedNet:
    """A tiny network of one convolution a stage: 8×8 images, each stage after the first halves the map."""
    stages = [
        Stage(source, target, 1 if k == 0 else 2)
        for k, (source, target) in enumerate(zip((widths[0], *widths), widths))
    ]
    return StagedNet(Stage(3, widths[0], 1), list(stages), Head(widths[-1]), f"tiny{len(widths)}")
