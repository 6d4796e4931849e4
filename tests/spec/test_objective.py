from __future__ import annotations

import math

import pytest

from sftn.errors import InputError
from sftn.spec.objective import Term, fade_factor, warmup_factor
from tests.support import golden_methods as golden


@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_schedules_of_a_weight(case: str) -> None:
    """Epochs are counted from 1 there."""
    values = golden.newer(case, "schedules")
    epochs = len(values["epoch"])
    warmup = [warmup_factor(int(values["warmup"]), epoch, epochs) for epoch in range(epochs)]
    fade = [fade_factor(int(values["wkd_start"]), epoch, epochs) for epoch in range(epochs)]
    assert warmup == pytest.approx(values["dkd"].tolist(), abs=1e-12)
    assert fade == pytest.approx(values["wkd"].tolist(), abs=1e-12)


def test_a_fraction_of_the_run_is_the_same_as_its_epochs() -> None:
    for fraction, whole in ((20 / 240, 20), (150 / 240, 150)):
        for epoch in (0, 7, 19, 149, 200, 239):
            assert warmup_factor(fraction, epoch, 240) == warmup_factor(whole, epoch, 240)
            assert fade_factor(fraction, epoch, 240) == fade_factor(whole, epoch, 240)


@pytest.mark.parametrize("epochs", [1, 2, 3, 30, 240])
def test_a_weight_grows_to_all_of_it_and_falls_to_nothing(epochs: int) -> None:
    grown = [Term("at", warmup=0.1).factor(epoch, epochs) for epoch in range(epochs)]
    fallen = [Term("at", fade=0.5).factor(epoch, epochs) for epoch in range(epochs)]
    assert grown == sorted(grown)
    assert grown[-1] == 1
    assert fallen == sorted(fallen, reverse=True)
    assert fallen[-1] == pytest.approx(0 if epochs > 1 else 1)
    assert all(Term("at").factor(epoch, epochs) == 1 for epoch in range(epochs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": -1.0}, "warmup of at is -1"),
        ({"fade": math.nan}, "fade of at is nan"),
        ({"warmup": math.inf}, "warmup of at is inf"),
    ],
)
def test_schedules_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Term("at", **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("term", [Term("at", warmup=20), Term("at", fade=20), Term("at", fade=10)])
def test_a_schedule_that_never_reaches_or_never_starts_is_refused(term: Term) -> None:
    with pytest.raises(InputError, match="the run has 10"):
        term.factor(0, 10)
    assert term.factor(0, 40)
