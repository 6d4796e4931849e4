"""A comparison's teacher that is given as weights: the standard teacher as it is, or the start of both teachers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments.grid import Conditions
from sftn.experiments.table import FRIENDLY, Cell, Table
from sftn.runs.build import load_network
from sftn.runs.folder import RunFolder
from sftn.runs.teacher import tried
from sftn.runtime.device import make_fabric
from sftn.spec.run import Weights
from sftn.training.evaluate import collapsed, evaluate, recalls

logger = logging.getLogger(__name__)


def knows(start: Weights, dataset: Dataset) -> bool:
    """Whether trained weights can classify these images as they are."""
    try:
        load_network(start, dataset, Path(), tell=False)
    except InputError:
        return False
    return True


def given_result(table: Table, dataset: Dataset, device: str, precision: str) -> dict[str, Any] | None:
    """Say what becomes of a given teacher; returns its result on all test images if it stays as it is.

    Raises:
        InputError: the weights do not fit.
    """
    start = table.start
    if start is None:
        return None
    if not table.as_is:
        logger.info("both teachers start from %s, with a new classifier: it does not know these classes", start.name)
        return None
    both = "; the student-friendly one starts from it" * (FRIENDLY in table.teachers)
    logger.info("the standard teacher is %s as it is%s", start.name, both)
    teacher, fabric = load_network(start, dataset, Path()), make_fabric(device, precision)
    accuracy = tried(teacher, dataset, fabric, start, most=len(dataset.test))["accuracy"]
    test = dataset.test.to(fabric.device)
    found = evaluate(teacher, test, dataset.normalisation, fabric)
    return {
        "accuracy": accuracy,
        "best_accuracy": accuracy,
        "collapsed": collapsed(found["favourite"], dataset.test.labels),
        "test": found,
        "images": {"classes": dataset.classes},
        "by_class": recalls(teacher, test, dataset.normalisation, fabric),
    }


def result_of(
    table: Table, cell: Cell, conditions: Conditions, seed: int, out: Path, given: dict[str, Any] | None
) -> tuple[dict[str, Any], str]:
    """The result of a cell's run, or of the teacher that is given instead, and its identity.

    Raises:
        InputError: the run is not finished, or its result is damaged.
    """
    weights = table.given(cell)
    if cell.role == "teacher" and weights is not None:
        return given or {}, weights.sha256
    run = conditions.run(table, cell, seed)
    record = RunFolder(out / run.folder).result(run)
    if record is None:
        raise InputError(f"{run.name} is not done: {out / run.folder} has no result")
    return record, run.id
