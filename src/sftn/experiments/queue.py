"""Reproduce a table: its runs, what is left of them, and working that off beside other processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments.grid import Planned
from sftn.runs.cohort import carry_out, company, size
from sftn.runs.folder import BROKEN, DONE, RUNNING, Entry, RunFolder
from sftn.runtime.processes import led
from sftn.runtime.signals import sigterm
from sftn.spec.execution import Conduct
from sftn.spec.run import Run
from sftn.storage.lease import Held, Lost
from sftn.training.callback import Callback

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """What is there of a list of runs."""

    planned: tuple[Planned, ...]
    entries: dict[str, Entry]
    """By a run's id; runs without a folder are not among them."""

    @staticmethod
    def of(planned: Sequence[Planned], out: Path) -> Survey:
        """Look at the folder of every run; nothing is written."""
        folders = {item.run.id: RunFolder(out / item.run.folder) for item in planned}
        return Survey(tuple(planned), {key: at.inspect() for key, at in folders.items() if at.path.exists()})

    def runs(self, state: str | None, role: str | None = None) -> list[Run]:
        """The runs in a state (None: that are not done), of teachers or students."""
        found = []
        for item in self.planned:
            entry = self.entries.get(item.run.id)
            now = None if entry is None else entry.state
            if (now != DONE if state is None else now == state) and role in (None, item.cell.role):
                found.append(item.run)
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """For people: teachers and students, how many, done, held by others, left."""
        rows: list[tuple[str, ...]] = [("", "planned", "done", "others are at it", "left")]
        for role in ("teacher", "student"):
            planned = sum(item.cell.role == role for item in self.planned)
            done, held = len(self.runs(DONE, role)), len(self.runs(RUNNING, role))
            rows.append((f"{role}s", *(str(n) for n in (planned, done, held, planned - done - held))))
        return rows

    def check(self) -> None:
        """See that nothing that is there stands in the way.

        Raises:
            InputError: a folder holds something else, or a result that is damaged.
        """
        for run in self.runs(BROKEN):
            raise InputError(self.entries[run.id].reason)


def work(
    planned: Sequence[Planned],
    dataset: Dataset,
    out: Path,
    conduct: Conduct = Conduct(),
    *,
    watch: Callable[[str], AbstractContextManager[Callback]] | None = None,
    wait: float = 5.0,
) -> None:
    """Carry out all runs that are not done, in their order, leaving out those that other processes are at.

    Returns when every run is done, whoever did it. A run that diverges does not stop the others.

    Args:
        planned: the runs, teachers before their students.
        dataset: the images.
        out: the folder of all runs.
        conduct: how.
        watch: gives the callback of a run, from the run's title.
        wait: at most so many seconds between two looks at what others are doing, when nothing else is left.

    Raises:
        InputError: something given from outside is wrong; what is done stays.
        Stopped: SIGTERM asked for the end.
        FloatingPointError: some runs diverged; all others are done.
    """
    left = list(planned)
    most = size(conduct, [item.run for item in left])
    total, count = len(left), 0
    failed: dict[str, str] = {}
    pause = 0.0
    with sigterm():
        while left:
            over: set[str] = set()
            tried: set[str] = set()
            for item in left:
                run, title = item.run, f"{item.title}, seed {item.run.seed}"
                teacher = run.teacher if isinstance(run.teacher, Run) else None
                if teacher is not None and teacher.id in failed:
                    failed[run.id] = f"{title}: its teacher diverged"
                    over = {run.id}
                    break
                if run.id in tried or (teacher is not None and led(partial(_missing, RunFolder(out / teacher.folder)))):
                    continue
                was_there = RunFolder(out / run.folder).result_json.exists()
                group = [item] if was_there else _together(item, left, out, most)
                tried |= {each.run.id for each in group}
                title += f" and {len(group) - 1} more" * (len(group) > 1)
                noted = _Noted()
                with nullcontext() if watch is None or was_there else watch(title) as seen:
                    runs = [each.run for each in group]
                    found = carry_out(runs, dataset, out, conduct, callback=noted.beside(seen))
                for each, outcome in zip(group, found):
                    seed = each.run.seed
                    if isinstance(outcome, FloatingPointError):
                        failed[each.run.id] = f"{each.title}, seed {seed}: {outcome}"
                        logger.warning(failed[each.run.id])
                    elif isinstance(outcome, dict):
                        count += 1
                        took = f"{outcome['seconds']:.0f} s" if noted.began else "was there"
                        result = f"{outcome['accuracy']:6.2f} %  ({took})"
                        logger.info(f"{count:4d}/{total}  seed {seed}  {each.title:<44} {result}")
                    elif isinstance(outcome, Lost):
                        logger.warning(str(outcome))
                    if not isinstance(outcome, Held | Lost):
                        over.add(each.run.id)
                if over:
                    break
            else:
                if not pause:
                    logger.info(f"the {len(left)} runs that are left wait for other processes")
                pause = min(2 * pause or 0.25, wait)
                time.sleep(pause)
                continue
            pause = 0.0
            left = [item for item in left if item.run.id not in over]
    if failed:
        first = next(iter(failed.values()))
        raise FloatingPointError(f"{len(failed)} of {total} runs diverged and all others are done; the first: {first}")


def _together(item: Planned, left: Sequence[Planned], out: Path, most: int) -> list[Planned]:
    """An item, and what can be trained together with it of those that come after it."""
    if most == 1:
        return [item]
    after = [each for each in left[left.index(item) :] if not RunFolder(out / each.run.folder).result_json.exists()]
    ids = {run.id for run in company([each.run for each in after], most)}
    return [each for each in after if each.run.id in ids]


def _missing(folder: RunFolder) -> bool:
    return folder.inspect().state != DONE


class _Noted:
    """A callback that notes whether this process trained anything, and passes everything on."""

    def __init__(self) -> None:
        self.began = False
        self._other: Callback | None = None

    def beside(self, other: Callback | None) -> _Noted:
        """Pass everything on to `other`."""
        self._other = other
        return self

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None:
        """A phase begins."""
        self.began = True
        if self._other is not None:
            self._other.start(phase, epochs, steps, done)

    def step(self, step: int) -> None:
        """So many steps of the epoch are done."""
        if self._other is not None:
            self._other.step(step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        if self._other is not None:
            self._other.epoch(row)
