"""Statistics over seeds: mean, standard deviation, a paired t-test, and the verdict on two teachers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Doubts(NamedTuple):
    """What is wrong with the networks that a verdict rests on."""

    reasons: tuple[str, ...]
    """Clauses, each with its subject."""
    hollow: bool
    """Whether a student learned next to nothing in every seed, so that there is nothing to compare."""


def spread(values: Sequence[float], *, sign: bool = False) -> str:
    """Mean ± sample standard deviation as text; a single value has no deviation."""
    mean = statistics.fmean(values)
    text = f"{mean:+.2f}" if sign else f"{mean:.2f}"
    return f"{text} ± {statistics.stdev(values):.2f}" if len(values) > 1 else text


def p_value(gaps: Sequence[float]) -> float | None:
    """Two-sided p-value of a paired t-test; None for fewer than two seeds.

    It is 1 if all differences are zero, and 0 if all are equal but not zero.
    """
    from scipy import stats

    if len(gaps) < 2:
        return None
    if statistics.stdev(gaps) == 0:
        return float(gaps[0] == 0)
    return float(stats.ttest_1samp(gaps, 0.0).pvalue)


def said(p: float, digits: int) -> str:
    """A p-value as text, such as `= 0.03`, or `< 0.01` if it would be rounded to zero."""
    least = 10.0**-digits
    return f"< {least:g}" if p < least / 2 else f"= {p:.{digits}f}"


def gain(who: str, taught: Sequence[float], alone: Sequence[float], doubts: Doubts | None = None) -> str:
    """One sentence on whether a student scored higher when taught by a standard teacher than alone.

    Args:
        who: method and student, such as "With KD, resnet8".
        taught: accuracies with the teacher in percent, one per seed.
        alone: accuracies of the student without a teacher, for the same seeds.
        doubts: what is wrong with the networks behind these numbers; None for nothing.
    """
    how = "when taught by the standard teacher than alone", "with the teacher as alone"
    return _sentence(who, how, taught, alone, doubts)


def together(who: str, both: Sequence[float], standard: Sequence[float], doubts: Doubts | None = None) -> str:
    """One sentence on whether a student scored higher when taught by both teachers together than by the standard one.

    Args:
        who: method and student, such as "With KD, resnet8".
        both: accuracies with both teachers in percent, one per seed.
        standard: accuracies with the standard teacher alone, for the same seeds.
        doubts: what is wrong with the networks behind these numbers; None for nothing.
    """
    how = "when taught by both teachers together than by the standard one", "with both as with the standard teacher"
    return _sentence(who, how, both, standard, doubts)


def _sentence(
    who: str, ends: tuple[str, str], taught: Sequence[float], other: Sequence[float], doubts: Doubts | None
) -> str:
    """How a student scored against itself otherwise; `ends` are those of a sentence on a difference and on none."""
    if doubts is not None and doubts.hollow:
        return f"{who}: nothing can be concluded, because {'; '.join(doubts.reasons)}."
    scored, how = _difference([t - o for t, o in zip(taught, other, strict=True)])
    care = f" But {'; '.join(doubts.reasons)}." if doubts is not None and doubts.reasons else ""
    return f"{who} scored {scored or 'the same'} {ends[0] if scored else ends[1]} ({how}).{care}"


def _difference(gaps: Sequence[float]) -> tuple[str, str]:
    """The mean of paired differences, such as `0.63 points lower` or empty for none, and how sure it is."""
    mean, n, p = round(statistics.fmean(gaps), 2), len(gaps), p_value(gaps)
    scored = f"{abs(mean):.2f} points {'higher' if mean > 0 else 'lower'}" if mean else ""
    if p is None:
        return scored, "one seed: this shows little"
    found = "a significant difference" if p < 0.05 else "no significant difference"
    wins = sum(gap > 0 for gap in gaps)
    return scored, f"higher in {wins} of {n} seeds; {found}, paired t-test, p {said(p, 2)}"


def verdict(
    who: str,
    standard: Sequence[float],
    friendly: Sequence[float],
    alone: Sequence[float] = (),
    doubts: Doubts | None = None,
) -> str:
    """One sentence on whether the student scored higher when taught by the student-friendly teacher.

    Seeds are paired: both students of a seed start from the same weights and see the same batches. A difference is
    called significant only if a paired t-test gives p < 0.05, and never with a single seed. Nothing is concluded from
    students that learned next to nothing in all seeds.

    Args:
        who: method and student, such as "With KD, resnet8".
        standard: accuracies with the standard teacher in percent, one per seed.
        friendly: accuracies with the student-friendly teacher, for the same seeds.
        alone: accuracies of the student without a teacher, if known.
        doubts: what is wrong with the networks behind these numbers; None for nothing.
    """
    if doubts is not None and doubts.hollow:
        return f"{who}: nothing can be concluded, because {'; '.join(doubts.reasons)}."
    scored, how = _difference([f - s for s, f in zip(standard, friendly, strict=True)])
    text = f"{who} scored {scored} when taught by the student-friendly teacher ({how})"
    if not scored:
        text = f"{who} scored the same with both teachers ({how})"
    care = f" But {'; '.join(doubts.reasons)}." if doubts is not None and doubts.reasons else ""
    if not alone:
        return f"{text}.{care}"
    over = round(statistics.fmean(friendly) - statistics.fmean(alone), 2)
    where = f"{abs(over):.2f} points {'above' if over > 0 else 'below'}" if over else "level with"
    return f"{text}; it ended {where} the student alone.{care}"
