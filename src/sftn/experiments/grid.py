"""From a table to its runs: `Conditions` hold images and schedule, `grid` lists the runs of every seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from sftn.errors import InputError, unknown
from sftn.experiments.table import ALONE, BOTH, FRIENDLY, TEACHERS, Cell, Pair, Table
from sftn.runs.own_code import signed
from sftn.spec.run import Data, Friendly, OnNan, Run
from sftn.spec.schedule import Schedule
from sftn.tasks import recipes

TINY = Pair("wrn_10_1", "resnet8")
"""The pair that replaces a table's pairs in a smoke test."""
_IMAGES = {"cifar100": 50_000, "imagenet": 1_281_167}
"""Number of training images in the full data sets."""


@dataclass(frozen=True)
class Conditions:
    """Settings that all runs of a table share; runs under different conditions are never averaged."""

    data: Data
    schedule: Schedule
    """Schedule of networks with the usual learning rate; `sftn.tasks.recipes.SLOW_LEARNERS` use a fifth of the rate."""
    precision: str
    on_nan: OnNan = "stop"
    norm_shares: int = 1

    @staticmethod
    def of(run: Run) -> Conditions:
        """The conditions under which a run was trained."""
        slow = run.network in recipes.SLOW_LEARNERS
        schedule = replace(run.schedule, lr=run.schedule.lr * 5) if slow else run.schedule
        return Conditions(run.data, schedule, run.precision, run.on_nan, run.norm_shares)

    def plain(self, network: str, seed: int, *, one_rate: bool = False) -> Run:
        """The run of a network without a teacher: a student alone, or a standard teacher."""
        schedule = self.schedule
        if network in recipes.SLOW_LEARNERS and not one_rate:
            schedule = replace(schedule, lr=schedule.lr / 5)
        shares = self.norm_shares
        return Run(network, self.data, seed, schedule, self.precision, on_nan=self.on_nan, norm_shares=shares)

    def run(self, table: Table, cell: Cell, seed: int) -> Run:
        """The run of a cell with a seed."""
        own = self.plain(cell.network, seed, one_rate=table.one_rate)
        if cell.way == ALONE:
            return signed(own)
        if cell.role == "teacher":
            return self._teacher(table, cell, seed)
        ways = TEACHERS if cell.way == BOTH else (cell.way,)
        cells = [replace(cell, role="teacher", way=way) for way in ways]
        first, *further = [table.given(one) or self._teacher(table, one, seed) for one in cells]
        text = table.objective(cell.pair, cell.method)
        objective = recipes.objective(text, alone=not table.beside_kd, temperature=table.temperature)
        own = replace(own, teacher=first, further=tuple(further), ensemble=table.ensemble if further else "mean")
        return signed(replace(own, objective=objective, alignment=table.alignment))

    def _teacher(self, table: Table, cell: Cell, seed: int) -> Run:
        plain = self.plain(cell.pair.teacher, seed, one_rate=table.one_rate)
        teacher = replace(plain, fine_tune=table.fine_tune, start=table.start)
        if cell.way == FRIENDLY:
            student = cell.pair.made_for or cell.pair.student
            friendly = Friendly(student=student, **table.setting(cell.setting).friendly)
            teacher = replace(teacher, friendly=friendly, alignment=table.alignment)
        return signed(teacher)

    def deviations(self, table: Table) -> list[str]:
        """How these conditions differ from those of a table or study, one phrase each; empty if they do not."""
        own = recipes.schedule(table.recipe, "", epochs=table.epochs, batch=table.batch)
        found, data = [], self.data
        if data.name != table.data:
            found.append(f"{data.name} instead of {table.data}")
        if data.limit != table.limit:
            there = _IMAGES.get(table.data) if not found and data.classes is None else None
            of = "" if there is None else f" of {there:,}"
            of = of if table.limit is None else f" instead of {table.limit:,}"
            found.append(f"{'all' if data.limit is None else f'{data.limit:,}'} training images{of}")
        if data.size is not None:
            found.append(f"images of {data.size}×{data.size}")
        if data.classes != table.classes:
            found.append("all classes" if data.classes is None else f"the first {data.classes} classes only")
        if self.schedule.epochs != own.epochs:
            found.append(f"{epochs(self.schedule.epochs)} instead of {own.epochs}")
        if self.on_nan != "stop":
            found.append(f"on a NaN: {self.on_nan}")
        if self.norm_shares > 1:
            found.append(f"batch norm over 1/{self.norm_shares} of a batch")
        for name in ("batch", "lr", "milestones", "gamma", "momentum", "weight_decay"):
            ours, theirs = getattr(self.schedule, name), getattr(own, name)
            if ours != theirs:
                found.append(f"{name.replace('_', ' ')} {ours} instead of {theirs}")
        return found

    def __str__(self) -> str:
        images = "" if self.data.limit is None else f", {self.data.limit:,} training images"
        classes = "" if self.data.classes is None else f", {self.data.classes} classes"
        return (
            f"{self.data.name}{images}{classes}, {epochs(self.schedule.epochs)}, batch {self.schedule.batch}, "
            f"{self.precision}"
        )


@dataclass(frozen=True)
class Planned:
    """A run, and the first of its cells in the table."""

    cell: Cell
    run: Run
    setting: str = ""
    """Label of the setting; empty unless the table compares several."""

    @property
    def title(self) -> str:
        """A one-line description."""
        return f"{self.run.name}{self.setting and f' ({self.setting})'}"


def seed_values(given: Sequence[int]) -> tuple[int, ...]:
    """The seeds that `--seeds` stands for: `--seeds 3` for their number, `--seeds 0 1 5` for the seeds themselves.

    Raises:
        InputError: there is none, one is negative, or one is given twice.
    """
    if not all(isinstance(one, int) for one in given):
        raise InputError(
            f"seeds is {given[0] if len(given) == 1 else given}: give whole numbers, such as 3 or [0, 1, 2]"
        )
    if len(given) == 1 and given[0] >= 1:
        return tuple(range(given[0]))
    if len(given) < 2 or min(given) < 0 or len(set(given)) < len(given):
        said = " ".join(map(str, given)) or "empty"
        raise InputError(f"seeds is {said}: give how many (3), at least 1, or several different ones (0 1 2)")
    return tuple(given)


def grid(
    table: Table, conditions: Conditions, seeds: int | Sequence[int], teachers: Collection[str] = TEACHERS
) -> list[Planned]:
    """List the runs of a table, each once: all of one seed before the next, teachers before their students.

    Args:
        table: what to train.
        conditions: on which images, and for how long.
        seeds: their number, or the seeds themselves.
        teachers: ways that are included.
    """
    found: dict[str, Planned] = {}
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        for pair in table.pairs:
            for cell in table.cells(pair):
                given = cell.role == "teacher" and table.given(cell) is not None
                if not given and (cell.way == ALONE or cell.way in teachers):
                    run = conditions.run(table, cell, seed)
                    found.setdefault(run.id, Planned(cell, run, table.setting(cell.setting).label))
    return list(found.values())


def part(
    table: Table, pairs: Collection[str] = (), methods: Collection[str] = (), teachers: Collection[str] = ()
) -> tuple[Table, tuple[str, ...]]:
    """Restrict a table to some pairs (`wrn_40_2:wrn_16_2`), methods and teachers; empty collections keep all.

    Raises:
        InputError: a pair, method or teacher is not in the table.
    """
    known = {str(pair): pair for pair in table.pairs}
    chosen = tuple(_chosen(f"pair of {table.name}", pairs, known))
    rows = tuple(_chosen(f"method of {table.name}", methods, table.methods))
    ways = tuple(_chosen("teacher", teachers, TEACHERS))
    return replace(table, pairs=tuple(known[pair] for pair in chosen), methods=rows), ways


def smoke(table: Table) -> Table:
    """Replace a table's pairs by one tiny pair, to try the whole pipeline."""
    return replace(table, pairs=(TINY,))


def epochs(count: int) -> str:
    """A number of epochs in words."""
    return f"{count} epoch" + "s" * (count != 1)


def _chosen(kind: str, names: Collection[str], known: Collection[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    yield from (name for name in known if not names or name in names)
