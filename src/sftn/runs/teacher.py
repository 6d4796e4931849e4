"""A run's teacher: loaded, and tried on test images before training begins."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftn.data.dataset import Dataset, Split
from sftn.networks.staged import StagedNet
from sftn.runs.build import load_network, teacher_of
from sftn.runs.fit_check import Known
from sftn.runs.folder import RunFolder
from sftn.runs.teacher_cache import TeacherCache
from sftn.runtime.leader import leads
from sftn.runtime.processes import led
from sftn.spec.run import Run, Weights
from sftn.training.evaluate import evaluate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

SAMPLE = 500
"""Most test images on which a teacher is tried before training begins."""


def load_teacher(run: Run, dataset: Dataset, out: Path, fabric: Fabric, cache: TeacherCache) -> StagedNet | None:
    """Load a run's teacher, or the ensemble of several, on the CPU; try each, unless another run of the cohort has.

    Args:
        run: the run.
        dataset: its images.
        out: the folder of all runs.
        fabric: device and precision.
        cache: the teacher's cache, which keeps how it did (`tried`).

    Raises:
        InputError: the teacher is not there, or does not fit the images.
    """
    trials, fresh = [], cache.trial is None

    def load(source: Run | Weights) -> StagedNet:
        teacher = load_network(source, dataset, out, tell=fresh)
        if fresh:
            trials.append(tried(teacher, dataset, fabric, source, known=recorded_accuracy(run, source, out)))
        return teacher

    teacher = teacher_of(run, load)
    if trials:
        first, *further = trials
        cache.trial = first | ({"further": further} if further else {})
    return teacher


def recorded_accuracy(run: Run, teacher: Run | Weights, out: Path) -> float | None:
    """The test accuracy that a teacher of a run recorded, if it was measured on the images of this run."""
    if not isinstance(teacher, Run) or teacher.data.fingerprint != run.data.fingerprint:
        return None
    found: float | None = led(lambda: (RunFolder(out / teacher.folder).result(teacher) or {}).get("accuracy"))
    return found


def tried(
    teacher: StagedNet,
    dataset: Dataset,
    fabric: Fabric,
    source: Run | Weights,
    *,
    most: int = SAMPLE,
    known: float | None = None,
) -> dict[str, Any]:
    """Try a teacher on up to `most` test images, evenly spaced, and log its accuracy.

    A teacher is near chance if its accuracy is not two standard errors above that of guessing. In distributed training
    every process calls this.

    Args:
        teacher: the teacher as it will be distilled; on the CPU, where it is left.
        dataset: the images.
        fabric: device and precision.
        source: the run or the file that it is from.
        most: number of images.
        known: its accuracy on all test images, if that was measured before.

    Returns:
        `accuracy` in percent, the number of `images`, and whether it is `near_chance`; a run records this.
    """
    count = len(dataset.test) if known is not None else min(most, len(dataset.test))
    who, accuracy = source.name, known
    if accuracy is None:
        sample = dataset.test.pick(torch.arange(count) * len(dataset.test) // count)
        found = evaluate(teacher.to(fabric.device), sample.to(fabric.device), dataset.normalisation, fabric)
        accuracy = found["accuracy"]
    better = ""
    if known is None and isinstance(source, Weights) and led(lambda: Known.of(source, Path()).normalisation is None):
        better = _better(teacher, sample, dataset, fabric, accuracy)
    teacher.cpu()
    chance = 1 / len(dataset.classes)
    near = accuracy <= 100 * (chance + 2 * (chance * (1 - chance) / count) ** 0.5)
    images = f"{count:,} test images" if count == len(dataset.test) else f"a sample of {count:,} test images"
    if leads():
        logger.info(f"teacher {who}: {accuracy:.2f} % on {images} of {dataset.name}")
        if near:
            logger.warning(
                f"teacher {who} is near chance on {dataset.name} ({accuracy:.1f} %, and guessing gives "
                f"{100 * chance:.1f} %): check that it was trained on these classes and images"
            )
        if better:
            logger.warning(f"how the images of {who} were normalised is not recorded: {better}")
    return {"accuracy": accuracy, "images": count, "near_chance": bool(near)}


USUAL = {
    "0.5": "0.5",
    "0": "1",
    "0.485 0.456 0.406": "0.229 0.224 0.225",
    "0.4914 0.4822 0.4465": "0.2470 0.2435 0.2616",
    "0.5071 0.4867 0.4408": "0.2675 0.2565 0.2761",
}
"""Standard deviations by mean, pixels in 0..1, as public code normalises: by half, not at all, ImageNet's, CIFAR's."""


def _better(network: StagedNet, sample: Split, dataset: Dataset, fabric: Fabric, accuracy: float) -> str:
    """What another usual normalisation would give a network whose own is unknown; empty unless it is clearly more."""
    if accuracy == 100:
        return ""
    found = {}
    for texts in USUAL.items():
        mean, std = (255 * torch.tensor([float(value) for value in text.split()]) for text in texts)
        if len(mean) in (1, dataset.image[0]):
            both = mean.expand(dataset.image[0]), std.expand(dataset.image[0])
            found[texts] = evaluate(network, sample.to(fabric.device), both, fabric)["accuracy"]
    (mean_text, std_text), best = max(found.items(), key=lambda item: item[1])
    share = best / 100
    if best - accuracy <= 200 * (share * (1 - share) / len(sample)) ** 0.5 + 100 / len(sample):
        return ""
    return (
        f"it scores {accuracy:.1f} % with the images' own mean and deviation, and {best:.1f} % with "
        f"--teacher-mean {mean_text} --teacher-std {std_text}"
    )
