"""Carries out a `Run`: builds its networks, trains its phases, and writes its weights and result to its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftn.data.dataset import Dataset
from sftn.data.loader import Batches, SharedBatches, training_batches
from sftn.errors import Diverged, InputError
from sftn.networks.staged import StagedNet
from sftn.runs.build import begun_network, evaluation_interval, plan
from sftn.runs.folder import RunFolder
from sftn.runs.log import Journal
from sftn.runs.loggers import opened
from sftn.runs.result import finish
from sftn.runs.teacher import load_teacher
from sftn.runs.teacher_cache import TeacherCache
from sftn.runs.threads import settle_threads, threads_kept
from sftn.runtime import memory
from sftn.runtime.collectives import rank, world
from sftn.runtime.device import HALVES, join, make_fabric, repeatable
from sftn.runtime.leader import leads
from sftn.runtime.processes import led, shared, together
from sftn.runtime.signals import Stop
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.storage.atomic import sync_folder
from sftn.storage.json_files import write_json
from sftn.storage.lease import Lease
from sftn.training.callback import Callback
from sftn.training.checkpoints import Checkpoints
from sftn.training.evaluate import evaluate
from sftn.training.loop import LoopOptions, stepwise
from sftn.training.phase import Phase
from sftn.training.step_modes import resolve_step_mode

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)
RESTARTS = 3
"""How often a run with `on_nan` "restart" starts again, each time with half the learning rate."""

Steps = Generator[tuple[int, ...], None, dict[str, Any]]
"""A run step by step: yields (0, 0, 0) before each step of a first stage and (1, epoch, step), counted from 0, before
each step of the main phase; returns the content of `result.json`."""


@dataclass
class Shared:
    """What the runs of a cohort share: the teacher and its outputs, the batches, and the signal that ends them all."""

    cache: TeacherCache
    stop: Stop = field(default_factory=Stop)
    threads: int | None = None
    """That all compute with; the first run settles them."""
    batches: dict[tuple[int, bool], Batches] = field(default_factory=dict)
    """Loaders by copies per image and whether images may be mirrored."""

    def loader(self, make: Callable[[], Batches], copies: int, flip: bool) -> Batches:
        """The shared loader for these settings, made on first use."""
        if (copies, flip) not in self.batches:
            self.batches[copies, flip] = SharedBatches(make())
        return self.batches[copies, flip]


@dataclass(frozen=True)
class Context:
    """The surroundings in which a run is carried out."""

    out: Path
    execution: Execution
    callback: Callback | None = None
    shared: Shared | None = None
    """What it shares with the other runs of its cohort; None for a run alone."""
    waiting: int = 0
    """How many runs will ask its teacher the same later."""
    guard: Callable[[], None] = lambda: None
    """Raises if this process has lost the right to write to the run's folder."""


def train(
    run: Run,
    dataset: Dataset,
    out: Path,
    execution: Execution = Execution(),
    *,
    callback: Callback | None = None,
    waiting: int = 0,
) -> dict[str, Any]:
    """Carry out a run, or what is left of it; of a finished run, only the result is read.

    A non-finite number during training is handled as `run.on_nan` says. Until the run is done, `diverged.json` in its
    folder describes the last non-finite number that ended it.

    In distributed training every process calls this; the first one writes, logs and calls the callback.

    Args:
        run: what to train. Teachers that are a `Run` must have been carried out in `out`.
        dataset: the images that `run.data` names.
        out: the folder of all runs.
        execution: device, processes, checkpoints and speed.
        callback: called at every step and epoch.
        waiting: how many runs will ask its teacher the same later (`sftn.runs.teacher_cache.sharing`).

    Returns:
        The content of `result.json`.

    Raises:
        InputError: an input is wrong, or disk space or memory has run out; the last saved state is intact.
        Held: another process is carrying out this run (an `InputError`).
        Stopped: a signal ended training; the state is saved and the same call resumes from there.
        Diverged: a number is not finite (a `FloatingPointError`).
    """
    _ = execution.thread_count, execution.cache_gib  # a wrong number is an error before anything begins
    join(execution.device, execution.devices, execution.nodes)
    if run.norm_shares not in (1, world()):
        raise InputError(f"{run.name} normalises over {run.norm_shares} shares of a batch: give that many --devices")
    if not leads():
        callback = None
    steps = carried_out(run, dataset, Context(out, execution, callback, waiting=waiting))
    with repeatable(execution.deterministic), threads_kept():
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value


def carried_out(run: Run, dataset: Dataset, context: Context) -> Steps:
    """`train` one step at a time, so that other runs can be trained in between; they must restore torch's generator."""
    folder = RunFolder(context.out / run.folder)
    with together(), ExitStack() as stack:
        done = led(lambda: _begun(run, folder))
        if done is not None:
            return done

        leases: list[Lease] = []  # the leader's

        def take() -> dict[str, Any] | None:
            leases.append(stack.enter_context(Lease(folder.path)))
            folder.sweep()
            return _done(folder, run)  # the previous holder of the lease may have finished the run

        done = led(take)
        if done is not None:
            return done
        context = replace(context, guard=leases[0].check if leases else context.guard)
        restarts = None
        while True:
            try:
                return (yield from _carry_out(run, dataset, context, restarts))
            except Diverged as error:
                restarts = _again(run, error, context)


def _begun(run: Run, folder: RunFolder) -> dict[str, Any] | None:
    """Write the record of a run; returns its result if it is done."""
    folder.write(run)
    done = _done(folder, run)
    if done is not None:
        folder.tidy()  # the process that wrote the result may have been killed before it could
    return done


def _done(folder: RunFolder, run: Run) -> dict[str, Any] | None:
    """The result, if there is one, made durable before it is reported.

    The process that wrote it may have been killed before it synced the folder.
    """
    record = folder.result(run)
    if record is not None:
        with suppress(OSError):  # nothing needs to be written: a read-only folder keeps its files anyway
            sync_folder(folder.path)
    return record


def _again(run: Run, error: Diverged, context: Context) -> list[dict[str, Any]]:
    """Write `diverged.json`; returns all reasons for restarts so far, if the run may restart."""
    path = RunFolder(context.out / run.folder).diverged_json

    def leave() -> None:
        context.guard()
        write_json(path, error.record | {"precision": run.precision})

    led(leave)
    restarts = list(error.record["restarts"])
    if run.on_nan != "restart" or len(restarts) == RESTARTS:
        advice = {
            "stop": "a lower learning rate, --precision float32, --on-nan skip or --on-nan restart may help",
            "skip": "every step of this epoch was skipped; a lower learning rate or --precision float32 may help",
            "restart": f"this was after {RESTARTS} restarts; a lower learning rate or --precision float32 may help",
        }
        raise shared(Diverged(f"{error}; {advice[run.on_nan]}; see {path}", error.record)) from error
    restarts.append({key: error.record[key] for key in ("phase", "epoch", "step", "lr", "terms")})
    if leads():
        logger.warning(
            "%s: %s; restarting with 1/%d of the learning rate (restart %d of at most %d)",
            run.name,
            error,
            2 ** len(restarts),
            len(restarts),
            RESTARTS,
        )
    return restarts


@dataclass(frozen=True)
class _Assembled:
    """The parts of a run that are built before it is trained."""

    network: StagedNet
    phases: list[Phase]
    loader: Batches
    checkpoints: Checkpoints
    cache: TeacherCache


def _carry_out(run: Run, dataset: Dataset, context: Context, restarts: list[dict[str, Any]] | None) -> Steps:
    execution, journal = context.execution, Journal(context.out / run.folder, context.callback)
    fabric = make_fabric(execution.device, run.precision, execution.devices, execution.nodes)
    step = resolve_step_mode(execution.step_mode, fabric.device.type, run.precision, world())
    half = "" if run.precision in HALVES else " and --precision bf16"
    advice = f"a smaller --batch{half} needs less, but makes it a different run; another --device may have more"
    with memory.memory(str(fabric.device), lambda: journal.at, advice):
        parts = _assemble(run, dataset, context, fabric, restarts)
        with parts.checkpoints.signals():
            with journal:
                led(partial(_open, journal, run, execution, parts.checkpoints))
                yield from _train_phases(run, dataset, parts, fabric, journal, step)
            journal.at = "evaluating on the training images"
            return finish(run, dataset, parts.network, fabric, parts.checkpoints, step, parts.cache)


def _assemble(
    run: Run, dataset: Dataset, context: Context, fabric: Fabric, restarts: list[dict[str, Any]] | None
) -> _Assembled:
    """Build the parts of a run, in the state of its last checkpoint."""
    execution, cohort, folder = context.execution, context.shared, context.out / run.folder
    asked = execution.thread_count if cohort is None or cohort.threads is None else cohort.threads
    threads = settle_threads(run, dataset, folder, asked, fabric)
    if cohort is None:
        cache = TeacherCache([run], dataset, execution.cache_gib, waiting=context.waiting, compiled=execution.compile)
    else:
        cohort.threads, cache = threads.number, cohort.cache
    torch.manual_seed(run.seed)
    network = begun_network(run, dataset)
    teacher = load_teacher(run, dataset, context.out, fabric, cache)
    outputs, fast = cache.outputs(run, fabric.device), execution.fast_float32
    planned = plan(run, network, dataset, teacher, outputs, fast_float32=fast)
    checkpoints = Checkpoints(
        folder,
        planned.state,
        seconds=execution.checkpoint_seconds,
        epochs=execution.checkpoint_epochs,
        restarts=restarts,
        choices=planned.choices,
        threads=threads._asdict(),
        guard=context.guard,
        stop=None if cohort is None else cohort.stop,
    )
    make = partial(
        training_batches,
        dataset,
        batch=run.schedule.batch,
        flip=planned.flip,
        copies=planned.copies,
        seed=run.seed,
        device=fabric.device,
        share=(rank(), world()),
        least=1 if run.norm_shares == 1 else 2,
    )
    loader = make() if cohort is None else cohort.loader(make, planned.copies, planned.flip)
    return _Assembled(network, planned.phases, loader, checkpoints, cache)


def _open(journal: Journal, run: Run, execution: Execution, checkpoints: Checkpoints) -> None:
    loggers = opened(execution.log, checkpoints.folder, run, checkpoints.history)
    journal.open(checkpoints.history, loggers)


def _train_phases(
    run: Run, dataset: Dataset, parts: _Assembled, fabric: Fabric, journal: Journal, step: str
) -> Generator[tuple[int, ...], None, None]:
    """Train the remaining phases of a run; the network is evaluated during the last one."""
    network, checkpoints, test = parts.network, parts.checkpoints, dataset.test.to(fabric.device)

    def evaluate_now() -> Mapping[str, float]:
        found = evaluate(network, test, dataset.normalisation, fabric, pause=checkpoints.end_if_asked)
        return {f"test_{name}": value for name, value in found.items()}

    first = LoopOptions(
        seed=run.seed,
        evaluate_every=evaluation_interval(dataset),
        skip=run.on_nan == "skip",
        whole_norms=run.norm_shares == 1,
        step=step,
    )
    for phase in parts.phases:
        if phase.name in checkpoints.finished:
            continue
        main = phase is parts.phases[-1]
        slower = replace(phase.schedule, lr=phase.schedule.lr / 2 ** len(checkpoints.restarts))
        phase = replace(phase, schedule=slower)
        options = replace(first, evaluate=evaluate_now) if main else first
        try:
            for at in stepwise(phase, parts.loader, fabric, options, callback=journal, checkpoints=checkpoints):
                yield (1, *at) if main else (0, 0, 0)
        except Diverged as error:
            error.record["restarts"] = checkpoints.restarts
            raise
        checkpoints.finish_phase(phase.name)
