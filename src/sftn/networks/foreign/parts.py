"""Parts of a foreign network that act as a StagedNet's stem, stages and head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from sftn.networks.foreign.activation_split import restrict, split_closing
from sftn.networks.foreign.layout import MAP, Layout
from sftn.networks.staged import Tap


@dataclass(frozen=True)
class Call:
    """A step that calls a method of the network, or a function that takes the network and the value."""

    method: str | Callable[[nn.Module, Tensor], Tensor]
    arguments: Mapping[str, Any] = field(default_factory=dict)


Step: TypeAlias = str | nn.Module | Call | Callable[[Tensor], Tensor]
"""A step of a part: a submodule or its name, a method, or a function without parameters to train."""


@dataclass(frozen=True)
class Part:
    """Some steps, and the dotted names of submodules and parameters that they use implicitly."""

    steps: tuple[Step, ...]
    keeps: tuple[str, ...] = ()


class ForeignStem(nn.Module):
    """A stem: (B, C, H, W) images -> Tap."""

    def __init__(self, model: nn.Module, part: Part, layout: Layout = MAP) -> None:
        super().__init__()
        self.model, self.steps = _held(model, part)
        self.layout = layout

    def forward(self, images: Tensor) -> Tap:
        """Compute the tap."""
        out = _run(self.model, self.steps, images)
        feature = self.layout.to_map(out)
        return Tap(feature, feature, self.layout.to_flow(feature, out))


class ForeignStage(nn.Module):
    """A stage: flow -> Tap. The closing activation, if any, is applied separately: its input is the preact."""

    def __init__(self, model: nn.Module, part: Part, layout: Layout = MAP) -> None:
        super().__init__()
        self.model, self.steps = _held(model, part)
        self.layout = layout
        self.model, self.closing, self._norm = split_closing(self.model, self.steps)

    def forward(self, flow: Tensor) -> Tap:
        """Compute the tap."""
        out = _run(self.model, self.steps, self.layout.from_flow(flow))
        preact = self.layout.to_map(out)
        if self.closing is None:
            return Tap(preact, preact, self.layout.to_flow(preact, out))
        out = self.closing(out)
        feature = self.layout.to_map(out)
        return Tap(feature, preact, self.layout.to_flow(feature, out))

    @property
    def closing_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm before the closing activation."""
        if self._norm is None:
            return None
        norm = self.model.get_submodule(self._norm)
        assert isinstance(norm, nn.BatchNorm2d)
        return norm


class ForeignHead(nn.Module):
    """A head: flow -> ((B, D) embedding, (B, K) logits)."""

    def __init__(self, model: nn.Module, part: Part, classifier: Step, layout: Layout = MAP) -> None:
        super().__init__()
        self.model, self.steps = _held(model, Part((*part.steps, classifier), part.keeps))
        self.layout = layout

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and logits."""
        embedding = _run(self.model, self.steps[:-1], self.layout.from_flow(flow)).flatten(1)
        classifier = found(self.model, self.steps[-1])
        pooled = embedding[..., None, None] if isinstance(classifier, nn.Conv2d) else embedding
        return embedding, _run(self.model, self.steps[-1:], pooled).flatten(1)


def found(model: nn.Module, step: Step) -> Step:
    """Return the step, or the submodule that it names."""
    return model.get_submodule(step) if isinstance(step, str) else step


def _held(model: nn.Module, part: Part) -> tuple[nn.Module, tuple[Step, ...]]:
    """Make a part of the network, and its steps; a module from outside the network is added under a new name."""
    held = restrict(model, [*part.keeps, *(step for step in part.steps if isinstance(step, str))])
    steps: list[Step] = []
    for number, step in enumerate(part.steps):
        if isinstance(found(model, step), nn.Identity):
            continue
        if isinstance(step, nn.Module):
            held.add_module(f"step{number}", step)
            step = f"step{number}"
        steps.append(step)
    return held, tuple(steps)


def _run(model: nn.Module, steps: tuple[Step, ...], value: Tensor) -> Tensor:
    for step in steps:
        if isinstance(step, Call):
            method = getattr(model, step.method) if isinstance(step.method, str) else partial(step.method, model)
            value = method(value, **step.arguments)
            continue
        layer = found(model, step)
        assert callable(layer)
        if isinstance(layer, nn.Linear) and value.dim() == 4 and value.shape[-1] != layer.in_features:
            value = value.flatten(1)
        value = layer(value)
    return value
