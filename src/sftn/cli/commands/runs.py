"""`sftn runs`: list, show, remove, verify and archive runs, and list or clear the teachers' outputs that they share."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from sftn.cli import options
from sftn.cli.console import console, say, show_table
from sftn.errors import InputError, printable
from sftn.experiments.collect import sections
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES, parts
from sftn.runs.archive import keep, keep_network, unpacked
from sftn.runs.folder import (
    BROKEN,
    DONE,
    INTERRUPTED,
    RUNNING,
    WAITING,
    Entry,
    RunFolder,
    find,
    remove,
    scan,
)
from sftn.spec.differences import differences
from sftn.spec.run import Data
from sftn.storage import store_folder

if TYPE_CHECKING:
    from sftn.data.dataset import Dataset


def runs(asked: options.Runs) -> None:
    """List, show, archive, remove or verify runs, one line each; exits with code 1 if one fails verification.

    Raises:
        InputError: a run is unknown or must not be removed, or its images are missing.
    """
    what, names, out = asked.what, asked.run, asked.out
    if asked.clear and what != "cache":
        raise InputError(f"--clear is for sftn runs cache; sftn runs {what} removes nothing of it: leave --clear out")
    if what == "cache":
        if names:
            raise InputError(f"sftn runs cache takes no runs ({names[0]}): --clear removes all that no run uses")
        show_stores(asked.clear)
        return
    if what == "list":
        with unpacked(out) as runs:
            table(scan(runs))
        return
    if not (names or asked.networks) and what != "verify":
        raise InputError(f"name the runs to {what} by folder or beginning of id: see sftn runs list")
    if what == "show":
        with unpacked(out) as runs:
            for name in names:
                show(find(name, runs).inspect(), out)
        return
    if what == "keep":
        _keep(names, asked.networks, out, asked.to)
        return
    folders = [find(name, out) for name in names]
    if what == "rm":
        remove(folders)
        say(f"Removed: {', '.join(folder.name for folder in folders)}")
    else:
        folders = folders or [entry.folder for entry in scan(out) if entry.state in (DONE, BROKEN)]
        bad = sum(_verified(folder, asked.data_dir, asked.device) for folder in folders)
        say(f"{len(folders) - bad} of {len(folders)} runs passed verification")
        if bad:
            sys.exit(1)


def show_stores(clear: bool) -> None:
    """Print one line per store of a teacher's outputs, after removing those that no run uses if asked to."""
    folder = store_folder.stores_folder()
    if clear:
        removed = store_folder.clear(folder)
        say(f"Removed: {len(removed)} stores, {_gib(removed)} GiB")
    found = store_folder.stores(folder)
    shown = Table(box=None, pad_edge=False)
    for column in ("teacher", "images", "outputs", "GiB", "filled", "last used"):
        shown.add_column(column, no_wrap=column not in ("teacher", "last used"), overflow="fold")
    for store in found:
        record = store.record or {"teacher": f"damaged, or of another version: {store.path.name}"}
        about = (printable(str(record.get(name, "?"))) for name in ("teacher", "data"))
        outputs = printable(f"{record['field']}, {record['dtype']}") if {"field", "dtype"} <= set(record) else "?"
        used = f"{datetime.fromtimestamp(store.used):%Y-%m-%d %H:%M}" + ", in use" * store.busy
        shown.add_row(*map(Text, (*about, outputs, _gib([store]), f"{100 * store.filled:.0f} %", used)))
    if found:
        show_table(shown)
    say(f"{_gib(found)} GiB in {folder}" if found else f"no teacher's outputs are kept in {folder}")


def _gib(found: Sequence[store_folder.Found]) -> str:
    return f"{sum(store.bytes for store in found) / 2**30:.2f}"


def _keep(names: Sequence[str], networks: Sequence[str], out: Path, to: Path) -> None:
    """Archive single runs, and those of studies and tables under their own or the nearest conditions."""
    for name in names:
        if name in STUDIES or name in TABLES:
            found, place = sections(parts(name)[0], out), name
            found = [section for section in found if section.own] or found[:1]
            entries = [entry for section in found for entry in section.distinct()]
            for warning in [warning for section in found for warning in section.warnings()]:
                say(f"{name}: {warning}")
        else:
            entries, place = [find(name, out).inspect()], "runs"
        kept = [keep(entry, to, place) for entry in entries]
        new, size = sum(written for _, written in kept), sum(path.stat().st_size for path, _ in kept)
        many = "1 run" if len(kept) == 1 else f"{len(kept)} runs"
        say(f"{name}: {many} kept in {to}, {new} written now; {size / 1e3:,.0f} kB")
    for name in networks:
        say(f"Kept with its weights: {keep_network(find(name, out).inspect(), to)}")


ROOMY = 140
"""Columns of a terminal from which the table of runs has one more column: what tells runs of one name apart."""


def table(entries: Sequence[Entry]) -> None:
    """Print one line per run."""
    shown = Table(box=None, pad_edge=False)
    known = [entry.run for entry in entries if entry.run is not None]
    differs = {run.id: text for run, text in zip(known, differences(known))}
    roomy = not console.is_terminal or console.width >= ROOMY
    column_differs = ("differs in",) * (roomy and any(differs.values()))
    for column in ("run", *column_differs, "seed", "images", "epochs", "state", "last %", "best %", "hours", "id"):
        wraps = column in ("run", "differs in", "state")
        shown.add_column(column, no_wrap=not wraps, overflow="fold", min_width=12 if wraps else None)
    for entry in entries:
        run, record = entry.run, entry.result or {}
        state = f"{entry.state}: {entry.owner}" if entry.owner else entry.state
        state += " (without weights)" * entry.folder.archived.exists()
        state += " (one class only)" * bool(record.get("collapsed")) + " (diverged)" * entry.diverged
        numbers = [f"{record[name]:.2f}" if name in record else "" for name in ("accuracy", "best_accuracy")]
        hours = f"{record['seconds'] / 3600:.2f}" if "seconds" in record else ""
        about = ("?",) * 3 if run is None else (str(run.seed), run.data.name, str(run.schedule.epochs))
        told = ("" if run is None else differs[run.id],) * len(column_differs)
        name, _, tail = entry.folder.name.rpartition("-")
        name, tail = (name, tail) if run is None else (run.name, run.id)
        shown.add_row(*map(Text, (name, *told, *about, state, *numbers, hours, tail)))
    show_table(shown)
    for run in [] if roomy else known:
        if differs[run.id]:
            say(f"{run.id} differs in: {differs[run.id]}")
    for entry in entries:
        if entry.reason:
            say(f"broken: {entry.reason}")
    counts = {
        state: sum(entry.state == state for entry in entries) for state in (DONE, RUNNING, INTERRUPTED, WAITING, BROKEN)
    }
    say(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no runs")


def show(entry: Entry, out: Path | None = None) -> None:
    """Print all that is known about a run, located in `out` if given, for a run from an archive."""
    folder = entry.folder if out is None else RunFolder(out / entry.folder.name)
    say(f"{folder}: {entry.state} {entry.owner or entry.reason}".rstrip())
    if entry.run is not None:
        _json(asdict(entry.run))
    if entry.result is not None:
        _json(entry.result)
    if entry.diverged:
        try:
            said = json.dumps(entry.folder.divergence(), ensure_ascii=False)
        except InputError as error:
            said = str(error)
        console.out(printable(f"diverged: {said}"), highlight=False)


def _json(record: dict[str, Any]) -> None:
    """Print a record as JSON; non-ASCII text stays as it is unless it contains control characters."""
    text = json.dumps(record, ensure_ascii=False)
    console.print_json(text, ensure_ascii=not text.isprintable())


def _verified(folder: RunFolder, data_dir: Path | None, device: str) -> bool:
    """Verify a run and report the result in one line; True if something is wrong."""
    from sftn.runs.trained import verify

    run = folder.inspect().run
    found = folder.faults() if run is None else verify(folder, _load(run.data, data_dir), device)
    say(f"{'FAILED' if found else 'good'}  {folder.name}  {'; '.join(found)}".rstrip())
    return bool(found)


@cache
def _load(data: Data, data_dir: Path | None) -> Dataset:
    from sftn.runs.build import load_data

    return load_data(data, data_dir)
