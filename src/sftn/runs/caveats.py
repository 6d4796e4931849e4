"""Caveats: what readers of a result must know before they believe its accuracy, such as a network that collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from sftn.errors import printable

UNEQUAL = 1.5
"""From how many times the images of the smallest class on a test half's classes count as unequal."""
_NAMED = 5
"""So many classes are named in a sentence; of more, their number."""


class Record(NamedTuple):
    """What `result.json` says about a network's answers to the test images; older results say less."""

    accuracy: float
    collapsed: bool
    favourite: float | None
    """Share of the test images in percent that get the most frequently predicted class."""
    names: tuple[str, ...]
    images: tuple[int, ...]
    """Test images by class; empty if unknown."""
    recall: tuple[float | None, ...]
    """Recall by class in percent, None for a class without test images; empty if unknown."""

    @staticmethod
    def of(result: Mapping[str, Any]) -> Record:
        """Read the content of `result.json`."""
        by_class = result.get("by_class") or {}
        return Record(
            result.get("accuracy", 0.0),
            bool(result.get("collapsed")),
            (result.get("test") or {}).get("favourite"),
            tuple(printable(str(name)) for name in (result.get("images") or {}).get("classes", ())),
            tuple(by_class.get("images", ())),
            tuple(by_class.get("recall", ())),
        )

    @property
    def unequal(self) -> bool:
        """Whether some classes have so many more test images than others that accuracy hides the small ones."""
        there = [count for count in self.images if count]
        return bool(there) and max(there) >= UNEQUAL * min(there)

    @property
    def balanced(self) -> float | None:
        """Balanced accuracy in percent: the mean recall of the classes that are tested; None if unknown."""
        known = [recall for recall in self.recall if recall is not None]
        return fmean(known) if known else None

    @property
    def never(self) -> list[str]:
        """The classes that have test images, none of which is recognised."""
        return [name for name, recall in zip(self.names, self.recall) if recall == 0]

    @property
    def by_chance(self) -> bool:
        """Whether it is hardly better than guessing: less than a tenth of the way from chance to no error.

        It is judged by balanced accuracy where that is known, because chance is then 100/K whatever the classes' sizes.
        """
        if len(self.names) < 2:
            return False
        chance = 100 / len(self.names)
        return (self.accuracy if self.balanced is None else self.balanced) - chance < (100 - chance) / 10

    @property
    def failed(self) -> bool:
        """Whether the network has learned next to nothing, so that no comparison with it means anything."""
        return self.collapsed or self.by_chance

    def caveats(self) -> list[str]:
        """What is to be known, as predicates without a subject."""
        found = []
        if self.collapsed:
            share = "nearly all" if self.favourite is None else f"{self.favourite:.1f} % of the"
            found.append(f"gives {share} test images the same class")
        elif self.by_chance:
            scored = self.accuracy if self.balanced is None else self.balanced
            kind = "" if self.balanced is None else "balanced "
            found.append(
                f"is hardly better than chance ({kind}accuracy {scored:.1f} %, guessing {100 / len(self.names):.1f} %)"
            )
        if self.never:
            found.append(f"never recognises {listed(self.never)}")
        return found


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, or their number if they are many."""
    if len(names) > _NAMED:
        return f"{len(names)} classes ({', '.join(names[:3])}, …)"
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def of_student(result: Mapping[str, Any], teacher: str, taught_by: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with a distilled student's teacher, as predicates of the student; empty if that is unknown."""
    if taught_by is None:
        return []
    record, ours = Record.of(taught_by), result["accuracy"]
    found = [f"had a teacher, {teacher}, that {record.caveats()[0]}"] if record.failed else []
    if record.accuracy < ours:
        found.append(f"scored more than its teacher {teacher} ({ours:.2f} % against {record.accuracy:.2f} %)")
    return found


def over_seeds(results: Mapping[int, Mapping[str, Any]]) -> dict[str, str]:
    """The caveats of one network over seeds, each with the seeds that it holds for.

    Returns:
        Predicates by kind: `collapsed`, `chance` and `never`.
    """
    records = {seed: Record.of(result) for seed, result in results.items()}
    collapsed = [seed for seed, one in records.items() if one.collapsed]
    chance = [seed for seed, one in records.items() if one.by_chance and not one.collapsed]
    never = {seed: one.never for seed, one in records.items() if one.never}
    names = list(dict.fromkeys(name for some in never.values() for name in some))
    found = {
        "collapsed": (collapsed, "gives nearly all test images the same class"),
        "chance": (chance, "is hardly better than chance"),
        "never": (list(never), f"never recognises {listed(names)}" if names else ""),
    }
    return {kind: said + _which(seeds, len(records)) for kind, (seeds, said) in found.items() if seeds}


def failed_seeds(results: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """The seeds whose network has learned next to nothing."""
    return [seed for seed, result in results.items() if Record.of(result).failed]


def _which(seeds: Sequence[int], of: int) -> str:
    """The seeds that something holds for, in brackets; nothing if there is one seed."""
    if of == 1:
        return ""
    if len(seeds) == of:
        return f" (in all {of} seeds)"
    return f" (in {len(seeds)} of {of} seeds: {', '.join(map(str, seeds))})"
