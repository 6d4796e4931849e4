"""The layer that converts between the shapes of feature maps: a branch's transform, a loss's connector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sftn.networks.staged import Shape


class Resize(nn.Module):
    """Resize a map, (B, C, H, W) -> (B, C, *size): by averaging if it shrinks, bilinearly if it grows."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, feature: Tensor) -> Tensor:
        """Resize the map."""
        if feature.shape[-2] >= self.size[0] and feature.shape[-1] >= self.size[1]:
            return F.adaptive_avg_pool2d(feature, self.size)
        return F.interpolate(feature, self.size, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"size={self.size}"


def connector(source: Shape, target: Shape, *, relu: bool = True) -> nn.Sequential:
    """A convolution, batch norm and (unless `relu` is false) ReLU from `source` to `target`, both (C, H, W).

    Equal maps: 1×1. A source r times as large: (2r-1)×(2r-1), stride r, padding r-1 (r = 2: 3×3, stride 2, padding 1).
    A source r times as small: transposed, 2r×2r, stride r, padding r/2 (r = 2: 4×4, stride 2, padding 1; for odd r:
    (2r-1)×(2r-1), padding (r-1)/2). Any other ratio: resized first, then 1×1. Table 22 shows the 1×1 case, the
    factor-2 cases are those of RepDistiller's regressor, and the rest extends them.
    """
    (channels, height, width), (out, out_height, out_width) = source, target
    layers: list[nn.Module] = []
    shrink, grow = height // out_height, out_height // height
    if (out_height * shrink, out_width * shrink) == (height, width):
        layers.append(nn.Conv2d(channels, out, 2 * shrink - 1, stride=shrink, padding=shrink - 1))
    elif (height * grow, width * grow) == (out_height, out_width):
        kernel, padding = (2 * grow, grow // 2) if grow % 2 == 0 else (2 * grow - 1, (grow - 1) // 2)
        layers.append(nn.ConvTranspose2d(channels, out, kernel, stride=grow, padding=padding))
    else:
        layers += [Resize((out_height, out_width)), nn.Conv2d(channels, out, 1)]
    layers.append(nn.BatchNorm2d(out))
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)
