"""Table 19: similarity of teachers and students on the test images."""

from sftn.experiments.metrics import Measured, Quantity
from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Pair, Table

TABLE = Measured(
    Table(
        name="table19",
        title="Similarity of teacher and student: KL, CKA, top-1 agreement",
        section="A.7",
        pairs=(
            Pair("resnet32x4", "shufflev2"),
            Pair("resnet32x4", "shufflev1"),
            Pair("wrn_40_2", "wrn_16_2"),
            Pair("wrn_40_2", "wrn_40_1"),
        ),
        methods=("kd", "fitnet", "sp", "crd", "sskd", "oh"),
        alone=False,
        published="table19_similarity.csv",
        notes=(
            *FAULTS["table19"],
            "The paper states neither the direction of its KL (here teacher ‖ student, temperature 1) nor which "
            "estimate and layer its CKA has (here the exact linear one, of the pooled last stage).",
        ),
    ),
    measure="similarity",
    quantities=(
        Quantity("similarity", "kl", "KL, nats", digits=3),
        Quantity("similarity", "cka", "CKA", digits=3),
        Quantity("similarity", "agreement", "top-1 agreement, %"),
    ),
)
