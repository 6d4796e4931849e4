"""Table 17: standard and student-friendly teachers with twelve methods; students of the teacher's family."""

from sftn.experiments.table import METHODS, Pair, Table

TABLE = Table(
    name="table17",
    title="Standard and student-friendly teachers, homogeneous pairs",
    section="A.6",
    pairs=(
        Pair("wrn_40_2", "wrn_16_2"),
        Pair("wrn_40_2", "wrn_40_1"),
        Pair("resnet32x4", "resnet8x4"),
        Pair("vgg13", "vgg8"),
    ),
    methods=METHODS,
    published="table17_homogeneous.csv",
)
