"""Figures of analyses for print and screen, as SVG and PNG, drawn with matplotlib (the extra `report`).

Colours are Okabe and Ito's, which colour-blind people can tell apart; each has its own marker and dashes, so that
figures also work in greyscale.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sftn.analysis.corruption import Robustness
from sftn.analysis.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from sftn.analysis.curves import Curve, Point
from sftn.errors import InputError
from sftn.storage.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def require() -> None:
    """Check that figures can be drawn, before a long computation.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("matplotlib is not installed: pip install 'sftn[report]', or leave figures out") from None


def panels(columns: int, width: float = 4.2, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """An empty figure with panels side by side, drawn without a display; sizes are per panel, in inches.

    Raises:
        InputError: matplotlib is not installed.
    """
    require()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, list(axes)


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write NAME.svg and NAME.png (200 dpi) and return the SVG's path; equal figures give equal bytes.

    Characters of a name that some file systems do not take become hyphens.

    Raises:
        InputError: the folder cannot be written.
    """
    import matplotlib

    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", name)
    _take_literally(figure)
    for kind in ("svg", "png"):
        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "sftn", "svg.fonttype": "none"}):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(content, format=kind, dpi=200, metadata=metadata)
        write_atomically(folder / f"{name}.{kind}", content.getvalue())
    return folder / f"{name}.svg"


def _take_literally(figure: Figure) -> None:
    """Show every text as it is: a name between dollar signs is no formula, only powers at logarithmic axes are."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    numbers = {
        id(text)
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for text in axis.get_ticklabels(which="both")
    }
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)


def legend(name: str) -> str:
    """A name for a legend, which would leave out one that begins with an underscore."""
    return f" {name}" if name.startswith("_") else name


def robustness(found: Sequence[Robustness]) -> Figure:
    """Robustness (Table 11) as a figure: mean accuracy by severity and, averaged over severities, by corruption."""
    figure, (by_severity, by_kind) = panels(2, width=4.6, height=4.2)
    kinds = list(found[0].accuracy)
    for i, one in enumerate(found):
        style = _style(i)
        by_severity.plot((0, *SEVERITIES), one.averages, label=legend(one.network), **style)
        values = [fmean(one.accuracy[kind]) for kind in kinds]
        by_kind.plot(values, range(len(kinds)), label=legend(one.network), **style | {"linestyle": "none"})
    by_severity.set(xlabel="severity (0: without distortion)", ylabel="test accuracy in %", ylim=(0, None))
    by_kind.set(xlabel="test accuracy in %, mean of severities 1 to 5", yticks=range(len(kinds)), xlim=(0, None))
    by_kind.set_yticklabels([kind.replace("_", " ") for kind in kinds], fontsize=8)
    by_kind.invert_yaxis()
    _legend(figure, by_severity)
    return figure


def values(rows: Sequence[Mapping[str, Any]], label: str, columns: Mapping[str, str]) -> Figure:
    """Draw a small table: a panel for each column, a mark for each row.

    Args:
        rows: the table.
        label: the column that names the rows.
        columns: the columns to draw, mapped to the axis titles.
    """
    figure, axes = panels(len(columns), width=max(3.4, 5.6 / len(columns)), height=1.2 + 0.45 * len(rows))
    for ax, (column, title) in zip(axes, columns.items()):
        numbers = [float(row[column]) for row in rows]
        for i, number in enumerate(numbers):
            ax.hlines(i, 0, number, color=COLOURS[i % len(COLOURS)], linewidth=1.2)
            ax.plot(number, i, **_style(i) | {"linestyle": "none", "markersize": 7})
            ax.annotate(
                f"{number:.4g}", (number, i), xytext=(0, 6), textcoords="offset points", fontsize=7, ha="center"
            )
        ax.set(yticks=range(len(rows)), ylim=(len(rows) - 0.4, -0.7))
        ax.set_xlabel(title, fontsize=9)
        ax.set_xlim(0, 1.12 * max(numbers, default=0) or 1)
        names = ["\n".join(textwrap.fill(part, 34) for part in str(row[label]).splitlines()) for row in rows]
        ax.set_yticklabels(names if ax is axes[0] else [], fontsize=8)
        ax.grid(False, axis="y")
    return figure


def training(curves: Sequence[Curve]) -> Figure:
    """Figure 5: KD term in training and test accuracy; runs of one name are averaged, and their range is shaded."""
    named: dict[str, list[Curve]] = {}
    for one in curves:
        named.setdefault(one.name, []).append(one)
    figure, (left, right) = panels(2)
    from matplotlib.ticker import MaxNLocator

    for i, (name, seeds) in enumerate(named.items()):
        name = legend(name)
        label = name if len(seeds) == 1 else f"{name} ({len(seeds)} seeds)"
        _range(left, [(one.epochs, one.kl) for one in seeds], label, i)
        _range(right, [(one.epochs, one.accuracy) for one in seeds], label, i)
    left.set(xlabel="epoch", ylabel="KL divergence in training")
    right.set(xlabel="epoch", ylabel="test accuracy in %")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    numbers = [value for one in curves for value in one.kl if value is not None]
    if numbers and min(numbers) > 0:
        left.set_yscale("log")
    _legend(figure, right)
    return figure


def capacity(points: Sequence[Point]) -> Figure:
    """Figure 4: student accuracy against teacher accuracy, for standard and student-friendly teachers."""
    figure, (ax,) = panels(1, width=5.2, height=3.6)
    for i, (friendly, label) in enumerate(((False, "standard teacher"), (True, "student-friendly teacher"))):
        named: dict[str, list[Point]] = {}
        for point in points:
            if point.friendly == friendly:
                named.setdefault(f"{point.teacher} → {point.student}", []).append(point)
        means = sorted(
            (fmean(p.teacher_accuracy for p in own), fmean(p.student_accuracy for p in own), name)
            for name, own in named.items()
        )
        if means:
            xs, ys, _ = zip(*means)
            ax.plot(xs, ys, label=label, **_style(i))
            for x, y, name in means:
                ax.annotate(name, (x, y), xytext=(4, 5), textcoords="offset points", fontsize=7)
    ax.set(xlabel="teacher accuracy in %", ylabel="student accuracy in %")
    ax.margins(x=0.25, y=0.12)
    ax.legend(frameon=False, fontsize=8)
    return figure


def contact_sheet(image: NDArray[np.uint8], seed: int = 0) -> Figure:
    """Draw one (H, W, 3) uint8 image with every corruption at every severity."""
    require()
    from matplotlib.figure import Figure

    names = list(CORRUPTIONS)
    figure = Figure(figsize=(9.4, 6.3))
    # Two halves with an empty column between them.
    widths = [1] * 6 + [0.4] + [1] * 6
    grid = figure.subplots(10, 13, gridspec_kw={"wspace": 0.06, "hspace": 0.06, "width_ratios": widths})
    figure.subplots_adjust(left=0.13, right=0.87, top=0.955, bottom=0.01)
    for ax in grid.flat:
        ax.set_axis_off()
    for k, name in enumerate(names):
        half, row = divmod(k, 10)
        left = 7 * half
        shown = [image, *(corrupt(image[None], name, severity, seed=seed)[0] for severity in SEVERITIES)]
        for column, pixels in enumerate(shown):
            grid[row, left + column].imshow(pixels, interpolation="nearest")
        edge, side, at = (grid[row, left], "right", -0.08) if half == 0 else (grid[row, left + 5], "left", 1.08)
        edge.text(at, 0.5, name.replace("_", "\n"), ha=side, va="center", fontsize=8, transform=edge.transAxes)
    for half in (0, 1):
        for column, title in enumerate(("clean", *map(str, SEVERITIES))):
            grid[0, 7 * half + column].set_title(title, fontsize=8)
    return figure


def _style(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i % len(DASHES)],
        "markersize": 5,
        "linewidth": 1.4,
    }


def _range(ax: Axes, lines: Sequence[tuple[Sequence[int], Sequence[float | None]]], label: str, i: int) -> None:
    """Draw the mean and range of several lines over the epochs that all of them have."""
    by_epoch: dict[int, list[float]] = {}
    for epochs, numbers in lines:
        for epoch, number in zip(epochs, numbers):
            if number is not None:
                by_epoch.setdefault(epoch, []).append(number)
    shared = sorted(epoch for epoch, own in by_epoch.items() if len(own) == len(lines))
    if not shared:
        return
    ax.plot(
        shared,
        [fmean(by_epoch[epoch]) for epoch in shared],
        label=label,
        **_style(i) | {"markevery": max(1, len(shared) // 8)},
    )
    if len(lines) > 1:
        low, high = ([pick(by_epoch[epoch]) for epoch in shared] for pick in (min, max))
        ax.fill_between(shared, low, high, color=COLOURS[i % len(COLOURS)], alpha=0.15, linewidth=0)


def _legend(figure: Figure, ax: Axes) -> None:
    """Add a legend below the panels, because names of runs are long."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=1 if len(labels) < 4 else 2, frameon=False, fontsize=8
    )
