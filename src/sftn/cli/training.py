"""The commands that train."""

from __future__ import annotations

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
