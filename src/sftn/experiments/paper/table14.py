"""Table 14: effect of the number of student branches."""

from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Pair, Setting, Table

TABLE = Table(
    name="table14",
    title="Effects of the number of student branches",
    section="A.5",
    pairs=(
        Pair("resnet32x4", "resnet8x2"),
        Pair("resnet32x4", "shufflev2"),
        Pair("wrn_40_2", "wrn_16_2"),
        Pair("wrn_40_2", "shufflev2"),
    ),
    settings=(
        Setting("branch1", "branch 1", {"branches": (1,)}),
        Setting("branch2", "branch 2", {"branches": (2,)}),
        Setting("branch1+2", "branches 1 and 2"),  # all that these pairs have: the runs of Tables 17 and 18
    ),
    alone=False,
    published="table14_branches.csv",
    notes=FAULTS["table14"],
)
