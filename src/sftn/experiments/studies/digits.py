"""Twelve methods on few labelled digits: the setting of `sftn demo`, with more seeds and methods."""

from sftn.experiments.paper import table13, table19
from sftn.experiments.studies.study import Study
from sftn.experiments.table import METHODS, Pair, Table

DEMO = Table(
    name="digits",
    title="Twelve methods on 200 digits",
    pairs=(Pair("resnet20", "resnet8"),),
    methods=METHODS,
    seeds=5,
    epochs=80,
    batch=32,
    data="digits",
    limit=200,
    notes=("20 labelled digits per class for training, 1,000 digits for testing; the setting of sftn demo.",),
)

STUDY = Study.of(DEMO, table19.TABLE, table13.TABLE)
