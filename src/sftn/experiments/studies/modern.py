"""Five newer methods and KD, with standard and student-friendly teachers, on the pairs of Tables 17 and 18.

Nobody has published any of them with student-friendly teachers. What is published of standard ones stands beside ours,
each number with its protocol.
"""

from sftn.experiments.paper import table17, table18
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Table

_OBJECTIVES = {
    ("wrn_40_2:wrn_16_2", "dkd"): "dkd(beta=6)",
    ("wrn_40_2:wrn_40_1", "dkd"): "dkd(beta=6)",
    ("vgg13:vgg8", "dkd"): "dkd(beta=6)",
    ("vgg13:vgg8", "kd@std"): "kd@std(temperature=3)",
    ("resnet32x4:shufflev2", "reviewkd"): "reviewkd:8",
}
"""Settings of the public code that differ from those of resnet32x4 → resnet8x4."""

STUDY = Study(
    Table(
        name="modern",
        title="Five newer methods with standard and student-friendly teachers",
        pairs=(*table17.TABLE.pairs, *table18.TABLE.pairs),
        methods=("kd", "kd@std", "dkd", "dist", "reviewkd", "mlkd"),
        objectives=_OBJECTIVES,
        notes=(
            "Schedule and images are those of Tables 17 and 18, for all methods: 240 epochs. MLKD's second view is "
            "cropped and mirrored like the first; its authors' is changed by RandAugment, over 480 epochs (960 for "
            "ShuffleNets).",
            "Settings are the public code's for each pair. Where it has none (resnet50 → vgg8, wrn_40_2 → shufflev2; "
            "ReviewKD for vgg13 → vgg8; kd@std for resnet32x4 → shufflev1), those of resnet32x4 → resnet8x4 are used.",
        ),
    ),
    published="modern.csv",
)
