"""Figures of the page of single runs: training curves, calibration, and size against accuracy."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sftn.errors import InputError
from sftn.experiments.comparison import Sized
from sftn.report.figures.analysis import legend
from sftn.report.figures.tables import accuracies, canvas
from sftn.runs.folder import Entry

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#444444", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"
_NO_TERMS = {"phase", "epoch", "lr", "accuracy", "images_per_second", "seconds"}


def style(number: int) -> dict[str, Any]:
    """Style of a line in a figure, distinguished by colour and dashes."""
    return {"color": COLOURS[number % 7], "linestyle": LINES[number // 7 % 4 if number > 6 else number % 4]}


def series(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, dict[int, float]], dict[int, str]]:
    """Every number of a log by epoch, counted through all phases, and the first epoch of each phase."""
    found: dict[str, dict[int, float]] = {}
    begins: dict[int, str] = {}
    phase = None
    for number, row in enumerate(rows, 1):
        if row.get("phase") != phase:
            phase = row.get("phase")
            begins[number] = str(phase)
        for name, value in row.items():
            if isinstance(value, float):
                found.setdefault(name, {})[number] = value
    return found, begins


def training(entry: Entry) -> Any:
    """Loss and its terms, and accuracy on training batches and test images; None without a readable log."""
    try:
        found, begins = series(entry.folder.history())
    except InputError:
        return None
    losses = {name: values for name, values in found.items() if name not in _NO_TERMS and not name.startswith("test_")}
    if "test_nll" in found:
        losses["cross-entropy, test"] = found["test_nll"]
    sides = {"training batches": found.get("accuracy", {}), "test": found.get("test_accuracy", {})}
    sides = {name: values for name, values in sides.items() if values}
    if not losses and not sides:
        return None
    figure, (left, right) = canvas(1, 2, height=3.4)
    for axis, curves, label in ((left, losses, "loss and its terms"), (right, sides, "accuracy, %")):
        for number, (name, values) in enumerate(curves.items()):
            marker = "o" if len(values) < 3 else None
            axis.plot(list(values), list(values.values()), label=name, marker=marker, **style(number))
        axis.set_xlabel("epoch")
        axis.set_title(label, fontsize=9)
        if curves:
            axis.legend(frameon=False, fontsize=7.5)
        for number, phase in begins.items() if len(begins) > 1 else ():
            axis.axvline(number - 0.5, color="#888888", linewidth=0.6)
            axis.text(number - 0.4, 1, phase, fontsize=7, va="top", transform=axis.get_xaxis_transform())
    heights = [height for curve in losses.values() for height in curve.values()]
    if heights and min(heights) > 0 and max(heights) > 50 * min(heights):
        left.set_yscale("log")
    return figure


def accuracy(entries: Mapping[str, Entry]) -> Any:
    """Test accuracy of single runs, by their titles, over epochs; None without a readable log."""
    curves = {title: accuracies(entry) for title, entry in entries.items()}
    seen = {title: curve for title, curve in curves.items() if curve}
    if not seen:
        return None
    figure, (axis,) = canvas(1, 1, height=3.2 + 0.2 * len(seen))
    for number, (name, curve) in enumerate(seen.items()):
        marker = "o" if len(curve) < 3 else None
        axis.plot(list(curve), list(curve.values()), marker=marker, label=legend(name), **style(number))
    axis.set_xlabel("epoch")
    axis.set_ylabel("test accuracy, %")
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    return figure


def reliability(tables: Mapping[str, torch.Tensor]) -> Any:
    """Reliability diagram: accuracy over confidence by bins, equal on the diagonal.

    The area of a point grows with the images in its bin.

    Args:
        tables: (3, bins) by name: number of images, number of correct ones, summed confidence.
    """
    figure, (axis,) = canvas(1, 1, height=3.4 + 0.17 * len(tables), width=4.8, epochs=False)
    axis.plot([0, 100], [0, 100], color="#888888", linewidth=0.8)
    for number, (name, table) in enumerate(tables.items()):
        images, right, confidence = table[:, table[0] > 0]
        places = (100 * confidence / images).tolist(), (100 * right / images).tolist()
        axis.plot(*places, label=legend(name), linewidth=1, **style(number))
        areas = (8 + 150 * images / images.sum()).tolist()
        axis.scatter(*places, areas, COLOURS[number % 7], marker=MARKERS[number % 8])
    axis.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 101), ylim=(0, 101))
    figure.legend(frameon=False, fontsize=7.5, loc="outside lower center")
    return figure


def tradeoff(rows: Sequence[tuple[str, float, float, float]]) -> Any:
    """Accuracy over parameters (on a logarithmic axis) and over latency, one point per network with its name.

    Args:
        rows: name, accuracy in percent, number of parameters, latency in milliseconds.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas(1, 2, height=2.8 + 0.22 * len(rows), epochs=False)
    for axis, place, label in zip(axes, (2, 3), ("parameters", "latency of one image, ms")):
        numbers = [float(row[place]) for row in rows]
        low, high = min(row[1] for row in rows), max(row[1] for row in rows)
        axis.set_ylim(low - max(0.5, 0.15 * (high - low)), high + max(0.5, 0.25 * (high - low)))
        axis.set(xlabel=label, ylabel="test accuracy, %")
        if place == 2:
            _parameters(axis, numbers)
        else:
            axis.set_xlim(0, 1.25 * max(numbers))  # from zero, so that distances are proportional
            axis.xaxis.set_major_locator(MaxNLocator(5))
        for number, (x, (_, y, *_)) in enumerate(zip(numbers, rows)):
            axis.plot(x, y, marker=MARKERS[number % 8], color=COLOURS[number % 7], markersize=7)
        _name_points(axis, [(name, x, y) for x, (name, y, *_) in zip(numbers, rows)], figure.get_figheight())
    return figure


def sizes(rows: Sequence[Sized], teacher: float) -> Any:
    """Accuracy of students over parameters, with the Pareto front as a line and the best teacher as a level.

    Args:
        rows: the students by size.
        teacher: accuracy of the best teacher in percent.
    """
    figure, (axis,) = canvas(1, 1, height=3.2 + 0.1 * len(rows), width=5.4, epochs=False)
    _parameters(axis, [one.parameters for one in rows])
    axis.axhline(teacher, color="#888888", linewidth=0.8, linestyle="--", label="best teacher")
    front = [(one.parameters, one.accuracy) for one in rows if one.front]
    axis.plot(*zip(*front), color="#888888", linewidth=1, label="Pareto front")
    for number, one in enumerate(rows):
        axis.plot(one.parameters, one.accuracy, marker=MARKERS[number % 8], color=COLOURS[number % 7], markersize=7)
    every = [teacher, *(one.accuracy for one in rows)]
    low, high = min(every), max(every)
    axis.set_ylim(low - max(0.5, 0.15 * (high - low)), high + max(0.5, 0.25 * (high - low)))
    axis.set(xlabel="parameters", ylabel="test accuracy, %")
    _name_points(axis, [(one.student, one.parameters, one.accuracy) for one in rows], figure.get_figheight())
    axis.legend(frameon=False, fontsize=7.5, loc="lower right")
    return figure


def _parameters(axis: Any, numbers: Sequence[float]) -> None:
    """A logarithmic axis of parameters."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.set_xlim(min(numbers) / 1.6, 1.6 * max(numbers))
    near = max(numbers) < 20 * min(numbers)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,), numticks=6))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _name_points(axis: Any, points: Sequence[tuple[str, float, float]], height: float) -> None:
    """Write names beside points, towards the side with more room, and so far apart that none covers another.

    Args:
        axis: the panel, with its final limits.
        points: name, x and y of each.
        height: of the figure, in inches.
    """
    to_panel = axis.transData + axis.transAxes.inverted()
    line = 9 / (72 * 0.72 * height)  # height of a line of 7 pt, as a share of the panel
    lowest = 0.0
    for name, x, y in sorted(points, key=lambda point: point[2]):
        across, up = to_panel.transform((x, y))
        shown = textwrap.fill(name, 28)
        tall = line * (1 + shown.count("\n"))
        at = max(up, lowest + tall / 2)
        lowest = at + tall / 2
        axis.annotate(
            shown,
            (across, up),
            xytext=(across + (0.04 if across < 0.5 else -0.04), at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            ha="left" if across < 0.5 else "right",
            va="center",
            fontsize=7,
            in_layout=False,
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.5, "shrinkB": 3},
        )
