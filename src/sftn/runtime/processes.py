"""Processes that train one run together: how they start, which one decides, and what happens when one dies.

The first process is the leader: it alone writes, prints and decides. The others compute with it and follow it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from sftn.errors import InputError
from sftn.runtime.collectives import world
from sftn.runtime.leader import leads

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

SILENCE = 120
"""Seconds after which a silent process is given up. A process that dies is noticed at once on CPUs; on GPUs, by the
process that started it, within half a minute."""
_GLOO = re.compile(r"^\[[^\] ]*gloo[/\\]|pair closure")
"""Texts of gloo's plain RuntimeErrors for a lost connection: they begin with a line of its source, or follow one that
did. The errors of NCCL and of the store are a `DistError`."""


class Alone(InputError):
    """Another process has ended."""


def led(decide: Callable[[], T]) -> T:
    """Call `decide` in the leader only, and give all processes its result or its error.

    Raises:
        InputError, FloatingPointError: those of `decide`, in all processes.
    """
    if world() == 1:
        return decide()
    found: list[Any] = [None, None]
    cause: Exception | None = None
    if leads():
        try:
            found[0] = decide()
        except (InputError, FloatingPointError) as error:
            cause, found[1] = error, (type(error), str(error))
    dist.broadcast_object_list(found, 0)
    if cause is not None:
        raise shared(cause)
    if found[1] is not None:
        kind, message = found[1]
        raise shared(kind(message))
    return found[0]


def handed_on() -> bool:
    """Whether a launcher forwards the signals that it receives."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def shared(error: Exception) -> Exception:
    """Mark an error as raised in all processes, so that only one of them reports it."""
    error.shared = True  # type: ignore[attr-defined]
    return error


def part_alone() -> bool:
    """Dissolve the process group before work for a single process; returns whether this process does that work."""
    alone = leads()
    if world() > 1:
        dist.destroy_process_group()
    return alone


def ends_quietly(error: BaseException | None) -> bool:
    """Whether another process reports what ended this one, because all have the same `error` or signal.

    The quiet processes exit as if nothing had failed; otherwise Fabric's observer would kill the one that reports.
    """
    if leads() or isinstance(error, Alone):
        return False
    beside = handed_on() and os.environ.get("LOCAL_RANK", "0") != "0" and world() == 1
    return error is None or getattr(error, "shared", False) or beside


class Talk:
    """Exchanges signals between the processes within an epoch: at every step, or about once a second.

    Exchanges take place at the same steps in all processes: the number of steps between two of them is agreed on, too.
    """

    def __init__(self, every_step: bool) -> None:
        self.every_step = every_step
        self._left, self._steps, self._since = 0, 1, time.monotonic()

    def heard(self, signal: int, due: bool, *, now: bool = False) -> tuple[int, bool] | None:
        """The highest `signal` that any process received, and whether something is `due` in the leader.

        None if no exchange is due yet.
        """
        if world() == 1:
            return signal, due
        self._left -= 1
        if self._left > 0 and not now:
            return None
        spent = time.monotonic() - self._since
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        said = torch.tensor([signal, due and leads(), spent], dtype=torch.float64, device=device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        highest, wanted, spent = said.tolist()
        done = max(1, self._steps - max(self._left, 0))
        self._steps = 1 if self.every_step else min(max(1, round(done / max(spent, 1e-3))), 4 * done)
        self._left, self._since = self._steps, time.monotonic()
        return int(highest), bool(wanted)


@contextmanager
def together() -> Iterator[None]:
    """A context in which this process depends on the others.

    Raises:
        Alone: in place of the process group's error when one of them has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not (isinstance(error, dist.DistError) or _GLOO.search(str(error))):
            raise
        raise Alone(
            f"another of the {world()} processes has ended or does not respond; the same command resumes from the last "
            "checkpoint"
        ) from error


def check(accelerator: str, devices: int, nodes: int) -> None:
    """Check that `devices` processes on each of `nodes` machines can be started.

    Raises:
        InputError: they cannot, or a launcher started another number.
    """
    for name, value in (("devices", devices), ("nodes", nodes)):
        if value < 1:
            raise InputError(f"{name} is {value}: give at least 1")
    wanted = devices * nodes
    running = world() if dist.is_available() and dist.is_initialized() else None
    if running is None and "RANK" in os.environ:
        running = _number("WORLD_SIZE", 1, 10**6)
    if running is not None and running != wanted:
        raise InputError(
            f"{running} processes were started, but {devices} devices on each of {nodes} nodes need {wanted}: "
            "give the launcher's numbers in --devices and --nodes"
        )
    if wanted == 1 or dist.is_initialized():
        return
    if accelerator == "mps":
        raise InputError(f"devices {devices}: there is only one mps device, leave --devices out or use --device cpu")
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise InputError(f"devices {devices}: this machine has {torch.cuda.device_count()} GPUs, give at most that")
    if nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise InputError(
            "several nodes need an address to connect: set MASTER_ADDR, MASTER_PORT and NODE_RANK on each, or start "
            "them with torchrun"
        )
    for name in ("NODE_RANK", "LOCAL_RANK", "RANK"):
        _number(name, 0, wanted - 1)
    port = _number("MASTER_PORT", 1, 65535)
    if port is not None and not {"RANK", "LOCAL_RANK"} & os.environ.keys() and os.environ.get("NODE_RANK", "0") == "0":
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise InputError(
                    f"port {port} is not available ({error.strerror}): set MASTER_PORT to another, or leave it unset"
                ) from error


def start(fabric: Fabric) -> None:
    """Start the other processes, unless a launcher has, and connect to them.

    Raises:
        InputError: the processes cannot connect.
    """
    if not dist.is_initialized():
        _report_deaths()
    try:
        fabric.launch()
    except (RuntimeError, ValueError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '')}"
        raise InputError(
            f"the {fabric.world_size} processes cannot connect at {where} ({first}): check that all were started, and "
            "that MASTER_ADDR and MASTER_PORT name a free port on the first one's machine"
        ) from error


def _report_deaths() -> None:
    """Replace the message of Fabric's observer, which ends all processes when one that it started dies."""
    logger = logging.getLogger("lightning_fabric.strategies.launchers.subprocess_script")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(
            "sftn: one of the training processes has died, so all are ended; "
            "the same command resumes from the last checkpoint",
            validate=False,
        )
    )
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def _number(name: str, least: int, most: int) -> int | None:
    """A number from an environment variable; None if it is unset."""
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
        raise InputError(f"{name} is {text!r}: give a number from {least} to {most}, or leave it unset")
    return int(text)
