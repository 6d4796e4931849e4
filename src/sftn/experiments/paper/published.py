"""The numbers printed in the supplementary document of the NeurIPS 2021 paper, and their known errors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Cell, Pair, read_csv

NAMES: dict[str, str] = {
    "WRN40-2": "wrn_40_2",
    "WRN40-1": "wrn_40_1",
    "WRN16-2": "wrn_16_2",
    "VGG13": "vgg13",
    "VGG8": "vgg8",
    "ShuffleV1": "shufflev1",
    "ShuffleV2": "shufflev2",
    "MobileNetV2": "mobilenetv2",
    **{f"ResNet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
}
"""Names of networks in the paper and in sftn, where they differ; resnet32x4 and similar ones are the same in both."""

_WAYS = {"none": ALONE, "standard": STANDARD, "sftn": FRIENDLY}
_LAMBDA_STUDENTS = (
    "The document prints the students of this table as resnet8x2, ShuffleV2, WRN16-2, ShuffleV2. Its standard rows are "
    "those of ShuffleV1, ShuffleV2, WRN16-2 and WRN40-1 in Tables 11, 17 and 18, so these are used (an inference)."
)

FAULTS: dict[str, tuple[str, ...]] = {
    "table12": ("The table is missing from the text; only its average gains are known: +4.71 (STL10), +6.07 points.",),
    "table13": (
        "The printed entropies are garbled: standard teachers about 0.0002 to 0.0004, student-friendly ones 0.0041 to "
        "0.0053; the accuracies are intact.",
    ),
    "table14": ("resnet8x2 is not in any public benchmark; it is taken to be resnet8 with twice the widths.",),
    "table15": (_LAMBDA_STUDENTS,),
    "table16": (_LAMBDA_STUDENTS, "Section A.5 quotes 76.55 where the table's own rows average 76.60."),
    "table19": (
        "KL of SP, wrn_40_2 to wrn_16_2, standard teacher: 0.07 is printed; the column's average needs about 0.70.",
    ),
    "imagenet": (
        "The text describes how ImageNet models are trained (section B.2) and prints no numbers. The pair, the "
        "learning rate 0.1 and the weight decay 1e-4 are from memory of the main paper and unverified.",
        "The text names neither the methods (here KD, SP, CRD, SSKD and OH) nor the number of runs (one here).",
    ),
    "figure4": ("The figure has no readable numbers.",),
    "figure5": ("The figure has no readable numbers.",),
}
"""Known errors and gaps in the printed numbers, by table."""


@dataclass(frozen=True)
class Printed:
    """A printed number: the mean over three runs, in percent, and the deviation if it is printed."""

    mean: float
    std: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")


def rows(file: str) -> list[dict[str, str]]:
    """The unchanged rows of a file in `published/`; empty for an empty name."""
    return (
        [] if not file else read_csv((files("sftn.experiments.paper") / "published" / file).read_text(encoding="utf-8"))
    )


@cache
def accuracies(file: str) -> dict[Cell, Printed]:
    """The printed accuracy of each cell of Tables 14 to 18."""
    return dict(_grid(row) if "method" in row else _setting(row) for row in rows(file))


@cache
def measured(file: str) -> dict[tuple[Cell, str], Printed]:
    """The printed numbers of Tables 11, 13 and 19, by cell and name of the quantity in the table."""
    found = {}
    for row in rows(file) if file else ():
        way = _WAYS[row["teacher_training"]]
        method = row.get("method", "KD").lower() if way != ALONE else "-"
        name = row.get("severity") or row.get("metric", "accuracy").removeprefix("top1_")
        value = float(row["value"] if "value" in row else row["student_accuracy"])
        found[Cell(_pair(row), "student", way, method), name] = Printed(value)
    return found


def _grid(row: dict[str, str]) -> tuple[Cell, Printed]:
    """Convert a row of Tables 17 and 18."""
    way, method = _WAYS[row["teacher_training"]], row["method"].lower()
    role = "teacher" if method == "teacher" else "student"
    method = "-" if method in ("teacher", "student_alone") else method
    printed = Printed(float(row["accuracy"]), float(row["std"]) if row["std"] else None)
    return Cell(_pair(row), role, way, method), printed  # type: ignore[arg-type]


def _setting(row: dict[str, str]) -> tuple[Cell, Printed]:
    """Convert a row of Tables 14 to 16."""
    standard = row["setting"] == "standard"
    method = "kd" if row["network"] == "student" else "-"
    way, setting = (STANDARD, "") if standard else (FRIENDLY, row["setting"])
    return Cell(_pair(row), row["network"], way, method, setting), Printed(float(row["accuracy"]))  # type: ignore[arg-type]


def _pair(row: dict[str, str]) -> Pair:
    return Pair(*(NAMES.get(row[which], row[which]) for which in ("teacher", "student")))
