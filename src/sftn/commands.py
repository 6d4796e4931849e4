"""What the commands do: names become networks, images and runs, and what comes out is shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sftn import recipes
from sftn.compare import Arm, Comparison, arms, write
from sftn.compare import compare as compare_runs
from sftn.data import SOURCES, fingerprint, load
from sftn.data.dataset import Dataset
from sftn.device import make_fabric, settle_precision
from sftn.errors import InputError
from sftn.evaluate import evaluate as evaluate_network
from sftn.methods import METHODS
from sftn.networks import NETWORKS, build, check_name
from sftn.networks.checkpoints import read_metadata
from sftn.options import DataOptions, FineTuneOptions, FriendlyOptions, TrainOptions
from sftn.pair import Alignment
from sftn.paper import TABLES
from sftn.progress import Display
from sftn.run import Data, FineTune, Friendly, Run, Weights
from sftn.train import check, load_teacher, train

console = Console(highlight=False)


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
        friendly=FriendlyOptions(),
        fine_tune=FineTuneOptions(),
    )
    console.print(
        "The paper's gain was measured on 50,000 images over 240 epochs; branches that learn from few images can also "
        "hold their teacher back. What holds for your images, `sftn compare` measures.",
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
    alignment = _alignment(align, [*students, *unknown])
    dataset = _load(data)
    plan: list[list[tuple[Arm, Run]]] = []
    for seed in range(seeds):
        standard = replace(_run(teacher, dataset, data, options, seed), fine_tune=_fine_tune(fine_tune))
        made_for = replace(standard, friendly=_friendly(students, friendly), alignment=alignment)
        pupils = [_run(name, dataset, data, options, seed) for name in dict.fromkeys((*students, *unknown))]
        plan.append(arms(standard, made_for, pupils, objectives))
    for _, run in plan[0]:
        check(run, dataset)
    schedule = plan[0][0][1].schedule
    names = " + ".join(students) + (f" (and, unknown to it, {' + '.join(unknown)})" if unknown else "")
    title = f"{teacher} → {names}, {dataset.name}, {len(dataset.train):,} training images, {schedule.epochs} epochs"
    _say(f"{title}, {plan[0][0][1].precision}, runs in {options.out}")
    found = compare_runs(
        title,
        plan,
        dataset,
        options.out,
        device=options.device,
        tensorboard=options.tensorboard,
        checkpoint_seconds=options.checkpoint_seconds,
        watch=_watch,
        say=_say,
    )
    ids = "".join(run.id for listed in plan for _, run in listed)
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"compare-{teacher}-{'+'.join(students)}")
    folder = options.out / f"{name}-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"
    write(found, folder)
    console.print(found.table())
    for sentence in found.verdict():
        console.print(sentence)
    _say(f"Written: {folder}/comparison.md and .json; every run has a folder of its own in {options.out}")
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
    dataset = _load(data)
    run = replace(_run(teacher, dataset, data, options, seed), fine_tune=_fine_tune(fine_tune))
    for name in students:
        check_name(name)
    if students:
        run = replace(run, friendly=_friendly(students, friendly), alignment=_alignment(align, students))
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
    source = _trained(teacher, teacher_network, options.out)
    dataset = _load(data)
    alone_run = _run(student, dataset, data, options, seed)
    run = replace(alone_run, teacher=source, objective=objective, alignment=_alignment(align, [student]))
    _carry_out(run, dataset, options)


def evaluate(
    what: str,
    network: str | None,
    data: str | None,
    data_dir: Path | None,
    size: int | None,
    precision: str,
    device: str,
) -> dict[str, float]:
    """Accuracy and confidence of a trained network."""
    source = _trained(what, network, Path(what).parent)
    if data is not None:
        dataset = _load(DataOptions(data=data, data_dir=data_dir, size=size))
    elif isinstance(source, Run):
        own = source.data
        dataset = _load(DataOptions(own.name, data_dir, own.limit, own.classes, own.size))
        if fingerprint(dataset)[:16] != own.fingerprint:
            _say(f"note: {own.name} holds other images now than when {source.name} was trained")
    else:
        raise InputError(f"say which images with --data: {what} is a file of weights")
    fabric = make_fabric(device, precision)
    trained = load_teacher(source, dataset, Path(what).parent).to(fabric.device)
    scale = _normalisation(source, dataset)
    found = evaluate_network(trained, dataset.test.to(fabric.device), scale, fabric)
    name = source.name if isinstance(source, Run) else source.network
    values = ", ".join(f"{key} {value:.4g}" for key, value in found.items() if key != "accuracy")
    console.print(
        f"{name} on {len(dataset.test):,} test images of {dataset.name}: {found['accuracy']:.2f} % ({values})"
    )
    return found


def describe(
    network: str,
    student: str | None,
    classes: int,
    image: tuple[int, int, int],
    branches: tuple[int, ...] | None,
    align: Sequence[str],
) -> None:
    """Show the layers of a network and of the branches that a student grows in it."""
    from sftn.describe import describe as look
    from sftn.describe import show

    if min(classes, *image) < 1:
        raise InputError(f"classes {classes} and image {image} must be at least 1")
    check_name(network)
    channels, height, width = image
    built = build(network, classes, channels, (height, width))
    if student is None:
        show(look(built, image), console)
        return
    check_name(student)
    alignment = _alignment(align, [student])
    pupil = partial(build, student, classes, channels, (height, width))
    show(look(built, image, pupil, branches=branches, alignment=alignment), console)


def list_names(what: str) -> None:
    """Networks, methods, data sets or tables, a line each."""
    table = Table(box=None, pad_edge=False)
    if what == "networks":
        for column in ("network", "stages", "parameters (100 classes)"):
            table.add_column(column, justify="left" if column == "network" else "right")
        for name in NETWORKS:
            with torch.device("meta"):
                net = build(name, 100)
            table.add_row(name, str(len(net.stages)), f"{sum(p.numel() for p in net.parameters()):,}")
    elif what == "methods":
        for column in ("method", "objective", "reads", "first stage", "from"):
            table.add_column(column)
        table.add_row(
            "kd", _formula("kd"), "logits", "-", "Hinton et al. 2015, Distilling the knowledge in a neural network"
        )
        for name, method in METHODS.items():
            first = "-" if method.warmup is METHODS["at"].warmup else "yes"
            table.add_row(name, _formula(name), method.reads, first, method.summary)
    elif what == "tables":
        table.add_column("table")
        table.add_column("what it shows")
        for name, entry in sorted(TABLES.items()):
            table.add_row(name, entry.title)
    else:
        table.add_column("data")
        table.add_column("what it is")
        for name, source in SOURCES.items():
            table.add_row(name, (source.__doc__ or "").strip().splitlines()[0])
    console.print(table)


def _formula(name: str) -> str:
    objective = recipes.OBJECTIVES[name]
    parts = [(objective.ce, "CE"), (objective.kd, "KD"), *((term.weight, term.method) for term in objective.terms)]
    return " + ".join(f"{weight:g}·{part}" if weight != 1 else part for weight, part in parts if weight)


def _load(options: DataOptions) -> Dataset:
    return load(
        options.data,
        data_dir=options.data_dir,
        limit=options.limit,
        classes=options.classes,
        size=options.size,
        download=options.download,
    )


def _run(network: str, dataset: Dataset, data: DataOptions, options: TrainOptions, seed: int) -> Run:
    schedule = recipes.schedule(
        options.recipe,
        network,
        epochs=options.epochs,
        batch=options.batch,
        lr=options.lr,
        milestones=options.milestones,
    )
    if schedule.batch > len(dataset.train):
        raise InputError(
            f"batch {schedule.batch} is larger than the {len(dataset.train)} training images: give --batch"
        )
    images = Data(data.data, fingerprint(dataset)[:16], data.limit, data.classes, data.size)
    return Run(network, images, seed, schedule, settle_precision(options.precision, options.device))


def _normalisation(source: Run | Weights, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Mean and deviation that a network was trained with, where its file tells them; else those of the images."""
    said = read_metadata(source.path) if isinstance(source, Weights) else {}
    if not {"mean", "std"} <= said.keys():
        return dataset.normalisation
    try:
        mean, std = (torch.tensor(json.loads(said[name]), dtype=torch.float32) for name in ("mean", "std"))
    except (ValueError, TypeError) as error:
        raise InputError(f"{said['network']}'s file tells no mean and deviation that can be read") from error
    if mean.shape != std.shape or mean.shape != (dataset.image[0],):
        raise InputError(f"{said['network']} was trained on images of {mean.numel()} channels, not {dataset.image[0]}")
    return mean, std


def _alignment(pairs: Sequence[str], students: Sequence[str]) -> Alignment | None:
    """`2:1 3:2` is student stage 2 with teacher stage 1, 3 with 2; in a Run stages are counted from 0."""
    if not pairs:
        return None
    if len(students) > 1:
        raise InputError("--align is for one student: train the teachers of several one by one")
    found = [re.fullmatch(r"(\d+):(\d+)", pair) for pair in pairs]
    if not all(found):
        raise InputError(f"--align {' '.join(pairs)}: write STUDENT_STAGE:TEACHER_STAGE, as in 2:1 3:2 4:3")
    return tuple((int(match[1]) - 1, int(match[2]) - 1) for match in found if match)


def _fine_tune(options: FineTuneOptions) -> FineTune | None:
    if options == FineTuneOptions():
        return None
    rate = 1.0 if options.backbone_rate is None else options.backbone_rate
    if rate < 0:
        raise InputError(f"backbone_rate is {rate}: it must not be negative")
    return FineTune(rate, options.frozen_stages)


def _friendly(students: Sequence[str], options: FriendlyOptions) -> Friendly:
    return Friendly(
        "+".join(students),
        branches=options.branches,
        teacher_ce=options.teacher_ce,
        branch_kl=options.branch_kl,
        branch_ce=options.branch_ce,
        temperature=options.branch_temperature,
        reduction=options.reduction,
        detach=options.detach,
    )


def _trained(what: str, network: str | None, out: Path) -> Run | Weights:
    """The run in a folder, or the network in a file."""
    path = Path(what)
    if path.is_dir():
        run = Run.read(path)
        if path.resolve() == (out / run.folder).resolve():
            return run
        path, network = path / "weights.safetensors", run.network
    if not path.is_file():
        raise InputError(f"{what} is neither the folder of a run nor a file of weights")
    name = network or read_metadata(path).get("network")
    if name is None:
        raise InputError(f"{path} does not say which network it is of: name it (--network, --teacher-network)")
    check_name(name)
    with open(path, "rb") as file:
        return Weights(name, hashlib.file_digest(file, "sha256").hexdigest(), str(path))


def _carry_out(run: Run, dataset: Dataset, options: TrainOptions) -> None:
    check(run, dataset)
    with _watch(run.name) as display:
        record = train(
            run,
            dataset,
            options.out,
            device=options.device,
            watcher=display,
            tensorboard=options.tensorboard,
            checkpoint_seconds=options.checkpoint_seconds,
            say=_say,
        )
    console.print(f"{run.name}: {record['accuracy']:.2f} % (best epoch {record['best_accuracy']:.2f} %)")
    _say(f"Written: {options.out / run.folder}")


@contextmanager
def _watch(title: str) -> Iterator[Display]:
    with Display(console) as display:
        display.title = title
        yield display


def _say(line: str) -> None:
    console.print(line, soft_wrap=True)
