"""A stronger, fully trained teacher: 2,500 images of 20 classes of CIFAR-100, 80 epochs.

The paper's gain is over standard teachers that are confident on every training image; those of `cifar20` are not.
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
            "125 images per class for training, 2,000 in all for testing; everything else as in the paper's recipe.",
        ),
    ),
    table19.TABLE,
    table13.TABLE,
)
