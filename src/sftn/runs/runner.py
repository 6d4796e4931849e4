"""Carry out a Run: build its networks, train its phases, leave its weights and result in its folder."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sftn.data.dataset import Dataset
from sftn.data.loader import feed
from sftn.errors import Diverged, InputError
from sftn.runs.build import evaluation_interval, load_network, new_network, plan
from sftn.runs.cohort_shared import Sharing
from sftn.runs.folder import RunFolder
from sftn.runs.log import Journal
from sftn.runs.loggers import opened
from sftn.runs.result import finish
from sftn.runs.teacher_cache import Answers
from sftn.runtime import memory
from sftn.runtime.collectives import rank, world
from sftn.runtime.device import HALVES, join, make_fabric, repeatable
from sftn.runtime.processes import leads, led, shared, together
from sftn.spec.execution import Conduct
from sftn.spec.run import Run
from sftn.storage.atomic import sync_folder
from sftn.storage.json_files import write_json
from sftn.storage.lease import Lease
from sftn.training.callback import Watcher
from sftn.training.checkpoints import Checkpoints
from sftn.training.evaluate import evaluate
from sftn.training.loop import stepwise
from sftn.training.step_modes import settle_step

RESTARTS = 3
"""How often a run with `on_nan` "restart" begins again, each time with half the learning rate."""


Steps = Generator[tuple[int, ...], None, dict[str, Any]]
"""A run step by step: (0, 0, 0) before each one of a first stage, (1, epoch, step), counted from 0, before one of the
main phase; at its end the content of `result.json`."""


@dataclass(frozen=True)
class Context:
    """What surrounds a run while it is carried out."""

    out: Path
    conduct: Conduct
    watcher: Watcher | None
    say: Callable[[str], None]
    sharing: Sharing | None = None
    """What other runs, that are carried out at once in this process, share."""
    guard: Callable[[], None] = lambda: None
    """Raises if this process may no longer write."""


def train(
    run: Run,
    dataset: Dataset,
    out: Path,
    conduct: Conduct = Conduct(),
    *,
    watcher: Watcher | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Carry out a run, or what is left of it; a run that is done is only read.

    A number of training that is not finite leads to what `run.on_nan` says. `diverged.json` in the run's folder tells
    of the last time that one ended the run, until it is done.

    Several processes that share every batch all call this; the first of them writes, is watched and says things.

    Args:
        run: what to train. If it has a teacher that is a Run, that one must have been carried out in `out`.
        dataset: the images that `run.data` names.
        out: the folder of all runs.
        conduct: how.
        watcher: is told of steps and epochs.
        say: is told, in a line each, what a person should know.

    Returns:
        The content of `result.json`.

    Raises:
        InputError: something given from outside is wrong, or space or memory has run out; the last state is intact.
        Held: another process carries this run out (an `InputError`).
        Stopped: a signal asked for the end; the state is saved and the same call goes on from there.
        Diverged: a number is not finite (a `FloatingPointError`).
    """
    join(conduct.device, conduct.devices, conduct.nodes)
    if run.norm_shares not in (1, world()):
        raise InputError(f"{run.name} normalises by {run.norm_shares} shares of a batch: give that many --devices")
    if not leads():
        conduct, watcher, say = replace(conduct, log=()), None, _silent
    steps = carried_out(run, dataset, Context(out, conduct, watcher, say))
    with repeatable(conduct.deterministic):
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value


def carried_out(run: Run, dataset: Dataset, context: Context) -> Steps:
    """`train` a step at a time, so that others can be trained in between; they must put torch's generator back."""
    folder = RunFolder(context.out / run.folder)
    with together(), ExitStack() as stack:
        done = led(lambda: _begun(run, folder))
        if done is not None:
            return done

        guard: Callable[[], None] = _silent

        def take() -> dict[str, Any] | None:
            nonlocal guard
            guard = stack.enter_context(Lease(folder.path)).check
            folder.sweep()
            return _done(folder, run)  # whoever had the lease before may have finished

        done = led(take)
        if done is not None:
            return done
        context = replace(context, guard=guard)
        restarts = None
        while True:
            try:
                return (yield from _carry_out(run, dataset, context, restarts))
            except Diverged as error:
                restarts = _again(run, error, context)


def _begun(run: Run, folder: RunFolder) -> dict[str, Any] | None:
    """Leave the record of a run; its result, if it is done."""
    folder.write(run)
    done = _done(folder, run)
    if done is not None:
        folder.tidy()  # whoever made it may have been killed before it could
    return done


def _silent(*line: str) -> None:
    pass


def _done(folder: RunFolder, run: Run) -> dict[str, Any] | None:
    """The result, if there is one, which no power cut can take back once somebody has been told of it.

    Whoever wrote it may have been killed between that and syncing the folder.
    """
    record = folder.result(run)
    if record is not None:
        with suppress(OSError):  # nothing is to be written here: a folder that is read-only by now keeps its files
            sync_folder(folder.path)
    return record


def _again(run: Run, error: Diverged, context: Context) -> list[dict[str, Any]]:
    """Leave diverged.json; what ended the run so far, if it may begin again."""
    path = RunFolder(context.out / run.folder).diverged_json

    def leave() -> None:
        context.guard()
        write_json(path, error.record | {"precision": run.precision})

    led(leave)
    restarts = list(error.record["restarts"])
    if run.on_nan != "restart" or len(restarts) == RESTARTS:
        advice = {
            "stop": "a lower learning rate, --precision float32, --on-nan skip or --on-nan restart may help",
            "skip": "not one step of this epoch could be done; a lower learning rate or --precision float32 may help",
            "restart": f"this was after {RESTARTS} restarts; a lower learning rate or --precision float32 may help",
        }
        raise shared(Diverged(f"{error}; {advice[run.on_nan]}; see {path}", error.record)) from error
    restarts.append({key: error.record[key] for key in ("phase", "epoch", "step", "lr", "terms")})
    context.say(
        f"{run.name}: {error}; beginning again with 1/{2 ** len(restarts)} of the learning rate "
        f"(restart {len(restarts)} of at most {RESTARTS})"
    )
    return restarts


def _carry_out(run: Run, dataset: Dataset, context: Context, restarts: list[dict[str, Any]] | None) -> Steps:
    folder, conduct, sharing = context.out / run.folder, context.conduct, context.sharing
    fabric = make_fabric(conduct.device, run.precision, conduct.devices, conduct.nodes)
    journal: Journal | None = None
    how = settle_step(conduct.step, fabric.device.type, run.precision, world(), context.say)

    def where() -> str:
        return "before training" if journal is None else journal.at

    half = "" if run.precision in HALVES else " and --precision bf16"
    advice = f"a smaller --batch{half} needs less, but is another run; another --device may have more"
    with memory.memory(str(fabric.device), where, advice):
        torch.manual_seed(run.seed)
        network = new_network(run.network, dataset)
        teacher = None if run.teacher is None else load_network(run.teacher, dataset, context.out)
        shared_teacher = {} if sharing is None else {"share": sharing.teacher}
        planned = plan(run, network, dataset, teacher, **shared_teacher)
        phases = planned.phases
        checkpoints = Checkpoints(
            folder,
            planned.state,
            seconds=conduct.checkpoint_seconds,
            epochs=conduct.checkpoint_epochs,
            restarts=restarts,
            say=context.say,
            guard=context.guard,
            stop=None if sharing is None else sharing.stop,
        )
        make = partial(
            feed,
            dataset,
            batch=run.schedule.batch,
            flip=planned.flip,
            copies=planned.copies,
            seed=run.seed,
            device=fabric.device,
            share=(rank(), world()),
            least=1 if run.norm_shares == 1 else 2,
        )
        loader = make() if sharing is None else sharing.feed(make, planned.copies, planned.flip, fabric)
        answers = Answers.of([run], conduct.ask_once, context.say) if sharing is None else sharing.answers
        if answers is not None and world() == 1 and fabric.device.type == "cpu":
            loader = answers.serve(run, phases[-1].task, loader)
        test = dataset.test.to(fabric.device)

        def test_now() -> dict[str, float]:
            found = evaluate(network, test, dataset.normalisation, fabric, pause=checkpoints.end_if_asked)
            return {f"test_{name}": value for name, value in found.items()}

        def begin() -> None:
            nonlocal journal
            loggers = opened(conduct.log, folder, run, checkpoints.history)
            journal = Journal(folder, checkpoints.history, context.watcher, loggers=loggers)

        with checkpoints.signals():
            led(begin)
            with nullcontext() if journal is None else journal:
                for phase in phases:
                    if phase.name in checkpoints.finished:
                        continue
                    slower = replace(phase.schedule, lr=phase.schedule.lr / 2 ** len(checkpoints.restarts))
                    try:
                        for at in stepwise(
                            replace(phase, schedule=slower),
                            loader,
                            fabric,
                            seed=run.seed,
                            evaluate=test_now if phase is phases[-1] else None,
                            evaluate_every=evaluation_interval(dataset),
                            watcher=journal,
                            checkpoints=checkpoints,
                            skip=run.on_nan == "skip",
                            whole_norms=run.norm_shares == 1,
                            how=how,
                            say=context.say,
                        ):
                            yield (1, *at) if phase is phases[-1] else (0, 0, 0)
                    except Diverged as error:
                        error.record["restarts"] = checkpoints.restarts
                        raise
                    checkpoints.finish_phase(phase.name)
            if journal is not None:
                journal.at = "evaluating on the training images"
            looked_up = None if answers is None else answers.record()
            return finish(run, dataset, network, fabric, checkpoints, looked_up, context.say, how)
