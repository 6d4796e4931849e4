import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from sftn.data.loader import Batch
from sftn.errors import InputError
from sftn.methods import crd
from sftn.methods.crd import CRD, contrast, embed, pull, scores, update
from tests.support import golden_methods as golden

SMALL = {"dimensions": 8, "negatives": 12}


def built(case: str, **options: object) -> CRD:
    torch.manual_seed(0)
    return CRD(golden.pair(case), **{**SMALL, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_two_steps_and_their_banks_match_the_golden_values(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = golden.load(case, "crd", dtype)
    images = int(values["n_data"])
    pair = replace(golden.pair(case), labels=torch.arange(images) % golden.CLASSES)
    method = CRD(pair, 16, 12, float(values["temperature"]), float(values["momentum"])).to(dtype)
    given = {key: value for key, value in values.items() if key.startswith("embed_")}
    given |= {f"memory_{side}": values[f"memory_{side}0"] for side in ("student", "teacher")}
    assert not method.load_state_dict(given, strict=False).unexpected_keys
    for step in ("step0", "step1"):
        ours = golden.leaf(values[f"{step}.student_embedding"])
        theirs = golden.leaf(values[f"{step}.teacher_embedding"])
        index = values[f"{step}.index"]
        monkeypatch.setattr(method, "draw", lambda labels, drawn=values[f"{step}.negatives"]: drawn)
        student = golden.activations(pair.student, len(index))._replace(embedding=ours)
        teacher = golden.activations(pair.teacher, len(index))._replace(embedding=theirs)
        loss = method(student, teacher, Batch(torch.empty(0), pair.labels[index], index))
        loss.backward()
        golden.assert_golden(loss, values[f"{step}.loss"], dtype)
        golden.assert_golden(ours.grad, values[f"{step}.grad_student"], dtype)
        assert theirs.grad is None
        for name in ("Z_student", "Z_teacher", "memory_student", "memory_teacher"):
            golden.assert_golden(getattr(method, name), values[f"{step}.{name}"], dtype)


def slow_side(anchor: Tensor, bank: Tensor, columns: Tensor, temperature: float) -> tuple[float, float]:
    """One side on the first step, written with scalars."""
    images, negatives = len(bank), columns.shape[1] - 1
    unnormalised = [
        [math.exp(sum(float(a * b) for a, b in zip(anchor[i], bank[j])) / temperature) for j in columns[i].tolist()]
        for i in range(len(anchor))
    ]
    Z = sum(map(sum, unnormalised)) / (len(anchor) * (negatives + 1)) * images
    noise, total = negatives / images, 0.0
    for row in unnormalised:
        positive, *others = [value / Z for value in row]
        total -= math.log(positive / (positive + noise + crd.EPS))
        total -= sum(math.log(noise / (other + noise + crd.EPS)) for other in others)
    return total / len(anchor), Z


@pytest.mark.parametrize("product", [True, False])
def test_contrast_is_the_slow_reference_and_its_gradient_is_right(
    product: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    anchor, bank = F.normalize(torch.randn(3, 4)).double(), F.normalize(torch.randn(9, 4)).double()
    columns = torch.randint(9, (3, 6))
    columns[:, 1] = columns[:, 2]
    loss, Z = contrast(anchor, bank, columns, torch.tensor(-1.0).double(), 0.3, product)
    assert (loss.item(), Z.item()) == pytest.approx(slow_side(anchor, bank, columns, 0.3), rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda value: contrast(value, bank, columns, Z, 0.3, product)[0], golden.leaf(anchor)
    )
    monkeypatch.setattr(crd, "LIMIT", 9)
    assert contrast(anchor, bank, columns, Z, 0.3, product)[0].item() == pytest.approx(loss.item(), rel=1e-12)


def test_both_routes_give_the_same_scores_and_gradients() -> None:
    torch.manual_seed(2)
    anchor, bank, columns = torch.randn(5, 8).double(), torch.randn(40, 8).double(), torch.randint(40, (5, 30))
    slope = torch.randn(5, 30).double()
    torch.testing.assert_close(scores(anchor, bank, columns, True), scores(anchor, bank, columns, False))
    torch.testing.assert_close(pull(slope, bank, columns, True), pull(slope, bank, columns, False))
    assert crd.product_moves_less(
        torch.empty(64, 128), torch.empty(50_000, 128, device="meta"), columns.new_empty(64, 16385)
    )
    assert not crd.product_moves_less(torch.empty(64, 128), torch.empty(50_000, 128, device="meta"), columns[:, :9])


def test_sums_are_reordered_only_where_that_is_allowed() -> None:
    torch.manual_seed(5)
    anchor, bank, columns = torch.randn(5, 300), torch.randn(40, 300), torch.randint(40, (5, 30))
    slope, wide = torch.randn(5, 30), torch.randn(500, 8)
    assert torch.equal(scores(anchor, bank, columns, True), (anchor @ bank.T).gather(1, columns))
    spread = torch.zeros(5, 500).scatter_add_(1, columns, slope)
    assert torch.equal(pull(slope, wide, columns, True), spread @ wide)
    torch.testing.assert_close(pull(slope, wide, columns, True, reorder=True), spread @ wide)


@pytest.mark.parametrize("replacement", [True, False])
def test_negatives_are_of_other_classes_and_uniform(replacement: bool) -> None:
    torch.manual_seed(3)
    labels = torch.tensor([2, 0, 0, 1, 2, 2, 0, 2, 3, 0])
    pair = replace(golden.pair("equal"), labels=labels)
    method = CRD(pair, dimensions=4, negatives=5, replacement=replacement)
    for label in (0, 1, 2, 3):
        drawn = method.draw(torch.full((4000,), label))
        assert drawn.shape == (4000, 5)
        assert (labels[drawn] != label).all()
        others = (labels != label).nonzero().squeeze(1)
        share = drawn.numel() / len(others)
        chi_square = sum(((drawn == other).sum().item() - share) ** 2 / share for other in others)
        # The 99.99th percentile of chi-square with 8 degrees of freedom, the most here; without replacement it is less.
        assert chi_square < 31.8
        repeats = (drawn.sort(1).values.diff(dim=1) == 0).any()
        assert repeats == replacement


def test_drawing_without_replacement_takes_every_other_image_where_just_enough_are_left() -> None:
    pair = replace(golden.pair("equal"), labels=torch.tensor([1, 0, 1, 0, 1]))
    method = CRD(pair, dimensions=4, negatives=2, replacement=False)
    assert torch.equal(
        method.draw(torch.ones(50, dtype=torch.int64)).sort(1).values, torch.tensor([1, 3]).expand(50, 2)
    )


def test_banks_stay_on_the_unit_sphere_and_a_repeated_index_counts_once() -> None:
    torch.manual_seed(4)
    bank, rows = torch.randn(6, 3), F.normalize(torch.randn(4, 3))
    before = bank.clone()
    update(bank, torch.tensor([5, 1, 5, 0]), rows, 0.25)
    for image, row in ((5, 2), (1, 1), (0, 3)):
        moved = [0.25 * float(b) + 0.75 * float(r) for b, r in zip(before[image], rows[row])]
        length = math.sqrt(sum(value**2 for value in moved))
        assert bank[image].tolist() == pytest.approx([value / length for value in moved], rel=1e-5)
    assert torch.equal(bank[2:5], before[2:5])


def test_the_first_step_sets_Z_for_good_and_evaluation_changes_nothing() -> None:
    method = built("equal")
    student, teacher = golden.both(method, 4)
    fresh = {key: value.clone() for key, value in method.state_dict().items()}
    method.eval()(student, teacher, golden.batch(4))
    assert all(torch.equal(value, fresh[key]) for key, value in method.state_dict().items())
    method.train()(student, teacher, golden.batch(4))
    first = method.Z_student.item(), method.Z_teacher.item()
    assert min(first) > 0
    method(student, teacher, golden.batch(4))
    assert (method.Z_student.item(), method.Z_teacher.item()) == first
    rows = method.memory_student[golden.batch(4).index]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    assert not torch.equal(rows, fresh["memory_student"][golden.batch(4).index])


def test_the_gradient_trains_both_projections_and_never_the_teacher() -> None:
    method = built("halved")
    student, teacher = golden.both(method, 4)
    method(student, teacher, golden.batch(4)).backward()
    assert student.embedding.grad is not None
    assert student.embedding.grad.any()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())
    assert all(value.grad is None for value in golden.leaves(teacher))


@golden.hostile
def test_hostile_activations_leave_everything_finite(kind: str, dtype: torch.dtype, size: int) -> None:
    method = built("equal")
    golden.assert_survives(method, kind, dtype, size)
    assert all(value.isfinite().all() for value in method.buffers())


@pytest.mark.parametrize("replacement", [True, False])
def test_a_step_never_asks_the_device_for_a_value(replacement: bool) -> None:
    # Fake tensors have no values: whatever would make the host wait for one raises.
    method = built("equal", replacement=replacement)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        for name, buffer in method.named_buffers():
            setattr(method, name, fake.from_tensor(buffer))
        student, teacher = golden.both(method, 4)
        loss = method(student, teacher, golden.batch(4))
        loss.backward()
    assert loss.shape == ()


def test_autocast_leaves_the_loss_in_float32() -> None:
    method, twin = built("equal"), built("equal")
    student, teacher = golden.both(method, 4)
    torch.manual_seed(5)
    expected = method(student, teacher, golden.batch(4))
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(twin(student, teacher, golden.batch(4)), expected)


def test_the_state_with_its_banks_goes_round() -> None:
    method = built("equal")
    student, teacher = golden.both(method, 4)
    method(student, teacher, golden.batch(4)).backward()
    assert {"memory_student", "memory_teacher", "Z_student", "Z_teacher"} <= method.state_dict().keys()
    fresh = CRD(method.pair, **SMALL)  # type: ignore[arg-type]
    fresh.load_state_dict(method.state_dict())
    losses = []
    for one in (method, fresh):
        torch.manual_seed(6)
        losses.append(one(student, teacher, golden.batch(4)))
    assert torch.equal(*losses)
    assert torch.equal(method.memory_teacher, fresh.memory_teacher)


def test_fresh_banks_are_uniform_within_their_bound() -> None:
    bank = built("equal", dimensions=12).memory_teacher
    assert bank.shape == (200, 12)
    assert 0.49 < bank.abs().max() <= 0.5
    assert embed(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(4)).norm(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([], {}, "needs the labels of the training images"),
        ([3] * 7, {}, "all 7 training images are of class 3: give images of at least two classes"),
        ([0, 0, 0, 1], {"negatives": 2, "replacement": False}, "class 0 leaves 1 images.*set negatives to at most 1"),
    ],
)
def test_what_it_cannot_work_with_is_said_before_training(labels: list[int], options: dict, message: str) -> None:
    pair = replace(golden.pair("equal"), labels=torch.tensor(labels, dtype=torch.int64))
    with pytest.raises(InputError, match=message) as caught:
        CRD(pair, **{**SMALL, **options})
    assert not re.search("\n", str(caught.value))
