"""A stronger teacher that is trained out: 2,500 images of 20 classes of CIFAR-100, seen 80 times.

The paper's gain is over standard teachers that are sure of every training image, which those of `cifar20` are not.
"""

from sftn.experiments.paper import table13, table19
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Pair, Setting, Table

STUDY = Study.of(
    Table(
        name="longer",
        title="2,500 images of the first 20 classes of CIFAR-100, 80 epochs",
        pairs=(Pair("wrn_16_2", "wrn_16_1"),),
        settings=(Setting("paper", "as in the paper"), Setting("0.3", "λ_R^KL = 0.3", {"branch_kl": 0.3})),
        seeds=3,
        epochs=80,
        batch=64,
        data="cifar100",
        classes=20,
        limit=2500,
        notes=(
            "125 images of each class to learn from, 2,000 in all to be tested on; all else as the paper's recipe.",
        ),
    ),
    table19.TABLE,
    table13.TABLE,
)
