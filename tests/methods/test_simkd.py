import copy

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import SimKD
from sftn.methods.at import same_size
from sftn.methods.simkd import feature_loss
from sftn.networks import build
from sftn.networks.families.layers import Head
from sftn.networks.reused_head import FrozenHead, ProjectedStage, Projector
from sftn.networks.weights import load_weights, network_from_file, save_weights
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from tests.support import golden_methods as golden
from tests.support import tiny


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "simkd", dtype)
    target = tuple(values["teacher_feature"].shape[1:])
    projector = Projector(values["student_feature"].shape[1], target[0] // int(values["factor"]), target)
    state = {name.removeprefix("projector."): v for name, v in values.items() if name.startswith("projector.")}
    assert set(state) == {name for name, _ in projector.named_parameters()}
    projector.load_state_dict(state, strict=False)
    projector.to(dtype)
    student = golden.leaf(values["student_feature"])
    projected = projector(student).relu()
    golden.assert_golden(projected, values["projected"], dtype)
    _, aligned = same_size(projected, values["teacher_feature"])
    golden.assert_golden(aligned, values["aligned_teacher"], dtype)
    loss = feature_loss(projected, values["teacher_feature"])
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    golden.assert_golden(student.grad, values["grad_student"], dtype)
    golden.assert_golden(projector.conv1.weight.grad, values["grad_projector.conv1.weight"], dtype)
    head = Head(target[0], len(values["classifier.bias"]))
    head.linear.load_state_dict({name: values[f"classifier.{name}"] for name in ("weight", "bias")})
    embedding, logits = FrozenHead(head).to(dtype)(projected)
    golden.assert_golden(embedding, values["embedding"], dtype)
    golden.assert_golden(logits, values["logits"], dtype)


def slow(student, teacher):
    """Squared differences of the student's pixels and means of 2×2 of the teacher's, one channel of 2×2."""
    blocks = [[sum(teacher[2 * i + a][2 * j + b] for a in (0, 1) for b in (0, 1)) / 4 for j in (0, 1)] for i in (0, 1)]
    return sum((student[i][j] - blocks[i][j]) ** 2 for i in (0, 1) for j in (0, 1)) / 4


def test_slow_reference():
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(2, 2, dtype=torch.float64, generator=draw)
    teacher = torch.randn(4, 4, dtype=torch.float64, generator=draw)
    found = feature_loss(student[None, None], teacher[None, None])
    assert found.item() == pytest.approx(slow(student.tolist(), teacher.tolist()), rel=1e-12)


def task(teacher=None, student=None):
    return Distiller(student or tiny.network(), teacher or tiny.network((6, 8, 12)), objective("simkd"), tiny.IMAGE)


def test_a_student_whose_map_is_the_teachers_gives_its_logits():
    """The classifier's input is all there is to learn."""
    given = task()
    maps = given.teacher.activations(torch.randn(4, *tiny.IMAGE)).features[-1]
    for ours, theirs in zip(given.student.head(maps), given.teacher.head(maps)):
        assert torch.equal(ours, theirs)


def test_a_step_trains_body_and_projector_and_leaves_the_teachers_head():
    given = task()
    (phase,) = given.phases(Schedule(epochs=1, lr=0.1))
    phase.prepare()
    before = {name: value.clone() for name, value in given.student.state_dict().items()}
    parameters = [p for module in phase.trains for p in module.parameters()]
    sgd = torch.optim.SGD(parameters, lr=0.1, weight_decay=0.1)
    terms = given(torch.randn(8, *tiny.IMAGE), torch.arange(8) % tiny.CLASSES)
    assert terms["loss"] == terms["simkd"]
    terms["loss"].backward()
    sgd.step()
    for name, value in given.student.state_dict().items():
        fixed = name.startswith("head.") or name.endswith(".largest")
        assert torch.equal(value, before[name]) is fixed, name
    assert not given.student.head.training
    assert all(parameter.grad is not None for parameter in parameters)


def test_a_student_is_rebuilt_once_and_copies_load_its_state():
    given = task()
    again = task(given.teacher, given.student)
    assert isinstance(again.student.stages[-1], ProjectedStage)
    assert not isinstance(again.student.stages[-1].stage, ProjectedStage)
    other = task(given.teacher)
    other.student.load_state_dict(given.student.state_dict())
    images = torch.randn(4, *tiny.IMAGE)
    assert torch.equal(other.eval().student(images), given.eval().student(images))
    assert torch.equal(copy.deepcopy(given).student(images), given.student(images))


@pytest.mark.parametrize("names", [("wrn_10_1", "resnet8"), ("resnet8", "wrn_10_2"), ("shufflev2", "vgg8")])
def test_any_families_may_meet(names):
    student, teacher = (build(name, 10) for name in names)
    given = Distiller(student, teacher, objective("simkd"), (3, 32, 32))
    loss = given(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))["loss"]
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("kind", ["zero", "identical", "large"])
def test_hostile_maps_give_finite_gradients(kind):
    for size in (1, 3):
        given = torch.randn(size, 6, 4, 4)
        given = {"zero": 0 * given, "identical": given[:1].expand_as(given), "large": given.sign() * 1e4}[kind]
        student = golden.leaf(given.half())
        loss = feature_loss(Projector(6, 4, (8, 4, 4))(student.float()).relu(), torch.randn(size, 8, 4, 4))
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


def test_what_cannot_be_projected_is_refused():
    with pytest.raises(InputError, match="simkd projects the student's last stage"):
        SimKD(golden.pair("equal"))
    with pytest.raises(InputError, match="simkd's factor"):
        SimKD.rebuild(tiny.network(), tiny.network(), tiny.IMAGE, factor=0)


@pytest.mark.parametrize("names", [("wrn_10_1", "resnet8"), ("resnet8", "wrn_10_2"), ("vgg8", "resnet14")])
def test_a_file_of_weights_says_how_its_student_ends(names, tmp_path):
    """So whoever loads the weights of a SimKD student by the student's name gets the whole of it."""
    student, teacher = (build(name, 10) for name in names)
    given = Distiller(student, teacher, objective("simkd(factor=4)"), (3, 32, 32)).eval()
    save_weights(student, tmp_path / "w.safetensors")
    loaded = network_from_file(names[0], tmp_path / "w.safetensors", 10, (3, 32, 32)).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), given.student(images))


def test_weights_of_another_network_leave_it_as_it_was(tmp_path):
    student = build("resnet14", 10)
    Distiller(student, build("wrn_10_1", 10), objective("simkd"), (3, 32, 32))
    save_weights(student, tmp_path / "w.safetensors")
    network = build("resnet8", 10)
    before = list(network.state_dict())
    with pytest.raises(InputError, match="is not a resnet8"):
        load_weights(network, tmp_path / "w.safetensors")
    assert list(network.state_dict()) == before
