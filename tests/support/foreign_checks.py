"""What every network that was cut from somebody else's must hold, whoever wrote it."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from sftn.networks.staged import Shape, StagedNet
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches

BATCH = 4


def same_training(original: nn.Module, network: StagedNet, image: Shape) -> None:
    """Logits, gradients' effect and batch norm statistics stay equal through a training step, bit for bit.

    `original` and `network` must not share parameters.
    """
    load_original(network, original)
    images, labels = torch.randn(BATCH, *image), torch.arange(BATCH) % 5
    for model in (original, network):
        torch.manual_seed(1)  # for whatever is dropped
        # Small: four images of 1×1 maps in a deep network's batch norms make huge gradients.
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
        F.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()
    theirs, ours = original.state_dict(), as_original(network)
    assert theirs.keys() == ours.keys()
    assert [key for key in theirs if not torch.equal(theirs[key], ours[key])] == []
    with torch.no_grad():
        whole, logits = original.eval()(images), network.eval()(images)
    assert torch.equal(whole, logits)
    assert torch.isfinite(whole).all()
    assert whole.std() > 0


def as_original(network: StagedNet) -> dict[str, torch.Tensor]:
    return {key.split(".model.", 1)[1]: value for key, value in network.state_dict().items()}


def load_original(network: StagedNet, original: nn.Module) -> None:
    state = original.state_dict()
    network.load_state_dict({key: state[key.split(".model.", 1)[1]] for key in network.state_dict()})


def one_step(task: nn.Module, image: Shape) -> float:
    """A training step changes weights and leaves everything finite; returns the loss.

    Not all weights: blocks whose last scale starts at zero, as timm's do, pass no gradient on in their first step.
    """
    trained = [p for p in task.parameters() if p.requires_grad]
    before = copy.deepcopy([p.detach() for p in trained])
    optimizer = torch.optim.SGD(trained, lr=0.01)
    terms = task.train()(torch.randn(BATCH, *image), torch.arange(BATCH) % 5, torch.arange(BATCH))
    terms["loss"].backward()
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in trained)
    changed = sum(not torch.equal(a, b) for a, b in zip(before, trained))
    assert changed > 0.1 * len(trained)
    return terms["loss"].item()


def make_friendly(teacher: StagedNet, student: StagedNet, image: Shape) -> None:
    task = StudentBranches(teacher, lambda: copy.deepcopy(student), image)
    assert len(task.branches) == min(len(teacher.stages), len(student.stages)) - 1
    assert one_step(task, image) > 0
    assert all(p.grad is not None for p in task.branches.parameters() if p.requires_grad)


def distil(teacher: StagedNet, student: StagedNet, image: Shape, method: str) -> None:
    labels = torch.arange(20) % 5
    task = Distiller(copy.deepcopy(student), copy.deepcopy(teacher), objective(method), image, labels=labels)
    assert one_step(task, image) > 0
