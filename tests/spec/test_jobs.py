from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from sftn.errors import InputError
from sftn.spec.execution import Execution
from sftn.spec.images import Images
from sftn.spec.jobs import Compare, Distill, TrainTeacher, asked, option_names
from sftn.spec.run import Branches, Friendly
from sftn.spec.training import Training


def test_options_go_to_the_part_that_has_them() -> None:
    job = asked(Compare, {"student": "vgg8", "epochs": 2, "limit": 40, "branch_kl": 0.3, "out": "here", "devices": 2})
    assert job.student == ("vgg8",)
    assert job.training == Training(epochs=2)
    assert job.images == Images(limit=40)
    assert job.branches.each() == [Branches(branch_kl=0.3)]
    assert job.execution == Execution(devices=2)
    assert job.out == Path("here")


def test_the_two_temperatures_are_told_apart() -> None:
    job = asked(Compare, {"temperature": 2.0, "branch_temperature": 3.0})
    assert (job.temperature, job.branches.temperature) == (2.0, (3.0,))
    teacher = asked(TrainTeacher, {"teacher": "t", "branch_temperature": 3.0})
    assert teacher.branches.temperature == 3.0


def test_weights_of_branches_are_combined() -> None:
    job = asked(Compare, {"branch_kl": [0.3, 3.0], "branch_ce": (1.0, 2.0), "reduction": "sum"})
    found = [(one.branch_kl, one.branch_ce, one.reduction) for one in job.branches.each()]
    assert found == [(0.3, 1.0, "sum"), (0.3, 2.0, "sum"), (3.0, 1.0, "sum"), (3.0, 2.0, "sum")]


@pytest.mark.parametrize("kind", [Compare, TrainTeacher, Distill])
def test_every_option_has_one_name(kind: type[object]) -> None:
    names = option_names(kind)
    assert len(names) == len(set(names))
    assert {"data", "epochs", "device", "out"} <= set(names)


def test_a_part_may_be_given_whole() -> None:
    assert asked(Distill, {"teacher": "t", "student": "s", "training": Training(epochs=7)}).training.epochs == 7


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (Compare, {"epoch": 2}, "did you mean epochs"),
        (Distill, {"teacher": "t"}, "needs student"),
    ],
)
def test_wrong_options_are_one_line(kind: type[object], options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        asked(kind, options)


def test_a_friendly_teacher_takes_every_knob_of_its_branches() -> None:
    knobs = Branches(branches=(1,), teacher_ce=2.0, branch_kl=0.5, branch_ce=4.0, temperature=5.0, reduction="sum")
    friendly = Friendly.to(["a", "b"], knobs)
    assert friendly.student == "a+b"
    assert all(getattr(friendly, each.name) == getattr(knobs, each.name) for each in fields(Branches))


def test_it_needs_no_torch() -> None:
    code = "import sys, sftn.spec.jobs, sftn.cli.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
