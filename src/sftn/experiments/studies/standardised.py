"""Standardised logits in the student-friendly teacher's own divergence, on few labelled digits."""

from dataclasses import replace

from sftn.experiments.studies.digits import DEMO
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Setting

STUDY = Study(
    replace(
        DEMO,
        name="standardised",
        title="Branches that compare standardised logits, on 200 digits",
        methods=("kd", "kd@std"),
        settings=(
            Setting("paper", "as in the paper"),
            Setting("std", "standardised logits", {"branch_logits": "std"}),
            Setting("std2", "standardised logits, τ = 2", {"branch_logits": "std", "temperature": 2.0}),
        ),
        notes=(
            *DEMO.notes,
            "kd@std standardises the logits that the student is distilled with (Sun et al., 2024); the settings do so "
            "while the teacher is trained.",
        ),
    )
)
