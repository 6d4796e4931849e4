"""Effect of whether the branches can fit the training images: two students on ten classes of CIFAR-100.

A wrn_16_2 memorises its 5,000 images. Of its two students, resnet8 cannot and a second wrn_16_2 can, so the branches
of the first never fit what the teacher fits, and those of the second may.
"""

from sftn.experiments.paper import table13, table19
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Pair, Table


def _study(epochs: int) -> Study:
    return Study.of(
        Table(
            name=f"horizon{epochs}",
            title=f"Students that fit their images, and one that does not: 10 classes of CIFAR-100, {epochs} epochs",
            pairs=(Pair("wrn_16_2", "resnet8"), Pair("wrn_16_2", "wrn_16_2")),
            seeds=3,
            epochs=epochs,
            batch=64,
            data="cifar100",
            classes=10,
            notes=("5,000 images for training, 1,000 for testing; everything else as in the paper's recipe.",),
        ),
        table19.TABLE,
        table13.TABLE,
    )


SHORT, LONG = _study(60), _study(240)
