"""Effect of the branches' capacity: those of a resnet8 against ones as strong as the teacher's own blocks."""

from dataclasses import replace

from sftn.experiments.studies.digits import DEMO
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Pair, Setting

STUDY = Study(
    replace(
        DEMO,
        name="gap",
        title="Effect of the gap between teacher and student, on 200 digits",
        pairs=tuple(Pair("resnet20", student) for student in ("resnet8", "resnet20")),
        methods=("kd",),
        settings=(Setting("paper", "as in the paper"), Setting("0.3", "λ_R^KL = 0.3", {"branch_kl": 0.3})),
        notes=("A resnet20 as student has branches with the same capacity as the teacher's own blocks.",),
    )
)
