"""A cohort: students of one teacher, trained in turn a step at a time, who share its answers and the batches.

Each is a run of its own, with its own folder, lease, log, checkpoints, optimiser and random numbers, and computes what
it would compute alone: on a CPU the same bits. Whoever is furthest behind makes the next step, so runs that stand at
different places, as after a kill or a first stage, come together by themselves, and those at the same step find the
batch and the teacher's answer there. Nothing depends on their being together but speed. Activations of a student are
freed before the next one makes its step, so a cohort needs the memory of one student, and the others' weights,
momentum and what their methods keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftn.answers import Answers
from sftn.data.batch import Batch
from sftn.data.dataset import Dataset
from sftn.data.loader import Feed
from sftn.device import join, repeatable
from sftn.distill import Distiller
from sftn.distributed import world
from sftn.errors import Diverged, InputError, Stopped
from sftn.fit import Watcher
from sftn.leases import Held, Lost
from sftn.methods import METHODS
from sftn.methods.base import Method
from sftn.networks.staged import Activations, StagedNet
from sftn.run import Run
from sftn.signals import Stop
from sftn.train import Conduct, Steps, carried_out

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Outcome = dict[str, Any] | Held | Lost | FloatingPointError
"""What became of a run: the content of its `result.json`, or why it has none."""


def joins(run: Run) -> bool:
    """Whether a run has something to share: a teacher that is asked about the very images that others see."""
    if run.teacher is None or run.objective is None or run.norm_shares != 1:
        return False
    methods = [METHODS[term.method] for term in run.objective.terms]
    return all(method.views is Method.views and method.copies == 1 and method.flip for method in methods)


def alike(one: Run, other: Run) -> bool:
    """Whether two runs can share a teacher's answers and batches; epochs and learning rates are free."""
    return one.teacher == other.teacher and _stream(one) == _stream(other)


def company(runs: Sequence[Run], size: int) -> list[Run]:
    """The first of some runs and those that can be trained together with it, at most `size` in all, in their order."""
    first, *others = runs
    found = [run for run in others if joins(run) and alike(first, run)] if joins(first) else []
    return [first, *found[: max(0, size - 1)]]


def size(cohort: int, processes: int, runs: Sequence[Run], say: Callable[[str], None]) -> int:
    """How many may be trained at once: `cohort`, or 1 by several processes, which is said if there are some to be.

    Raises:
        InputError: the number is below 1.
    """
    if cohort < 1:
        raise InputError(f"cohort is {cohort}: give at least 1")
    if processes == 1 or cohort == 1:
        return cohort
    if any(len(company(runs[first:], 2)) > 1 for first in range(len(runs))):
        say(f"{processes} processes train one student after the other: cohorts are for one process")
    return 1


def _stream(run: Run) -> tuple[Any, ...]:
    return run.data, run.seed, run.schedule.batch, run.precision


def train_together(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
    log: Sequence[str] = (),
    checkpoint_seconds: float = 60.0,
    checkpoint_epochs: int = 0,
    deterministic: bool = False,
    ask_once: float = 0.0,
    step: str = "eager",
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Carry out several students' runs, or what is left of them, as `sftn.train.train` does each.

    One that diverges, or that another process has or takes, leaves the cohort, and the others go on. First stages are
    trained one after the other. The seconds that a run records are those of its own steps; whoever makes a step first
    has the teacher's and the loader's among them, so that the sum over the cohort is what it took.

    Args:
        runs: students of one teacher, with the same data, seed, precision and batch.
        dataset: the images.
        out: the folder of all runs.
        device: auto, cpu, cuda or mps.
        watcher: is told of the steps of whoever makes one.
        log: also write for these: tensorboard, wandb.
        checkpoint_seconds: the time between two checkpoints of a run.
        checkpoint_epochs: epochs between two checkpoints; if 0 they go by time.
        deterministic: have a GPU compute the same bits again, too.
        ask_once: GiB for the teacher's answers, as in `sftn.train.train`; one table for all.
        step: eager or captured, as there.
        say: is told, in a line each, what a person should know.

    Returns:
        For each run, in order, its result, or the error by which it left.

    Raises:
        InputError: runs that cannot share, several processes, or something given from outside is wrong for all.
        Stopped: a signal asked for the end; all states are saved and the same call goes on from there.
    """
    if world() > 1:
        raise InputError("a cohort is trained by one process: leave --devices and --nodes out, or give --cohort 1")
    if step not in ("eager", "captured"):
        raise InputError(f"step {step} is for runs one by one: give --cohort 1, or --step captured")
    for run in runs[1:]:
        if not alike(runs[0], run):
            raise InputError(f"{run.name} and {runs[0].name} differ in teacher, data, seed, precision or batch")
    join(device, 1, 1)
    sharing, shown = Sharing(Answers.of(runs, ask_once, say)), None if watcher is None else _Shown(watcher)
    conduct = Conduct(
        out,
        device,
        log=log,
        checkpoint_seconds=checkpoint_seconds,
        checkpoint_epochs=checkpoint_epochs,
        say=say,
        step=step,
        sharing=sharing,
    )
    members = [
        _Member(carried_out(run, dataset, replace(conduct, watcher=None if shown is None else _Watched(shown))))
        for run in runs
    ]
    with repeatable(deterministic), ExitStack() as ends:
        for member in members:
            ends.callback(member.steps.close)
        while left := [member for member in members if member.outcome is None]:
            try:
                min(left, key=lambda member: member.at).go()
            except Stopped as stopped:
                sharing.stop.number = sharing.stop.number or stopped.signal
            if sharing.stop.number:  # whoever has begun saves its state at its next step
                members = [member for member in members if member.begun and not member.stopped]
    if sharing.stop.number:
        raise Stopped(sharing.stop.number)
    return [member.outcome for member in members if member.outcome is not None]


class _Member:
    """A run of a cohort, its random numbers, and how far it has come."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.at: tuple[int, ...] = (-1, 0, 0)
        self.begun = self.stopped = False
        self.outcome: Outcome | None = None
        self._random = _random()

    def go(self) -> None:
        """Make a step, and all that comes before the next one."""
        _set_random(self._random)
        self.begun = True
        try:
            self.at = next(self.steps)
        except StopIteration as end:
            self.outcome = end.value
        except (Held, Lost, Diverged) as error:
            self.outcome = error
        except BaseException:
            self.stopped = True
            raise
        self._random = _random()


def _random() -> dict[str, Tensor]:
    """The state of torch's generators; no device is waited for."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])


class Sharing:
    """What the runs of a cohort have in common.

    Args:
        answers: of the teacher, if they are kept for longer than a batch.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        self.answers = answers
        self.stop = Stop()
        self._teacher: StagedNet | None = None
        self._images: Tensor | None = None
        self._feeds: dict[tuple[int, bool], _Stream] = {}

    def feed(self, make: Callable[[], Feed], copies: int, flip: bool, fabric: Fabric) -> Feed:
        """One loader for all that want the same of it; its images are cast once to what Fabric would cast them to.

        It would for each run anew, and who asks the teacher is known by the images being the same tensor.
        """
        if (copies, flip) not in self._feeds:
            self._feeds[copies, flip] = _Stream(make(), fabric._precision.convert_input)
        return self._feeds[copies, flip]

    def teacher(self, task: Distiller) -> None:
        """Let one teacher, and one answer for each batch, serve all.

        Not OH's, whose teacher is another network; SSKD's views are its own, and so are the answers to them.
        """
        if not task.foldable:
            return
        if self._teacher is None:
            self._teacher = task.teacher
        task.to(next(self._teacher.parameters()).device)
        task.teacher = self._teacher
        if task.viewer is None:
            task.answers = self._answer

    def _answer(self, images: Tensor, index: Tensor) -> Activations:
        """(B, C, H, W) and (B,) -> the teacher's activations, computed anew only for another tensor of images."""
        assert self._teacher is not None, "a teacher was shared before"
        if images is not self._images:
            self._activations, self._images = self._teacher.activations(images), images
        return self._activations


class _Stream:
    """A loader for several, each of which asks for an epoch's batches; those at the same step get the same tensors.

    The last batch is kept, so whoever stands elsewhere costs a new start of the epoch and nothing else.
    """

    def __init__(self, loader: Feed, cast: Callable[[Tensor], Tensor]) -> None:
        self.loader, self.cast = loader, cast
        self._at = (-1, 0)
        self._rest: Iterator[Batch] = iter(())

    def __len__(self) -> int:
        return len(self.loader)

    def images(self, step: int) -> int:
        """Images of a step, counted from 1."""
        return self.loader.images(step)

    @property
    def views(self) -> int | None:
        """As `Loader` has it; None where the loader does not number the views of an image."""
        return getattr(self.loader, "views", None)

    def outcomes(self, epoch: int) -> Tensor:
        """As `Loader` has it."""
        return self.loader.outcomes(epoch)  # type: ignore[attr-defined]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on, both counted from 0."""
        for step in range(start, len(self.loader)):
            yield self._take(epoch, step)

    def _take(self, epoch: int, step: int) -> Batch:
        if self._at != (epoch, step):
            if self._at != (epoch, step - 1):
                with suppress(AttributeError):  # an iterator need not have workers to end
                    self._rest.close()  # type: ignore[attr-defined]
                self._rest = self.loader.epoch(epoch, start=step)
            batch = next(self._rest)
            self._batch, self._at = batch._replace(images=self.cast(batch.images)), (epoch, step)
        return self._batch


class _Shown:
    """What a person sees of a cohort: the phase and step of whoever is at work."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.phase: tuple[str, int, int] | None = None

    def turn(self, phase: tuple[str, int, int], done: int) -> Watcher:
        """The watcher, told of the phase unless it knows it."""
        if self.phase != phase:
            self.phase = phase
            self.watcher.start(*phase, done)
        return self.watcher


class _Watched:
    """The watcher of one run of a cohort."""

    def __init__(self, shown: _Shown) -> None:
        self.shown = shown

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins; it is shown with its first step."""
        self._phase, self._done = (phase, epochs, steps), done

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""
        self.shown.turn(self._phase, self._done).step(step)

    def epoch(self, row: Any) -> None:
        """An epoch is over."""
        self.shown.turn(self._phase, self._done).epoch(row)
        self._done = row["epoch"]
