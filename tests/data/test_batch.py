"""What the tasks take from a training loop of one's own: checked at their door, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches
from sftn.tasks.supervised import Supervised
from tests.support import tiny

CLASSES, COUNT = 3, 6


def distiller(method: str = "kd") -> Distiller:
    teacher, student = tiny.network((6, 8, 12), classes=CLASSES), tiny.network(classes=CLASSES)
    return Distiller(student, teacher, objective(method), tiny.IMAGE, labels=torch.arange(12) % CLASSES)


def branches() -> StudentBranches:
    return StudentBranches(tiny.network((6, 8, 12), classes=CLASSES), lambda: tiny.network(classes=CLASSES), tiny.IMAGE)


TASKS: dict[str, Callable[[], nn.Module]] = {
    "distiller": distiller,
    "branches": branches,
    "supervised": lambda: Supervised(tiny.network(classes=CLASSES)),
}


def good() -> tuple[Tensor, Tensor]:
    return torch.randn(COUNT, *tiny.IMAGE), torch.arange(COUNT) % CLASSES


def wrong() -> dict[str, tuple[Tensor, Tensor, str]]:
    images, labels = good()
    soft = nn.functional.one_hot(labels, CLASSES).float()
    square = torch.randn(CLASSES, *tiny.IMAGE)
    with_nan = images.clone()
    with_nan[1, 0, 0, 0] = float("nan")
    return {
        "soft": (images, soft, r"labels: \(6, 3\) float32 were given; give classes, \(B,\) int64; soft labels"),
        "as many images as classes": (square, torch.eye(CLASSES), r"\(3, 3\) float32 .* soft labels are not supported"),
        "column": (images, labels[:, None], r"labels\.squeeze\(1\)$"),
        "column of int32": (images, labels[:, None].int(), r"labels\.squeeze\(1\)\.long\(\)$"),
        "int32": (images, labels.int(), r"\(6,\) int32 were given; give classes, \(B,\) int64: labels\.long\(\)$"),
        "float": (images, labels.float(), r"float32 were given.*labels\.long\(\)$"),
        "bool": (images, labels > 0, r"bool were given"),
        "beyond": (images, labels + 2, r"labels: 2 to 4 were given; give classes from 0 to 2$"),
        "negative": (images, labels - 1, r"labels: -1 to 1 were given"),
        "uint8": (images.byte(), labels, r"images: uint8 were given; give float32, normalised"),
        "float64": (images.double(), labels, r"images: float64 were given.*images\.float\(\)$"),
        "one image": (images[0], labels, r"images: \(3, 16, 16\) were given; give \(B, "),
        "NaN": (with_nan, labels, r"some are NaN or infinite"),
        "fewer images": (images[:2], labels, r"2 images for 6 labels: give one image a label$"),
        "a batch of one": (images[:1], labels[:1], r"a batch of 1 image: .*drop"),
        "an empty batch": (images[:0], labels[:0], r"a batch of 0 images: .*drop"),
    }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", wrong())
def test_wrong_batches_are_one_line(case: str, task: str) -> None:
    images, labels, message = wrong()[case]
    with pytest.raises(InputError, match=message):
        TASKS[task]()(images, labels)


@pytest.mark.parametrize("task", ["distiller", "branches"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 8)])
def test_another_size_or_other_channels_are_refused(shape: tuple[int, ...], task: str) -> None:
    with pytest.raises(InputError, match=r"give \(B, 3, 16, 16\), the size that the task was made for$"):
        TASKS[task]()(torch.randn(COUNT, *shape), good()[1])


@pytest.mark.parametrize("task", TASKS)
def test_labels_beyond_the_classes_are_found_in_a_later_batch_too(task: str) -> None:
    module, (images, labels) = TASKS[task](), good()
    assert module(images, labels)["loss"].isfinite()
    with pytest.raises(InputError, match=r"give classes from 0 to 2$"):
        module(images, labels + 1)


def test_pixels_are_read_at_the_first_call_only() -> None:
    task, (images, labels) = distiller(), good()
    task(images, labels)
    assert task(images.fill_(float("inf")), labels)["loss"].isnan()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "crd must know which training images"),
        (torch.arange(3), "crd must know which training images"),
        (torch.arange(COUNT) + 7, "index: 7 to 12 were given; give positions in the training labels from 0 to 11$"),
        (torch.arange(COUNT) - 1, "index: -1 to 4 were given"),
        (torch.arange(COUNT).int(), r"int32 were given.*index\.long\(\)$"),
    ],
)
def test_crd_checks_its_index(index: Tensor | None, message: str) -> None:
    task, (images, labels) = distiller("crd(negatives=4)"), good()
    task(images, labels, torch.arange(COUNT))
    with pytest.raises(InputError, match=message):
        task(images, labels, index)


def test_a_batch_of_one_is_fine_without_batch_statistics() -> None:
    task, (images, labels) = distiller(), good()
    assert task.eval()(images[:1], labels[:1])["loss"].isfinite()


@pytest.mark.parametrize("method", ["ft", "ab", "sskd"])
def test_first_stages_take_no_raw_pixels(method: str) -> None:
    from sftn.spec.schedule import Schedule

    task = distiller(method)
    images, labels = good()
    first, *_ = task.phases(Schedule(epochs=240))
    with pytest.raises(InputError, match="images: uint8 were given"):
        first.task(images.byte().repeat_interleave(task.copies, 0), labels, torch.arange(COUNT))


@pytest.mark.parametrize("task", TASKS)
def test_a_compiled_task_stays_one_graph_and_refuses_soft_labels(task: str) -> None:
    compiled: Any = torch.compile(TASKS[task](), backend="eager", fullgraph=True)
    images, labels = good()
    assert compiled(images, labels)["loss"].isfinite()
    with pytest.raises((InputError, torch._dynamo.exc.Unsupported)):
        compiled(images, nn.functional.one_hot(labels, CLASSES).float())
