import copy

import pytest
import torch
from torch import nn

from sftn.methods.ab import AB, boundary_loss, stage_loss
from sftn.networks.alignment import Pair
from sftn.spec.objective import Objective, Term
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from tests.support import golden_methods as golden


def slow(student, teacher, margin):
    """Heo et al.: per neuron, how far it stays short of the margin on the teacher's side, squared; ÷ B."""
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist()):
        if t > 0 and s < margin:
            total += (s - margin) ** 2
        if t <= 0 and s > -margin:
            total += (s + margin) ** 2
    return total / len(student)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    values = golden.load(case, "ab", dtype)
    connected = [golden.leaf(values[f"connected_preact{k}"]) for k in range(3)]
    teacher = [values[f"teacher_preact{k}"] for k in range(3)]
    margin = float(values["margin"])
    assert AB(golden.pair(case)).margin == margin
    loss = boundary_loss(connected, teacher, margin)
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    for k, preact in enumerate(connected):
        golden.assert_golden(preact.grad, values[f"grad_student{k}"], dtype)
        alone = stage_loss(preact, teacher[k], margin) * 2.0 ** (k - 2) * 3 / 1000
        golden.assert_golden(alone, values["per_stage"][k], dtype)


@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_slow_reference(margin):
    draw = torch.Generator().manual_seed(0)
    students = torch.randn(4, 3, 2, 2, 2, dtype=torch.float64, generator=draw)
    teachers = torch.randn(4, 3, 2, 2, 2, dtype=torch.float64, generator=draw)
    teachers[0, 0] = 0  # on the boundary: does not fire
    expected = sum(w * slow(s, t, margin) for w, s, t in zip((1 / 8, 1 / 4, 1 / 2, 1), students, teachers)) * 3 / 1000
    assert boundary_loss(list(students), list(teachers), margin).item() == pytest.approx(expected, rel=1e-12)


def test_only_the_side_matters_and_beyond_the_margin_nothing_is_left():
    student, teacher = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert stage_loss(teacher.sign() * 1.5, teacher) == 0
    assert stage_loss(teacher.sign() * 0.5, teacher) == pytest.approx(12 * 0.25)
    assert torch.equal(stage_loss(student, teacher), stage_loss(student, teacher * 100))


@pytest.mark.parametrize(
    ("case", "kind"), [("equal", nn.Conv2d), ("halved", nn.ConvTranspose2d), ("doubled", nn.Conv2d)]
)
def test_connectors(case, kind):
    method = AB(golden.pair(case))
    student = golden.activations(method.pair.student, 2)
    for layers, preact, shape in zip(method.connectors, student.preacts, method.pair.teacher.features):
        assert [type(layer) for layer in layers] == [kind, nn.BatchNorm2d]
        assert layers(preact).shape == (2, *shape)
    same = AB(Pair.of(golden.network(4, 8), golden.network(4, 6), (3, 8, 8), torch.arange(10)))
    assert [len(layers) for layers in same.connectors] == [0, 2]


def test_the_main_phase_costs_and_trains_nothing():
    method = AB(golden.pair("halved"))
    student, teacher = golden.both(method, 2)
    loss = method(student, teacher, golden.batch(2))
    assert loss == 0
    assert not loss.requires_grad
    assert method.trains() == []


@pytest.mark.parametrize("widths", [(4, 8), (3, 4, 6)])
def test_warmup(widths):
    torch.manual_seed(0)
    teacher, student = golden.network(4, 6, 8).eval(), golden.network(*widths)
    method = AB(Pair.of(teacher, student, (3, 8, 8), torch.arange(10)))
    phase = method.warmup(student, teacher, Schedule(epochs=24, lr=0.2))
    assert (phase.schedule.epochs, phase.schedule.milestones, phase.schedule.lr_at(2)) == (3, (), 0.2)
    assert phase.trains == (student.stem, *student.stages, method.connectors)

    images, labels, index = torch.randn(6, 3, 8, 8), torch.arange(6), torch.arange(6)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD([p for module in phase.trains for p in module.parameters()], lr=0.5)
    losses = golden.losses(lambda: phase.task(images, labels, index)["loss"], optimizer, 15)
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for module in phase.trains for p in module.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_warmup_leaves_student_stages_beyond_the_last_aligned_alone():
    teacher, student = golden.network(4, 6, 8), golden.network(4, 6, 8)
    method = AB(Pair.of(teacher, student, (3, 8, 8), torch.arange(10), alignment=((0, 0), (1, 2))))
    assert method.warmup(student, teacher, Schedule()).trains == (student.stem, *student.stages[:2], method.connectors)


@golden.hostile
def test_hostile_activations(kind, dtype, size):
    shapes = golden.pair("halved").teacher
    connected = golden.changed(golden.activations(shapes, size, dtype, seed=1), kind).preacts
    for theirs in ("random", kind):
        teacher = golden.changed(golden.activations(shapes, size, dtype, seed=2), theirs).preacts
        loss = boundary_loss(connected, teacher)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert all(preact.grad.isfinite().all() for preact in connected)
        assert all(preact.grad is None for preact in teacher)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_warmup_of_one_image_and_under_autocast(dtype):
    teacher, student = golden.network(4, 6), golden.network(3, 4)
    method = AB(Pair.of(teacher, student, (3, 8, 8), torch.arange(10)))
    task = method.warmup(student, teacher, Schedule()).task
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        loss = task(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1))["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("by_batch", [False, True])
def test_the_teacher_normalises_by_the_batch_if_asked_to(by_batch):
    """As the authors' does, in training mode; but its running statistics stay as they are."""
    torch.manual_seed(0)
    teacher, student = golden.network(4, 6, 8), golden.network(3, 4, 8)
    images = torch.randn(6, 3, 8, 8)
    modes = {}
    for training in (False, True):
        modes[training] = copy.deepcopy(teacher).train(training).activations(images).preacts
    term = Term("ab", options={"batch_statistics": by_batch})
    task = Distiller(student, teacher, Objective("ab", kd=1.0, terms=(term,)), (3, 8, 8))
    first, _ = task.phases(Schedule())
    seen = first.task.teacher.activations(images).preacts
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen, modes[by_batch]))
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(seen, modes[not by_batch]))


def test_state_round_trip():
    method, fresh = AB(golden.pair("doubled")), AB(golden.pair("doubled"))
    student = golden.activations(method.pair.student, 2)
    fresh.load_state_dict(method.state_dict())
    for ours, theirs, preact in zip(method.connectors, fresh.connectors, student.preacts):
        assert torch.equal(ours(preact), theirs(preact))
