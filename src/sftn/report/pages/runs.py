"""The page of one's own runs: what was learned, at what cost, and where it goes wrong. Reads and evaluates only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sftn.errors import InputError
from sftn.experiments.collect import cost
from sftn.report import document
from sftn.report.document import Block, Bullets, Columns, Drawing, Heading, Matrix, Rows, Text
from sftn.report.evaluated_run import Answers, Images, Looked, Measured, latencies, looked
from sftn.report.figures import runs, tables, thumbnails
from sftn.runs.folder import DONE, Entry
from sftn.storage.atomic import write_atomically

MATRIX = 20
"""Up to so many classes the whole confusion matrix is shown."""
HARDEST, EXAMPLES, PAIRS = 12, 6, 10


def write(entries: Sequence[Entry], out: Path, data_dir: Path | None = None, device: str = "auto") -> Path:
    """Write report.html and report.md of finished runs, side by side, into a folder of their own.

    Args:
        entries: the runs.
        out: the folder of all runs.
        data_dir: where the files of their data sets are; where they are not found, the page says so.
        device: auto, cpu, cuda or mps, for evaluating.

    Raises:
        InputError: a run is not done, or the folder cannot be written.
    """
    for entry in entries:
        if entry.state != DONE:
            raise InputError(entry.reason or f"{entry.folder.name} is not done: finish it first, see sftn runs list")
    images = Images(data_dir)
    runs = [
        looked(entry, images, device) for entry in {entry.folder.path.resolve(): entry for entry in entries}.values()
    ]
    ids = "".join(one.run.id for one in runs)
    folder = out / f"report-runs-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
    title = f"{len(runs)} runs" if len(runs) > 1 else runs[0].title
    page = list(_Page(runs, folder).blocks())
    write_atomically(folder / "report.md", document.text(title, page).encode())
    write_atomically(folder / "report.html", document.page(title, page).encode())
    return folder


@dataclass(frozen=True)
class _Page:
    runs: Sequence[Looked]
    folder: Path

    def blocks(self) -> Iterator[Block]:
        yield Rows(list(_summary(self.runs)))
        yield from (Text(note, "warning") for note in dict.fromkeys(note for one in self.runs for note in one.notes))
        if not tables.available():
            yield Text(tables.MISSING, "note")
        yield Heading("While training")
        if len(self.runs) > 1:
            yield from self._drawn("Test accuracy", "curves", lambda: tables.of_runs([one.entry for one in self.runs]))
        yield from self._each(self._curves)
        yield from self._costs()
        asked = [one for one in self.runs if one.answers is not None]
        if asked:
            yield Heading("What is taken for what")
            yield from self._each(self._confused)
            yield Heading("Whether it is right as often as it is sure")
            yield from self._calibration(asked)
            yield Heading("Hardest images")
            yield from self._each(self._hardest)
        if any(one.teacher is not None for one in asked):
            yield Heading("Where teacher and student disagree")
            yield from self._each(self._disagreeing)
        yield from _between(asked)
        yield Heading("Cost and origin")
        yield Bullets(cost([one.entry for one in self.runs]))

    def _each(self, part: Callable[[Looked], Iterator[Block]]) -> Iterator[Block]:
        """A part of every run that has it, side by side; alone it needs no heading."""
        found = [(one.title, list(part(one))) for one in self.runs]
        found = [(title, shown) for title, shown in found if shown]
        if len(self.runs) == 1:
            yield from (block for _, shown in found for block in shown)
        elif found:
            yield Columns(found)

    def _drawn(self, caption: str, name: str, draw: Callable[[], Any]) -> Iterator[Block]:
        drawing = draw() if tables.available() else None
        if drawing is not None:
            yield Drawing(caption, tables.save(drawing, self.folder / f"{name}.svg"))

    def _curves(self, one: Looked) -> Iterator[Block]:
        yield from self._drawn(
            f"Loss and accuracy, {one.title}", f"training-{one.run.id}", lambda: runs.training(one.entry)
        )

    def _costs(self) -> Iterator[Block]:
        networks: dict[str, Measured] = {key: net for one in self.runs for key, net in one.networks.items()}
        if not networks:
            return
        listed = sorted(networks.values(), key=lambda net: net.parameters)
        times = latencies(listed)
        yield Heading("Size, accuracy, latency")
        rows = [("network", "accuracy, %", "parameters", "multiply-adds", "file, MB", "one image, ms")]
        for net, took in zip(listed, times):
            accuracy = "" if net.accuracy is None else f"{net.accuracy:.2f}"
            numbers = (accuracy, f"{net.parameters:,}", f"{net.multiply_adds:,}", f"{net.file / 1e6:.2f}")
            rows.append((net.name, *numbers, f"{took:.2f}"))
        yield Rows(rows)
        yield Text(
            "Latency: one image on this machine's CPU, plain PyTorch in float32 with "
            f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}; the networks take turns, the "
            "median counts. Multiply-adds are those of convolutions, linear layers and matrix products.",
            "note",
        )
        points = [(n.name, n.accuracy, n.parameters, took) for n, took in zip(listed, times) if n.accuracy is not None]
        if len(points) > 1:
            yield from self._drawn("Accuracy against size and latency", "size", lambda: runs.tradeoff(points))

    def _confused(self, one: Looked) -> Iterator[Block]:
        if one.answers is None or one.dataset is None:
            return
        names = one.dataset.classes
        counts = one.answers.confusion(len(names))
        if len(names) <= MATRIX:
            yield Matrix(names, counts.tolist())
        yield Rows(list(_pairs(names, counts, PAIRS if len(names) > MATRIX else PAIRS // 2)))
        if len(names) > MATRIX:
            yield Rows(list(_weakest(names, counts)))

    def _calibration(self, asked: Sequence[Looked]) -> Iterator[Block]:
        rows = [("run", "right, %", "mean confidence, %", "calibration error (ECE), %")]
        seen = [(one.title, one.answers) for one in asked if one.answers is not None]
        for title, own in seen:
            sure = 100 * float(own.confidence.mean())
            rows.append((title, f"{own.accuracy:.2f}", f"{sure:.2f}", f"{own.ece:.2f}"))
        yield Rows(rows)
        tables = {title: own.calibration() for title, own in seen}
        yield from self._drawn(
            "Accuracy by confidence; below the line is too sure", "calibration", lambda: runs.reliability(tables)
        )

    def _hardest(self, one: Looked) -> Iterator[Block]:
        if one.answers is not None:
            worst = one.answers.loss.argsort(descending=True, stable=True)[:HARDEST]
            title = "The test images of the highest loss, the highest first"
            yield from self._pictures(one, one.answers, title, f"hardest-{one.run.id}", worst)

    def _disagreeing(self, one: Looked) -> Iterator[Block]:
        student, teacher = one.answers, one.teacher
        if student is None or teacher is None:
            return
        ours, theirs = student.right, teacher.right
        cases = {
            "both right": ours & theirs,
            "only the teacher right": theirs & ~ours,
            "only the student right": ours & ~theirs,
            "both wrong, with the same answer": ~ours & ~theirs & (student.predicted == teacher.predicted),
            "both wrong, with different answers": ~ours & ~theirs & (student.predicted != teacher.predicted),
        }
        rows = [("", "images", "of all, %")]
        rows += [(name, str(int(of.sum())), f"{100 * float(of.double().mean()):.1f}") for name, of in cases.items()]
        yield Rows(rows)
        agreed = float((student.predicted == teacher.predicted).double().mean())
        yield Text(f"Same answer for {100 * agreed:.1f} % of the images.")
        for kind, right, wrong, who in (
            ("teacher", teacher, student, "student"),
            ("student", student, teacher, "teacher"),
        ):
            where = torch.nonzero(cases[f"only the {kind} right"]).flatten()
            if len(where):
                most = where[(right.loss - wrong.loss)[where].argsort(stable=True)[:EXAMPLES]]
                title = f"Only the {kind} right, where the losses differ most"
                yield from self._pictures(one, wrong, title, f"only-{kind}-{one.run.id}", most, f" by the {who}")

    def _pictures(
        self, one: Looked, answers: Answers, title: str, name: str, which: Tensor, by: str = ""
    ) -> Iterator[Block]:
        if one.dataset is None:
            return
        names, test = one.dataset.classes, one.dataset.test.pick(which).sample(len(which))
        shown = [thumbnails.thumbnail(pixels) for pixels in test.images]
        captions = []
        for index in which.tolist():
            true, answer = names[int(answers.labels[index])], names[int(answers.predicted[index])]
            said = "right" if true == answer else f"taken for {answer}{by}"
            sure = 100 * float(answers.confidence[index])
            captions.append(f"{true}, {said} ({sure:.0f} % sure); loss {float(answers.loss[index]):.2f}; no. {index}")
        sheet = thumbnails.sheet(shown, self.folder / f"{name}.png")
        small = max(one.dataset.image[1:]) <= thumbnails.SMALL
        yield document.Pictures(title, [thumbnails.png(image) for image in shown], captions, sheet, small)


def _summary(runs: Sequence[Looked]) -> Iterator[tuple[str, ...]]:
    yield ("run", "seed", "images", "epochs", "last epoch, %", "best epoch, %", "training, s", "id")
    for one in runs:
        run, record = one.run, one.record
        limit = "" if run.data.limit is None else f" ({run.data.limit})"
        numbers = (f"{record['accuracy']:.2f}", f"{record.get('best_accuracy', record['accuracy']):.2f}")
        about = (run.name, str(run.seed), run.data.name + limit, str(run.schedule.epochs))
        yield (*about, *numbers, f"{record['seconds']:.0f}", run.id)


def _pairs(names: Sequence[str], counts: Tensor, most: int) -> Iterator[tuple[str, ...]]:
    """The most frequent mistakes."""
    yield ("true", "taken for", "images", "of that class, %")
    wrong = counts - counts.diagonal().diag()
    for place in wrong.flatten().argsort(descending=True, stable=True)[:most].tolist():
        true, answer = divmod(place, len(names))
        count = int(wrong[true, answer])
        if count:
            yield (names[true], names[answer], str(count), f"{100 * count / int(counts[true].sum()):.1f}")


def _weakest(names: Sequence[str], counts: Tensor) -> Iterator[tuple[str, ...]]:
    """The classes that are recognised least."""
    yield ("weakest classes", "right, %", "most often taken for", "images")
    of = counts.sum(1)
    share = torch.where(of > 0, counts.diagonal() / of.clamp_min(1), 2.0)
    wrong = counts - counts.diagonal().diag()
    for true in share.argsort(stable=True)[:PAIRS].tolist():
        if of[true]:
            answer = int(wrong[true].argmax())
            yield (names[true], f"{100 * float(share[true]):.1f}", names[answer], str(int(wrong[true, answer])))


def _between(asked: Sequence[Looked], most: int = 5) -> Iterator[Block]:
    """What one run gets right and another does not, of runs on the same images."""
    rows: list[tuple[str, ...]] = [
        ("first", "second", "same answer, %", "only the first right", "only the second right")
    ]
    for one, other in combinations(asked[:most], 2):
        first, second = one.answers, other.answers
        if one.run.data.fingerprint == other.run.data.fingerprint and first is not None and second is not None:
            same = 100 * float((first.predicted == second.predicted).double().mean())
            only = (first.right & ~second.right, second.right & ~first.right)
            rows.append((one.title, other.title, f"{same:.1f}", *(str(int(side.sum())) for side in only)))
    if len(rows) > 1:
        yield Heading("Run against run")
        yield Rows(rows)
