"""The page of single runs: accuracy, cost, confusions, calibration, and comparison with the teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sftn.analysis.calibration import calibration_error, reliability
from sftn.errors import InputError
from sftn.experiments.collect import cost
from sftn.report.document import Block, Bullets, Columns, Drawing, Heading, Matrix, Page, Pictures, Rows, Text
from sftn.report.evaluated_run import Datasets, EvaluatedRun, NetworkCost, evaluate_run, latencies
from sftn.report.figures import runs, tables, thumbnails
from sftn.report.figures.analysis import save
from sftn.runs.folder import DONE, Entry
from sftn.spec.differences import labels
from sftn.spec.run import Run
from sftn.storage.atomic import make_folder
from sftn.training.evaluate import Predictions

MATRIX = 20
"""Maximum number of classes for which the whole confusion matrix is shown."""
CALIBRATED = 200
"""Number of test images from which the calibration of a network is shown; with fewer, its bins are nearly empty."""
HARDEST, EXAMPLES, PAIRS = 12, 6, 10


def page(entries: Sequence[Entry], out: Path, data_dir: Path | None = None, device: str = "auto") -> Page:
    """The page of finished runs side by side, in a new folder.

    Args:
        entries: the runs.
        out: the folder of all runs.
        data_dir: folder of their data sets' files; the page reports those that are not found.
        device: the device to evaluate on: auto, cpu, cuda or mps.

    Raises:
        InputError: a run is not finished, or the folder cannot be created or written.
    """
    for entry in entries:
        if entry.state != DONE:
            raise InputError(entry.reason or f"{entry.folder.name} is not done: finish it first, see sftn runs list")
    datasets, distinct = Datasets(data_dir), {entry.folder.path.resolve(): entry for entry in entries}.values()
    names = _labels([entry.run for entry in distinct if entry.run is not None])
    runs = [evaluate_run(entry, datasets, device, names) for entry in distinct]
    ids = "".join(one.run.id for one in runs)
    folder = make_folder(out / f"report-runs-{hashlib.sha256(ids.encode()).hexdigest()[:8]}")
    title = f"{len(runs)} runs" if len(runs) > 1 else runs[0].title
    return Page(title, list(_Blocks(runs, folder).all()), folder)


@dataclass(frozen=True)
class _Blocks:
    runs: Sequence[EvaluatedRun]
    folder: Path

    def all(self) -> Iterator[Block]:
        yield from (Text(one.warning, "warning") for one in self.runs)
        yield Rows(list(_summary(self.runs)))
        yield from (Text(note, "warning") for note in dict.fromkeys(note for one in self.runs for note in one.notes))
        yield Text(tables.missing(), "note")
        evaluated = [one for one in self.runs if one.predictions is not None]
        if evaluated:
            yield Heading("Hardest images")
            yield from self._each(self._hardest)
        if any(one.teacher is not None for one in evaluated):
            yield Heading("Where teacher and student disagree")
            yield from self._each(self._disagreeing)
        yield from _between(evaluated)
        if evaluated:
            yield Heading("Confusion")
            yield from self._each(self._confused)
        yield from self._costs()
        yield Heading("Training")
        if len(self.runs) > 1:
            yield from self._drawn(
                "Test accuracy", "curves", lambda: runs.accuracy({one.title: one.entry for one in self.runs})
            )
        yield from self._each(self._curves)
        if evaluated:
            yield Heading("Calibration")
            yield from self._calibration(evaluated)
        yield Heading("Cost and origin")
        yield Bullets(cost([one.entry for one in self.runs]))

    def _each(self, part: Callable[[EvaluatedRun], Iterator[Block]]) -> Iterator[Block]:
        """One part of the page for every run that has it, side by side; a single run needs no heading."""
        found = [(one.title, list(part(one))) for one in self.runs]
        found = [(title, shown) for title, shown in found if shown]
        if len(self.runs) == 1:
            yield from (block for _, shown in found for block in shown)
        elif found:
            yield Columns(found)

    def _drawn(self, caption: str, name: str, draw: Callable[[], Any]) -> Iterator[Block]:
        drawing = draw() if tables.available() else None
        if drawing is not None:
            yield Drawing(caption, save(drawing, self.folder, name))

    def _curves(self, one: EvaluatedRun) -> Iterator[Block]:
        yield from self._drawn(
            f"Loss and accuracy, {one.title}", f"training-{one.run.id}", lambda: runs.training(one.entry)
        )

    def _costs(self) -> Iterator[Block]:
        networks: dict[str, NetworkCost] = {key: net for one in self.runs for key, net in one.networks.items()}
        if not networks:
            return
        listed = sorted(networks.values(), key=lambda net: net.parameters)
        times = latencies(listed)
        yield Heading("Size, accuracy, latency")
        rows = [("network", "accuracy, %", "parameters", "multiply-adds", "file, MB", "one image, ms", "quartiles")]
        for net, took in zip(listed, times):
            accuracy = "" if net.accuracy is None else f"{net.accuracy:.2f}"
            numbers = (accuracy, f"{net.parameters:,}", f"{net.multiply_adds:,}", f"{net.file / 1e6:.2f}")
            rows.append((net.name, *numbers, f"{took.median:.2f}", f"{took.low:.2f} to {took.high:.2f}"))
        yield Rows(rows)
        unsteady = [net.name for net, took in zip(listed, times) if not took.steady]
        if unsteady:
            yield Text(
                f"The latency of {', '.join(unsteady)} is unsteady, as its quartiles show: this machine was doing "
                "something else. Make the report again when it is idle.",
                "warning",
            )
        yield Text(
            "Latency: one image on this machine's CPU, plain PyTorch in float32 with "
            f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}; median and quartiles of rounds "
            "in which the networks take turns. Multiply-adds are those of convolutions, linear layers and matrix "
            "products.",
            "note",
        )
        points = [
            (n.name, n.accuracy, n.parameters, took.median) for n, took in zip(listed, times) if n.accuracy is not None
        ]
        if len(points) > 1:
            yield from self._drawn("Accuracy against size and latency", "size", lambda: runs.tradeoff(points))

    def _confused(self, one: EvaluatedRun) -> Iterator[Block]:
        if one.predictions is None or one.dataset is None:
            return
        names = one.dataset.classes
        counts = _confusion(one.predictions, len(names))
        if len(names) <= MATRIX:
            yield Matrix(names, counts.tolist())
        if one.judged.unequal:
            yield Rows(list(_by_class(one)))
        yield Rows(list(_pairs(names, counts, PAIRS if len(names) > MATRIX else PAIRS // 2)))
        if len(names) > MATRIX:
            yield Rows(list(_weakest(names, counts)))

    def _calibration(self, evaluated: Sequence[EvaluatedRun]) -> Iterator[Block]:
        rows = [("run", "accuracy, %", "mean confidence, %", "calibration error (ECE), %")]
        known = []
        for title, found in [(one.title, one.predictions) for one in evaluated if one.predictions is not None]:
            if len(found.labels) >= CALIBRATED:
                known.append((title, found))
            else:
                few = f"{len(found.labels)} test images are too few to judge its confidence; it takes {CALIBRATED}."
                yield Text(f"{title}: {few}", "note")
        if not known:
            return
        for title, found in known:
            sure = 100 * float(found.confidence.mean())
            rows.append((title, f"{found.accuracy:.2f}", f"{sure:.2f}", f"{calibration_error(found):.2f}"))
        yield Rows(rows)
        tables = {title: reliability(found) for title, found in known}
        yield from self._drawn(
            "Accuracy by confidence; below the line is overconfident", "calibration", lambda: runs.reliability(tables)
        )

    def _hardest(self, one: EvaluatedRun) -> Iterator[Block]:
        if one.predictions is not None:
            worst = one.predictions.loss.argsort(descending=True, stable=True)[:HARDEST]
            title = "The test images with the highest loss, highest first"
            yield from self._pictures(one, one.predictions, title, f"hardest-{one.run.id}", worst)

    def _disagreeing(self, one: EvaluatedRun) -> Iterator[Block]:
        student, teacher = one.predictions, one.teacher
        if student is None or teacher is None:
            return
        ours, theirs = student.right, teacher.right
        cases = {
            "both correct": ours & theirs,
            "only the teacher correct": theirs & ~ours,
            "only the student correct": ours & ~theirs,
            "both wrong, with the same prediction": ~ours & ~theirs & (student.answers == teacher.answers),
            "both wrong, with different predictions": ~ours & ~theirs & (student.answers != teacher.answers),
        }
        rows = [("", "images", "of all, %")]
        rows += [(name, str(int(of.sum())), f"{100 * float(of.double().mean()):.1f}") for name, of in cases.items()]
        yield Rows(rows)
        agreed = float((student.answers == teacher.answers).double().mean())
        yield Text(f"Same prediction for {100 * agreed:.1f} % of the images.")
        for kind, right, wrong, who in (
            ("teacher", teacher, student, "student"),
            ("student", student, teacher, "teacher"),
        ):
            where = torch.nonzero(cases[f"only the {kind} correct"]).flatten()
            if len(where):
                most = where[(right.loss - wrong.loss)[where].argsort(stable=True)[:EXAMPLES]]
                title = f"Only the {kind} correct: the largest differences in loss"
                yield from self._pictures(one, wrong, title, f"only-{kind}-{one.run.id}", most, f" by the {who}")

    def _pictures(
        self, one: EvaluatedRun, predicted: Predictions, title: str, name: str, which: Tensor, by: str = ""
    ) -> Iterator[Block]:
        if one.dataset is None:
            return
        names, test = one.dataset.classes, one.dataset.test.pick(which).sample(len(which))
        shown = [thumbnails.thumbnail(pixels) for pixels in test.images]
        captions = []
        for index in which.tolist():
            true, answer = names[int(predicted.labels[index])], names[int(predicted.answers[index])]
            said = "correct" if true == answer else f"mistaken for {answer}{by}"
            sure = 100 * float(predicted.confidence[index])
            captions.append(f"{true}, {said} ({sure:.0f} % sure); loss {float(predicted.loss[index]):.2f}; no. {index}")
        sheet = thumbnails.sheet(shown, self.folder / f"{name}.png")
        small = max(one.dataset.image[1:]) <= thumbnails.SMALL
        yield Pictures(title, [thumbnails.png(image) for image in shown], captions, sheet, small)


def _labels(runs: Sequence[Run]) -> dict[str, str]:
    """A label for each run and each teacher by id, which tells those of one name apart."""
    teachers = [run.teacher for run in runs if isinstance(run.teacher, Run)]
    every = list({run.id: run for run in (*runs, *teachers)}.values())
    return dict(zip([run.id for run in every], labels(every)))


def _summary(runs: Sequence[EvaluatedRun]) -> Iterator[tuple[str, ...]]:
    unequal = any(one.judged.unequal for one in runs)
    balanced = ("balanced, %",) * unequal
    yield ("run", "seed", "images", "epochs", "last epoch, %", *balanced, "best epoch, %", "training, s", "id")
    for one in runs:
        run, record = one.run, one.record
        limit = "" if run.data.limit is None else f" ({run.data.limit})"
        scores = [record["accuracy"], *[one.judged.balanced] * unequal, record.get("best_accuracy", record["accuracy"])]
        numbers = ["" if score is None else f"{score:.2f}" for score in scores]
        about = (one.label or run.name, str(run.seed), run.data.name + limit, str(run.schedule.epochs))
        yield (*about, *numbers, f"{record['seconds']:.0f}", run.id)


def _by_class(one: EvaluatedRun) -> Iterator[tuple[str, ...]]:
    """Recall of the classes that are tested, the lowest first."""
    yield ("class", "test images", "recall, %")
    judged = one.judged
    rows = [
        (recall, name, of) for recall, name, of in zip(judged.recall, judged.names, judged.images) if recall is not None
    ]
    for recall, name, of in sorted(rows, key=lambda row: row[0])[:MATRIX]:
        yield (name, str(of), f"{recall:.1f}")


def _confusion(found: Predictions, classes: int) -> Tensor:
    """Confusion matrix, (K, K) int64: number of images by true class and prediction."""
    return torch.bincount(classes * found.labels + found.answers, minlength=classes**2).view(classes, classes)


def _pairs(names: Sequence[str], counts: Tensor, most: int) -> Iterator[tuple[str, ...]]:
    """The most frequent confusions."""
    yield ("true", "mistaken for", "images", "of that class, %")
    wrong = counts - counts.diagonal().diag()
    for place in wrong.flatten().argsort(descending=True, stable=True)[:most].tolist():
        true, answer = divmod(place, len(names))
        count = int(wrong[true, answer])
        if count:
            yield (names[true], names[answer], str(count), f"{100 * count / int(counts[true].sum()):.1f}")


def _weakest(names: Sequence[str], counts: Tensor) -> Iterator[tuple[str, ...]]:
    """The classes with the lowest accuracy."""
    yield ("weakest classes", "accuracy, %", "most often mistaken for", "images")
    of = counts.sum(1)
    share = torch.where(of > 0, counts.diagonal() / of.clamp_min(1), 2.0)
    wrong = counts - counts.diagonal().diag()
    for true in share.argsort(stable=True)[:PAIRS].tolist():
        if of[true]:
            answer = int(wrong[true].argmax())
            yield (names[true], f"{100 * float(share[true]):.1f}", names[answer], str(int(wrong[true, answer])))


def _between(evaluated: Sequence[EvaluatedRun], most: int = 5) -> Iterator[Block]:
    """Agreement of runs on the same images: how often only one of two is correct."""
    rows: list[tuple[str, ...]] = [
        ("first", "second", "same prediction, %", "only the first correct", "only the second correct")
    ]
    for one, other in combinations(evaluated[:most], 2):
        first, second = one.predictions, other.predictions
        if one.run.data.fingerprint == other.run.data.fingerprint and first is not None and second is not None:
            same = 100 * float((first.answers == second.answers).double().mean())
            only = (first.right & ~second.right, second.right & ~first.right)
            rows.append((one.title, other.title, f"{same:.1f}", *(str(int(side.sum())) for side in only)))
    if len(rows) > 1:
        yield Heading("Agreement between runs")
        yield Rows(rows)
