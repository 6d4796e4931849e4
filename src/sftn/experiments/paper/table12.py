"""Table 12: transfer of students' features to STL-10 and Tiny-ImageNet."""

from sftn.experiments.metrics import Measured, transfer_quantity
from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Pair, Table

_STL10, _TINY_IMAGENET = transfer_quantity("stl10"), transfer_quantity("tiny-imagenet")

TABLE = Measured(
    Table(
        name="table12",
        title="Transfer to STL10 and TinyImageNet",
        section="A.2",
        pairs=(Pair("resnet32x4", "shufflev2"),),
        methods=("kd", "sp", "crd", "sskd", "oh"),
        alone=False,
        published="",
        notes=(
            *FAULTS["table12"],
            "The paper says “5 different knowledge distillation algorithms” and does not name them: KD, SP, CRD, SSKD "
            "and OH are our choice. The protocol of the linear classifier is HSAKD's, because the paper states none.",
        ),
    ),
    measure="transfer",
    quantities=(_STL10, _TINY_IMAGENET),
    printed_gains={_STL10.label: 4.71, _TINY_IMAGENET.label: 6.07},
    targets=("stl10", "tiny-imagenet"),
)
