"""Importing timm and torchvision, even if torchvision's compiled operators do not fit the installed torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from sftn.errors import InputError

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""Operators for which torchvision registers kernels on import; no classifier calls them."""

_declared: list[torch.library.Library] = []
"""Operators live as long as the library that declares them."""


def imported(name: str) -> ModuleType:
    """Import `timm`, `torchvision` or a submodule of them.

    torchvision's CUDA wheel cannot load its operators with a CPU build of torch ("operator torchvision::nms does not
    exist"); networks and transforms need none of them, so they are declared here and the import is retried.

    Raises:
        InputError: it is not installed, or cannot be imported for another reason.
    """
    package = name.partition(".")[0]
    try:
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        for loaded in [module for module in sys.modules if module.partition(".")[0] in ("timm", "torchvision")]:
            del sys.modules[loaded]  # half-imported modules
        library = torch.library.Library("torchvision", "DEF")
        for operator in _OPERATORS:
            library.define(operator)
        _declared.append(library)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("timm", "torchvision"):
            raise
        raise InputError(f"{package}'s networks need {error.name}: pip install 'sftn[{package}]'") from error
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise InputError(
            f"{package} cannot be imported ({reason[0][:120].rstrip('. ')}): install the {package} and torchvision "
            f"that fit torch {torch.__version__}"
        ) from error
