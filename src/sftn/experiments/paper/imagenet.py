"""ImageNet: the experiment that section B.2 describes."""

from sftn.experiments.paper.published import FAULTS
from sftn.experiments.table import Pair, Table

TABLE = Table(
    name="imagenet",
    title="Standard and student-friendly teachers on ImageNet",
    section="B.2",
    pairs=(Pair("imagenet_resnet50", "imagenet_resnet34"),),
    methods=("kd", "sp", "crd", "sskd", "oh"),
    published="",
    seeds=1,
    recipe="imagenet",
    data="imagenet",
    notes=FAULTS["imagenet"],
)
