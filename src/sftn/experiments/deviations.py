"""What a reader must know before comparing what was measured with what is printed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sftn.analysis.corruptions import CORRUPTIONS
from sftn.analysis.transfer import Probe


def remarks(settings: Mapping[str, Any], targets: Collection[str] = ()) -> list[str]:
    """In what a measurement differs from the paper's, a phrase each; empty if in nothing that is known.

    Args:
        settings: of a reading.
        targets: the data sets that the paper carries features to.
    """
    found = []
    if settings.get("images") == "generated":
        found.append("corrupted images were generated here and are not the official files (frost is not comparable)")
    names = settings.get("corruptions")
    if names is not None and len(names) < len(CORRUPTIONS):
        found.append(f"{len(names)} of {len(CORRUPTIONS)} corruptions only ({', '.join(names)})")
    if settings["test_images"] < settings["of"]:
        found.append(f"measured on {settings['test_images']:,} of {settings['of']:,} test images")
    if targets and settings.get("to") not in targets:
        found.append(f"features carried to {settings['to']} instead of {' and '.join(targets)}")
    if "probe" in settings and settings["probe"]["epochs"] != Probe.epochs:
        found.append(f"a linear classifier of {settings['probe']['epochs']} epochs instead of {Probe.epochs}")
    return found
