from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sftn.cli.options import TrainOptions
from sftn.errors import InputError
from sftn.experiments import compare, queue, ray_queue
from sftn.runs import cohort, runner
from sftn.spec.execution import Conduct
from tests.support import tiny

OTHER: dict[str, Any] = {
    "device": "mps",
    "devices": 2,
    "nodes": 3,
    "cohort": 4,
    "log": ("wandb",),
    "checkpoint_seconds": 5.0,
    "checkpoint_epochs": 6,
    "deterministic": True,
    "ask_once": 7.0,
    "step": "captured",
}


def test_all_of_it_can_be_asked_for_by_options() -> None:
    assert set(OTHER) == {field.name for field in fields(Conduct)}
    assert TrainOptions(**OTHER).conduct == Conduct(**OTHER)
    assert TrainOptions(log=("wandb",), tensorboard=True).conduct.log == ("wandb", "tensorboard")


def test_what_is_not_asked_for_is_as_in_python_but_that_commands_keep_answers() -> None:
    assert TrainOptions().conduct == replace(Conduct(), ask_once=2.0)


@pytest.mark.parametrize(
    "function",
    [runner.train, cohort.train_together, cohort.carry_out, compare.compare, queue.work, ray_queue.work],
)
def test_everything_that_carries_runs_out_takes_it(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    assert parameters["conduct"].default == Conduct()
    assert not set(OTHER) & set(parameters)


def test_options_need_no_torch() -> None:
    code = "import sys, sftn.spec.execution, sftn.cli.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("several", [Conduct(devices=2), Conduct(nodes=2)])
def test_a_cohort_is_not_for_several_processes(several: Conduct, tmp_path: Path) -> None:
    data = tiny.dataset()
    with pytest.raises(InputError, match="a cohort is trained by one process"):
        cohort.train_together([tiny.run(data), tiny.run(data, epochs=3)], data, tmp_path, several)
