"""What was logged, by the module that said it."""

from __future__ import annotations

import pytest


def of(caplog: pytest.LogCaptureFixture, *modules: str) -> list[str]:
    """Messages of the modules of these names, without their packages."""
    return [record.getMessage() for record in caplog.records if record.name.rpartition(".")[2] in modules]
