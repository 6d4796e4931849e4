"""Both stages under PyTorch Lightning (`pip install lightning`): `python examples/lightning_loop.py`."""

from __future__ import annotations

from functools import partial

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from sftn.data.dataset import Split
from sftn.data.load import load
from sftn.networks import build
from sftn.networks.staged import StagedNet
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches
from sftn.training.phase import Phase


class Training(lightning.LightningModule):
    """One phase, whose loss terms are logged."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self.phase, self.task = phase, phase.task

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        terms = self.task(*batch)
        self.log_dict(terms, prog_bar=True)
        return terms["loss"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learned = [parameter for parameter in self.task.parameters() if parameter.requires_grad]
        return torch.optim.SGD(learned, lr=self.phase.schedule.lr, momentum=0.9)


def batches(split: Split, normalisation: tuple[Tensor, Tensor]) -> DataLoader:
    mean, std = (values[:, None, None] for values in normalisation)
    images = (split.images.float() - mean) / std
    return DataLoader(TensorDataset(images, split.labels, torch.arange(len(split))), 64, shuffle=True)


def main(epochs: int = 10, limit: int | None = None, method: str = "kd") -> tuple[StagedNet, StagedNet]:
    data, schedule = load("digits", limit=limit), Schedule(epochs=epochs)
    teacher, student = (build(name, classes=10, channels=1) for name in ("resnet20", "resnet8"))
    branches = StudentBranches(teacher, partial(build, "resnet8", classes=10, channels=1), data.image)
    distiller = Distiller(student, teacher, objective(method), data.image, labels=data.train.labels)
    for phase in (Phase("teacher", branches, (branches,), schedule), *distiller.phases(schedule)):
        phase.prepare()  # Lightning keeps the train and eval modes and the frozen parameters that it finds
        trainer = lightning.Trainer(max_epochs=phase.schedule.epochs, logger=False, enable_checkpointing=False)
        trainer.fit(Training(phase), batches(data.train, data.normalisation))
        print(f"{phase.name}: loss {trainer.callback_metrics['loss']:.3f}")
    return teacher, student


if __name__ == "__main__":
    main()
