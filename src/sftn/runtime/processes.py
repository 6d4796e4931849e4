"""Processes that train one run together: how they start, who decides, and what becomes of them when one dies.

The first process leads: it alone writes, prints and decides. The others compute what it does, and are told.
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

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

SILENCE = 120
"""Seconds after which a process that says nothing is given up. One that dies is noticed at once on CPUs; on GPUs by
whoever started it, within half a minute."""
_GLOO = re.compile(r"^\[[^\] ]*gloo[/\\]|pair closure")
"""What gloo says of a lost connection, in bare RuntimeErrors: they begin with the line of its source, or come after one
that did. The errors of NCCL and of the store are a `DistError`."""


class Alone(InputError):
    """Another process is gone."""


def leads() -> bool:
    """Whether this process is the one that writes and prints; told by the environment before there is a group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK"))


def led(decide: Callable[[], T]) -> T:
    """What the leader finds, for all: only there `decide` is called, all get its answer or its error.

    Raises:
        InputError, FloatingPointError: as `decide` does, in all processes.
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
    """Whether a launcher hands the signals on that it gets."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def shared(error: Exception) -> Exception:
    """Mark an error as one that all processes have: one of them says it."""
    error.shared = True  # type: ignore[attr-defined]
    return error


def part_alone() -> bool:
    """The processes part, for what only one of them does; whether this is the one."""
    alone = leads()
    if world() > 1:
        dist.destroy_process_group()
    return alone


def ends_quietly(error: BaseException | None) -> bool:
    """Whether it is for another process to say what has ended this one: all of them have the same `error`, or signal.

    The quiet ones end as if all were well, or Fabric's observer would kill the one that is still about to say it.
    """
    if leads() or isinstance(error, Alone):
        return False
    beside = handed_on() and os.environ.get("LOCAL_RANK", "0") != "0" and world() == 1
    return error is None or getattr(error, "shared", False) or beside


class Talk:
    """When the processes talk about what cannot wait for the end of an epoch: at every step, or about once a second.

    The steps are the same in all processes: how many lie between two of them is agreed on, too.
    """

    def __init__(self, every_step: bool) -> None:
        self.every_step = every_step
        self._left, self._steps, self._since = 0, 1, time.monotonic()

    def heard(self, signal: int, due: bool, *, now: bool = False) -> tuple[int, bool] | None:
        """The highest `signal` that any process was sent, and whether the leader finds something `due`.

        None if it is not time to talk yet.
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
    """While this lasts, this process needs the others.

    Raises:
        Alone: in place of what the process group says when one of them is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not (isinstance(error, dist.DistError) or _GLOO.search(str(error))):
            raise
        raise Alone(
            f"another of the {world()} processes has ended or does not answer; the same command resumes from the last "
            "checkpoint"
        ) from error


def check(accelerator: str, devices: int, nodes: int) -> None:
    """See that as many processes can be had.

    Raises:
        InputError: they cannot, or others were started than are asked for.
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
            f"{running} processes were started, and {devices} devices on each of {nodes} nodes want {wanted}: "
            "give --devices and --nodes as the launcher does"
        )
    if wanted == 1 or dist.is_initialized():
        return
    if accelerator == "mps":
        raise InputError(f"devices {devices}: there is one mps, leave --devices out or take --device cpu")
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise InputError(f"devices {devices}: this machine has {torch.cuda.device_count()} GPUs, give at most that")
    if nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise InputError(
            "several nodes must find each other: set MASTER_ADDR, MASTER_PORT and NODE_RANK on each, or start with "
            "torchrun"
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
                    f"port {port} cannot be had ({error.strerror}): give another in MASTER_PORT, or none"
                ) from error


def start(fabric: Fabric) -> None:
    """Start the other processes, unless somebody else has, and meet them.

    Raises:
        InputError: they cannot be met.
    """
    if not dist.is_initialized():
        _tell_of_deaths()
    try:
        fabric.launch()
    except (RuntimeError, ValueError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '')}"
        raise InputError(
            f"the {fabric.world_size} processes cannot meet at {where} ({first}): see that all were started, and that "
            "MASTER_ADDR and MASTER_PORT name a free port of the first one's machine"
        ) from error


def _tell_of_deaths() -> None:
    """Let Fabric's observer, which ends all processes when one that it started dies, say so in a line of ours."""
    logger = logging.getLogger("lightning_fabric.strategies.launchers.subprocess_script")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(
            "sftn: a process that trains along has died, so all are ended; "
            "the same command resumes from the last checkpoint",
            validate=False,
        )
    )
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def _number(name: str, least: int, most: int) -> int | None:
    """A number of the environment."""
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
        raise InputError(f"{name} is {text!r}: give a number from {least} to {most}, or leave it unset")
    return int(text)
