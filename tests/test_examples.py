"""The examples are run, each where its library is installed; and what they rely on: plain modules stay plain."""

from __future__ import annotations

import copy
import math
import pickle
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.methods import METHODS
from sftn.networks.staged import StagedNet
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches
from tests.support import tiny
from tests.support.pages import code, example

LOOPS = {"own_loop": "torch", "accelerate_loop": "accelerate", "lightning_loop": "lightning"}
LOOPS |= {"trainer_loop": "transformers"}
TASKS = ("branches", "kd", *METHODS)


def steps(network: StagedNet) -> int:
    """How many batches a network has seen in training mode."""
    (count,) = {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    return count


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_trains_both_stages_and_a_first_stage(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # the Trainer makes a folder there
    pytest.importorskip(LOOPS[name])
    if name == "trainer_loop":
        pytest.importorskip("accelerate")
    # 100 images make two batches; ft has a first stage, of one epoch.
    teacher, student = example(name).main(epochs=1, limit=100, method="ft")
    losses = [
        float(loss) for loss in re.findall(r"(?:teacher|branches|ft|distil): loss (\S+)", capsys.readouterr().out)
    ]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    # A frozen teacher that was put in training mode would have counted the batches of its student too.
    assert (steps(teacher), steps(student)) == (2, 2)


def test_the_page_about_loops_runs() -> None:
    names: dict[str, object] = {}
    exec(code("docs/own-loop.md"), names)
    assert names


def task(name: str) -> nn.Module:
    if name == "branches":
        return StudentBranches(tiny.network((6, 8, 12)), tiny.network, tiny.IMAGE)
    labels = torch.arange(48) % tiny.CLASSES
    return Distiller(tiny.network(), tiny.network((6, 8, 12)), objective(name), tiny.IMAGE, labels=labels)


def loss(module: nn.Module, copies: int) -> torch.Tensor:
    """Of the same images, with the same random numbers."""
    torch.manual_seed(1)
    images = torch.randn(8, *tiny.IMAGE).repeat_interleave(copies, 0)
    return module(images, torch.arange(8) % tiny.CLASSES, torch.arange(8))["loss"]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_a_plain_module(name: str) -> None:
    first = task(name)
    copied, pickled, loaded = copy.deepcopy(first), pickle.loads(pickle.dumps(first)), task(name)
    loaded.load_state_dict(first.state_dict())
    copies = getattr(first, "copies", 1)
    losses = [loss(module, copies) for module in (first, copied, pickled, loaded)]
    assert all(torch.equal(one, other) for one, other in pairwise(losses))
    losses[1].backward()
    assert all(parameter.grad is None for parameter in first.parameters())


@pytest.mark.parametrize(
    "name", [name if name in ("branches", "kd") else pytest.param(name, marks=pytest.mark.slow) for name in TASKS]
)
def test_a_task_compiles_without_a_graph_break(name: str) -> None:
    plain = task(name)
    copies = getattr(plain, "copies", 1)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(plain), backend="aot_eager", fullgraph=True)
    found = loss(compiled, copies)
    torch.testing.assert_close(found, loss(plain, copies))
    found.backward()


def test_a_loop_without_the_crops_that_a_method_wants_is_told() -> None:
    with pytest.raises(InputError, match="8 images for 8 labels: give 4 crops of each image, side by side"):
        loss(task("sskd"), copies=1)
