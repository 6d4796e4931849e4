"""Kill runs at random moments, let the same command resume, and compare the result with that of an undisturbed run.

    python -m reliability.kills [--kills 100] [--seed 0] [--workers 2] [--folder DIR]

The runs are two teachers and a student with each method, tiny, as real processes of the real commands.
They are killed by SIGKILL, SIGTERM, SIGINT or a power cut (`reliability/disk.py`), at a time drawn uniformly from the
duration of the undisturbed run; power is cut at a disk operation drawn uniformly from all of them. A resumed run is
killed again with a probability of a third. In the end, weights, result and log must be identical, except for entries
that depend on the clock. The exit code is 1 if they are not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reliability import small
from reliability.children import Ended, sftn_command
from reliability.disk import CUT, NEEDS, Fault
from reliability.whole import HELD, Whole, undisturbed
from sftn.runs.folder import DONE, RunFolder

EPOCHS = 6
HOWS = ("SIGKILL", "SIGTERM", "SIGINT", "power cut")
AGAIN = 1 / 3
"""Probability that a resumed run is killed again."""


@dataclass
class Trial:
    """A run that was killed."""

    kind: str
    hows: list[str] = field(default_factory=list)
    """The kind of each kill."""
    moments: list[str] = field(default_factory=list)
    """Progress of the run at each kill."""
    codes: list[int] = field(default_factory=list)
    leaving: list[float] = field(default_factory=list)
    """Seconds from SIGTERM to the end."""
    waited: int = 0
    """How often a torn lease had to expire first."""
    faults: list[str] = field(default_factory=list)
    """Deviations from the expected behaviour."""


def trial(kind: str, how: str, seed: int, wholes: dict[str, Whole], base: Path) -> Trial:
    """Kill a run, resume it, and compare."""
    choose, done, whole = random.Random(seed), Trial(kind), wholes[kind]
    while not done.hows:  # it may be faster than the undisturbed one, and end before the kill
        place = base / f"trial-{seed}"
        runs = whole.prepare(place / "disk")
        ended = _killed(how, choose, done, whole, place)
        while ended is None and choose.random() < AGAIN:
            ended = _killed(choose.choice(HOWS), choose, done, whole, place)
    while ended is None or ended.code != 0:
        arguments = small.command(kind, runs, epochs=EPOCHS, checkpoint_seconds=choose.choice((0.0, 60.0)))
        ended = sftn_command(arguments, place / "notes").end()
        if ended.code == 2 and any(words in ended.complained for words in HELD) and done.waited < 20:
            done.waited += 1
            time.sleep(0.3)
        elif ended.code != 0:
            done.faults.append(f"does not resume: {ended.end()}")
            return done
    done.faults += whole.differences(runs)
    shutil.rmtree(place, ignore_errors=True)
    return done


def _killed(how: str, choose: random.Random, done: Trial, whole: Whole, place: Path) -> Ended | None:
    """Start or resume the run and kill it; return how it ended if it ended before."""
    disk, notes = place / "disk", place / "notes"
    folder = disk / "runs" / whole.folder
    pause = 0.0 if how == "power cut" else choose.choice((0.0, 0.0, 0.1, 60.0))
    arguments = small.command(whole.kind, disk / "runs", epochs=EPOCHS, checkpoint_seconds=pause)
    if how == "power cut":
        spots = [n for n, kind in enumerate(whole.operations, 1) if kind in NEEDS["power"]]
        at = choose.choice([*spots, len(whole.operations) + 1])
        ended = sftn_command(arguments, notes, disk, Fault("power", at, choose.randrange(2**32))).end()
        if "Written:" in ended.said and RunFolder(folder).inspect().state != DONE:
            entry = RunFolder(folder).inspect()
            done.faults.append(f"a reported result is gone: {entry.state} {entry.reason}")
        if ended.code == 2 and any(words in ended.complained for words in HELD):
            return ended
        if ended.code != CUT:
            done.faults.append(f"power cut: {ended.end()}")
    else:
        child = sftn_command(arguments, notes)
        first = child.wait(choose.random() * whole.seconds)
        if first is not None:
            if first.code not in (0, 2):
                done.faults.append(f"{first.end()} before it was killed")
            return first
        sent = time.monotonic()
        child.signal(signal.Signals[how])
        ended = child.end()
        if ended.code == 0:  # it had ended, or was in its last writes
            if RunFolder(folder).inspect().state != DONE:
                done.faults.append("ended without error but left no result")
            return ended
        if ended.code != 128 + signal.Signals[how]:
            done.faults.append(f"{how}: {ended.end()}")
        if how == "SIGTERM":
            done.leaving.append(time.monotonic() - sent)
        if how != "SIGKILL" and ended.complained.count("\n") > 1:
            done.faults.append(f"{how}: more than one line: {ended.complained}")
    done.hows.append(how)
    done.moments.append(moment(folder, whole))
    done.codes.append(ended.code)
    return None


def moment(folder: Path, whole: Whole) -> str:
    """Read a run's progress from its folder."""
    if not folder.exists():
        return "before the first write"
    if (folder / "result.json").exists():
        return "after the result"
    if (folder / "weights.safetensors").exists():
        return "in the last writes"
    path = folder / "log.jsonl"
    if not path.exists():
        return "at the start"
    rows = whole.left["log"]
    done = min(path.read_bytes().count(b"\n"), len(rows) - 1)
    return "in the main phase" if rows[done]["phase"] in ("train", "distil") else "in a first stage"


def show(trials: Sequence[Trial], wholes: dict[str, Whole]) -> str:
    """Make the tables of a report."""
    rows = []
    for how in HOWS:
        struck = [done for done in trials if how in done.hows]
        count = sum(done.hows.count(how) for done in trials)
        rows.append((how, count, len(struck), sum(not done.faults for done in struck)))
    killed = sum(len(done.hows) for done in trials)
    same = sum(not done.faults for done in trials)
    parts = [small.table(("killed by", "kills", "runs affected", "of these, identical in the end"), rows)]
    when = Counter(spot for done in trials for spot in done.moments)
    parts.append(small.table(("when", "kills"), when.most_common()))
    kinds = Counter(done.kind for done in trials)
    bad = Counter(done.kind for done in trials if done.faults)
    columns = [(kind, count, count - bad[kind]) for kind, count in kinds.items()]
    parts.append(small.table(("run", "killed", "same end"), sorted(columns, key=lambda row: small.KINDS.index(row[0]))))
    leaving = [seconds for done in trials for seconds in done.leaving]
    slowest = f"; after SIGTERM the slowest ended within {max(leaving):.2f} s" if leaving else ""
    parts.append(
        f"{len(trials)} runs killed, {killed} kills in all: {same} identical in the end, {len(trials) - same} others"
        f"{slowest}; an undisturbed run takes {min(w.seconds for w in wholes.values()):.1f} to "
        f"{max(w.seconds for w in wholes.values()):.1f} s; torn leases waited for: {sum(t.waited for t in trials)}"
    )
    return "\n\n".join(parts)


def plan(kills: int, seed: int, kinds: Sequence[str] = small.KINDS) -> list[tuple[str, str, int]]:
    """Yield the kind, the way to kill it and a seed: all combinations before any is repeated."""
    choose = random.Random(seed)
    found: list[tuple[str, str]] = []
    while len(found) < kills:
        every = [(kind, how) for kind in kinds for how in HOWS]
        choose.shuffle(every)
        found += every
    return [(kind, how, seed * 1_000_000 + number) for number, (kind, how) in enumerate(found[:kills])]


def main() -> None:
    """Kill runs and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="folder to work in; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sftn-kills-", dir=options.folder) as base:
        began = time.monotonic()
        wholes = undisturbed(small.KINDS, Path(base) / "whole", EPOCHS)
        with multiprocessing.get_context("fork").Pool(options.workers) as pool:
            trials = []
            jobs = plan(options.kills, options.seed)
            for done in pool.imap_unordered(partial(_trial, wholes=wholes, base=Path(base)), jobs):
                trials.append(done)
                for fault in done.faults:
                    print(f"NOT the same: {done.kind} after {' and '.join(done.hows)}: {fault}", flush=True)
        print(show(trials, wholes))
        print(f"\n{time.monotonic() - began:.0f} s, seed {options.seed}")
    sys.exit(any(done.faults for done in trials))


def _trial(job: tuple[str, str, int], wholes: dict[str, Whole], base: Path) -> Trial:
    return trial(*job, wholes=wholes, base=base)


if __name__ == "__main__":
    main()
