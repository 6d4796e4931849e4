"""Stage alignment: which stages of a student and its teacher correspond."""

from __future__ import annotations

from typing import TypeAlias

Alignment: TypeAlias = tuple[tuple[int, int], ...]
"""Pairs (student stage, teacher stage) of corresponding stages, both counted from 0."""
