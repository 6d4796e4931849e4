"""Training curves (Figure 5) and accuracies of teachers against students (Figure 4), read from finished runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftn.errors import InputError
from sftn.runs.folder import RunFolder
from sftn.spec.run import Run
from sftn.storage.records import decode_value, read_text


@dataclass(frozen=True)
class Curve:
    """One run's main phase, epoch by epoch."""

    name: str
    seed: int
    epochs: tuple[int, ...]
    kl: tuple[float | None, ...]
    """Mean over the epoch's training batches of the objective's KD term, τ²·KL(teacher ‖ student), unweighted; None
    for runs without one."""
    accuracy: tuple[float | None, ...]
    """Accuracy on the test images in percent; None for epochs without a test."""


@dataclass(frozen=True)
class Point:
    """A student and its teacher: one mark of Figure 4."""

    teacher: str
    student: str
    friendly: bool
    seed: int
    teacher_accuracy: float
    student_accuracy: float


def curve(folder: RunFolder) -> Curve:
    """Read the curve of a run, finished or not, from its log.

    Raises:
        InputError: the folder is not a run's, or its log is missing, damaged or empty.
    """
    run, path = folder.run(), folder.log
    try:
        lines = read_text(path).splitlines()
    except InputError as error:
        raise InputError(f"{error}; was the run trained?") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            numbers = (decode_value(row.get(name), float | None) for name in ("kd", "test_accuracy"))
            rows.append((decode_value(row["phase"], str), decode_value(row["epoch"], int), *numbers))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if number == len(lines) and rows:
                break  # still being written
            raise InputError(
                f"{path}, line {number} is not a row of a log: remove the folder to train it again"
            ) from error
    # The main phase is the last one; first stages precede it.
    rows = [row for row in rows if row[0] == rows[-1][0]]
    if not rows:
        raise InputError(f"{path} is empty: train the run first")
    return Curve(
        run.name,
        run.seed,
        epochs=tuple(row[1] for row in rows),
        kl=tuple(row[2] for row in rows),
        accuracy=tuple(row[3] for row in rows),
    )


def points(folders: Iterable[RunFolder]) -> list[Point]:
    """Collect teacher and student accuracies (last epoch) of distilled runs.

    Runs without their trained teacher in the same folder are skipped.
    """
    found = []
    for folder in folders:
        run = folder.run()
        teacher = run.teacher
        if not isinstance(teacher, Run):
            continue
        theirs, ours = _accuracy(folder.beside(teacher), teacher), _accuracy(folder, run)
        if theirs is None or ours is None:
            continue
        found.append(Point(teacher.network, run.network, teacher.friendly is not None, run.seed, theirs, ours))
    return found


def rows(curves: Sequence[Curve]) -> list[dict[str, object]]:
    """One row per epoch, for CSV."""
    return [
        {"run": one.name, "seed": one.seed, "epoch": epoch, "kl": kl, "test_accuracy": accuracy}
        for one in curves
        for epoch, kl, accuracy in zip(one.epochs, one.kl, one.accuracy)
    ]


def _accuracy(folder: RunFolder, run: Run) -> float | None:
    result = folder.result(run)
    if result is not None and "accuracy" not in result:
        raise InputError(f"{folder.result_json} has no accuracy: remove its folder to train it again")
    return None if result is None else result["accuracy"]
