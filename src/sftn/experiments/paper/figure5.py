"""Figure 5: KL divergence in training and test accuracy by epoch, with both teachers."""

from sftn.experiments.metrics import LOG, Measured, Quantity
from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Pair, Table

TABLE = Measured(
    Table(
        name="figure5",
        title="Training and testing curves",
        section="A.4",
        pairs=(Pair("resnet32x4", "shufflev2"),),
        alone=False,
        published="",
        notes=(
            *FAULTS["figure5"],
            "KL is the objective's KD term, τ²·KL(teacher ‖ student), averaged over the augmented training batches of "
            "an epoch.",
        ),
    ),
    measure="curves",
    quantities=(
        Quantity(LOG, "kl, mean", "KL in training, mean of all epochs", digits=3),
        Quantity(LOG, "kl, last", "KL in training, last epoch", digits=3),
        Quantity(LOG, "accuracy", "test accuracy, last epoch, %"),
    ),
)
