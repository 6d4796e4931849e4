"""A network that ends in a projector and in another network's frozen head, as SimKD's students do."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.networks.families.layers import Head
from sftn.networks.staged import Shape, StagedNet, Tap


class Projector(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, each with batch norm and ReLU: (B, c, h, w) -> (B, C, H, W).

    Args:
        channels: c.
        middle: channels of the 3×3 convolution.
        target: (C, H, W) of the teacher's last map; a larger one of the student is averaged down to it.
    """

    def __init__(self, channels: int, middle: int, target: Shape) -> None:
        super().__init__()
        out, *self.size = target
        self.register_buffer("largest", torch.tensor(self.size))  # so that a file of weights says it
        self.conv1 = nn.Conv2d(channels, middle, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)

    def forward(self, flow: Tensor) -> Tensor:
        """The projection, before the last ReLU."""
        size = min(flow.shape[-2], self.size[0]), min(flow.shape[-1], self.size[1])
        if flow.shape[-2:] != size:
            flow = F.adaptive_avg_pool2d(flow, size)
        flow = self.norm1(self.conv1(flow)).relu()
        flow = self.norm2(self.conv2(flow)).relu()
        return self.norm3(self.conv3(flow))


class ProjectedStage(nn.Module):
    """A student's last stage and a projector after it."""

    def __init__(self, stage: nn.Module, projector: Projector) -> None:
        super().__init__()
        self.stage, self.projector = stage, projector

    @property
    def closing_norm(self) -> nn.BatchNorm2d:
        """The projector's last one."""
        return self.projector.norm3

    def forward(self, flow: Tensor) -> Tap:
        """The tap of the projector."""
        preact = self.projector(self.stage(flow).flow)
        feature = preact.relu()
        return Tap(feature, preact, feature)


class FrozenHead(nn.Module):
    """A copy of a head, in eval mode for good, whose parameters are buffers: no optimiser ever finds them."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = copy.deepcopy(head)
        for part in self.head.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, parameter.detach().clone())
        self.eval()

    def train(self, mode: bool = True) -> FrozenHead:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> (B, D) embedding and (B, K) logits."""
        return self.head(flow)


def reuses(network: StagedNet) -> bool:
    """Whether a network ends in a projector and another one's head."""
    return isinstance(network.stages[-1], ProjectedStage)


def reuse(network: StagedNet, projector: Projector, head: nn.Module) -> None:
    """Put a projector behind a network's last stage, in place, and a frozen copy of a head on it."""
    network.stages[-1] = ProjectedStage(network.stages[-1], projector)
    network.head = FrozenHead(head)


def as_in(network: StagedNet, state: Mapping[str, Tensor]) -> StagedNet:
    """The network that a state is of: a copy with the projector and the head that the state has, if it has them.

    Sizes are those of the state's tensors. Only a head of this package without a body is recognised.
    """
    stage = f"stages.{len(network.stages) - 1}"
    names = [f"{stage}.projector.{name}" for name in ("conv1.weight", "conv3.weight", "largest")]
    names.append("head.head.linear.weight")
    if reuses(network) or not set(names) <= state.keys():
        return network
    first, last, largest, classifier = (state[name] for name in names)
    if (first.dim(), last.dim(), largest.shape, classifier.dim()) != (4, 4, (2,), 2) or int(largest.min()) < 1:
        return network
    height, width = largest.tolist()
    network = copy.deepcopy(network)
    projector = Projector(first.shape[1], first.shape[0], (last.shape[0], height, width))
    reference = next(network.parameters())
    reuse(network, projector.to(reference), Head(classifier.shape[1], len(classifier)).to(reference))
    return network
