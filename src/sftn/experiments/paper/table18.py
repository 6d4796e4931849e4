"""Table 18: standard and student-friendly teachers with twelve methods; students of a different family."""

from sftn.experiments.table import METHODS, Pair, Table

TABLE = Table(
    name="table18",
    title="Standard and student-friendly teachers, heterogeneous pairs",
    section="A.6",
    pairs=(
        Pair("resnet32x4", "shufflev1"),
        Pair("resnet32x4", "shufflev2"),
        Pair("resnet50", "vgg8"),
        Pair("wrn_40_2", "shufflev2"),
    ),
    methods=METHODS,
    published="table18_heterogeneous.csv",
)
