"""Method: a distillation loss with its state; and the guard that keeps losses in float32."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, Shape, StagedNet
from sftn.spec.schedule import Schedule
from sftn.training.phase import Phase

P = ParamSpec("P")
R = TypeVar("R")


class Method(nn.Module, ABC):
    """A distillation loss with its state.

    `SomeMethod(pair, **hyper_parameters)` builds it; `forward` is the paper's equation, without its weight and without
    cross-entropy and plain KD, which stand once, in `sftn.tasks.distillation`.

    Example:
        A step of AT beside cross-entropy, with networks of this package and images of any loader:

        >>> pair = Pair.of(teacher, student, image=(3, 32, 32), labels=training_labels)
        >>> method = AT(pair)
        >>> batch = Batch(images, labels, index)
        >>> ours, theirs = student.activations(images), teacher.activations(images)
        >>> distilled = method(*pair.aligned(ours, theirs), batch)
        >>> loss = F.cross_entropy(ours.logits, labels) + 1000 * distilled

    Args:
        pair: the networks as they are before training.
    """

    summary: ClassVar[str]
    """One line for `sftn list methods`: the paper it comes from."""
    reads: ClassVar[str]
    """What it reads of the networks, for people: logits, embeddings, features, pre-activations …"""
    source: ClassVar[str] = ""
    """Whose code its defaults follow, for `sftn list methods`."""
    ce: ClassVar[float] = 1.0
    kd: ClassVar[float] = 1.0
    weight: ClassVar[float] = 1.0
    """The objective that the method's name alone stands for: ce·CE + kd·KD + weight·method."""
    weight_warmup: ClassVar[float] = 0.0
    """In what fraction of a run (or how many epochs) its weight grows linearly; see `sftn.spec.objective.Term`."""
    teacher_outputs: ClassVar[tuple[str, ...]] = Activations._fields
    """What its main phase takes of the teacher's activations. If logits and embedding are enough, the teacher need not
    be run for a view of an image that it has seen before (`sftn.runs.teacher_cache`)."""
    copies: int = 1
    """How many independently cropped copies of each training image it wants in a batch."""
    flip: bool = True
    """Whether it tolerates mirrored training images."""
    needs_index: ClassVar[bool] = False
    """Whether it must know which training images a batch holds."""
    batch_statistics: bool = False
    """Whether the teacher must normalise by the batch's own statistics instead of its running ones."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair

    @abstractmethod
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The loss, a scalar.

        Args:
            student: activations of the student, stages aligned with the teacher's.
            teacher: activations of the teacher; no gradient reaches it.
            batch: labels and index have B rows; activations have B rows, or B·V where `views` makes V of each image.

        Where several processes share a batch, each passes its own images. A mean over images is right as it is; a loss
        that compares images with each other takes `sftn.runtime.collectives.gathered` of what it compares.
        """

    def views(self, images: Tensor) -> Tensor:
        """(B·copies, C, H, W) -> (B·V, C, H, W), the V views of an image side by side, the image itself first."""
        return images

    @classmethod
    def rebuild(cls, student: StagedNet, teacher: StagedNet, image: Shape, **options: Any) -> None:
        """Change the student in place, before anything is known of the pair; most methods have nothing to change.

        Args:
            student: not trained yet.
            teacher: the network that it will learn from.
            image: (C, H, W) of the images.
            options: of the method.
        """

    def attach(self, student: StagedNet, teacher: StagedNet, image: Shape) -> None:
        """Look at the networks themselves, before training; for methods that read more than activations.

        Args:
            student: the network that learns; not to be made a submodule of the method.
            teacher: the frozen network; another one that gives the same activations may take its place later.
            image: (C, H, W) of the images.
        """

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Called when an epoch (counted from 0) of the main phase begins, which has so many.

        For a method whose equation changes with the epoch: it must change tensors in place, which a step that was
        recorded as a CUDA graph reads. Until it is called, the equation is that of the end.
        """

    def warmup(self, student: StagedNet, teacher: StagedNet, schedule: Schedule) -> Phase | None:
        """What is trained before the main phase, if anything; `schedule` is the main phase's."""
        return None

    def trains(self) -> list[nn.Module]:
        """The modules of this method that the main phase trains."""
        return [self]


def require_positive(method: str, *, zero: bool = False, **values: float) -> None:
    """See that hyper-parameters of a method are positive, or, with `zero`, not negative.

    Raises:
        InputError: one of them is not.
    """
    for name, value in values.items():
        if not (value > 0 or (zero and value == 0)):
            raise InputError(f"{method}'s {name} is {value}: give {'0 or more' if zero else 'a number above 0'}")


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Make a function of tensors compute in float32 (or float64, if it is given that) under any autocast."""

    @functools.wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(_device((args, kwargs)) or "cpu", enabled=False):
            given: Any = to_float32(args)
            named: Any = to_float32(kwargs)
            return loss(*given, **named)

    return wrapper


def in_own_dtype(module: nn.Module, feature: Tensor, *more: Any) -> Any:
    """`module(feature, *more)`: a half-precision feature is cast to the module's precision unless autocast does so."""
    if torch.is_autocast_enabled(feature.device.type):
        return module(feature, *more)
    return module(feature.to(next(module.parameters(), feature).dtype), *more)


def _device(tree: Any) -> str:
    """The kind of device that the first tensor in a nest of arguments is on."""
    if isinstance(tree, Tensor):
        return tree.device.type
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return next((found for found in map(_device, branches) if found), "")


def to_float32(tree: Any) -> Any:
    """A nest of arguments with its half-precision tensors in float32."""
    if isinstance(tree, Tensor):
        return tree.float() if tree.dtype in (torch.float16, torch.bfloat16) else tree
    if isinstance(tree, dict):
        return {key: to_float32(value) for key, value in tree.items()}
    return type(tree)(map(to_float32, tree)) if type(tree) in (tuple, list) else tree
