"""Table 15: effect of the weight of the branches' cross-entropy."""

from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Pair, Setting, Table

TABLE = Table(
    name="table15",
    title="Effect of λ_R^CE, the weight of the branches' cross-entropy",
    section="A.5",
    pairs=(
        Pair("resnet32x4", "shufflev1"),
        Pair("resnet32x4", "shufflev2"),
        Pair("wrn_40_2", "wrn_16_2"),
        Pair("wrn_40_2", "wrn_40_1"),
    ),
    settings=tuple(Setting(f"{value:g}", f"λ_R^CE = {value:g}", {"branch_ce": value}) for value in (1.0, 3.0, 5.0)),
    alone=False,
    published="table15_lambda_branch_ce.csv",
    notes=FAULTS["table15"],
)
