"""CAT-KD: where each class is seen (Guo et al., 2023, arXiv:2304.12777)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.base import Method, in_float32, require_positive
from sftn.methods.last_map import after_body, classifier, classifies_the_mean, last_map, place_of_flow
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, Shape, StagedNet


@in_float32
def activation_maps(feature: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H, W), the classifier's (K, C) -> (B, K, H, W): the class activation maps, without the classifier's bias.

    Their mean over the pixels are the logits, without it.
    """
    return F.conv2d(feature, weight.to(feature.dtype)[:, :, None, None])


@in_float32
def activation_map_loss(
    student: Tensor, teacher: Tensor, resolution: int = 2, normalise: bool = False, binarise: bool = False
) -> Tensor:
    """Mean squared error of two (B, K, H, W) class activation maps of any sizes, each pooled: a scalar.

    Args:
        student: of the student.
        teacher: of the teacher.
        resolution: height and width that both are pooled to.
        normalise: whether each pooled map is brought to length 1; one shorter than 1e-12 stays as it is, without
            gradient.
        binarise: whether the teacher's become 1 where they exceed the mean of their absolute values, before pooling.
    """
    if binarise:
        teacher = (teacher > teacher.abs().mean((2, 3), keepdim=True)).to(teacher.dtype)
    student, teacher = (F.adaptive_avg_pool2d(maps, resolution) for maps in (student, teacher))
    if normalise:
        student, teacher = _unit(student), _unit(teacher)
    return F.mse_loss(student, teacher)


def _unit(maps: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(maps, dim=(2, 3), keepdim=True)
    # Divided by infinity, a map that is all zero gives no gradient of the size 1/1e-12.
    return maps / length.where(length > 1e-12, torch.inf)


class CATKD(Method):
    """Class attention transfer (arXiv:2304.12777): the squared error of class activation maps.

    Reads the last maps, (B, C, H, W) and (B, C', H', W'), and both classifiers' weights, (K, C) and (K, C'): a class
    activation map is what the classifier makes of each pixel before they are averaged. The defaults are those of
    resnet32x4 to resnet8x4; WRN40-2 to WRN16-2 has a weight of 12, vgg13 to vgg8 4.5; pairs of unlike families
    normalise, with a resolution of 4 and weights of 80 to 600 (ShuffleNets).

    Deviations: the networks' logits keep their biases, which the authors' student is built without. Maps are pooled
    before the classifier sees them, which is the same for less memory. A map that is zero passes no gradient when
    `normalise` is on, where that code passes one of 1e9.

    Example:
        >>> method = CATKD(pair, resolution=2)
        >>> method.attach(student, teacher, image=(3, 32, 32))
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; each must classify the average of its last map.
        resolution: height and width that maps are pooled to.
        normalise: whether each pooled map is brought to length 1.
        binarise: whether the teacher's maps are made 0 and 1 before.

    Raises:
        InputError: `resolution` is not positive.
    """

    summary = "Class Attention Transfer Based Knowledge Distillation (Guo et al., CVPR 2023)"
    reads = "the last maps and both classifiers"
    source = "GzyAftermath/CAT-KD"
    kd = 0.0
    weight = 15.0
    teacher_outputs = ("features", "preacts")
    teacher_weight: Tensor

    def __init__(self, pair: Pair, *, resolution: int = 2, normalise: bool = False, binarise: bool = False) -> None:
        super().__init__(pair)
        require_positive("catkd", resolution=resolution)
        self.resolution, self.normalise, self.binarise = resolution, normalise, binarise
        self.register_buffer("teacher_weight", torch.zeros(pair.classes, pair.teacher.embedding))
        # In a tuple, the student is no submodule: its weights are in no state of this method.
        self._student: tuple[StagedNet, ...] = ()
        self._places = ("", "")

    def attach(self, student: StagedNet, teacher: StagedNet, image: Shape) -> None:
        """Find the classifiers, and what they read.

        Raises:
            InputError: a network does not classify the average of its last map. What a head does before it averages,
                as MobileNetV2's and ShuffleNet V2's do, is part of a student's map; a teacher's is refused.
        """
        for network, flow in ((student, self.pair.student.flows[-1]), (teacher, self.pair.teacher.flows[-1])):
            if flow is None or not classifies_the_mean(network, flow, "catkd"):
                raise InputError(f"catkd needs a classifier of the averaged last map, unlike {network.name}'s")
        if list(getattr(teacher.head, "body", nn.Sequential()).children()):
            raise InputError(f"catkd needs a teacher whose head is a classifier alone, unlike {teacher.name}'s")
        self._places = place_of_flow(student, image, "catkd"), place_of_flow(teacher, image, "catkd")
        self.teacher_weight = classifier(teacher, "catkd").weight.detach().float().clone()
        self._student = (student,)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The squared error of the maps, a scalar."""
        (network,) = self._student
        ours, theirs = (last_map(*both) for both in zip((student, teacher), self._places))
        ours = self._pooled(after_body(network.head, ours))
        theirs = theirs.detach() if self.binarise else self._pooled(theirs.detach())
        return activation_map_loss(
            activation_maps(ours, classifier(network, "catkd").weight),
            activation_maps(theirs, self.teacher_weight),
            self.resolution,
            self.normalise,
            self.binarise,
        )

    def _pooled(self, feature: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(feature, self.resolution)
