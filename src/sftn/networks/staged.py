"""StagedNet: a network with explicit stages, whose outputs others can read and grow branches from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

Shape: TypeAlias = tuple[int, int, int]
"""Shape (C, H, W) of one image's feature map."""


class Tap(NamedTuple):
    """Output of the stem or a stage, all (B, C, H, W); only a flow with a class token is (B, N, C)."""

    feature: Tensor
    """The stage's output, which feature methods read."""
    preact: Tensor
    """The output before the closing ReLU (in a pre-activation network: after the next batch norm, before its ReLU)."""
    flow: Tensor
    """The input of the next stage: the feature itself, or relu(preact) in pre-activation networks."""


class Activations(NamedTuple):
    """All outputs of one forward pass."""

    logits: Tensor
    """(B, K)"""
    embedding: Tensor
    """(B, D), the pooled input of the classifier."""
    features: tuple[Tensor, ...]
    """One (B, C, H, W) map per stage."""
    preacts: tuple[Tensor, ...]
    """The features before the closing ReLUs."""


class Shapes(NamedTuple):
    """The shapes of `Activations` for one image."""

    logits: int
    embedding: int
    features: tuple[Shape, ...]
    flows: tuple[Shape | None, ...]
    """None where the flow is not a map, but tokens that include a class token."""


class StagedNet(nn.Module):
    """A network made of a stem, stages and a head.

    `stem(images)` and each `stage(flow)` return a `Tap`; `head(flow)` returns `(embedding, logits)`. A stage owns its
    closing batch norm and names it in an attribute `closing_norm`, if it has one.

    Args:
        stem: (B, C, H, W) images -> Tap.
        stages: each takes the flow of the previous one.
        head: last flow -> ((B, D) embedding, (B, K) logits).
        name: its name in tables and files.
    """

    def __init__(self, stem: nn.Module, stages: list[nn.Module], head: nn.Module, name: str) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits: (B, C, H, W) images -> (B, K)."""
        flow = self.stem(images).flow
        for stage in self.stages:
            flow = stage(flow).flow
        _, logits = self.head(flow)
        return logits

    def activations(self, images: Tensor) -> Activations:
        """Compute logits, embedding and each stage's feature and pre-activation of (B, C, H, W) images."""
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
        """The batch norm directly before each stage's closing ReLU; None where a stage has none."""
        return tuple(getattr(stage, "closing_norm", None) for stage in self.stages)

    @torch.no_grad()
    def shapes(self, image: Shape) -> Shapes:
        """Shapes of the activations of one (C, H, W) image, by a dry forward in eval mode that changes no state."""
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
    """Switch to eval mode temporarily; afterwards every module has its former mode."""
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
