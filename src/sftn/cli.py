"""The commands: each a few lines that call what anyone can call."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sftn.errors import InputError, Stopped
from sftn.options import Data, DataOptions, FriendlyOptions, FriendlyTo, Train, TrainOptions


def demo(seeds: int = 3, train: Train = TrainOptions()) -> None:  # noqa: B008 (frozen)
    """The main job in minutes, on real digits: `compare` with a setting that is small and fixed."""
    from sftn import commands

    commands.demo(seeds, train)


def compare(
    teacher: str = "resnet20",
    student: str = "resnet8",
    methods: tuple[str, ...] = ("kd",),
    seeds: int = 3,
    alone: bool = False,
    temperature: float = 4.0,
    data: Data = DataOptions(),  # noqa: B008
    train: Train = TrainOptions(),  # noqa: B008
    friendly: FriendlyTo = FriendlyOptions(),  # noqa: B008
) -> None:
    """Compare a student alone, from a standard teacher and from a student-friendly one, over seeds.

    Args:
        teacher: the big network.
        student: the small network.
        methods: by what to distil, e.g. kd crd oh, or sums like crd+kd or crd:0.5+kd:2.
        seeds: how many.
        alone: feature methods without KD beside them.
        temperature: of KD.
        data: which images.
        train: how to train.
        friendly: how to make the teacher friendly.
    """
    from sftn import commands

    commands.compare(teacher, student, methods, seeds, alone, temperature, data, train, friendly)


def train_teacher(
    teacher: str,
    student: str | None = None,
    standard: bool = False,
    seed: int = 0,
    data: Data = DataOptions(),  # noqa: B008
    train: Train = TrainOptions(),  # noqa: B008
    friendly: FriendlyTo = FriendlyOptions(),  # noqa: B008
) -> None:
    """Train a teacher that is friendly to a student, or a standard one.

    Args:
        teacher: the network to train.
        student: the network that it will teach; not needed for a standard teacher.
        standard: train it without branches.
        seed: of weights and batches.
        data: which images.
        train: how to train.
        friendly: how to make it friendly.
    """
    from sftn import commands

    commands.train_teacher(teacher, student, standard, seed, data, train, friendly)


def distill(
    teacher: str,
    student: str,
    method: str = "kd",
    teacher_network: str | None = None,
    alone: bool = False,
    temperature: float = 4.0,
    seed: int = 0,
    data: Data = DataOptions(),  # noqa: B008
    train: Train = TrainOptions(),  # noqa: B008
) -> None:
    """Distil a trained teacher into a student.

    Args:
        teacher: the folder of a run, or a file of weights (ours, RepDistiller's or mdistiller's).
        student: the network that learns.
        method: kd, crd, … or a sum like crd+kd.
        teacher_network: the network that a file of weights belongs to, where the file does not say it.
        alone: a feature method without KD beside it.
        temperature: of KD.
        seed: of weights and batches.
        data: which images.
        train: how to train.
    """
    from sftn import commands

    commands.distill(teacher, student, method, teacher_network, alone, temperature, seed, data, train)


def evaluate(
    what: Annotated[str, tyro.conf.Positional],
    network: str | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
    size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
) -> None:
    """Accuracy and confidence of a trained network on test images.

    Args:
        what: the folder of a run, or a file of weights.
        network: the network that a file belongs to, where the file does not say it.
        data: digits, cifar10, cifar100 or folder:PATH; for a run, its own if not given.
        data_dir: where the files of the data set are.
        size: height and width that images of a folder are brought to.
        precision: auto, float32, bf16 or float16.
        device: auto, cpu, cuda or mps.
    """
    from sftn import commands

    commands.evaluate(what, network, data, data_dir, size, precision, device)


def describe(
    network: Annotated[str, tyro.conf.Positional],
    student: str | None = None,
    classes: int = 100,
    image: tuple[int, int, int] = (3, 32, 32),
    branches: tuple[int, ...] | None = None,
) -> None:
    """The layers of a network and, with a student, the branches that it would grow.

    Args:
        network: the network, or the teacher.
        student: its student.
        classes: how many.
        image: channels, height and width.
        branches: which branches, counted from 1; all if not given.
    """
    from sftn import commands

    commands.describe(network, student, classes, image, branches)


def list_names(what: Annotated[Literal["networks", "methods", "data"], tyro.conf.Positional]) -> None:
    """What there is: networks, methods or data sets, a line each."""
    from sftn import commands

    commands.list_names(what)


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "compare": compare,
    "train-teacher": train_teacher,
    "distill": distill,
    "evaluate": evaluate,
    "describe": describe,
    "list": list_names,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; the exit code says how it went.

    0 done; 2 the input is wrong (one line on stderr: what, where, the remedy); 130 interrupted and 143 asked to stop,
    both saved; 1 anything else.
    """
    try:
        _parse(arguments)()
    except InputError as error:
        _end(str(error), 2)
    except Stopped as stop:
        _end("stopped; the state is saved, the same command goes on from here", 128 + stop.signal)
    except KeyboardInterrupt:
        _end("interrupted; the same command goes on from the last checkpoint", 130)
    except FloatingPointError as error:
        _end(str(error), 1)


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


def _end(line: str, code: int) -> None:
    print(f"sftn: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
