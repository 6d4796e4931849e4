"""The command line: each command's record of options, and the function that runs it, imported on demand."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import tyro

import sftn
from sftn.cli import analysis_options, options
from sftn.cli.arguments import check
from sftn.cli.references import settle
from sftn.errors import InputError, Stopped
from sftn.runtime.signals import sigterm

COMMANDS: dict[str, tuple[type[Any], str]] = {
    "demo": (options.Demo, "train.demo"),
    "compare": (options.Compare, "train.compare"),
    "train-teacher": (options.TrainTeacher, "train.train_teacher"),
    "distill": (options.Distill, "train.distill"),
    "reproduce": (options.Reproduce, "reproduce.reproduce"),
    "report": (options.Report, "report.report"),
    "runs": (options.Runs, "runs.runs"),
    "analyse": (analysis_options.Analyse, "analyse.analyse"),
    "evaluate": (options.Evaluate, "inspect.evaluate"),
    "export": (options.Export, "deploy.export"),
    "predict": (options.Predict, "deploy.predict"),
    "bench": (options.Bench, "bench.bench"),
    "describe": (options.Describe, "inspect.describe"),
    "list": (options.List, "list.list_names"),
}
"""Each command's record of options, and the function of `sftn.cli.commands` that runs it."""
_FLAT = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.HelptextFromCommentsOff)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and report its outcome by the exit code.

    0: done. 2: the input is wrong (one line on stderr with what, where and the remedy). 130: interrupted, and 143:
    terminated, both with the state saved. 1: anything else.
    """
    try:
        with sigterm():
            asked = settle(parse(sys.argv[1:] if arguments is None else arguments))
            place = next(place for kind, place in COMMANDS.values() if kind is type(asked))
            from sftn.cli.console import show_log, starting

            show_log()
            module, function = place.split(".")
            with starting():
                command = getattr(importlib.import_module(f"sftn.cli.commands.{module}"), function)
            command(asked)
    except InputError as error:
        _end(str(error), 2, error)
    except Stopped as stop:
        _end("stopped; the state is saved, the same command resumes from here", 128 + stop.signal)
    except KeyboardInterrupt:
        _end("interrupted; the same command resumes from the last checkpoint", 130)
    except FloatingPointError as error:
        _end(str(error), 1, error)


def parse(arguments: Sequence[str]) -> Any:
    """Parse a command line into a record of `sftn.cli.options`.

    Raises:
        InputError: a command or option is unknown, or a value is invalid.
    """
    arguments = list(arguments) or ["--help"]
    if arguments == ["--version"]:
        print(f"sftn {sftn.__version__}")
        raise SystemExit(0)
    check({name: kind for name, (kind, _) in COMMANDS.items()}, arguments)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.extras.subcommand_cli_from_dict(
                {name: kind for name, (kind, _) in COMMANDS.items()},
                prog="sftn",
                description="Train a teacher for its student, then distil it.",
                args=arguments,
                config=_FLAT,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        command = " ".join(["sftn", *arguments[:1]])
        raise InputError(f"{command}: an argument is missing or superfluous: see {command} --help") from None


def _end(line: str, code: int, error: Exception | None = None) -> None:
    """Exit with one line, printed by one process only if several train together."""
    if "sftn.runtime.processes" in sys.modules:  # if not, nothing has started, and importing it takes seconds
        from sftn.runtime.processes import ends_quietly

        if ends_quietly(error):
            sys.exit(0)
    print(f"sftn: {line}", file=sys.stderr)
    sys.exit(code)
