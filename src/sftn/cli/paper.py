"""The commands around tables and studies: reproduce, report and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from sftn.cli.options import Data, DataOptions, Train, TrainOptions


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
    """Carry out a table of the paper, or a study: its plan is shown first, and what is done is not done again.

    Interrupted at any moment, the same command goes on. Several processes, or machines that share the folder of runs,
    may work at the same table.

    Args:
        table: table11 to table19, figure4, figure5, imagenet, or one of our own studies (sftn list tables).
        pairs: only these, e.g. wrn_40_2:wrn_16_2.
        methods: only these.
        teachers: only these.
        seeds: how many; the table's own number if not given (the paper has 3).
        smoke: try the whole path in a minute, with a tiny pair and a few digits; of imagenet with the images of
            --data-dir, in its layout, at 32×32.
        plan_only: show the plan and end.
        executor: here, one run after the other, or on a Ray cluster.
        gpus_per_run: for ray; 0.5 puts two runs on one GPU.
        timing_seconds: how long timing for the estimate may take; 0 for none.
        to: for table12: other data sets than stl10 and tiny-imagenet, such as folder:PATH.
        images: measure on at most so many images of a split, for trying; training takes --limit.
        data: which images; paper for those of the table or study.
        train: how to train; recipe paper is that of the table or study.
    """
    from sftn.cli.commands import reproduce

    reproduce.reproduce(
        *(table, pairs, methods, teachers, seeds, smoke, plan_only, executor, gpus_per_run, timing_seconds),
        *(data, train, to, images),
    )


def report(
    what: Annotated[tuple[str, ...], tyro.conf.Positional],
    out: Path = Path("runs"),
    data_dir: Path | None = None,
    device: str = "auto",
) -> None:
    """Write the page of tables and studies, or of runs side by side, from what is there; never trains.

    Args:
        what: tables (table17 …), studies (digits …) or runs (folders or ids).
        out: the folder of all runs, or of kept ones; the page goes to its folder report-TABLE or report-runs-….
        data_dir: where the files of the data set are; runs are evaluated on its test images, if they are found.
        device: for that: auto, cpu, cuda or mps.
    """
    from sftn import report as reports

    reports.command(what, out, data_dir=data_dir, device=device)


def runs(
    what: Annotated[Literal["list", "show", "rm", "verify", "keep"], tyro.conf.Positional],
    run: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    out: Path = Path("runs"),
    data_dir: Path | None = None,
    device: str = "auto",
    to: Path = Path("results"),
    networks: tuple[str, ...] = (),
) -> None:
    """What is in the folder of runs: list them, show or remove some, verify that they are what they say, keep them.

    Args:
        what: list, show, rm, verify (read, hash and evaluate again) or keep (one small file a run, without weights).
        run: folders, paths or beginnings of ids; verify without any takes all that are done. keep also takes studies
            and tables.
        out: the folder of all runs; list and show also take one of kept runs.
        data_dir: where the files of the data set are, for verify.
        device: for verify: auto, cpu, cuda or mps.
        to: for keep: the folder of kept runs.
        networks: for keep: runs whose weights are kept as well, in its folder networks.
    """
    from sftn.cli.commands.runs import command

    command(what, run, out, data_dir, device, to, networks)
