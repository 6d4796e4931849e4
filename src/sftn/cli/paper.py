"""The commands around the paper's tables: reproduce, report and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from sftn.options import Data, DataOptions, Train, TrainOptions


def reproduce(
    table: Annotated[str, tyro.conf.Positional],
    pairs: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    teachers: tuple[Literal["standard", "friendly"], ...] = (),
    seeds: int | None = None,
    smoke: bool = False,
    plan_only: bool = False,
    executor: Literal["local", "ray"] = "local",
    gpus_per_run: float = 1.0,
    timing_seconds: float = 60.0,
    to: tuple[str, ...] = (),
    images: int | None = None,
    data: Data = DataOptions(data="paper"),  # noqa: B008 (frozen)
    train: Train = TrainOptions(),  # noqa: B008
) -> None:
    """Carry out a table of the paper: its plan is shown first, and what is done is not done again.

    Interrupted at any moment, the same command goes on. Several processes, or machines that share the folder of runs,
    may work at the same table.

    Args:
        table: table11 to table19, figure4, figure5 or imagenet.
        pairs: only these, e.g. wrn_40_2:wrn_16_2.
        methods: only these.
        teachers: only these.
        seeds: how many; the paper's 3 if not given.
        smoke: try the whole path in a minute, with a tiny pair and a few digits; of imagenet with the images of
            --data-dir, in its layout, at 32×32.
        plan_only: show the plan and end.
        executor: here, one run after the other, or on a Ray cluster.
        gpus_per_run: for ray; 0.5 puts two runs on one GPU.
        timing_seconds: how long timing for the estimate may take; 0 for none.
        to: for table12: other data sets than stl10 and tiny-imagenet, such as folder:PATH.
        images: measure on at most so many images of a split, for trying; training takes --limit.
        data: which images; paper for those of the table.
        train: how to train.
    """
    from sftn import tables

    tables.reproduce(
        *(table, pairs, methods, teachers, seeds, smoke, plan_only, executor, gpus_per_run, timing_seconds),
        *(data, train, to, images),
    )


def report(
    what: Annotated[tuple[str, ...], tyro.conf.Positional],
    out: Path = Path("runs"),
    data_dir: Path | None = None,
    device: str = "auto",
) -> None:
    """Write the page of tables, or of runs side by side, from what is there; never trains.

    Args:
        what: tables (table17 …) or runs (folders or ids).
        out: the folder of all runs; the page goes to its folder report-TABLE or report-runs-….
        data_dir: where the files of the data set are; runs are evaluated on its test images, if they are found.
        device: for that: auto, cpu, cuda or mps.
    """
    from sftn import report as reports

    reports.command(what, out, data_dir=data_dir, device=device)


def runs(
    what: Annotated[Literal["list", "show", "rm", "verify"], tyro.conf.Positional],
    run: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    out: Path = Path("runs"),
    data_dir: Path | None = None,
    device: str = "auto",
) -> None:
    """What is in the folder of runs: list them, show or remove some, verify that they are what they say.

    Args:
        what: list, show, rm, or verify (read, hash and evaluate again).
        run: folders, paths or beginnings of ids; verify without any takes all that are done.
        out: the folder of all runs.
        data_dir: where the files of the data set are, for verify.
        device: for verify: auto, cpu, cuda or mps.
    """
    from sftn.commands.runs import command

    command(what, run, out, data_dir, device)
