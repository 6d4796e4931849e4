"""Figures of tables as SVG and PNG, suitable for colour-blind readers and greyscale print."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sftn.errors import InputError
from sftn.experiments.collect import Section
from sftn.experiments.table import ALONE, FRIENDLY, STANDARD, Cell, Pair
from sftn.report.document import Drawing
from sftn.report.figures.analysis import save
from sftn.report.phrases import names
from sftn.runs.folder import Entry

MISSING = "There are no figures: matplotlib is not installed (pip install 'sftn[report]')."

STYLES: dict[str, dict[str, Any]] = {
    STANDARD: {"color": "#0072B2", "linestyle": "--", "label": "standard teacher"},
    FRIENDLY: {"color": "#D55E00", "linestyle": "-", "label": "student-friendly teacher"},
    ALONE: {"color": "#444444", "linestyle": ":", "label": "no teacher"},
}
"""Line styles by kind of teacher; colours are from Okabe and Ito's palette, and dashes differ as well."""


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def missing() -> str:
    """The reason why there are no figures; empty if there are."""
    return "" if available() else MISSING


def draw(section: Section, folder: Path, prefix: str) -> list[Drawing]:
    """Draw all figures of a section, as SVG and PNG files of the same name; none without matplotlib.

    Raises:
        InputError: the folder cannot be written.
    """
    found: list[Drawing] = []
    for pair in section.table.pairs if available() else ():
        stem = f"{prefix}-{pair.teacher}-{pair.student}"
        about = f"{names(pair)}, {section.conditions}"
        drawings: tuple[tuple[str, str, Callable[[Section, Pair], Any]], ...] = (
            (f"Gain of the student-friendly teacher, {about}", "gain", gains),
            (f"Test accuracy in training, {about}", "curves", curves),
        )
        for caption, name, drawing in drawings:
            figure = drawing(section, pair)
            if figure is not None:
                found.append(Drawing(caption, save(figure, folder, f"{stem}-{name}")))
    return found


def gains(section: Section, pair: Pair) -> Any:
    """Our and the printed gain of each student, hollow where seeds are missing; None without gains."""
    lines = [line for line in section.lines(pair) if line.gain is not None and line.gain.mean is not None]
    lines = [line for line in lines if line.sides[FRIENDLY].cell.role == "student"]
    if not lines:
        return None
    figure, axes = canvas(1, 1, height=0.9 + 0.32 * len(lines), epochs=False)
    (axis,) = axes
    for place, line in enumerate(lines):
        gain = line.gain
        if gain is None or gain.mean is None:
            continue
        if line.printed_gain is not None:
            axis.plot(
                line.printed_gain, place, "s", color="#444444", markersize=6, label="printed" if not place else None
            )
        filled = STYLES[FRIENDLY]["color"] if gain.complete else "white"
        axis.errorbar(
            gain.mean,
            place,
            xerr=gain.std,
            fmt="o",
            color=STYLES[FRIENDLY]["color"],
            markerfacecolor=filled,
            capsize=3,
            label="ours" if not place else None,
        )
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_yticks(range(len(lines)), [line.label for line in lines])
    axis.invert_yaxis()
    axis.set_xlabel("gain in accuracy over the standard teacher, points")
    axis.legend(frameon=False, fontsize=8)
    return figure


def curves(section: Section, pair: Pair) -> Any:
    """Test accuracy over epochs, one panel per method: thin lines for seeds, a thick one for their mean."""
    rows = [row for row in section.table.rows(pair) if FRIENDLY in row.cells and row.cells[FRIENDLY].role == "student"]
    rows = [row for row in rows if any(section.entries.get(cell) for cell in row.cells.values())]
    if not rows:
        return None
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = canvas(lines, columns, height=0.6 + 1.9 * lines)
    alone = Cell(pair, "student", ALONE)
    for axis, row in zip(axes, rows):
        for way, cell in {ALONE: alone, **row.cells}.items():
            _curve(axis, section.entries.get(cell, {}), STYLES[way])
        axis.set_title(row.label, fontsize=9)
    for axis in axes[len(rows) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("test accuracy, %", fontsize=9)
    return figure


def _curve(axis: Any, entries: Mapping[int, Entry], style: Mapping[str, Any]) -> None:
    seeds = [accuracies(entry) for entry in entries.values()]
    seeds = [seed for seed in seeds if seed]
    if not seeds:
        return
    marker = "o" if max(map(len, seeds)) < 3 else None
    plain = {key: value for key, value in style.items() if key != "label"}
    for seed in seeds:
        axis.plot(list(seed), list(seed.values()), linewidth=0.6, alpha=0.5, **plain)
    epochs = sorted(set.intersection(*(set(seed) for seed in seeds)))
    means = [statistics.fmean(seed[epoch] for seed in seeds) for epoch in epochs]
    axis.plot(epochs, means, linewidth=1.6, marker=marker, markersize=4, **style)


def accuracies(entry: Entry) -> dict[int, float]:
    """Test accuracy by epoch from a run's log; empty if the log is damaged."""
    try:
        rows = entry.folder.history()
        return {int(row["epoch"]): float(row["test_accuracy"]) for row in rows if "test_accuracy" in row}
    except (InputError, KeyError, TypeError, ValueError):
        return {}


def canvas(rows: int, columns: int, height: float, width: float = 7.2, *, epochs: bool = True) -> tuple[Any, list[Any]]:
    """A figure without a window, and its axes in reading order; axes of epochs share their scale."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "axes.grid": True}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=epochs).flatten().tolist()
    for axis in axes:
        axis.grid(color="#dddddd", linewidth=0.5)
        axis.set_axisbelow(True)
        if epochs:
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return figure, axes
