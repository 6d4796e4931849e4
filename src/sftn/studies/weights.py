"""How much the branches' divergence weighs, and whether its gradient reaches the teacher, on few labelled digits."""

from dataclasses import replace

from sftn.paper.table import Setting
from sftn.studies.digits import DEMO
from sftn.studies.study import Study

STUDY = Study(
    replace(
        DEMO,
        name="weights",
        title="Effect of λ_R^KL, the weight of the branches' divergence, on 200 digits",
        methods=("kd",),
        settings=(
            *(Setting(f"{value:g}", f"λ_R^KL = {value:g}", {"branch_kl": value}) for value in (0.3, 1.0, 3.0, 10.0)),
            Setting("detach", "λ_R^KL = 3, detached", {"detach": True}),
        ),
        notes=("λ_R^KL = 3 is the default; detached, its gradient does not reach the teacher's logits.",),
    )
)
