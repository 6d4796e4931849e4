"""The one queue of runs: what is left of a table, worked off side by side in processes, and beside other machines."""

from __future__ import annotations

import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments.grid import Planned
from sftn.experiments.pace import Pace
from sftn.experiments.watched import Group, Noted, Told, Watch, title_of
from sftn.experiments.workers import Workers, settle_jobs
from sftn.runs.cohort import Outcome, carry_out, company, size
from sftn.runs.folder import DONE, RunFolder
from sftn.runs.teacher_cache import sharing
from sftn.runs.threads import counted, warn_of_cores
from sftn.runtime.cores import usable_cores
from sftn.runtime.device import accelerator
from sftn.runtime.processes import led
from sftn.runtime.signals import sigterm
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.storage.lease import Held, Lost

logger = logging.getLogger(__name__)
DEATHS = 2
"""How often a run is begun again whose worker died."""


def work(
    planned: Sequence[Planned],
    dataset: Dataset,
    out: Path,
    execution: Execution = Execution(),
    *,
    watch: Watch | None = None,
    seconds: Mapping[str, float] | None = None,
    overall: Callable[[str], None] | None = None,
    wait: float = 5.0,
) -> None:
    """Carry out all runs that are not done, teachers before their students, leaving out those that others are at.

    Several run side by side in processes of their own (`execution.jobs`, see `sftn.experiments.workers`), each to the
    result that it has alone with the same number of threads. Returns when every run is done, whoever did it. A run that
    diverges does not stop the others; one that cannot go on for another reason lets those end that have begun.

    Args:
        planned: the runs, teachers before their students.
        dataset: the images.
        out: the folder of all runs.
        execution: how.
        watch: gives the callback of a run, from the run's title.
        seconds: that each run is estimated to take, by its id.
        overall: is told, as text, how far all runs are, whenever that changes.
        wait: at most this many seconds between two looks at what others are doing, when nothing else is left.

    Raises:
        InputError: something given from outside is wrong; what is done stays.
        Stopped: SIGTERM asked for the end.
        FloatingPointError: some runs diverged; all others are done.
    """
    runs = [item.run for item in planned]
    left = [run for run in runs if not RunFolder(out / run.folder).result_json.exists()]
    jobs = settle_jobs(execution, left, accelerator(execution.device))
    told = Told(Pace(runs, seconds, jobs), overall)
    queue = _Queue(list(planned), dataset, out, execution, watch, size(execution, runs), told)
    with sigterm():
        if jobs == 1:
            queue.one_by_one(wait)
        else:
            queue.side_by_side(jobs, wait)
    queue.end()


class _Queue:
    """What is left of a list of runs, and what became of the others."""

    def __init__(
        self,
        left: list[Planned],
        dataset: Dataset,
        out: Path,
        execution: Execution,
        watch: Watch | None,
        cohort: int,
        told: Told,
    ) -> None:
        self.left, self.dataset, self.out = left, dataset, out
        self.execution, self.watch, self.cohort, self.told = execution, watch, cohort, told
        self.total, self.count, self.pause = len(left), 0, 0.0
        self.failed: dict[str, str] = {}
        """By a run's id: why it has no result."""
        self.wrong: InputError | None = None
        self.away: set[str] = set()
        """Runs that others were at when they were last tried."""
        self.deaths: Counter[str] = Counter()

    def one_by_one(self, wait: float) -> None:
        """Carry the runs out in this process, a group at a time."""
        while self.left:
            group = self.next()
            if not group:
                self.wait(wait)
                continue
            noted = Noted(self.told, group)
            with nullcontext() if self.watch is None or self.done(group[0]) else self.watch(title_of(group)) as seen:
                runs, callback = [item.run for item in group], noted.beside(seen)
                waiting = self.waiting(runs)
                found = carry_out(runs, self.dataset, self.out, self.execution, callback=callback, waiting=waiting)
            self.finished(group, found, noted.began)

    def side_by_side(self, jobs: int, wait: float) -> None:
        """Carry the runs out in worker processes, which all stop with what they are at saved when this one must."""
        cores = usable_cores()
        threads = self.execution.thread_count or max(1, cores // jobs)
        logger.info(f"{jobs} runs at a time, {counted(threads)} each (--jobs, --threads)")
        if threads > 1 and jobs * threads > cores:
            warn_of_cores(jobs * threads, cores)
        at: dict[int, Group] = {}
        with ExitStack() as ends, Workers(self.dataset, self.out, self.execution, threads) as workers:
            while self.left:
                busy = {item.run.id for group in at.values() for item in group.items}
                idle = [worker for worker in range(jobs) if worker not in at]
                items = self.next(busy, len(idle)) if idle and self.wrong is None else []
                if items and self.done(items[0]):
                    self.finished(items, carry_out([items[0].run], self.dataset, self.out, self.execution), False)
                elif items:
                    at[idle[0]] = Group(items, self.watch, ends, self.told)
                    runs = [item.run for item in items]
                    workers.give(idle[0], runs, self.waiting(runs))
                elif at:
                    event = workers.events.get()
                    if event.worker in at and at[event.worker].told(event.kind, event.content):
                        group = at.pop(event.worker)
                        group.close()
                        if event.kind == "died":
                            self.died(group.items, event.content)
                        else:
                            self.finished(group.items, event.content, group.began)
                elif self.wrong is not None:
                    return
                else:
                    self.wait(wait)

    def next(self, busy: Collection[str] = (), idle: int = 1) -> list[Planned]:
        """The next runs that can begin, as a group; none if all that are left wait for something.

        Args:
            busy: ids of runs that are being carried out.
            idle: workers that have nothing to do; a cohort is divided among them.
        """
        for item in list(self.left):
            if any(isinstance(one, Run) and one.id in self.failed for one in item.run.teachers):
                self.failed[item.run.id] = f"{title_of([item])}: its teacher diverged"
                self.left.remove(item)
                self.told.pace.end(item.run.id, trained=False)
        ready = [item for item in self.left if item.run.id not in self.away and item.run.id not in busy]
        first = next((item for item in ready if self.taught(item.run)), None)
        if first is None or self.cohort == 1 or self.done(first):
            return [] if first is None else [first]
        after = [item for item in ready[ready.index(first) :] if not self.done(item)]
        together = company([item.run for item in after], self.cohort)
        if idle > 1 and len(together) > 1:
            together = together[: -(-len(together) // idle)]
        ids = {run.id for run in together}
        return [item for item in after if item.run.id in ids]

    def waiting(self, group: Sequence[Run]) -> int:
        """How many of the runs that are left will ask a group's teacher for what the group asks."""
        ids = {run.id for run in group}
        return sharing(group, [item.run for item in self.left if item.run.id not in ids])

    def taught(self, run: Run) -> bool:
        """Whether a run's teachers are there."""
        folders = [RunFolder(self.out / one.folder) for one in run.teachers if isinstance(one, Run)]
        return all(led(partial(_is_done, folder)) for folder in folders)

    def done(self, item: Planned) -> bool:
        """Whether a run has a result."""
        return RunFolder(self.out / item.run.folder).result_json.exists()

    def finished(self, group: Sequence[Planned], found: Sequence[Outcome] | InputError, began: bool) -> None:
        """Note what became of a group; something wrong in this process was raised, in a worker's it is kept."""
        if isinstance(found, InputError):
            self.wrong = self.wrong or found
            self.away |= {item.run.id for item in group}
            return
        for item, outcome in zip(group, found):
            if isinstance(outcome, Held | Lost):
                self.away.add(item.run.id)
                if isinstance(outcome, Lost):
                    logger.warning(str(outcome))
                continue
            self.left.remove(item)
            self.told.pace.end(item.run.id, trained=began)
            self.pause = 0.0
            if isinstance(outcome, FloatingPointError):
                self.failed[item.run.id] = f"{title_of([item])}: {outcome}"
                logger.warning(self.failed[item.run.id])
                continue
            self.count += 1
            took = f"{outcome['seconds']:.0f} s" if began else "was there"
            result = f"{outcome['accuracy']:6.2f} %  ({took})"
            logger.info(f"{self.count:4d}/{self.total}  seed {item.run.seed}  {item.title:<44} {result}")

    def died(self, group: Sequence[Planned], code: int) -> None:
        """Note that a worker died; its runs are begun again from their checkpoints, a few times."""
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        again = max(self.deaths[item.run.id] for item in group) < DEATHS
        self.deaths.update(item.run.id for item in group)
        what = "it resumes from its checkpoint" if again else "it is left as it is"
        logger.warning(f"{title_of(group)}: its process died ({why}; too little memory does this); {what}")
        if not again:
            self.wrong = self.wrong or InputError(
                f"{title_of(group)}: its process died {DEATHS + 1} times ({why}): "
                "give fewer --jobs, or a smaller --batch"
            )

    def wait(self, most: float) -> None:
        """Wait for what other processes are at."""
        if not self.pause:
            logger.info(f"the {len(self.left)} runs that are left wait for other processes")
        self.pause = min(2 * self.pause or 0.25, most)
        time.sleep(self.pause)
        self.away.clear()

    def end(self) -> None:
        """Raise what went wrong."""
        if self.wrong is not None:
            raise self.wrong
        if self.failed:
            first = next(iter(self.failed.values()))
            raise FloatingPointError(
                f"{len(self.failed)} of {self.total} runs diverged and all others are done; the first: {first}"
            )


def _is_done(folder: RunFolder) -> bool:
    return folder.inspect().state == DONE
