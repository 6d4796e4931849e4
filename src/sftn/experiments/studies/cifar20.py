"""Three methods on the first 20 classes of CIFAR-100, with a short schedule."""

from sftn.experiments.paper import figure5, table11, table13, table19
from sftn.experiments.studies.study import Study
from sftn.experiments.table import Pair, Table

SHORT = Table(
    name="cifar20",
    title="The first 20 classes of CIFAR-100, 20 epochs",
    pairs=(Pair("resnet20", "resnet8"),),
    methods=("kd", "sp", "crd"),
    seeds=3,
    epochs=20,
    batch=64,
    data="cifar100",
    classes=20,
    notes=("10,000 images for training, 2,000 for testing; everything else as in the paper's recipe.",),
)

STUDY = Study.of(SHORT, table19.TABLE, table13.TABLE, table11.TABLE, figure5.TABLE)
