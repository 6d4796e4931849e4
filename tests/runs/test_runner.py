from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sftn.errors import InputError
from sftn.networks import build
from sftn.runs.build import check
from sftn.runs.runner import train
from sftn.spec.run import FineTune, Friendly
from sftn.tasks.recipes import objective
from tests.support import tiny

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.mark.parametrize("friendly", [None, Friendly(student="tiny")])
def test_frozen_stages_stay_as_they_are(friendly: Friendly | None, tmp_path: Path) -> None:
    data = tiny.dataset()
    run = tiny.run(data, "wide", friendly=friendly, fine_tune=FineTune(frozen_stages=2))
    train(run, data, tmp_path)
    torch.manual_seed(run.seed)
    before = build("wide", tiny.CLASSES, image=(16, 16)).state_dict()
    after = load_file(tmp_path / run.folder / "weights.safetensors")
    assert after.keys() == before.keys()  # a teacher is kept without its branches
    for key, value in after.items():
        frozen = key.startswith(("stem", "stages.0", "stages.1"))
        assert torch.equal(value, before[key]) is frozen, key


def test_what_cannot_work_is_said_before_training() -> None:
    data = tiny.dataset()
    teacher = tiny.run(data, "wide")
    one_class = replace(data, train=replace(data.train, labels=torch.zeros_like(data.train.labels)))
    with pytest.raises(InputError, match="CRD"):
        check(tiny.run(data, teacher=teacher, objective=objective("crd")), one_class)
    with pytest.raises(InputError, match="branches"):
        check(tiny.run(data, "wide", friendly=Friendly(student="tiny", branches=(9,))), data)
    with pytest.raises(InputError, match="unknown network"):
        check(tiny.run(data, "wide", friendly=Friendly(student="tiny+tinier")), data)


def test_a_student_needs_its_teacher_first(tmp_path: Path) -> None:
    data = tiny.dataset()
    student = tiny.run(data, teacher=tiny.run(data, "wide"), objective=objective("kd"))
    with pytest.raises(InputError, match="not trained yet"):
        train(student, data, tmp_path)


def test_a_result_names_machine_versions_and_cost(tmp_path: Path) -> None:
    data = tiny.dataset()
    found = train(tiny.run(data), data, tmp_path)
    assert {"accuracy", "best_accuracy", "test", "train", "parameters", "seconds", "environment"} <= found.keys()
    assert {"sftn", "torch", "python", "device", "threads", "commit"} <= found["environment"].keys()
    assert found["test"]["accuracy"] == found["accuracy"] <= found["best_accuracy"]
    assert 0 <= found["train"]["entropy"] <= 2
