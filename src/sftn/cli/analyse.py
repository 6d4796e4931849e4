"""The command that says more of trained networks than their accuracy."""

from __future__ import annotations

from typing import Annotated

import tyro

from sftn.cli.analyse_options import Analysis


def analyse(analysis: Annotated[Analysis, tyro.conf.arg(name="")]) -> None:
    """Corruption, transfer, similarity, entropy or curves of trained networks, as table, JSON, CSV and figure."""
    from sftn.cli.commands import analyse

    analyse.analyse(analysis)
