"""Figure 4: accuracy of teachers of different sizes against their student's, from the runs of Table 13."""

from dataclasses import replace

from sftn.experiments.metrics import RESULT, Measured, Quantity
from sftn.experiments.paper import table13
from sftn.experiments.paper.published import FAULTS

TABLE = Measured(
    replace(
        table13.TABLE.grid,
        name="figure4",
        title="Accuracy of teachers of different sizes against their student's",
        notes=FAULTS["figure4"],
    ),
    measure="capacity",
    quantities=(
        Quantity(RESULT, "accuracy", "teacher's accuracy, %", "teacher"),
        Quantity(RESULT, "accuracy", "student's accuracy, %"),
    ),
)
