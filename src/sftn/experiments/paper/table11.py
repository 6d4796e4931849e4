"""Table 11: accuracy of students on corrupted images (CIFAR-100-C), undistorted and at intensities 1 to 5."""

from sftn.experiments.metrics import Measured, Quantity
from sftn.experiments.table import Pair, Table

TABLE = Measured(
    Table(
        name="table11",
        title="Accuracy on CIFAR-100-C by intensity",
        section="A.1",
        pairs=(
            Pair("resnet32x4", "shufflev2"),
            Pair("resnet32x4", "shufflev1"),
            Pair("wrn_40_2", "wrn_16_2"),
            Pair("wrn_40_2", "wrn_40_1"),
        ),
        alone=False,
        published="table11_cifar100c.csv",
    ),
    measure="corruption",
    quantities=(
        Quantity("corruption", "0", "without distortion, %"),
        *(Quantity("corruption", str(severity), f"intensity {severity}, %") for severity in range(1, 6)),
    ),
)
