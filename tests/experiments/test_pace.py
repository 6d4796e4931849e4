from __future__ import annotations

from sftn.experiments.pace import Pace
from tests.support import tiny

DATA = tiny.dataset()
RUNS = [tiny.run(DATA, epochs=4, seed=seed) for seed in range(3)]
A, B, C = (run.id for run in RUNS)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_what_the_epochs_took() -> None:
    clock = Clock()
    pace = Pace(RUNS, clock=clock)
    assert pace.left() is None
    assert str(pace) == "run 1 of 3"
    pace.begin([A])
    pace.tell([A], "start", ("train", 4, 10, 0))
    clock.now += 60
    pace.tell([A], "epoch", ({"phase": "train", "epoch": 1},))
    assert pace.left() == 11 * 60  # eleven epochs of a minute
    pace.end(A, trained=True)
    assert pace.left() == 8 * 60 / 4
    assert str(pace) == "run 2 of 3, 2 min left in all"


def test_epochs_of_an_earlier_start_and_finished_runs_say_nothing_about_the_pace() -> None:
    clock = Clock()
    pace = Pace(RUNS, clock=clock)
    pace.end(A, trained=False)
    pace.tell([B], "start", ("ft", 2, 10, 0))
    pace.tell([B], "epoch", ({"phase": "ft", "epoch": 1},))
    pace.tell([B], "start", ("distil", 4, 10, 2))
    assert pace.left() is None
    clock.now += 30
    pace.tell([B], "epoch", ({"phase": "distil", "epoch": 3},))
    assert pace.left() == 5 * 30


def test_estimates_hold_until_epochs_tell() -> None:
    clock = Clock()
    pace = Pace(RUNS, {A: 100.0, B: 60.0, C: 40.0}, at_once=2, clock=clock)
    assert pace.left() == 100
    pace.begin([A, B])
    assert str(pace) == "runs 1 to 2 of 3, 2 min left in all"
    pace.tell([A, B], "start", ("train", 4, 10, 0))
    clock.now += 20
    pace.tell([A, B], "epoch", ({"phase": "train", "epoch": 1},))
    assert pace.left() == (200 - 40) * 20 / 40
