"""Memory layouts of foreign activations, and their conversion to (B, C, H, W) maps and flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Layout of one output. A flow is a (B, C, H, W) map if the map has all that the next stage needs."""

    kind: Literal["map", "channels_last", "tokens"] = "map"
    """(B, C, H, W), (B, H, W, C) or (B, P + H·W, C)."""
    prefix: int = 0
    """P, tokens without a position, such as the class token. No map contains them, so such a flow stays tokens."""
    grid: tuple[int, int] = (0, 0)
    """(H, W) of the tokens."""

    def to_map(self, out: Tensor) -> Tensor:
        """Convert the network's output to a (B, C, H, W) map."""
        if self.kind == "map":
            return out
        if self.kind == "channels_last":
            return out.permute(0, 3, 1, 2)
        return out[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)

    def to_flow(self, feature: Tensor, out: Tensor) -> Tensor:
        """Make the input of the next stage from the map and the network's output."""
        return out if self.prefix else feature

    def from_flow(self, flow: Tensor) -> Tensor:
        """Convert a stage's input to what the network's own modules take."""
        if self.kind == "map" or self.prefix:
            return flow
        if self.kind == "channels_last":
            return flow.permute(0, 2, 3, 1)
        return flow.flatten(2).transpose(1, 2)


MAP = Layout()
