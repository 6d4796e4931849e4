"""Twenty steps in float32 stay what they were, whatever is made faster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sftn.data.loader import Loader
from sftn.runtime.device import make_fabric
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches
from sftn.training.loop import fit
from sftn.training.phase import Phase
from tests.support import tiny
from tests.support.callbacks import Rows

GOLDEN = Path(__file__).parents[1] / "golden" / "curve.json"


def losses(kind: str) -> list[float]:
    """Of every step, for an epoch is one step; the learning rate falls three times on the way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        data, callback = tiny.dataset(16), Rows()
        schedule = Schedule(epochs=20, batch=16, lr=0.02)
        teacher = tiny.network((6, 8, 12))
        if kind == "friendly":
            task = StudentBranches(teacher, tiny.network, tiny.IMAGE)
            phase = Phase("train", task, (task,), schedule)
        else:
            labels = data.train.labels
            phase = Distiller(tiny.network(), teacher, objective(kind), tiny.IMAGE, labels=labels).phases(schedule)[-1]
        loader = Loader(data.train, batch=16, normalisation=data.normalisation, padding=1)
        fit(phase, loader, make_fabric("cpu", "float32"), callback=callback)
        return [row["loss"] for row in callback.rows]
    finally:
        torch.set_num_threads(threads)


KINDS = ("kd", "crd", "friendly")


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_that_were_recorded(kind: str) -> None:
    recorded = json.loads(GOLDEN.read_text())[kind]
    assert len(recorded) == 20
    assert len(set(recorded)) == 20
    assert losses(kind) == pytest.approx(recorded, rel=1e-5)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({kind: losses(kind) for kind in KINDS}, indent=1) + "\n")
