"""Table 13: entropy and accuracy of teachers of five sizes, and the accuracy of their student."""

from sftn.experiments.metrics import RESULT, Measured, Quantity
from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Pair, Table

TABLE = Measured(
    Table(
        name="table13",
        title="Entropy of teachers of different capacity, and their student",
        section="A.3",
        pairs=tuple(Pair(f"resnet{depth}", "mobilenetv2") for depth in (18, 34, 50, 101, 152)),
        published="table13_teacher_capacity.csv",
        notes=FAULTS["table13"],
    ),
    measure="entropy",
    quantities=(
        Quantity("entropy", "entropy, training", "teacher's entropy on training images, nats", "teacher", 4),
        Quantity("entropy", "entropy, test", "teacher's entropy on test images, nats", "teacher", 4),
        Quantity("entropy", "ece, test", "teacher's calibration error on test images, %", "teacher"),
        Quantity(RESULT, "accuracy", "teacher's accuracy, %", "teacher"),
        Quantity("entropy", "entropy, training", "student's entropy on training images, nats", digits=4),
        Quantity("entropy", "entropy, test", "student's entropy on test images, nats", digits=4),
        Quantity(RESULT, "accuracy", "student's accuracy, %"),
    ),
)
