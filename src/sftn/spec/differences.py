"""What tells runs of one name apart: the settings in which they differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from sftn.spec.run import Run, Weights

FILE = "teacher's file"
_IN_THE_NAME = {"network", "student", "seed", "path"}
"""Fields that a name shows, or that make no other kind of run."""
_WORDS = {"fingerprint": "content", "sha256": "file", "name": "images"}


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run that differs wherever more than the seed does: `wrn_16_2-for-resnet8 (branch_kl 0.3)`.

    Runs that differ in nothing but their seeds have the same label.
    """
    return [
        f"{run.name} ({difference})" if difference else run.name for run, difference in zip(runs, differences(runs))
    ]


def differences(runs: Sequence[Run]) -> list[str]:
    """For each run, the settings in which the runs of its name differ; empty where they differ in the seed alone."""
    settings = [dict(_settings(run)) for run in runs]
    found = []
    for run, own in zip(runs, settings):
        others = [other for one, other in zip(runs, settings) if one.name == run.name]
        parts = {name: value for name, value in own.items() if any(other.get(name, "") != value for other in others)}
        kinds = {FILE in other for other in others}
        if len(kinds) > 1:  # a run's teacher beside a file's: all else that differs between them says no more
            origin = f"teacher's file {own[FILE]}" if FILE in own else "teacher trained here"
            parts = {name: value for name, value in parts.items() if not name.startswith("teacher's ")}
            found.append(", ".join([*(f"{name} {value}" for name, value in parts.items()), origin]))
            continue
        parts |= {name: "none" for other in others for name in other if name not in own}
        same = [name for name, value in parts.items() if parts.get(name.removeprefix("teacher's ")) == value]
        for name in [name for name in same if name.startswith("teacher's ")]:
            del parts[name]  # the student's own says it
        if "images" in parts:
            parts.pop("content", None)
        found.append(", ".join(f"{name} {value}" for name, value in parts.items()))
    return found


def _settings(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a record by name, as texts; a teacher's own begin with `teacher's`."""
    for each in fields(value):
        part = getattr(value, each.name)
        if each.name in _IN_THE_NAME or part is None:
            continue
        if each.name == "further":
            for number, teacher in enumerate(part, 2):
                yield from _settings(teacher, f"{prefix}teacher {number}'s ")
        elif each.name == "terms":
            for term in part:
                yield from _settings(term, f"{prefix}{term.method}'s ")
        elif is_dataclass(part):
            yield from _settings(part, f"{prefix}teacher's " if isinstance(part, Run | Weights) else prefix)
        else:
            yield prefix + _WORDS.get(each.name, each.name), _text(part)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, tuple | list):
        return " ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text[:8] if len(text) in (16, 64) and all(c in "0123456789abcdef" for c in text) else text
