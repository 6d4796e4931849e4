"""Runs on a Ray cluster with a shared folder: one task per run, which waits for its teacher's task."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sftn.data.dataset import Dataset
from sftn.errors import InputError, Stopped
from sftn.experiments.grid import Planned
from sftn.runs.runner import train
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from sftn.storage.lease import Held, Lost

logger = logging.getLogger(__name__)


def check() -> None:
    """Check that Ray is available.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise InputError("ray is not installed: pip install 'sftn[ray]', or leave --executor ray out") from None


def work(
    planned: Sequence[Planned],
    dataset: Dataset,
    out: Path,
    execution: Execution = Execution(),
    *,
    gpus_per_run: float = 1.0,
) -> None:
    """Run everything on Ray: on the cluster at RAY_ADDRESS, or on one that is started on this machine.

    Args:
        planned: the runs, teachers before their students.
        dataset: the images, which are sent to each machine once.
        out: the folder of all runs, which every machine must see under this path.
        execution: how to run; each run is alone in its own process, so settings for processes, cohorts,
            `teacher_cache` and `log` have no effect.
        gpus_per_run: GPUs that a run requests if the cluster has any; 0.5 puts two runs on one GPU.

    Raises:
        InputError: Ray is not installed, or the input is wrong.
        FloatingPointError: some runs diverged; all others are finished.
    """
    check()
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    gpus = gpus_per_run if ray.cluster_resources().get("GPU", 0) and execution.device in ("auto", "cuda") else 0
    if gpus > ray.cluster_resources().get("GPU", 0):
        raise InputError(f"gpus_per_run is {gpus_per_run}: the cluster has fewer GPUs")
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(_carry_out)
    images = ray.put(dataset)
    alone = replace(execution, devices=1, nodes=1, log=(), teacher_cache=0.0)
    refs: dict[str, Any] = {}
    for item in planned:
        run = item.run
        teachers = [refs[one.id] for one in run.teachers if isinstance(one, Run) and one.id in refs]
        refs[run.id] = task.remote(run, images, item.title, str(out.resolve()), alone, *teachers)
    left, failed, count = list(refs.values()), [], 0
    try:
        while left:
            (ready,), left = ray.wait(left, num_returns=1)
            answer = ray.get(ready)
            count += 1
            logger.info(f"{count:4d}/{len(refs)}  {answer['line']}")
            if answer["kind"] == "input":
                raise InputError(answer["line"])
            if answer["kind"] == "diverged":
                failed.append(answer["line"])
    except BaseException:
        for ref in left:
            ray.cancel(ref)  # acts like Ctrl-C: a run saves its state before it ends
        raise
    finally:
        if started:
            ray.shutdown()
    if failed:
        raise FloatingPointError(f"{len(failed)} of {len(refs)} runs diverged; the first: {failed[0]}")


def _carry_out(
    run: Run,
    dataset: Dataset,
    title: str,
    out: str,
    execution: Execution,
    *teachers: dict[str, str],
) -> dict[str, str]:
    """Train a run on a worker; errors are returned as values, so that Ray does not retry."""
    who = f"seed {run.seed}  {title}"
    if any(teacher["kind"] != "done" for teacher in teachers):
        return {"kind": "diverged", "line": f"{who}: its teacher is missing"}
    device = execution.device
    torch.set_num_threads(1 if device in ("auto", "cpu") and not torch.cuda.is_available() else torch.get_num_threads())
    while True:
        try:
            record: dict[str, Any] = train(run, dataset, Path(out), execution)
        except (Held, Lost):
            time.sleep(5)
        except InputError as error:
            return {"kind": "input", "line": str(error)}
        except FloatingPointError as error:
            return {"kind": "diverged", "line": f"{who}: {error}"}
        except Stopped as stop:
            return {"kind": "stopped", "line": f"{who}: stopped by signal {stop.signal}, the state is saved"}
        else:
            return {"kind": "done", "line": f"{who:<54} {record['accuracy']:6.2f} %  ({record['seconds']:.0f} s)"}
