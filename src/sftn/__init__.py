"""Student-friendly teachers: train a network so that a smaller one can learn from it, then distil it.

    >>> import sftn
    >>> print(sftn.compare("resnet20", "resnet8", "digits", epochs=2, seeds=1))  # doctest: +SKIP

Three functions do the whole job: `compare`, `train_teacher` and `distill`. The classes are for your own training loop:
`StudentBranches`, `Supervised` and `Distiller` are plain modules that return a loss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sftn.data.load import load as load
    from sftn.data.sources.torch_dataset import from_torch as from_torch
    from sftn.errors import InputError as InputError
    from sftn.experiments.api import compare as compare
    from sftn.experiments.api import distill as distill
    from sftn.experiments.api import train_teacher as train_teacher
    from sftn.experiments.comparison import Comparison as Comparison
    from sftn.methods import METHODS as METHODS
    from sftn.methods.base import Method as Method
    from sftn.networks import NETWORKS as NETWORKS
    from sftn.networks import build as build
    from sftn.networks.foreign.automatic import cut as cut
    from sftn.networks.foreign.cut import staged as staged
    from sftn.networks.staged import StagedNet as StagedNet
    from sftn.runs.train import TrainedNetwork as TrainedNetwork
    from sftn.spec.objective import Objective as Objective
    from sftn.spec.schedule import Schedule as Schedule
    from sftn.tasks.distillation import Distiller as Distiller
    from sftn.tasks.recipes import objective as objective
    from sftn.tasks.student_branches import StudentBranches as StudentBranches
    from sftn.tasks.supervised import Supervised as Supervised
    from sftn.training.loop import fit as fit
    from sftn.training.phase import Phase as Phase

_PLACES = {
    "sftn.data.load": ("load",),
    "sftn.data.sources.torch_dataset": ("from_torch",),
    "sftn.errors": ("InputError",),
    "sftn.experiments.api": ("compare", "distill", "train_teacher"),
    "sftn.experiments.comparison": ("Comparison",),
    "sftn.methods": ("METHODS",),
    "sftn.methods.base": ("Method",),
    "sftn.networks": ("NETWORKS", "build"),
    "sftn.networks.foreign.automatic": ("cut",),
    "sftn.networks.foreign.cut": ("staged",),
    "sftn.networks.staged": ("StagedNet",),
    "sftn.runs.train": ("TrainedNetwork",),
    "sftn.spec.objective": ("Objective",),
    "sftn.spec.schedule": ("Schedule",),
    "sftn.tasks.distillation": ("Distiller",),
    "sftn.tasks.recipes": ("objective",),
    "sftn.tasks.student_branches": ("StudentBranches",),
    "sftn.tasks.supervised": ("Supervised",),
    "sftn.training.loop": ("fit",),
    "sftn.training.phase": ("Phase",),
}
_NAMES = {name: module for module, names in _PLACES.items() for name in names}
__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import sftn` is instant and needs no PyTorch."""
    if name not in _NAMES:
        raise AttributeError(f"module 'sftn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
