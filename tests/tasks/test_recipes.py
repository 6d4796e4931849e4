from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sftn.errors import InputError
from sftn.experiments.table import METHODS as ROWS
from sftn.methods import METHODS
from sftn.methods.options import check, options
from sftn.spec.objective import Objective, Term
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import OBJECTIVES, SCHEDULES, objective, schedule
from tests.support import tiny


@pytest.mark.parametrize(
    ("name", "ce", "kd", "weight"),
    [
        ("kd", 0.1, 0.9, None),
        ("fitnet", 1, 1, 100),
        ("at", 1, 1, 1000),
        ("sp", 1, 1, 3000),
        ("vid", 1, 1, 1),
        ("rkd", 1, 1, 1),
        ("pkt", 1, 1, 30000),
        ("ab", 1, 1, 1),
        ("ft", 1, 1, 200),
        ("crd", 1, 0, 0.8),
        ("sskd", 0.1, 0.9, 1),
        ("oh", 1, 1, 1),
    ],
)
def test_the_papers_weights(name: str, ce: float, kd: float, weight: float | None) -> None:
    found = objective(name)
    assert (found.ce, found.kd, found.temperature) == (ce, kd, 4.0)
    assert [term.weight for term in found.terms] == ([] if weight is None else [weight])
    assert found == OBJECTIVES[name]


def test_the_first_names_are_the_papers_rows_in_its_order() -> None:
    """Newer methods come after them, and in no table of the paper."""
    assert tuple(OBJECTIVES)[: len(ROWS)] == ROWS
    assert len(ROWS) == 12


def test_alone_takes_kd_away() -> None:
    assert objective("at", alone=True) == Objective("at alone", ce=1.0, kd=0.0, terms=(Term("at", 1000.0),))
    assert objective("kd", alone=True) == OBJECTIVES["kd"]


def test_in_a_sum_nothing_is_implied_but_ce() -> None:
    assert objective("crd+kd") == Objective("crd+kd", 1.0, 1.0, (Term("crd", 0.8),))
    assert objective("crd:0.5 + oh") == Objective("crd:0.5 + oh", 1.0, 0.0, (Term("crd", 0.5), Term("oh", 1.0)))
    assert objective("kd:2") == Objective("kd:2", 1.0, 2.0)


def test_options_change_what_a_name_stands_for() -> None:
    found = objective("crd(negatives=4096, temperature=0.1):0.5")
    assert found.terms == (Term("crd", 0.5, {"negatives": 4096, "temperature": 0.1}),)
    assert (found.ce, found.kd) == (1, 0)
    beside = objective("rkd(distance=1,angle=2)")
    assert beside == Objective("rkd(distance=1,angle=2)", 1, 1, (Term("rkd", 1, {"distance": 1.0, "angle": 2.0}),))
    assert objective("crd(replacement=false)").terms[0].options == {"replacement": False}
    summed = objective("at(p=3):500+kd(temperature=2):3")
    assert summed.terms == (Term("at", 500, {"p": 3.0}),)
    assert (summed.kd, summed.temperature) == (3, 2)
    assert objective("kd(temperature=2)", temperature=7.0).temperature == 2
    assert objective("at+kd", temperature=7.0).temperature == 7
    assert objective("at()") == objective("at")
    words = objective("ft(factors=whole, lr=0.1):500")
    assert words == Objective(
        "ft(factors=whole, lr=0.1):500", terms=(Term("ft", 500, {"factors": "whole", "lr": 0.1}),)
    )


def test_a_weight_may_follow_the_epoch() -> None:
    assert objective("at(warmup=20, fade=0.6):3").terms == (Term("at", 3, warmup=20, fade=0.6),)
    assert objective("dkd").terms == (Term("dkd", 1, warmup=20 / 240),)
    assert objective("dkd(beta=2)+at").terms[0] == Term("dkd", 1, {"beta": 2.0}, warmup=20 / 240)
    assert objective("dkd(warmup=0)").terms[0] == Term("dkd", 1)


def test_standardised_forms_come_with_their_weights() -> None:
    kd = objective("kd@std")
    assert kd == Objective("kd@std", 0.1, 9, temperature=2, standardise=True)
    assert objective("kd@std(temperature=3)") == replace(kd, name="kd@std(temperature=3)", temperature=3)
    assert objective("kd@std", temperature=3.0).temperature == 3
    options = {"temperature": 2.0, "alpha": 9.0, "beta": 72.0, "standardise": True}
    assert objective("dkd@std").terms == (Term("dkd", 1, options, warmup=20 / 240),)
    assert objective("dkd@std(beta=24)").terms[0].options == options | {"beta": 24.0}
    summed = objective("at+kd@std")
    assert (summed.ce, summed.kd, summed.temperature, summed.standardise) == (1, 9, 2, True)


WRONG = {
    "crd(negative=3)": "unknown option of crd 'negative': did you mean negatives?",
    "crd(negatives=3,negatives=4)": "crd's negatives is given twice",
    "crd(negatives=3.5)": "crd's negatives is '3.5': give a whole number, such as 16384",
    "crd(replacement=1)": "crd's replacement is '1': give true or false",
    "dkd(beta=inf)": "dkd's beta is 'inf': give a number, such as 8",
    "dkd(beta)": "gives no value",
    "ft(factors=hole)": "ft's factors is 'hole': give maps or whole",
    "ft(factors=)": "ft's factors is '': give maps or whole",
    "dkd(beta=6": "is no method: write NAME",
    "sp(p=2)": "unknown option of sp 'p'",
    "at@std": "at does not compare logits; @std is for kd, dkd",
    "dkd@sdt": "there is no form @sdt of dkd",
    "kd(temperature=0)": "it must be above 0",
    "kd+kd:2": "names kd twice",
    "at(warmup=-1)": "warmup of at is -1",
    "dkdd": "did you mean dkd",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_options_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        objective(text)
    assert WRONG[text] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_documented_with_its_default(name: str) -> None:
    for option in options(METHODS[name]).values():
        assert option.meaning, f"{name}'s {option.name}"
        assert type(option.default) in ((int, float) if option.kind is float else (option.kind,))


@pytest.mark.parametrize(
    ("given", "message"), [({"betta": 6}, "did you mean beta"), ({"beta": "6"}, "dkd's beta is '6'"), ({"p": 1}, "p")]
)
def test_options_of_a_record_are_checked_as_well(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Distiller(tiny.network(), tiny.network(), Objective("dkd", terms=(Term("dkd", 1, given),)), tiny.IMAGE)


@pytest.mark.parametrize("value", ["hole", 1, True])
def test_a_word_of_a_record_is_one_of_the_options(value: object) -> None:
    with pytest.raises(InputError, match=r"ft's factors is .*: give maps or whole"):
        check("ft", METHODS["ft"], {"factors": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("text", ["kdd", "", "crd+", "crd:x", "crd+crd", "at:-1", "kd+nothing"])
def test_wrong_methods_are_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        objective(text)
    assert "\n" not in str(caught.value)


def test_slow_learners_start_at_a_fifth_of_the_rate() -> None:
    assert schedule("paper", "resnet8").lr == 0.05
    assert schedule("paper", "shufflev2").lr == pytest.approx(0.01)
    assert schedule("paper", "shufflev2", lr=0.3, epochs=None).lr == 0.3
    assert schedule("short", "resnet8", epochs=7).epochs == 7


def test_an_unknown_recipe_suggests_a_known_one() -> None:
    with pytest.raises(InputError, match="paper"):
        schedule("papr", "resnet8")
    assert SCHEDULES["paper"].epochs == 240
