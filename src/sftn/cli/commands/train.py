"""What the commands that train do: options become runs, and what comes out is shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from sftn.cli import resolve
from sftn.cli.console import console, say, watch
from sftn.cli.options import DataOptions, FineTuneOptions, FriendlyOptions, TrainOptions
from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments.compare import Arm, Comparison, arms, write
from sftn.experiments.compare import compare as compare_runs
from sftn.networks import check_name
from sftn.runs.build import check
from sftn.runs.runner import train
from sftn.runtime.device import join
from sftn.runtime.processes import leads
from sftn.spec.run import Run
from sftn.tasks import recipes


def demo(seeds: int, options: TrainOptions) -> None:
    """`compare` on few labelled digits: 20 images of each class to learn from, 1,000 to be tested on."""
    options = replace(options, epochs=options.epochs or 80, batch=options.batch or 32)
    console.print(
        "Real handwritten digits, but only 20 labelled images of each: a student (resnet8, 0.08 M parameters) alone, "
        "from a standard teacher (resnet20, 0.27 M) and from one that was trained for it."
    )
    data = DataOptions(data="digits", limit=200)
    compare(
        teacher="resnet20",
        students=["resnet8"],
        unknown=[],
        methods=["kd"],
        seeds=seeds,
        alone=False,
        temperature=4.0,
        align=[],
        data=data,
        options=options,
        friendly=FriendlyOptions(branch_kl=0.3),
        fine_tune=FineTuneOptions(),
    )
    console.print(
        "Branches that learn from few images hold their teacher back, so their divergence weighs 0.3 here; with the "
        "paper's 3, teacher and student lose 3 to 4 points (docs/results.md). The paper's gain was measured on 50,000 "
        "images over 240 epochs. What holds for your images, `sftn compare` measures.",
    )
    console.print("Next: sftn compare --data cifar100 --data-dir DIR --epochs 30, or sftn list methods", soft_wrap=True)


def compare(
    teacher: str,
    students: Sequence[str],
    unknown: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    alone: bool,
    temperature: float,
    align: Sequence[str],
    data: DataOptions,
    options: TrainOptions,
    friendly: FriendlyOptions,
    fine_tune: FineTuneOptions,
) -> Comparison:
    """Plan the runs of every seed, carry them out, show and keep the table."""
    if seeds < 1:
        raise InputError(f"seeds is {seeds}: give at least 1")
    if not methods:
        raise InputError("no method given: choose from " + ", ".join(recipes.OBJECTIVES))
    objectives = [recipes.objective(method, alone=alone, temperature=temperature) for method in methods]
    if not students:
        raise InputError("no student given: name at least one network")
    for name in (teacher, *students, *unknown):
        check_name(name)
    alignment = resolve.alignment(align, [*students, *unknown])
    dataset = resolve.images(data)
    plan: list[list[tuple[Arm, Run]]] = []
    for seed in range(seeds):
        standard = replace(
            resolve.plain_run(teacher, dataset, data, options, seed), fine_tune=resolve.fine_tune(fine_tune)
        )
        made_for = replace(standard, friendly=resolve.friendly(students, friendly), alignment=alignment)
        pupils = [
            resolve.plain_run(name, dataset, data, options, seed) for name in dict.fromkeys((*students, *unknown))
        ]
        plan.append(arms(standard, made_for, pupils, objectives))
    for _, run in plan[0]:
        check(run, dataset)
    schedule = plan[0][0][1].schedule
    names = " + ".join(students) + (f" (and, unknown to it, {' + '.join(unknown)})" if unknown else "")
    title = f"{teacher} → {names}, {dataset.name}, {len(dataset.train):,} training images, {schedule.epochs} epochs"
    join(options.device, options.devices, options.nodes)
    say(f"{title}, {plan[0][0][1].precision}, runs in {options.out}")
    found = compare_runs(title, plan, dataset, options.out, options.conduct, watch=watch, say=say)
    ids = "".join(run.id for listed in plan for _, run in listed)
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"compare-{teacher}-{'+'.join(students)}")
    folder = options.out / f"{name}-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    if leads():
        write(found, folder)
    console.print(found.table())
    for sentence in found.verdict():
        console.print(sentence)
    say(f"Written: {folder}/comparison.md and .json; every run has a folder of its own in {options.out}")
    return found


def train_teacher(
    teacher: str,
    students: Sequence[str],
    standard: bool,
    seed: int,
    align: Sequence[str],
    data: DataOptions,
    options: TrainOptions,
    friendly: FriendlyOptions,
    fine_tune: FineTuneOptions,
) -> None:
    """Train a student-friendly or a standard teacher."""
    if standard == bool(students):
        raise InputError("give --student NAME for a student-friendly teacher, or --standard for one without a student")
    check_name(teacher)
    dataset = resolve.images(data)
    run = replace(resolve.plain_run(teacher, dataset, data, options, seed), fine_tune=resolve.fine_tune(fine_tune))
    for name in students:
        check_name(name)
    if students:
        run = replace(run, friendly=resolve.friendly(students, friendly), alignment=resolve.alignment(align, students))
    _carry_out(run, dataset, options)


def distill(
    teacher: str,
    student: str,
    method: str,
    teacher_network: str | None,
    alone: bool,
    temperature: float,
    seed: int,
    align: Sequence[str],
    data: DataOptions,
    options: TrainOptions,
) -> None:
    """Distil a trained teacher into a student."""
    objective = recipes.objective(method, alone=alone, temperature=temperature)
    check_name(student)
    source = resolve.trained(teacher, teacher_network, options.out)
    dataset = resolve.images(data)
    alone_run = resolve.plain_run(student, dataset, data, options, seed)
    run = replace(alone_run, teacher=source, objective=objective, alignment=resolve.alignment(align, [student]))
    _carry_out(run, dataset, options)


def _carry_out(run: Run, dataset: Dataset, options: TrainOptions) -> None:
    check(run, dataset)
    join(options.device, options.devices, options.nodes)
    with watch(run.name) as display:
        record = train(run, dataset, options.out, options.conduct, watcher=display, say=say)
    console.print(f"{run.name}: {record['accuracy']:.2f} % (best epoch {record['best_accuracy']:.2f} %)")
    say(f"Written: {options.out / run.folder}")
