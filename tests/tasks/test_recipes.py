from __future__ import annotations

import pytest

from sftn.errors import InputError
from sftn.experiments.table import METHODS as ROWS
from sftn.spec.objective import Objective, Term
from sftn.tasks.recipes import OBJECTIVES, SCHEDULES, objective, schedule


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
