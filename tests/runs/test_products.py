"""Which convolutions are products of matrices is recorded with a run, and what was recorded is what a resume does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sftn.networks import NETWORKS
from sftn.networks.fast import product_choices
from sftn.networks.fast.product_choices import Table
from sftn.runs.folder import RunFolder
from sftn.runs.runner import train
from sftn.runs.trained import verify
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.storage.tensor_files import load_tensors
from sftn.tasks.recipes import objective
from tests.support import tiny
from tests.support.interruptions import Bomb, crash

CHOSEN = ["bfloat16 32x16x16 3x3/2+1 32", "bfloat16 32x8x8 3x3/2+1 32"]
EACH_STEP = Execution(checkpoint_seconds=0.0, fast_float32=True)


@pytest.fixture(autouse=True)
def _broad() -> Iterator[None]:
    NETWORKS["broad"] = partial(tiny.network, (32, 32, 32))
    yield
    del NETWORKS["broad"]


def choosing(monkeypatch: pytest.MonkeyPatch, how: str, machine: str = "here") -> None:
    """A machine on which these passes are faster as products."""
    table = Table(machine, None, lambda layer: how)
    monkeypatch.setattr(product_choices, "_table", lambda threads: table)


def trained(out: Path, run: Run, **more: Any) -> bytes:
    data = tiny.dataset()
    if run.teacher is not None:
        assert isinstance(run.teacher, Run)
        train(run.teacher, data, out, Execution(fast_float32=True))
    train(run, data, out, **{"execution": Execution(fast_float32=True)} | more)
    return tiny.weights(out, run)


def runs(kind: str, precision: str = "bf16") -> Run:
    alone = tiny.run(tiny.dataset(), "broad", precision=precision)
    student = tiny.run(tiny.dataset(), "broad", 3, 1, precision, teacher=alone, objective=objective("kd"))
    return alone if kind == "alone" else student


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("kind", ["alone", "student"])
def test_a_resume_does_what_was_recorded(
    kind: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs(kind, precision)
    choosing(monkeypatch, "")
    plain = trained(tmp_path / "plain", run)
    choosing(monkeypatch, "fiw")
    whole = trained(tmp_path / "whole", run)
    assert whole != plain
    with pytest.raises(ConnectionError):
        trained(tmp_path / "resumed", run, callback=Bomb(4, crash), execution=EACH_STEP)
    choosing(monkeypatch, "")
    assert trained(tmp_path / "resumed", run) == whole


def test_results_and_checkpoints_say_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = runs("alone"), tiny.dataset()
    choosing(monkeypatch, "iw")
    with pytest.raises(ConnectionError):
        train(run, data, tmp_path, callback=Bomb(4, crash), execution=EACH_STEP)
    _, record = load_tensors(tmp_path / run.folder / "checkpoint.safetensors")
    assert record["products"]["machine"] == "here"
    assert {name for name, how in record["products"]["chosen"].items() if how == "iw"} == set(CHOSEN)
    expected = "; ".join(f"{name}: iw" for name in CHOSEN)
    assert train(run, data, tmp_path)["environment"]["products"] == expected


def test_a_network_does_as_recorded_wherever_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = runs("alone"), tiny.dataset()
    choosing(monkeypatch, "fiw")
    train(run, data, tmp_path)
    choosing(monkeypatch, "")
    assert verify(RunFolder(tmp_path / run.folder), data, "cpu") == []


def test_float32_has_no_products_unless_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = tiny.run(tiny.dataset(), "broad"), tiny.dataset()
    choosing(monkeypatch, "fiw")
    assert "products" not in train(run, data, tmp_path)["environment"]
    found = train(run, data, tmp_path / "fast", Execution(fast_float32=True))["environment"]
    assert found["products"] == "float32 32x16x16 3x3/2+1 32: fiw; float32 32x8x8 3x3/2+1 32: fiw"
