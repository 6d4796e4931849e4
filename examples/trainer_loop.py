"""Both stages under the Trainer of Hugging Face transformers (`pip install 'transformers[torch]'`)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from sftn.data.load import load
from sftn.networks import build
from sftn.networks.staged import StagedNet
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches
from sftn.training.phase import Phase


class Training(nn.Module):
    """A phase in the form that the Trainer expects: keyword arguments, and only what the phase trains in train mode."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self.phase, self.task = phase, phase.task

    def train(self, mode: bool = True) -> Training:
        super().train(mode)
        if mode:  # the Trainer calls this in every step, for frozen parts too
            self.phase.prepare()
        return self

    def forward(self, pixel_values: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        return self.task(pixel_values, labels, index)


def main(epochs: int = 10, limit: int | None = None, method: str = "kd") -> tuple[StagedNet, StagedNet]:
    data, schedule = load("digits", limit=limit), Schedule(epochs=epochs)
    mean, std = (values[:, None, None] for values in data.normalisation)
    rows = zip((data.train.images.float() - mean) / std, data.train.labels.tolist())
    images: list[dict] = [{"pixel_values": x, "labels": y, "index": i} for i, (x, y) in enumerate(rows)]

    teacher, student = (build(name, classes=10, channels=1) for name in ("resnet20", "resnet8"))
    branches = StudentBranches(teacher, partial(build, "resnet8", classes=10, channels=1), data.image)
    distiller = Distiller(student, teacher, objective(method), data.image, labels=data.train.labels)
    for phase in (Phase("teacher", branches, (branches,), schedule), *distiller.phases(schedule)):
        phase.prepare()
        task, how = Training(phase), {"num_train_epochs": phase.schedule.epochs, "per_device_train_batch_size": 64}
        arguments = TrainingArguments(**how, save_strategy="no", report_to="none")
        learned = [parameter for parameter in task.parameters() if parameter.requires_grad]
        sgd = torch.optim.SGD(learned, lr=phase.schedule.lr, momentum=0.9)
        found = Trainer(task, arguments, train_dataset=images, optimizers=(sgd, None)).train()
        print(f"{phase.name}: loss {found.training_loss:.3f}")
    return teacher, student


if __name__ == "__main__":
    main()
