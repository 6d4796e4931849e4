"""How a network's activations lie in memory, and how they become (B, C, H, W) maps and flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Of one output. A flow is a (B, C, H, W) map wherever the map says all that the next stage needs."""

    kind: Literal["map", "channels_last", "tokens"] = "map"
    """(B, C, H, W), (B, H, W, C) or (B, P + H·W, C)."""
    prefix: int = 0
    """P: tokens that belong to no place, such as the class token. They are in no map: such a flow stays tokens."""
    grid: tuple[int, int] = (0, 0)
    """(H, W) of tokens."""

    def to_map(self, out: Tensor) -> Tensor:
        """What the network made -> (B, C, H, W)."""
        if self.kind == "map":
            return out
        if self.kind == "channels_last":
            return out.permute(0, 3, 1, 2)
        return out[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)

    def to_flow(self, feature: Tensor, out: Tensor) -> Tensor:
        """The map and what the network made -> what enters the next stage."""
        return out if self.prefix else feature

    def from_flow(self, flow: Tensor) -> Tensor:
        """What enters a stage -> what the network's own modules want."""
        if self.kind == "map" or self.prefix:
            return flow
        if self.kind == "channels_last":
            return flow.permute(0, 2, 3, 1)
        return flow.flatten(2).transpose(1, 2)


MAP = Layout()
