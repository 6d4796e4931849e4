"""Table 16: effect of the weight of the teacher's own cross-entropy, for the pairs of Table 15."""

from dataclasses import replace

from sftn.experiments.paper import table15
from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Setting

TABLE = replace(
    table15.TABLE,
    name="table16",
    title="Effect of λ_T, the weight of the teacher's cross-entropy",
    settings=tuple(Setting(f"{value:g}", f"λ_T = {value:g}", {"teacher_ce": value}) for value in (1.0, 3.0, 5.0)),
    published="table16_lambda_teacher.csv",
    notes=FAULTS["table16"],
)
