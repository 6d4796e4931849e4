"""Which stages of two networks belong together."""

from __future__ import annotations

from typing import TypeAlias

Alignment: TypeAlias = tuple[tuple[int, int], ...]
"""(student stage, teacher stage) for each pair of stages that belong together, both counted from 0."""
