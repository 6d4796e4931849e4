"""The first twelve methods beside other public forms of them: the ratio of losses and the cosine of gradients.

Every other form is a formula written here, from `docs/weights-from-elsewhere.md`. A ratio at a cosine of 1 is another
weight; a cosine below 1 is another method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.methods import AT, FT, OH, VID
from sftn.methods.ab import boundary_loss, stage_loss
from sftn.methods.at import attention_loss
from sftn.methods.fitnet import hint_loss
from sftn.methods.ft import factor_loss, reconstruction_loss, whole_factor_loss
from sftn.methods.oh import overhaul
from sftn.methods.pkt import transfer_loss
from sftn.methods.rkd import relational_loss
from sftn.methods.sp import similarity_loss
from sftn.methods.vid import information_loss
from tests.support import golden_methods as golden

BATCH = 16
SHAPES = ((8, 16, 16), (16, 8, 8), (32, 4, 4))
Stages = Sequence[Tensor]


def maps(seed: int, *, relu: bool = True) -> tuple[list[Tensor], list[Tensor]]:
    """The student's and the teacher's maps, (B, C, H, W) of three stages in float64."""
    draw = torch.Generator().manual_seed(seed)
    both = [[torch.randn(BATCH, *shape, dtype=torch.float64, generator=draw) for shape in SHAPES] for _ in range(2)]
    return tuple([value.relu() if relu else value for value in side] for side in both)  # type: ignore[return-value]


def rows(seed: int, widths: tuple[int, int] = (48, 64)) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's embeddings, (B, D) and (B, D')."""
    draw = torch.Generator().manual_seed(seed)
    ours, theirs = (torch.randn(BATCH, width, dtype=torch.float64, generator=draw) for width in widths)
    return ours, theirs


def compared(
    this: Callable[[Stages, Stages], Tensor],
    other: Callable[[Stages, Stages], Tensor],
    student: Stages,
    teacher: Stages,
) -> tuple[float, float]:
    """The ratio of two losses, this over the other, and the cosine of their gradients with respect to the student."""
    values, gradients = [], []
    for loss in (this, other):
        leaves = [golden.leaf(value) for value in student]
        value = loss(leaves, teacher)
        values.append(value.item())
        gradients.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(value, leaves)]))
    return values[0] / values[1], F.cosine_similarity(*gradients, dim=0).item()


def one(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Stages, Stages], Tensor]:
    """A loss of one stage as one of lists of stages."""
    return lambda student, teacher: loss(student[0], teacher[0])


def summed(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Stages, Stages], Tensor]:
    """A loss of one stage, summed over stages."""
    return lambda student, teacher: torch.stack([loss(*stage) for stage in zip(student, teacher, strict=True)]).sum()


def same(ratio: float = 1.0) -> object:
    """The same method with a weight."""
    return pytest.approx((ratio, 1.0), rel=1e-9)


def attended(feature: Tensor, power: Callable[[Tensor], Tensor] = torch.square) -> Tensor:
    """(B, C, H, W) -> (B, H·W) of length 1."""
    flat = power(feature).sum(1).flatten(1)
    return flat / flat.square().sum(1, keepdim=True).sqrt()


@pytest.mark.parametrize("seed", [0, 1])
def test_fitnets_mean_is_the_papers_half_squared_norm_but_for_a_constant(seed: int) -> None:
    student, teacher = maps(seed)
    channels, height, width = SHAPES[1]

    def paper(ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours - theirs).square().sum((1, 2, 3)).mean() / 2

    def summed_over_channels(ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours - theirs).square().sum(1).mean() / 2

    def each_image_normalised(ours: Tensor, theirs: Tensor) -> Tensor:
        return paper(F.normalize(ours.flatten(1)).view_as(ours), F.normalize(theirs.flatten(1)).view_as(theirs))

    stage = [student[1]], [teacher[1]]
    assert compared(one(hint_loss), one(paper), *stage) == same(2 / (channels * height * width))
    assert compared(one(hint_loss), one(summed_over_channels), *stage) == same(2 / channels)
    assert compared(one(hint_loss), one(each_image_normalised), *stage)[1] < 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_ats_mean_weighs_stages_by_their_size_and_its_norm_is_the_papers(seed: int) -> None:
    student, teacher = maps(seed)
    pair = golden.pair("equal")

    def paper(ours: Tensor, theirs: Tensor) -> Tensor:
        return (attended(ours) - attended(theirs)).square().sum(1).sqrt().mean() / 2

    def half_squares(ours: Tensor, theirs: Tensor) -> Tensor:
        return (attended(ours) - attended(theirs)).square().sum(1).mean() / 2

    def method(at: AT) -> Callable[[Stages, Stages], Tensor]:
        blank = golden.activations(pair.student, BATCH, torch.float64)
        return lambda ours, theirs: at(
            blank._replace(features=tuple(ours)), blank._replace(features=tuple(theirs)), golden.batch(BATCH)
        )

    for ours, theirs, (_, height, width) in zip(student, teacher, SHAPES):
        assert compared(one(attention_loss), one(half_squares), [ours], [theirs]) == same(2 / (height * width))
    cosine = compared(one(attention_loss), one(paper), [student[1]], [teacher[1]])[1]
    assert 0.9945 < cosine < 0.9985
    squared, norm = method(AT(pair)), method(AT(pair, distance="norm"))
    assert 0.875 < compared(squared, summed(paper), student, teacher)[1] < 0.895
    assert 0.775 < compared(squared, summed(half_squares), student, teacher)[1] < 0.805
    assert compared(norm, summed(paper), student, teacher) == same()
    assert compared(squared, lambda *stages: squared(*stages) / 3, student, teacher) == same(3)  # a mean of stages


def test_ats_odd_powers_are_of_absolute_values() -> None:
    (student, *_), (teacher, *_) = maps(0, relu=False)

    def signed(ours: Tensor, theirs: Tensor) -> Tensor:
        return (attended(ours, torch.clone) - attended(theirs, torch.clone)).square().mean()

    def ours(student: Tensor, teacher: Tensor) -> Tensor:
        return attention_loss(student, teacher, 1)

    assert abs(compared(one(ours), one(signed), [student], [teacher])[1]) < 0.1
    assert compared(one(ours), one(signed), [student.abs()], [teacher.abs()]) == same()


@pytest.mark.parametrize(("batch", "ratio"), [(16, 0.077), (64, 0.017), (256, 0.004)])
def test_sp_with_rows_of_l1_length_1_depends_on_the_batch(batch: int, ratio: float) -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, batch, 32, 4, 4, dtype=torch.float64, generator=draw).relu()

    def with_l1(ours: Tensor, theirs: Tensor) -> Tensor:
        similarities = [F.normalize(value.flatten(1) @ value.flatten(1).T, p=1) for value in (ours, theirs)]
        return (similarities[0] - similarities[1]).square().sum() / batch**2

    found, cosine = compared(one(with_l1), one(similarity_loss), [student], [teacher])
    assert found == pytest.approx(ratio, rel=0.15)
    assert cosine > 0.99


def test_vids_mean_weighs_a_stage_by_its_elements_and_its_sum_is_the_papers() -> None:
    student, teacher = maps(0)
    scales = [torch.randn(shape[0], dtype=torch.float64) for shape in SHAPES]

    def paper(mean: Tensor, feature: Tensor, scale: Tensor) -> Tensor:
        variance = ((1 + scale.exp()).log() + 1e-5).view(-1, 1, 1)
        return (((mean - feature).square() / variance + variance.log()) / 2).sum((1, 2, 3)).mean()

    for ours, theirs, scale in zip(student, teacher, scales):
        elements = theirs[0].numel()
        mean = one(lambda a, b, scale=scale: information_loss(a, b, scale))
        assert compared(one(lambda a, b, scale=scale: paper(a, b, scale)), mean, [ours], [theirs]) == same(elements)

    pair = golden.pair("equal")
    torch.manual_seed(0)
    means, sums = VID(pair).double(), VID(pair, reduction="sum").double()
    sums.load_state_dict(means.state_dict())
    ours, theirs = golden.both(means, 4)
    ours, theirs = ((value._replace(features=tuple(f.double() for f in value.features))) for value in (ours, theirs))
    expected = sum(
        paper(stage.regressor(a), b, stage.log_scale)
        for stage, a, b in zip(means.stages, ours.features, theirs.features)
    )
    torch.testing.assert_close(sums(ours, theirs, golden.batch(4)), expected, rtol=1e-9, atol=0)


def test_a_vid_whose_variance_stays_at_5_is_a_tenth_of_the_squared_error() -> None:
    (student, *_), (teacher, *_) = maps(0)
    scale = torch.full((SHAPES[0][0],), math.log(math.expm1(5 - 1e-5)), dtype=torch.float64)
    fixed = one(lambda a, b: information_loss(a, b, scale) - math.log(5) / 2)
    assert compared(fixed, one(lambda a, b: (a - b).square().mean() / 10), [student], [teacher]) == same()


@pytest.mark.parametrize("seed", [0, 1])
def test_rkds_weights_are_25_times_those_of_the_released_scripts(seed: int) -> None:
    student, teacher = rows(seed)

    def scripts(ours: Tensor, theirs: Tensor, distance: float = 1, angle: float = 2) -> Tensor:
        parts = []
        for value in (ours, theirs):
            squares = (value.unsqueeze(0) - value.unsqueeze(1)).square().sum(2)
            apart = squares.where(squares > 0, 1).sqrt().where(squares > 0, 0)
            edges = F.normalize(value.unsqueeze(0) - value.unsqueeze(1), dim=2)
            parts.append((apart / apart[apart > 0].mean(), edges @ edges.mT))
        (d, a), (e, b) = parts
        return distance * F.smooth_l1_loss(d, e) + angle * F.smooth_l1_loss(a, b)

    def normalised(ours: Tensor, theirs: Tensor) -> Tensor:
        return scripts(F.normalize(ours), F.normalize(theirs))

    def alike(ours: Tensor, theirs: Tensor) -> Tensor:
        return scripts(ours, theirs, 0.5, 0.5)

    assert compared(one(relational_loss), one(scripts), [student], [teacher]) == same(25)
    assert compared(one(relational_loss), one(alike), [student], [teacher])[1] == pytest.approx(0.999, abs=1e-3)
    lengths = torch.linspace(0.5, 2, BATCH, dtype=torch.float64).unsqueeze(1)
    assert compared(one(relational_loss), one(normalised), [student * lengths], [teacher])[1] < 0.5


def test_pkts_mean_is_the_papers_sum_over_the_square_of_the_batch() -> None:
    student, teacher = rows(0)

    def paper(ours: Tensor, theirs: Tensor) -> Tensor:
        odds = []
        for value in (ours, theirs):
            unit = value / value.norm(dim=1, keepdim=True)
            similarity = (unit @ unit.T + 1) / 2
            odds.append(similarity / similarity.sum(1, keepdim=True))
        return (odds[1] * (odds[1] / odds[0]).log()).sum()

    found = compared(one(transfer_loss), one(paper), [student], [teacher])
    assert found == pytest.approx((1 / BATCH**2, 1), rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_abs_weights(seed: int) -> None:
    student, teacher = maps(seed, relu=False)

    def halves(ours: Stages, theirs: Stages) -> Tensor:
        return sum(stage(a, b) / 2**k for k, (a, b) in enumerate(zip(ours[::-1], theirs[::-1])))  # type: ignore[return-value]

    def stage(ours: Tensor, theirs: Tensor, margin: float = 1) -> Tensor:
        above = (theirs > 0) & (ours < margin)
        below = (theirs <= 0) & (ours > -margin)
        return ((ours - margin).square() * above + (ours + margin).square() * below).sum() / BATCH

    def means(ours: Stages, theirs: Stages) -> Tensor:
        return sum(stage(a, b) / a[0].numel() for a, b in zip(ours, theirs)) / 3  # type: ignore[return-value]

    def wide(ours: Tensor, theirs: Tensor) -> Tensor:
        return stage(ours, theirs, 2)

    assert compared(boundary_loss, halves, student, teacher) == same(3 / 1000)
    assert compared(boundary_loss, summed(stage), student, teacher)[1] == pytest.approx(0.86, abs=0.01)
    assert compared(means, boundary_loss, student, teacher) == same(1000 / 3 / 3 / 512)  # 0.22: C·H·W halves as well
    assert compared(one(stage_loss), one(wide), student[:1], teacher[:1])[1] == pytest.approx(0.97, abs=0.02)


@pytest.mark.parametrize("seed", [0, 1])
def test_fts_maps_are_another_method_than_its_whole_factors(seed: int) -> None:
    """Their gradients are nearly at right angles, and only whole factors tell channels apart."""
    draw = torch.Generator().manual_seed(seed)
    teacher, other = F.leaky_relu(torch.randn(2, BATCH, 16, 8, 8, dtype=torch.float64, generator=draw), 0.1)

    def authors(ours: Tensor, theirs: Tensor) -> Tensor:
        ours, theirs = (value.flatten(1) / value.flatten(1).norm(dim=1, keepdim=True) for value in (ours, theirs))
        return (ours - theirs).abs().mean()

    def paper(ours: Tensor, theirs: Tensor) -> Tensor:
        return authors(ours, theirs) * ours[0].numel()

    assert compared(one(whole_factor_loss), one(authors), [other], [teacher]) == same()
    assert compared(one(paper), one(whole_factor_loss), [other], [teacher]) == same(16 * 8 * 8)
    ratio, cosine = compared(one(factor_loss), one(authors), [other], [teacher])
    assert ratio == pytest.approx(2.4, abs=0.1)
    assert 0 < cosine < 0.03
    near = teacher + 0.3 * other
    assert abs(compared(one(factor_loss), one(authors), [near], [teacher])[1]) < 0.2
    shuffled = teacher.roll(1, 1)
    assert factor_loss(shuffled, teacher).item() == pytest.approx(0, abs=1e-12)
    assert authors(shuffled, teacher).item() > 0.01


def test_fts_squared_reconstruction_is_not_the_authors_absolute_one() -> None:
    student, teacher = rows(0, (640, 640))
    absolute = one(lambda a, b: reconstruction_loss(a, b, absolute=True))
    assert compared(absolute, one(lambda a, b: (a - b).abs().mean()), [student], [teacher]) == same()
    cosine = compared(one(reconstruction_loss), absolute, [student], [teacher])[1]
    assert cosine == pytest.approx(math.sqrt(2 / math.pi), abs=0.01)  # of normal differences


def test_ft_in_its_authors_form() -> None:
    """Whole factors of a translator without batch norm, and a paraphraser that learns by absolute errors."""
    method = FT(golden.pair("equal"), factors="whole", reconstruction="absolute", translator_norm=False)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in method.modules())
    student, teacher = golden.both(method, 4)
    ours = method.translator(student.features[-1]).flatten(1)
    theirs = method.paraphraser.encoder(teacher.features[-1]).flatten(1)
    expected = (ours / ours.norm(dim=1, keepdim=True) - theirs / theirs.norm(dim=1, keepdim=True)).abs().mean()
    torch.testing.assert_close(method(student, teacher, golden.batch(4)), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_ohs_halves_and_its_weight_on_imagenet(seed: int) -> None:
    student, teacher = maps(seed, relu=False)
    margins = [torch.full((shape[0],), -0.5, dtype=torch.float64) for shape in SHAPES]

    def stage(ours: Tensor, theirs: Tensor) -> Tensor:
        target = theirs.clamp_min(-0.5)
        counted = (ours > target) | (target > 0)
        return ((ours - target).square() * counted).sum() / BATCH

    def imagenet(ours: Stages, theirs: Stages) -> Tensor:
        return sum(stage(a, b) / 2**k for k, (a, b) in enumerate(zip(ours[::-1], theirs[::-1]))) / 10_000  # type: ignore[return-value]

    def own(ours: Stages, theirs: Stages) -> Tensor:
        return overhaul(ours, theirs, margins)

    assert compared(own, imagenet, student, teacher) == same(1 / OH.weight / 0.1)
    assert compared(own, summed(stage), student, teacher)[1] == pytest.approx(0.86, abs=0.01)
