"""Effect of the number of branches: the question of Table 14, on few labelled digits."""

from dataclasses import replace

from sftn.experiments.paper import table14
from sftn.experiments.studies.digits import DEMO
from sftn.experiments.studies.study import Study

STUDY = Study(
    replace(
        DEMO,
        name="branches",
        title="Effects of the number of student branches, on 200 digits",
        methods=("kd",),
        settings=table14.TABLE.settings,
        alone=False,
        notes=("The question of Table 14, in the setting of the study digits.",),
    )
)
