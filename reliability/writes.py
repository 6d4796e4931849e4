"""Make every single disk operation of a run fail, remove the fault, and let the same command resume.

    python -m reliability.writes [--every 1] [--workers 2] [--folder DIR]

The operations of three tiny runs (a standard teacher, a student-friendly one, a student with a first stage; a
checkpoint at every step) are counted by `reliability/disk.py`. Then each run is begun once for every operation and
every fault that can happen there: the disk is full from then on, read-only from then on, no more files can be opened
from then on, the process dies in the middle of it, the power is cut. An error must be reported in one line with exit
code 2. Without the fault, the same command must then end with the same weights, result and log. The exit code is 1 if
one does not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
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

EPOCHS = 2
KINDS = (small.STANDARD, small.FRIENDLY, "ab")
NAMES = {
    "full": "the disk is full from there on",
    "read-only": "the folder is read-only from there on",
    "handles": "no more files can be opened from there on",
    "torn": "the process dies in the middle of it",
    "power": "the power is cut in the middle of it",
}


@dataclass
class Case:
    """A run in which one operation failed."""

    kind: str
    fault: Fault
    operation: str
    bore: bool = False
    """Whether the run succeeded anyway."""
    waited: int = 0
    said: str = ""
    faults: list[str] = field(default_factory=list)
    """Deviations from the expected behaviour."""


def cases(whole: Whole, every: int = 1) -> list[Case]:
    """Combine every operation of a run with every fault that can happen there; keep every n-th case."""
    found = [
        Case(whole.kind, Fault(kind, at, seed=at), operation)
        for kind, operations in NEEDS.items()
        for at, operation in enumerate(whole.operations, 1)
        if operation in operations
    ]
    return found[::every]


def go_wrong(case: Case, wholes: dict[str, Whole], base: Path) -> Case:
    """Cause the fault, remove it, resume, and compare."""
    whole = wholes[case.kind]
    place = base / f"{case.kind}-{case.fault.kind}-{case.fault.at}"
    runs = whole.prepare(place / "disk")
    arguments = small.command(case.kind, runs, epochs=EPOCHS)
    try:
        ended = sftn_command(arguments, place / "notes", runs.parent, case.fault).end()
        _judge(case, ended, runs / whole.folder)
        while True:
            ended = sftn_command(arguments, place / "notes").end()
            if ended.code == 2 and any(words in ended.complained for words in HELD) and case.waited < 20:
                case.waited += 1
                time.sleep(0.3)
                continue
            break
    except TimeoutError as error:
        case.faults.append(str(error))
        return case
    if ended.code == 0:
        case.faults += whole.differences(runs)
    else:
        case.faults.append(f"without the fault, it does not resume: {ended.end()}")
    shutil.rmtree(place)
    return case


def _judge(case: Case, ended: Ended, folder: Path) -> None:
    case.said = ended.complained.strip()
    expected = {"torn": 137, "power": CUT}.get(case.fault.kind, 2)
    case.bore = ended.code == 0
    if ended.code not in (0, expected):
        case.faults.append(f"{ended.end()}; it should have been {expected}")
    if "Written:" in ended.said and RunFolder(folder).inspect().state != DONE:
        case.faults.append("a reported result is missing")
    elif case.bore and RunFolder(folder).inspect().state != DONE:
        case.faults.append("ended without error but left no result")
    if ended.code == 2 and ended.complained.count("\n") != 1:
        case.faults.append(f"not one line: {ended.complained}")


def show(done: Sequence[Case]) -> str:
    """Make the table of a report."""
    rows = []
    for kind in NAMES:
        own = [case for case in done if case.fault.kind == kind]
        bore, waited = sum(case.bore for case in own), sum(bool(case.waited) for case in own)
        operations = Counter(case.operation for case in own)
        what = ", ".join(f"{count} {operation}" for operation, count in operations.most_common())
        good = sum(not case.faults for case in own)
        rows.append((NAMES[kind], len(own), what, bore, waited, good))
    header = (
        "fault",
        "times",
        "at which operation",
        "succeeded anyway",
        "waited for a lease",
        "identical in the end",
    )
    return small.table(header, rows)


def main() -> None:
    """Go through all cases and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take only every n-th case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="folder to work in; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sftn-writes-", dir=options.folder) as base:
        began = time.monotonic()
        wholes = undisturbed(KINDS, Path(base) / "whole", EPOCHS)
        jobs = [case for kind in KINDS for case in cases(wholes[kind], options.every)]
        done = []
        with multiprocessing.get_context("fork").Pool(options.workers) as pool:
            for case in pool.imap_unordered(partial(go_wrong, wholes=wholes, base=Path(base)), jobs):
                done.append(case)
                for fault in case.faults:
                    place = f"{case.kind}, operation {case.fault.at} ({case.operation})"
                    print(f"NOT the same: {place}: {NAMES[case.fault.kind]}: {fault}", flush=True)
        print(show(done))
        counts = ", ".join(f"{len(wholes[kind].operations)} operations of the {kind}" for kind in KINDS)
        print(
            f"\n{counts}; {len(done)} cases, {sum(not case.faults for case in done)} recovered with identical results"
        )
        print(f"{time.monotonic() - began:.0f} s")
    sys.exit(any(case.faults for case in done))


if __name__ == "__main__":
    main()
