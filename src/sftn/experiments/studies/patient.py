"""Effect of five times the demo's epochs: whether the student-friendly teacher catches up with time."""

from dataclasses import replace

from sftn.experiments.studies.digits import DEMO
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Setting

STUDY = Study(
    replace(
        DEMO,
        name="patient",
        title="200 digits, 400 epochs",
        epochs=400,
        methods=("kd",),
        settings=(Setting("paper", "as in the paper"), Setting("0.3", "λ_R^KL = 0.3", {"branch_kl": 0.3})),
        notes=("The setting of the study digits, with five times as many epochs.",),
    )
)
