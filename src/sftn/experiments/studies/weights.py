"""Effect of the branches' weights and of detaching the divergence from the teacher, on few labelled digits."""

from dataclasses import replace

from sftn.experiments.studies.digits import DEMO
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Setting

STUDY = Study(
    replace(
        DEMO,
        name="weights",
        title="Effect of the branches' weights, on 200 digits",
        methods=("kd",),
        settings=(
            *(Setting(f"{value:g}", f"λ_R^KL = {value:g}", {"branch_kl": value}) for value in (0.3, 1.0, 3.0, 10.0)),
            Setting("detach", "λ_R^KL = 3, detached", {"detach": True}),
            Setting("fifth", "all weights divided by 5", {"teacher_ce": 0.2, "branch_kl": 0.6, "branch_ce": 0.2}),
            Setting("teacher", "λ_T = 3", {"teacher_ce": 3.0}),
            Setting("warm", "τ = 4", {"temperature": 4.0}),
        ),
        notes=("λ_R^KL = 3 is the default; detached, its gradient does not reach the teacher's logits.",),
    )
)
