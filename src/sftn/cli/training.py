"""The commands that train."""

from __future__ import annotations

from sftn.cli.options import (
    Data,
    DataOptions,
    FineTune,
    FineTuneOptions,
    FriendlyOptions,
    FriendlyTo,
    Train,
    TrainOptions,
)


def demo(seeds: int = 3, train: Train = TrainOptions()) -> None:  # noqa: B008 (frozen)
    """The main job in minutes, on real digits: `compare` with a setting that is small and fixed."""
    from sftn.cli.commands import train as commands

    commands.demo(seeds, train)


def compare(
    teacher: str = "resnet20",
    student: tuple[str, ...] = ("resnet8",),
    unknown: tuple[str, ...] = (),
    methods: tuple[str, ...] = ("kd",),
    seeds: int = 3,
    alone: bool = False,
    temperature: float = 4.0,
    align: tuple[str, ...] = (),
    data: Data = DataOptions(),  # noqa: B008
    train: Train = TrainOptions(),  # noqa: B008
    friendly: FriendlyTo = FriendlyOptions(),  # noqa: B008
    fine_tune: FineTune = FineTuneOptions(),  # noqa: B008
) -> None:
    """Compare a student alone, from a standard teacher and from a student-friendly one, over seeds.

    Args:
        teacher: the big network.
        student: the small network, or several: then the teacher is made friendly to all of them.
        unknown: students that are distilled too, but that the teacher is not made for.
        methods: by what to distil, e.g. kd crd oh, or sums like crd+kd or crd:0.5+kd:2.
        seeds: how many.
        alone: feature methods without KD beside them.
        temperature: of KD.
        align: which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3; from the last stages if not given.
        data: which images.
        train: how to train.
        friendly: how to make the teacher friendly.
        fine_tune: how a teacher with trained weights learns on.
    """
    from sftn.cli.commands import train as commands

    commands.compare(
        teacher, student, unknown, methods, seeds, alone, temperature, align, data, train, friendly, fine_tune
    )


def train_teacher(
    teacher: str,
    student: tuple[str, ...] = (),
    standard: bool = False,
    seed: int = 0,
    align: tuple[str, ...] = (),
    data: Data = DataOptions(),  # noqa: B008
    train: Train = TrainOptions(),  # noqa: B008
    friendly: FriendlyTo = FriendlyOptions(),  # noqa: B008
    fine_tune: FineTune = FineTuneOptions(),  # noqa: B008
) -> None:
    """Train a teacher that is friendly to a student, or a standard one.

    Args:
        teacher: the network to train.
        student: the network that it will teach, or several; none for a standard teacher.
        standard: train it without branches.
        seed: of weights and batches.
        align: which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3.
        data: which images.
        train: how to train.
        friendly: how to make it friendly.
        fine_tune: how a network with trained weights learns on.
    """
    from sftn.cli.commands import train as commands

    commands.train_teacher(teacher, student, standard, seed, align, data, train, friendly, fine_tune)


def distill(
    teacher: str,
    student: str,
    method: str = "kd",
    teacher_network: str | None = None,
    alone: bool = False,
    temperature: float = 4.0,
    seed: int = 0,
    align: tuple[str, ...] = (),
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
        align: which student stage goes with which teacher stage, e.g. 2:1 3:2 4:3.
        data: which images.
        train: how to train.
    """
    from sftn.cli.commands import train as commands

    commands.distill(teacher, student, method, teacher_network, alone, temperature, seed, align, data, train)
