"""What options and names on the command line mean: data sets, networks, runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sftn.cli.console import say
from sftn.cli.options import DataOptions, FineTuneOptions, FriendlyOptions, TrainOptions
from sftn.data import fingerprint, load
from sftn.data.batch import check_shares
from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.networks import check_name
from sftn.networks.weights import read_metadata
from sftn.runs.folder import read_run
from sftn.runtime.device import settle_precision
from sftn.spec.alignment import Alignment
from sftn.spec.run import Data, FineTune, Friendly, Run, Weights
from sftn.tasks import recipes


def images(options: DataOptions) -> Dataset:
    """The data set that options name."""
    return load(
        options.data,
        data_dir=options.data_dir,
        limit=options.limit,
        classes=options.classes,
        size=options.size,
        download=options.download,
        stream=options.stream or None,
        memory=options.memory,
        damaged=options.damaged,
        workers=options.workers,
        say=say,
    )


def plain_run(network: str, dataset: Dataset, data: DataOptions, options: TrainOptions, seed: int) -> Run:
    """The run of a network that learns from labels alone."""
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
    processes = options.devices * options.nodes
    if processes > 1:
        check_shares(len(dataset.train), schedule.batch, (0, processes), least=1 if options.sync_bn else 2)
    damaged: Literal["refuse", "skip"] = "skip" if dataset.skipped else "refuse"
    which = Data(data.data, fingerprint(dataset)[:16], data.limit, data.classes, data.size, dataset.streamed, damaged)
    precision = settle_precision(options.precision, options.device)
    shares = 1 if options.sync_bn else processes
    return Run(network, which, seed, schedule, precision, on_nan=options.on_nan, norm_shares=shares)


def alignment(pairs: Sequence[str], students: Sequence[str]) -> Alignment | None:
    """`2:1 3:2` is student stage 2 with teacher stage 1, 3 with 2; in a Run stages are counted from 0."""
    if not pairs:
        return None
    if len(students) > 1:
        raise InputError("--align is for one student: train the teachers of several one by one")
    found = [re.fullmatch(r"(\d+):(\d+)", pair) for pair in pairs]
    if not all(found):
        raise InputError(f"--align {' '.join(pairs)}: write STUDENT_STAGE:TEACHER_STAGE, as in 2:1 3:2 4:3")
    return tuple((int(match[1]) - 1, int(match[2]) - 1) for match in found if match)


def fine_tune(options: FineTuneOptions) -> FineTune | None:
    """How a network learns on; None if all of it learns alike."""
    if options == FineTuneOptions():
        return None
    rate = 1.0 if options.backbone_rate is None else options.backbone_rate
    if rate < 0:
        raise InputError(f"backbone_rate is {rate}: it must not be negative")
    return FineTune(rate, options.frozen_stages)


def friendly(students: Sequence[str], options: FriendlyOptions) -> Friendly:
    """How a teacher is made friendly to students."""
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


def trained(what: str, network: str | None, out: Path) -> Run | Weights:
    """The run in a folder, or the network in a file."""
    path = Path(what)
    if path.is_dir():
        run = read_run(path)
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
