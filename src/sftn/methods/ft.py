"""FT: the teacher paraphrased, the student translated (Kim et al., 2018, arXiv:1802.04977)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch, check_images
from sftn.errors import InputError
from sftn.methods.at import attention, same_size
from sftn.methods.base import Method, in_float32, in_own_dtype, require_positive
from sftn.methods.options import check
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, StagedNet
from sftn.runtime.collectives import mean_over_batch
from sftn.spec.schedule import Schedule
from sftn.training.phase import Phase


@in_float32
def factor_loss(student: Tensor, teacher: Tensor, p1: float = 2, p2: float = 1) -> Tensor:
    """Mean of |difference|^p2 of the two factors' maps, each the channels' mean of |factor|^p1 brought to length 1.

    The paper brings whole factors to length 1; RepDistiller, and this, the maps of their channels' means.

    Args:
        student: (B, K, H, W), the translator's factor.
        teacher: (B, K', H', W'), the paraphraser's; the larger map is averaged down to the smaller.
        p1: the power of an activation.
        p2: the power of a difference.
    """
    student, teacher = same_size(student, teacher)
    return (attention(student, p1) - attention(teacher, p1)).abs().pow(p2).mean()


@in_float32
def whole_factor_loss(student: Tensor, teacher: Tensor, p2: float = 1) -> Tensor:
    """Mean of |difference|^p2 of the two factors, each image's brought to length 1 as a whole: channels count.

    Args:
        student: (B, K, H, W), the translator's factor.
        teacher: (B, K, H', W'), the paraphraser's; the larger map is averaged down to the smaller.
        p2: the power of a difference.
    """
    ours, theirs = (F.normalize(factor.flatten(1)) for factor in same_size(student, teacher))
    return (ours - theirs).abs().pow(p2).mean()


@in_float32
def reconstruction_loss(reconstruction: Tensor, teacher: Tensor, *, absolute: bool = False) -> Tensor:
    """Mean squared (or absolute) error of the paraphraser's output, both (B, C, H, W): a scalar."""
    return F.l1_loss(reconstruction, teacher) if absolute else F.mse_loss(reconstruction, teacher)


def bounded(feature: Tensor, most: float = 1.5) -> Tensor:
    """(B, C, H, W) -> the same, made smaller as a whole if its batch's root mean square exceeds `most`."""
    size = mean_over_batch(feature.float().square()).sqrt()
    return feature * (most / size.clamp_min(most)).to(feature.dtype)


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's feature: (B, C, H, W) -> a factor (B, K, H, W) -> (B, C, H, W); no batch norm."""

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = _convolutions(nn.Conv2d, channels, channels, factors, factors)
        self.decoder = _convolutions(nn.ConvTranspose2d, factors, factors, channels, channels)

    def forward(self, feature: Tensor) -> Tensor:
        """The reconstruction."""
        return self.decoder(self.encoder(feature))


class Translator(nn.Module):
    """(B, C, H, W), the student's feature -> (B, K, H, W), its factor; with batch norm unless `norm` is false."""

    def __init__(self, channels: int, factors: int, *, norm: bool = True) -> None:
        super().__init__()
        self.encoder = _convolutions(nn.Conv2d, channels, channels, factors, factors, norm=norm)

    def forward(self, feature: Tensor) -> Tensor:
        """The factor."""
        return self.encoder(feature)


class FT(Method):
    """Factor transfer (arXiv:1802.04977): a paraphraser of the teacher, then a translator trained with the student.

    Reads the last features, (B, C, H, W) and (B, C', H', W'). The paraphraser is trained first, for 30 of 240 epochs at
    a learning rate of 0.01. RepDistiller has 0.01 there for ResNet, WRN, MobileNet and ShuffleNet students and 0.05 for
    VGG's.

    Deviations, RepDistiller's: the factors' maps of channel means are compared, where the paper and the authors' code
    compare whole factors; that is another loss, blind to which channel is which, and its gradient is nearly at right
    angles to theirs (cosine 0.01 to 0.12). The paraphraser learns by a squared error where theirs is absolute, and the
    translator has batch norm. The authors' method, CE + 500·FT, is
    `ft(factors=whole,reconstruction=absolute,lr=0.1,translator_norm=false):500`; the weight of 200 that `ft` has is for
    maps. Their mean over a factor's elements is 1/(K·H·W) of the paper's L1 norm.

    Deviation of our own: features of a root mean square above 1.5 are brought down to it. The paraphraser has no batch
    norm, and its squared error diverged at 4 and more, which teachers of few epochs reach; the loss is of normalised
    maps anyway.

    Example:
        >>> method = FT(pair, k=0.5)
        >>> first_stage = method.warmup(student, teacher, Schedule(epochs=240))  # 30 epochs
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; any map sizes.
        k: the paraphrase rate, the factor's channels over the teacher's.
        p1: the power of an activation in the loss of maps.
        p2: the power of a difference in the loss.
        factors: what is compared: `maps` of the channels' means (RepDistiller), or `whole` factors (the authors).
        reconstruction: the paraphraser's error: `squared` (RepDistiller) or `absolute` (the authors).
        translator_norm: whether the translator has batch norm; the authors' has none.
        epochs: length of the first stage where the main phase takes 240.
        lr: learning rate of the first stage.

    Raises:
        InputError: an option is not positive or none of its words, or `p1` is given for whole factors.
    """

    summary = "Paraphrasing Complex Network: Network Compression via Factor Transfer (Kim et al., NeurIPS 2018)"
    reads = "the feature of the last stage"
    source = "RepDistiller"
    weight = 200.0

    def __init__(
        self,
        pair: Pair,
        *,
        k: float = 0.5,
        p1: float = 2,
        p2: float = 1,
        factors: Literal["maps", "whole"] = "maps",
        reconstruction: Literal["squared", "absolute"] = "squared",
        translator_norm: bool = True,
        epochs: int = 30,
        lr: float = 0.01,
    ) -> None:
        super().__init__(pair)
        check("ft", FT, {"factors": factors, "reconstruction": reconstruction})
        if k <= 0:
            raise InputError(f"ft's paraphrase rate k is {k}: give one above 0, such as 0.5")
        require_positive("ft", p1=p1, p2=p2, epochs=epochs, lr=lr)
        if factors == "whole" and p1 != 2:
            raise InputError(f"ft's p1 {p1:g} is the power in its maps, and whole factors are compared: leave it out")
        self.p1, self.p2 = p1, p2
        self.factors, self.reconstruction = factors, reconstruction
        self.epochs, self.lr = epochs, lr
        theirs, ours = pair.teacher.features[-1][0], pair.student.features[-1][0]
        channels = max(1, int(theirs * k))
        self.paraphraser = Paraphraser(theirs, channels)
        self.translator = Translator(ours, channels, norm=translator_norm)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The factors' loss, a scalar."""
        with torch.no_grad():
            theirs = in_own_dtype(self.paraphraser.encoder, bounded(teacher.features[-1]))
        ours = in_own_dtype(self.translator, student.features[-1])
        if self.factors == "whole":
            return whole_factor_loss(ours, theirs, self.p2)
        return factor_loss(ours, theirs, self.p1, self.p2)

    def trains(self) -> list[nn.Module]:
        """The translator: the paraphraser has been trained before."""
        return [self.translator]

    def warmup(self, student: StagedNet, teacher: StagedNet, schedule: Schedule) -> Phase:
        """The first stage, 30 of 240 epochs at a constant learning rate; the student has no part in it."""
        task = ReconstructionWarmup(teacher, self)
        return Phase("ft", task, (self.paraphraser,), schedule.warmup(self.epochs, lr=self.lr))


class ReconstructionWarmup(nn.Module):
    """The task of the first stage: the paraphraser learns to rebuild the teacher's feature."""

    def __init__(self, teacher: StagedNet, method: FT) -> None:
        super().__init__()
        self.teacher = teacher
        self.method = method

    def forward(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        """A batch -> its `loss`."""
        check_images(images, self.teacher)
        _, stage = self.method.pair.alignment[-1]
        with torch.no_grad():
            feature = bounded(self.teacher.activations(images).features[stage])
        rebuilt = in_own_dtype(self.method.paraphraser, feature)
        return {"loss": reconstruction_loss(rebuilt, feature, absolute=self.method.reconstruction == "absolute")}


def _convolutions(
    layer: type[nn.Conv2d] | type[nn.ConvTranspose2d], *channels: int, norm: bool = False
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source, target in pairwise(channels):
        convolution = layer(source, target, 3, padding=1)
        if norm and convolution.bias is not None:
            # Before batch norm a bias changes nothing, but rounding: at zero, a dead feature stays exactly zero,
            # where three batch norms in a row would blow up the noise (and its gradient) by 316 each.
            nn.init.zeros_(convolution.bias)
        # The empty place keeps RepDistiller's numbering: convolutions at 0, 3 and 6 with or without batch norm.
        layers += [convolution, nn.BatchNorm2d(target) if norm else nn.Identity()]
        layers.append(nn.LeakyReLU(0.1, inplace=True))
    return nn.Sequential(*layers)
