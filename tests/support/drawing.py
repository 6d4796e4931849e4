"""What drawing and looking at pages needs."""

from __future__ import annotations

import shutil

import pytest

from sftn.report.figures import tables

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRAWN = pytest.mark.skipif(not tables.available(), reason="matplotlib is not installed")
