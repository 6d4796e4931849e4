"""Writes what a finished run leaves: the weights, and a result with their accuracy and origin."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.networks.staged import StagedNet
from sftn.networks.weights import save_weights
from sftn.runs import caveats
from sftn.runs.folder import RunFolder
from sftn.runs.teacher_cache import TeacherCache
from sftn.runtime.collectives import world
from sftn.runtime.environment import environment
from sftn.runtime.processes import led
from sftn.spec.run import FORMAT, Run
from sftn.storage.json_files import sha256, write_json
from sftn.training.checkpoints import Checkpoints
from sftn.training.evaluate import collapsed, evaluate, recalls

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)


def finish(
    run: Run,
    dataset: Dataset,
    network: StagedNet,
    fabric: Fabric,
    checkpoints: Checkpoints,
    step: str = "eager",
    cache: TeacherCache | None = None,
) -> dict[str, Any]:
    """Evaluate a run whose phases are over and write its weights and result.

    In distributed training all processes evaluate together and the leader writes.

    Args:
        run: the run.
        dataset: the images that it was trained on; the training split is evaluated, and the test split by
            class.
        network: the trained network.
        fabric: device and precision.
        checkpoints: the run's checkpoints, which hold its folder and log.
        step: the step mode since this process started.
        cache: the teacher cache, if there was a teacher: what it stored, and how the teacher did, are recorded.

    Returns:
        The content of `result.json`.
    """
    training = dataset.train.to(fabric.device)
    found = evaluate(network, training, dataset.normalisation, fabric, pause=checkpoints.end_if_asked)
    test = dataset.test.to(fabric.device)
    by_class = recalls(network, test, dataset.normalisation, fabric, pause=checkpoints.end_if_asked)
    how: dict[str, Any] = {"precision": run.precision, "data_fingerprint": run.data.fingerprint}
    how = environment(str(fabric.device)) | how | {"processes": world(), "step": step}
    if checkpoints.choices is not None and checkpoints.choices.made:
        how["products"] = str(checkpoints.choices)
    asked_once, teacher = (None, None) if cache is None else (cache.record(), cache.trial)
    return led(lambda: _leave(run, dataset, network, checkpoints, found, by_class, how, asked_once, teacher))


def _leave(
    run: Run,
    dataset: Dataset,
    network: StagedNet,
    checkpoints: Checkpoints,
    training: dict[str, float],
    by_class: dict[str, list[Any]],
    how: dict[str, Any],
    asked_once: dict[str, int] | None,
    teacher: dict[str, Any] | None,
) -> dict[str, Any]:
    folder, history = RunFolder(checkpoints.folder), checkpoints.history
    record = {
        "format": FORMAT,
        "id": run.id,
        "name": run.name,
        "accuracy": history[-1]["test_accuracy"],
        "best_accuracy": max(row["test_accuracy"] for row in history if "test_accuracy" in row),
        "test": {name.removeprefix("test_"): v for name, v in history[-1].items() if name.startswith("test_")},
        "train": training,
        "collapsed": collapsed(history[-1]["test_favourite"], dataset.test.labels),
        "by_class": by_class,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": sum(row["seconds"] for row in history),
        "images": images_as_given(dataset),
        "environment": how,
    }
    if asked_once is not None:
        record["asked_once"] = asked_once
    if teacher is not None:
        record["teacher"] = teacher
    if run.on_nan == "skip":
        record["skipped_steps"] = sum(row["skipped"] for row in history)
    if run.on_nan == "restart":
        record["restarts"] = checkpoints.restarts
    judged = caveats.Record.of(record)
    record["balanced_accuracy"] = judged.balanced
    record["warnings"] = judged.caveats()
    for one in run.teachers:
        if isinstance(one, Run):
            with suppress(InputError):  # a damaged result of the teacher is reported where it is needed
                taught_by = folder.beside(one).result(one)
                record["warnings"] += caveats.of_student(record, one.name, taught_by)
    if record["warnings"]:
        first, *others = record["warnings"]
        why = ": it has collapsed, or was not trained long enough to learn anything" * judged.failed
        logger.warning("%s %s", run.name, "; it ".join([first + why, *others]))
    checkpoints.guard()
    mean, std = (json.dumps(record["images"][name]) for name in ("mean", "std"))
    metadata = {"network": run.network, "classes": str(len(dataset.classes)), "run": run.id, "mean": mean, "std": std}
    metadata["images"] = json.dumps(record["images"])
    save_weights(network, folder.weights, metadata)
    record["weights_sha256"] = sha256(folder.weights)
    checkpoints.guard()
    write_json(folder.result_json, record)
    folder.tidy()
    return record


def images_as_given(dataset: Dataset) -> dict[str, Any]:
    """What is needed to run the trained network on new images: its classes and preprocessing.

    `mean` and `std` are for pixels in 0..255; the shorter side is resized to `resize` before the centre of `shape`
    (C, H, W) is cropped.
    """
    mean, std = (values.tolist() for values in dataset.normalisation)
    resize = dataset.resize or min(dataset.image[1:])
    return {"classes": list(dataset.classes), "shape": list(dataset.image), "resize": resize, "mean": mean, "std": std}
