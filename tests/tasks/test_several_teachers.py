from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sftn.errors import InputError
from sftn.methods import METHODS
from sftn.methods.ensemble import combined, teacher_weights
from sftn.methods.kd import distillation_loss
from sftn.methods.logits import LogitMethod
from sftn.networks.ensemble import Ensemble
from sftn.networks.staged import StagedNet
from sftn.spec.objective import Objective, Term
from sftn.spec.run import Weighting
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import OBJECTIVES, objective
from tests.support import tiny

LABELS = torch.arange(8) % tiny.CLASSES
SMALL = {"crd": {"dimensions": 8, "negatives": 12}, "mlkd": {"distort": False}}
LOGITS = [name for name in METHODS if issubclass(METHODS[name], LogitMethod)]


def networks(count: int = 3) -> list[StagedNet]:
    torch.manual_seed(1)
    return [tiny.network((6, 8, 12)).eval() for _ in range(count)]


def distiller(what: Objective, teacher: StagedNet, ensemble: Weighting = "mean") -> Distiller:
    torch.manual_seed(0)
    labels = torch.arange(48) % tiny.CLASSES
    return Distiller(tiny.network(), teacher, what, tiny.IMAGE, labels=labels, ensemble=ensemble)


def usual(name: str) -> Objective:
    found = OBJECTIVES[name]
    terms = tuple(Term(term.method, term.weight, SMALL.get(term.method, {})) for term in found.terms)
    return Objective(name, found.ce, found.kd, terms)


def images(copies: int = 1) -> Tensor:
    return torch.randn(8 * copies, *tiny.IMAGE, generator=torch.Generator().manual_seed(2))


def terms(task: Distiller) -> dict[str, Tensor]:
    torch.manual_seed(3)
    dtype = next(task.student.parameters()).dtype
    return task.train()(images(task.copies).to(dtype), LABELS, torch.arange(8))


@pytest.mark.parametrize("weighting", ["mean", "ca"])
def test_kd_of_several_is_kd_of_their_mean(weighting: Weighting) -> None:
    teachers = networks()
    task = distiller(objective("kd"), Ensemble(teachers), weighting)
    found = terms(task)["kd"]
    with torch.no_grad():
        logits = torch.stack([teacher(images()) for teacher in teachers], dim=1)
        weights = teacher_weights(logits, LABELS, weighting)
        expected = distillation_loss(task.student(images()), combined(logits, weights, 4.0), 4.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found != terms(distiller(objective("kd"), teachers[0]))["kd"]


@pytest.mark.parametrize("weighting", ["mean", "ca"])
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if OBJECTIVES[name].kd or name in LOGITS])
def test_the_same_network_several_times_is_one_teacher(name: str, weighting: Weighting) -> None:
    (teacher,) = networks(1)
    one, several = (distiller(usual(name), some, weighting) for some in (teacher, Ensemble([teacher] * 3)))
    expected, found = terms(one.double()), terms(several.double())
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LOGITS)
def test_methods_that_compare_logits_listen_to_all(name: str) -> None:
    first, second, third = networks()
    one, other = (terms(distiller(usual(name), Ensemble([first, last]))) for last in (second, third))
    assert not torch.isclose(one[name], other[name], rtol=1e-4)


@pytest.mark.parametrize("name", ["fitnet", "at", "crd", "ab", "catkd", "wkd-f"])
def test_other_methods_learn_from_the_first(name: str) -> None:
    first, second, third = networks()
    what = Objective(name, 1.0, 1.0, usual(name).terms)
    one, other = (terms(distiller(what, Ensemble([first, last]))) for last in (second, third))
    assert torch.equal(one[name], other[name])
    assert one["kd"] != other["kd"]
    assert torch.equal(one[name], terms(distiller(what, first))[name])


@pytest.mark.parametrize("name", ["kd", "simkd+kd", "ft", "oh", "sskd"])
def test_a_batch_asks_each_teacher_once_and_first_stages_ask_the_first_alone(name: str) -> None:
    asked: list[int] = []
    teachers = networks()
    for number, teacher in enumerate(teachers):
        teacher.stem.register_forward_hook(lambda *_, number=number: asked.append(number))
    task = distiller(objective(name), Ensemble(teachers))
    if task.foldable:  # otherwise copies answer, which have hooks of their own
        asked.clear()
        terms(task)
        assert sorted(asked) == [0, 1, 2]
    for phase in task.phases(Schedule(epochs=1, batch=8))[:-1]:
        asked.clear()
        phase.task(images(task.copies), LABELS, torch.arange(8))
        assert set(asked) <= {0}


def test_a_folded_ensemble_answers_as_before() -> None:
    task = distiller(objective("kd+at"), Ensemble(networks()), "ca")
    expected = terms(task)
    task.fold_teacher()
    assert isinstance(task.teacher, Ensemble)
    assert len(task.teacher) == 3
    found = terms(task)
    for key in ("kd", "at"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_learned_from_several_is_refused() -> None:
    first, second = networks(2)
    with pytest.raises(InputError, match="at least two"):
        Ensemble([first])
    with pytest.raises(InputError, match="crd alone compares no logits, so it would learn from the first teacher only"):
        distiller(objective("crd", alone=True), Ensemble([first, second]))
    with pytest.raises(InputError, match="has 7 classes and the others 4"):
        distiller(objective("kd"), Ensemble([first, tiny.network(classes=7)]))
