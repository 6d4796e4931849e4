import math
import re

import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.methods import Batch, ReviewKD
from sftn.methods.reviewkd import hierarchical_loss
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, Shapes
from tests.support import golden_methods as golden


def golden_pair(values):
    """With the golden shapes."""

    def shapes(role, kind):
        maps = tuple(tuple(values[f"{role}_{kind}{k}"].shape[1:]) for k in range(3))
        return Shapes(10, values[f"{role}_embedding"].shape[1], maps, maps)

    labels = torch.zeros(4, dtype=torch.long)
    stages = tuple((k, k) for k in range(3))
    return Pair(shapes("teacher", "preact"), shapes("student", "feature"), (None,) * 3, labels, 10, stages)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "reviewkd", dtype)
    method = ReviewKD(golden_pair(values))
    state = {name: value for name, value in values.items() if re.fullmatch(r"\w+\.\w+\.(weight|bias)", name)}
    assert set(state) == {name for name, _ in method.named_parameters()}
    method.load_state_dict(state, strict=False)
    method.to(dtype)
    features = [golden.leaf(values[f"student_feature{k}"]) for k in range(3)]
    embedding = golden.leaf(values["student_embedding"])
    preacts = tuple(values[f"teacher_preact{k}"] for k in range(3))
    student = Activations(embedding, embedding, tuple(features), ())
    teacher = Activations(embedding, values["teacher_embedding"], (), preacts)
    size = len(embedding)
    given = Batch(torch.zeros(size, 3, 8, 8), torch.zeros(size), torch.zeros(size))
    found = method.results(student)
    for name, result in zip(("stage0", "stage1", "stage2", "pooled"), found):
        golden.assert_golden(result, values[f"result_{name}"], dtype)
    levels = [*preacts, values["teacher_embedding"][:, :, None, None]]
    each = torch.stack([hierarchical_loss(ours, theirs) for ours, theirs in zip(found, levels)])
    golden.assert_golden(each, values["per_level"], dtype)
    loss = method(student, teacher, given)
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    golden.assert_golden(embedding.grad, values["grad_embedding"], dtype)
    for k, feature in enumerate(features):
        golden.assert_golden(feature.grad, values[f"grad_student{k}"], dtype)


@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_what_goes_on_to_the_next_level(case):
    values = golden.newer(case, "reviewkd")
    method = ReviewKD(golden_pair(values))
    method.load_state_dict({n: v for n, v in values.items() if n.count(".") == 2}, strict=False)
    method.double()
    deeper, _ = method.pooled(values["student_embedding"][:, :, None, None], None)
    golden.assert_golden(deeper, values["fused_pooled"], torch.float64)
    for k in (2, 1, 0):
        deeper, _ = method.get_submodule(f"stage{k}")(values[f"student_feature{k}"], deeper)
        golden.assert_golden(deeper, values[f"fused_stage{k}"], torch.float64)


def slow(student, teacher):
    """HCL of two squares of one image and channel: plain, then means of blocks, each weighing half the one before."""

    def pooled(rows, size):
        step = len(rows) // size
        return [
            sum(rows[i * step + a][j * step + b] for a in range(step) for b in range(step)) / step**2
            for i in range(size)
            for j in range(size)
        ]

    def error(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b)) / len(a)

    side = len(student)
    sizes = [side] + [size for size in (4, 2, 1) if size < side]
    weights = [1 / 2**k for k in range(len(sizes))]
    errors = [error(pooled(student, size), pooled(teacher, size)) for size in sizes]
    return math.fsum(w * e for w, e in zip(weights, errors)) / sum(weights)


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_slow_reference(side):
    draw = torch.Generator().manual_seed(side)
    student, teacher = torch.randn(2, side, side, dtype=torch.float64, generator=draw)
    expected = slow(student.tolist(), teacher.tolist())
    assert hierarchical_loss(student[None, None], teacher[None, None]).item() == pytest.approx(expected, rel=1e-12)


def test_a_level_learns_from_the_deeper_ones_and_never_from_the_shallower():
    method = ReviewKD(golden.pair("halved"))
    student = golden.activations(method.pair.student, 4)
    results = method.results(student)
    for k, result in enumerate(results):
        grads = torch.autograd.grad(result.square().sum(), student.features, retain_graph=True, allow_unused=True)
        assert [grad is not None for grad in grads] == [stage >= k for stage in range(3)]


def test_it_learns_what_its_teacher_knows():
    torch.manual_seed(0)
    method = ReviewKD(golden.pair("equal"))
    student, teacher = golden.both(method, 4)
    found = golden.losses(
        lambda: method(student, teacher, golden.batch(4)), torch.optim.SGD(method.parameters(), 0.5), 20
    )
    assert found[-1] < 0.7 * found[0]


@pytest.mark.parametrize("case", ["equal", "doubled"])
def test_state_round_trip(case):
    golden.assert_round_trip(ReviewKD(golden.pair(case)), ReviewKD(golden.pair(case)))


def test_as_wide_as_the_students_embedding_but_at_most_middle():
    for middle, expected in ((512, 32), (8, 8)):
        convolution = ReviewKD(golden.pair("equal"), middle=middle).pooled.reduce
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.out_channels == expected
    with pytest.raises(InputError, match="reviewkd's middle"):
        ReviewKD(golden.pair("equal"), middle=0)
