"""The commands: each a few lines that call what anyone can call. Nothing here imports torch before it is needed."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from sftn.cli import analyse, looking, paper, shipping, training
from sftn.errors import InputError, Stopped
from sftn.runtime.signals import sigterm

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": training.demo,
    "compare": training.compare,
    "train-teacher": training.train_teacher,
    "distill": training.distill,
    "reproduce": paper.reproduce,
    "report": paper.report,
    "runs": paper.runs,
    "analyse": analyse.analyse,
    "evaluate": looking.evaluate,
    "export": shipping.export,
    "predict": shipping.predict,
    "bench": looking.bench,
    "describe": looking.describe,
    "list": looking.list_names,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; the exit code says how it went.

    0 done; 2 the input is wrong (one line on stderr: what, where, the remedy); 130 interrupted and 143 asked to stop,
    both saved; 1 anything else.
    """
    try:
        with sigterm():
            _parse(arguments)()
    except InputError as error:
        _end(str(error), 2, error)
    except Stopped as stop:
        _end("stopped; the state is saved, the same command goes on from here", 128 + stop.signal)
    except KeyboardInterrupt:
        _end("interrupted; the same command goes on from the last checkpoint", 130)
    except FloatingPointError as error:
        _end(str(error), 1, error)


def _parse(arguments: Sequence[str] | None) -> Callable[[], None]:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _later(command) for name, command in COMMANDS.items()},
                prog="sftn",
                description="Train a teacher for its student, then distil it.",
                args=arguments,
                config=(tyro.conf.HelptextFromCommentsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(complaint.getvalue())) from None


def _later(command: Callable[..., None]) -> Callable[..., Any]:
    """The command with its arguments bound but not yet run: what parsing prints and what it prints stay apart."""

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **kwargs)

    return bind


def _one_line(box: str) -> str:
    """The parser's framed complaint as one line: what is wrong, and the nearest names without their help texts."""
    lines = [line.strip("│ \n") for line in box.splitlines() if line.startswith("│")]
    what, *rest = re.split(r" ?─{5,} ?", " ".join(lines) or " ".join(box.split()))
    misread = re.match(r"Error parsing (--\S+):.*?from (\[.*?\])", what)
    if misread:
        return f"option {misread[1]} cannot be read from {misread[2]}: it takes a value of another kind, see --help"
    near = [option for part in rest if part.startswith("Perhaps") for option in re.findall(r"--[a-z][a-z-]+", part)]
    near = [option for option in dict.fromkeys(near) if option != "--help"][:3]
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    choices = [part for part in rest if part.startswith("Available")]
    return "; ".join(part[0].lower() + part[1:] for part in (what.rstrip(" .") + hint, *choices) if part)


def _end(line: str, code: int, error: Exception | None = None) -> None:
    """End with one line, said by one process where several train together."""
    from sftn.runtime.processes import ends_quietly

    if ends_quietly(error):
        sys.exit(0)
    print(f"sftn: {line}", file=sys.stderr)
    sys.exit(code)
