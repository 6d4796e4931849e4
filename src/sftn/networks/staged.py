"""StagedNet: a network that says where its stages end, so that others can read them and grow from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

Shape: TypeAlias = tuple[int, int, int]
"""(C, H, W) of one image's feature map."""


class Tap(NamedTuple):
    """What the stem or a stage returns, all (B, C, H, W); only a flow with a class token in it is (B, N, C)."""

    feature: Tensor
    """What feature methods read: the stage's output."""
    preact: Tensor
    """The same before its closing ReLU (of a pre-activation network: after the next batch norm, before its ReLU)."""
    flow: Tensor
    """What enters the next stage: the feature itself, but for pre-activation networks, where it is relu(preact)."""


class Activations(NamedTuple):
    """Everything that one forward leaves behind."""

    logits: Tensor
    """(B, K)"""
    embedding: Tensor
    """(B, D): the pooled input of the classifier."""
    features: tuple[Tensor, ...]
    """One (B, C, H, W) a stage."""
    preacts: tuple[Tensor, ...]
    """The same before the closing ReLUs."""


class Shapes(NamedTuple):
    """The shapes of `Activations` for one image."""

    logits: int
    embedding: int
    features: tuple[Shape, ...]
    flows: tuple[Shape | None, ...]
    """None where the flow is no map: tokens with a class token among them."""


class StagedNet(nn.Module):
    """A network as stem, stages and head.

    `stem(images)` and each `stage(flow)` return a `Tap`; `head(flow)` returns `(embedding, logits)`. A stage owns its
    closing batch norm and names it in an attribute `closing_norm`, if it has one.

    Args:
        stem: (B, C, H, W) images -> Tap.
        stages: each takes the flow of the one before.
        head: the last flow -> ((B, D) embedding, (B, K) logits).
        name: how people call it; appears in tables and files.
    """

    def __init__(self, stem: nn.Module, stages: list[nn.Module], head: nn.Module, name: str) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images -> (B, K) logits."""
        flow = self.stem(images).flow
        for stage in self.stages:
            flow = stage(flow).flow
        _, logits = self.head(flow)
        return logits

    def activations(self, images: Tensor) -> Activations:
        """(B, C, H, W) images -> logits, embedding and, for each stage, its feature and pre-activation."""
        flow = self.stem(images).flow
        features, preacts = [], []
        for stage in self.stages:
            feature, preact, flow = stage(flow)
            features.append(feature)
            preacts.append(preact)
        embedding, logits = self.head(flow)
        return Activations(logits, embedding, tuple(features), tuple(preacts))

    @property
    def closing_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The batch norm right before each stage's closing ReLU, or None where a stage has none."""
        return tuple(getattr(stage, "closing_norm", None) for stage in self.stages)

    @torch.no_grad()
    def shapes(self, image: Shape) -> Shapes:
        """The shapes that an image of shape (C, H, W) leaves behind; one dry forward in eval mode, no state changes."""
        reference = next(self.parameters())
        with eval_mode(self):
            flow = self.stem(torch.zeros(1, *image, dtype=reference.dtype, device=reference.device)).flow
            features: list[Shape] = []
            flows: list[Shape | None] = []
            for stage in self.stages:
                tap = stage(flow)
                flow = tap.flow
                features.append(_shape(tap.feature))
                flows.append(_shape(flow) if flow.dim() == 4 else None)
            embedding, logits = self.head(flow)
        return Shapes(logits.shape[1], embedding.shape[1], tuple(features), tuple(flows))


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every part has its own mode again."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _shape(activation: Tensor) -> Shape:
    channels, height, width = activation.shape[1:]
    return channels, height, width
