"""Differences between a measurement's settings and the paper's, listed for readers who compare the numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sftn.analysis.corruptions import CORRUPTIONS
from sftn.analysis.transfer import Probe


def remarks(settings: Mapping[str, Any], targets: Collection[str] = ()) -> list[str]:
    """List how a measurement differs from the paper's, one phrase each; empty if no difference is known.

    Args:
        settings: the settings of a reading.
        targets: the target data sets of the paper's transfer experiment.
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
        found.append(f"features transferred to {settings['to']} instead of {' and '.join(targets)}")
    if "probe" in settings and settings["probe"]["epochs"] != Probe.epochs:
        found.append(f"a linear classifier of {settings['probe']['epochs']} epochs instead of {Probe.epochs}")
    return found
