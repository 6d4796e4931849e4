from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sftn.data.loader import Loader
from sftn.errors import InputError
from sftn.methods import METHODS
from sftn.methods.kd import distillation_loss
from sftn.runtime.device import make_fabric
from sftn.spec.objective import Objective, Term
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller, with_batch_statistics
from sftn.tasks.recipes import OBJECTIVES, objective
from sftn.training.loop import fit
from tests.support import tiny
from tests.support.callbacks import Rows

PAIRS = {
    "equal": ({"widths": (4, 6, 8)}, {"widths": (4, 6, 8)}),
    "halved": ({"widths": (6, 8, 12)}, {"widths": (4, 6, 8), "strides": (2, 2, 2)}),
    "doubled": ({"widths": (6, 8, 12), "strides": (2, 2, 2)}, {"widths": (4, 6, 8)}),
    "other stages": ({"widths": (6, 8, 12)}, {"widths": (4, 4, 6, 8)}),
}
SMALL = {"crd": {"dimensions": 8, "negatives": 12}}


def distiller(name: str, pair: str = "equal", data: object = None) -> Distiller:
    teacher, student = (tiny.network(**options) for options in PAIRS[pair])  # type: ignore[arg-type]
    found = OBJECTIVES[name]
    terms = tuple(Term(term.method, term.weight, SMALL.get(term.method, {})) for term in found.terms)
    labels = torch.arange(48) % tiny.CLASSES
    return Distiller(student, teacher, Objective(name, found.ce, found.kd, terms), tiny.IMAGE, labels=labels)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_method_trains_every_kind_of_pair(name: str, pair: str) -> None:
    data = tiny.dataset()
    task = distiller(name, pair)
    loader = Loader(
        data.train, batch=16, normalisation=data.normalisation, copies=task.copies, flip=task.flip, padding=1
    )
    frozen = {key: value.clone() for key, value in task.teacher.state_dict().items()}
    before = {key: value.clone() for key, value in task.student.state_dict().items()}
    fabric = make_fabric("cpu", "float32")
    for phase in task.phases(Schedule(epochs=1, batch=16, lr=0.01)):
        fit(phase, loader, fabric)
        for key, value in task.teacher.state_dict().items():
            assert torch.equal(value, frozen[key]), f"{phase.name} changed the teacher's {key}"
    assert all(torch.isfinite(value).all() for value in task.state_dict().values())
    assert all(not torch.equal(value, before[key]) for key, value in task.student.named_parameters() if "weight" in key)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_state_dict_holds_all_that_the_loss_depends_on(name: str) -> None:
    first, second = distiller(name), distiller(name)
    images, index = torch.randn(8 * first.copies, *tiny.IMAGE), torch.arange(8)

    def loss(task: Distiller) -> torch.Tensor:
        torch.manual_seed(1)
        return task(images, index % tiny.CLASSES, index)["loss"]

    first.train()(images, index % tiny.CLASSES, index)  # statistics and banks that are not those of a start
    assert not torch.equal(loss(first.eval()), loss(second.eval()))
    second.load_state_dict(first.state_dict())
    assert torch.equal(loss(first), loss(second))


def test_a_weight_follows_the_epoch_in_the_loop() -> None:
    data, seen = tiny.dataset(), Rows()
    task = Distiller(tiny.network(), tiny.network((6, 8, 12)), objective("at(warmup=3,fade=4):2"), tiny.IMAGE)
    loader = Loader(data.train, batch=16, normalisation=data.normalisation, padding=1)
    (phase,) = task.phases(Schedule(epochs=6, batch=16, lr=0.01))
    fit(phase, loader, make_fabric("cpu", "float32"), callback=seen)
    found = [(row["loss"] - row["ce"]) / row["at"] for row in seen.rows]
    assert found == pytest.approx([2 / 3, 4 / 3, 2, 2, 1, 0], rel=1e-3, abs=1e-3)
    with pytest.raises(InputError, match="grows for 3 epochs and the run has 2"):
        task.phases(Schedule(epochs=2))


def test_maps_of_the_teacher_are_let_go_where_no_method_asks_for_them() -> None:
    kept = {name: distiller(name).needs_features for name in ("kd", "crd", "at", "fitnet")}
    assert kept == {"kd": False, "crd": False, "at": True, "fitnet": True}


def test_kd_is_the_equation() -> None:
    task = distiller("kd").eval()
    images, labels = torch.randn(8, *tiny.IMAGE), torch.arange(8) % tiny.CLASSES
    terms = task(images, labels)
    ours, theirs = task.student(images), task.teacher(images)
    expected = 0.1 * F.cross_entropy(ours, labels) + 0.9 * distillation_loss(ours, theirs, 4.0)
    torch.testing.assert_close(terms["loss"], expected)
    assert not terms["kd"].requires_grad


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_teacher_gets_no_gradient_and_stays_in_eval_mode(name: str) -> None:
    task = distiller(name).train()
    assert not any(module.training for module in task.teacher.modules())
    images = torch.randn(8 * task.copies, *tiny.IMAGE)
    task(images, torch.arange(8) % tiny.CLASSES, torch.arange(8))["loss"].backward()
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert any(parameter.grad is not None for parameter in task.student.parameters())


def test_a_sum_of_methods_is_the_sum_of_their_losses() -> None:
    teacher, student = tiny.network((6, 8, 12)), tiny.network()
    images, labels = torch.randn(8, *tiny.IMAGE), torch.arange(8) % tiny.CLASSES
    both = Distiller(student, teacher, objective("at:2+sp:3+kd:0.5"), tiny.IMAGE).eval()(images, labels)
    expected = both["ce"] + 2 * both["at"] + 3 * both["sp"] + 0.5 * both["kd"]
    torch.testing.assert_close(both["loss"].detach(), expected)


def test_other_methods_see_only_the_upright_images_beside_sskd() -> None:
    teacher, student = tiny.network((6, 8, 12)), tiny.network()
    images, labels = torch.randn(32, *tiny.IMAGE), torch.arange(8) % tiny.CLASSES
    both = Distiller(student, teacher, objective("sskd+at"), tiny.IMAGE).eval()(images, labels)
    alone = Distiller(student, teacher, objective("at", alone=True), tiny.IMAGE).eval()(images[::4], labels)
    torch.testing.assert_close(both["at"], alone["at"])
    torch.testing.assert_close(both["ce"], alone["ce"])


def test_crd_needs_to_know_the_images() -> None:
    with pytest.raises(InputError, match="index"):
        distiller("crd")(torch.randn(4, *tiny.IMAGE), torch.arange(4))


def test_networks_of_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match="classes"):
        Distiller(tiny.network(classes=3), tiny.network(classes=5), OBJECTIVES["kd"], tiny.IMAGE)


def test_batch_statistics_do_not_depend_on_the_mode_and_change_nothing() -> None:
    network = tiny.network()
    images = 5 + 3 * torch.randn(16, *tiny.IMAGE)
    twin = with_batch_statistics(network)
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(images), twin.train()(images))
        torch.testing.assert_close(twin(images), network.train()(images))
    assert twin is not network
    assert all("running" not in key for key in twin.state_dict())


def test_every_registered_method_has_a_row_an_objective_and_documents_itself() -> None:
    assert set(OBJECTIVES) == {*METHODS, "kd"}
    assert all(method.summary and method.reads and method.__doc__ for method in METHODS.values())


def test_half_precision_activations_give_finite_float32_losses() -> None:
    for name in OBJECTIVES:
        task = distiller(name)
        images = torch.randn(8 * task.copies, *tiny.IMAGE)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = task(images, torch.arange(8) % tiny.CLASSES, torch.arange(8))
        assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in terms.values()), name


@pytest.mark.parametrize("name", ["kd", "oh", "sskd"])
def test_a_teacher_kept_in_bf16_changes_no_bit(name: str) -> None:
    task = distiller(name).eval()
    images, labels = torch.randn(8 * task.copies, *tiny.IMAGE), torch.arange(8) % tiny.CLASSES
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = task(images, labels, torch.arange(8))
        task.keep_teacher_in(torch.bfloat16)
        after = task(images, labels, torch.arange(8))
    assert all(torch.equal(before[key], after[key]) for key in before)
