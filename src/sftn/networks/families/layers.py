"""Building blocks of the families: stem, stage and head of post-activation networks, and the residual block."""

from __future__ import annotations

from torch import Tensor, nn

from sftn.networks.staged import Tap

Rules = tuple[tuple[str, str], ...]
"""(pattern, replacement) pairs for `re.sub`, in order, from a public checkpoint's key names to a StagedNet's."""


class Stem(nn.Module):
    """A stem that turns (B, C, H, W) images into the tap of `body`; feature, preact and flow are the same tensor.

    A stem has no pre-activation in RepDistiller either, because no method reads one there.
    """

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, images: Tensor) -> Tap:
        """Compute the tap."""
        feature = self.body(images)
        return Tap(feature, feature, feature)


class Stage(nn.Module):
    """A stage of blocks that end before their closing activation, which the stage applies.

    Args:
        blocks: each (B, C, H, W) -> (B, D, H', W') before the closing ReLU; the last one's `closing_norm` becomes the
            stage's.
        closing: the layer after every block; ReLU by default.
    """

    def __init__(self, *blocks: nn.Module, closing: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.closing = nn.ReLU() if closing is None else closing

    def forward(self, flow: Tensor) -> Tap:
        """Compute the tap of the last block."""
        preact = flow
        for block in self.blocks:
            preact = block(flow)
            flow = self.closing(preact)
        return Tap(flow, preact, flow)

    @property
    def closing_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm that ends the last block; None if it normalises only part of the block's output."""
        return getattr(self.blocks[-1], "closing_norm", None)


class Residual(nn.Module):
    """A residual block, body(x) + shortcut(x), before its closing ReLU; without a shortcut only body(x)."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, flow: Tensor) -> Tensor:
        """Compute the block: (B, C, H, W) -> (B, D, H', W')."""
        out: Tensor = self.body(flow)
        return out if self.shortcut is None else out + self.shortcut(flow)

    @property
    def closing_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the body, which the benchmark treats as the norm before the ReLU."""
        norm = self.body[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm


class Head(nn.Module):
    """A head, (B, C, H, W) -> embedding (B, D) and logits (B, K): `body`, global average pool, linear."""

    def __init__(self, width: int, classes: int, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(width, classes)

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and logits."""
        embedding = self.pool(self.body(flow)).flatten(1)
        return embedding, self.linear(embedding)


def conv_norm(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias that keeps the map's size (or divides it by `stride`), and a batch norm."""
    conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width)]


def fan_out_normal(network: nn.Module) -> None:
    """Initialise convolutions by He's rule with fan-out: variance 2 / (k²·out channels), zero bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
