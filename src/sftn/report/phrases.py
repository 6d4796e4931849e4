"""Phrases that several pages share."""

from __future__ import annotations

import statistics

from sftn.experiments.collect import Section
from sftn.experiments.table import Pair, Table


def heading(table: Table) -> str:
    """The title of a table's page."""
    return f"{label(table)}: {table.title}"


def label(table: Table) -> str:
    """A table's name for readers, such as Table 17 or Figure 5."""
    return table.name.replace("table", "Table ").replace("figure", "Figure ").replace("imagenet", "ImageNet")


def names(pair: Pair) -> str:
    """A pair as teacher → student."""
    return f"{pair.teacher} → {pair.student}"


def printed_in(table: Table) -> str:
    """The source of the printed numbers; empty for a study."""
    if table.source == "study":
        return ""
    if not table.published:
        return f"{label(table)} is described in section {table.section} of the supplementary document, without numbers."
    return (
        f"Printed numbers: Learning Student-Friendly Teacher Networks for Knowledge Distillation (NeurIPS 2021), "
        f"supplementary document, section {table.section}, {label(table)}."
    )


def gain_sentence(section: Section) -> str:
    """A sentence on the mean gain over all complete cells, ours and printed."""
    ours, theirs = section.gains()
    if not ours:
        return "No student has all its seeds with both teachers yet, so no mean gain is given."
    text = f"Mean gain of SFTN over the standard teacher: ours {statistics.fmean(ours):+.2f} over {len(ours)} cells"
    if not theirs:
        return text + "; the paper has no numbers for these pairs."
    return text + f", printed {statistics.fmean(theirs):+.2f} over the same {len(theirs)}."
