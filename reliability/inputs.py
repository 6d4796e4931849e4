"""Give every reader of files a thousand bad ones and check that each is refused in one line, or does no harm.

    python reliability/inputs.py [--inputs 1000] [--seed 0] [--processes 2]

Each input goes to a process that is observed: it must finish within 5 seconds of processor time (and 20 of wall-clock
time, to allow for a busy machine), its memory may grow by at most 1 GB, and it must not open files for writing, start
processes, make connections or touch a canary. Some inputs go to the real command line, which must end with exit code 2
and one line. The exit code is 1 if anything goes wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from reliability import pickles  # noqa: E402
from reliability.bad_images import bombs, class_folders, tiny_zips  # noqa: E402
from reliability.bad_weights import safetensors_file, zip_of  # noqa: E402
from reliability.pictures import pictures  # noqa: E402
from reliability.reader import MISSING, Reader  # noqa: E402
from reliability.readers import READERS  # noqa: E402
from reliability.watched import FAULT, HARMLESS, REFUSED, Answer, Child, Input  # noqa: E402

COMMANDS = "the command line"
"""Not listed in the table of time and memory, because it measures a whole program."""


def inputs(readers: Iterable[Reader], count: int, seed: int, canary: Path) -> Iterator[Input]:
    """All handmade inputs, plus damaged ones up to `count` in total, the same number for each reader."""
    readers = list(readers)
    handmade = 0
    for reader in readers:
        for name, content in reader.handmade(canary):
            handmade += 1
            yield Input(reader.name, name, content)
    each = -(-max(0, count - handmade) // len(readers))
    for reader in readers:
        yield from damaged(reader, each, seed)


def damaged(reader: Reader, count: int, seed: int) -> Iterator[Input]:
    """Damage a valid file at random; half of the time inside its wrapper."""
    valid = reader.valid()
    for number in range(count):
        chance = random.Random(zlib.crc32(f"{reader.name} {number} {seed}".encode()))
        inside = number % 2 == 0 or reader.damage is not READERS[0].damage
        content = reader.wrap(reader.damage(valid, chance)) if inside else reader.damage(reader.wrap(valid), chance)
        yield Input(reader.name, f"damage {number}", content)


def commands(box: Path) -> list[tuple[str, str, list[str]]]:
    """Bad files for the command line: (what, file, arguments)."""
    canary, found = box / "canary", []
    folder = box / "commands"
    for number, (name, raw) in enumerate(pickles.armed(canary)):
        if number % 5 == 0:
            path = folder / f"{number}.pth"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(zip_of(raw))
            found.append((f"evaluate weights: {name}", str(path), ["evaluate", str(path), "--network", "resnet8"]))
    path = folder / "torn.safetensors"
    path.write_bytes(safetensors_file()[:-5])
    found.append(("evaluate torn weights", str(path), ["evaluate", str(path), "--data", "digits"]))
    runs = folder / "runs" / "a-run-0123456789ab"
    runs.mkdir(parents=True)
    (runs / "run.json").write_bytes(b"[" * 10**5)
    found.append(("evaluate a run", str(runs), ["evaluate", str(runs)]))
    found.append(("report a broken run", str(runs), ["report", str(runs), "--out", str(runs.parent)]))
    found.append(("analyse a broken run", str(runs), ["analyse", "entropy", str(runs), "--out", str(folder / "out")]))
    train = ["train-teacher", "--teacher", "resnet8", "--standard", "--epochs", "1", "--out", str(folder / "out")]
    for kind, file, contents in (
        ("folder:", "a/1.png", pictures(canary)),
        ("cifar100", "cifar-100-python.tar.gz", bombs(canary)),
        ("tiny-imagenet", "tiny-imagenet-200.zip", tiny_zips(canary)),
    ):
        for name, content in list(contents)[:2]:
            place = Path(tempfile.mkdtemp(dir=folder))
            (place / file).parent.mkdir(exist_ok=True)
            (place / file).write_bytes(content)
            if kind == "folder:":
                class_folders(place)
            data = ["--data", f"folder:{place}"] if kind == "folder:" else ["--data", kind, "--data-dir", str(place)]
            found.append((f"train on {kind} {name}", str(place), train + data))
    return found


def command(arguments: Sequence[str], box: Path, canary: Path) -> Answer:
    """Run the command line on a bad file."""
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HOME": str(box), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "sftn.cli", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False, cwd=box, env=environment)
    seconds, lines = time.monotonic() - began, done.stderr.strip().splitlines()
    good = done.returncode == 2 and len(lines) == 1 and not canary.exists()
    about = f"exit code {done.returncode}, {len(lines)} lines: {' / '.join(lines[-2:])[:300]}"
    return Answer(REFUSED if good else FAULT, about, seconds)


def everything(count: int, seed: int, processes: int, box: Path) -> list[tuple[Input, Answer]]:
    """Give every input to its reader; return the inputs with their outcomes."""
    given = box / "given"
    given.mkdir()
    canary = box / "canary"
    waiting = inputs(READERS, count, seed, canary)
    answers: list[tuple[Input, Answer]] = []
    lock = threading.Lock()

    def work() -> None:
        child = Child(given)
        while True:
            with lock:
                one = next(waiting, None)
            if one is None:
                break
            answer = child.give(one)
            if canary.exists():
                canary.unlink()
                answer = Answer(FAULT, "the canary was created")
            answers.append((one, answer))
        child.stop()

    with ThreadPoolExecutor(processes) as pool:
        for done in [pool.submit(work) for _ in range(processes)]:
            done.result()
    for name, _, arguments in commands(box):
        answers.append((Input(COMMANDS, name, b""), command(arguments, box, canary)))
    left = {path.name for path in box.iterdir()} - {"given", "commands", ".cache", ".config"}
    if left:
        answers.append((Input("the folder", "after all", b""), Answer(FAULT, f"was left with {sorted(left)[:5]}")))
    return answers


def table(answers: Sequence[tuple[Input, Answer]]) -> str:
    """Markdown."""
    rows = [
        f"| reader | inputs | {REFUSED} | {HARMLESS} | faults | slowest, s | most memory, MiB |",
        "|---|" + "---:|" * 6,
    ]
    names = [*dict.fromkeys(one.reader for one, _ in answers)]
    for name in [*names, "all"]:
        own = [answer for one, answer in answers if name in ("all", one.reader)]
        counts = Counter(answer.outcome for answer in own)
        reading = [
            a for one, a in answers if name == one.reader or (name == "all" and one.reader != "the command line")
        ]
        most = max((a.memory for a in reading), default=0) / 2**20
        slowest = max((a.seconds for a in reading), default=0.0)
        numbers = (len(own), counts[REFUSED], counts[HARMLESS], counts[FAULT])
        rows.append(f"| {name} | " + " | ".join(map(str, numbers)) + f" | {slowest:.1f} | {most:.0f} |")
    return "\n".join(rows)


def main() -> None:
    """Run all inputs and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    began = time.monotonic()
    box = Path(tempfile.mkdtemp(prefix="sftn-inputs-"))
    try:
        answers = everything(options.inputs, options.seed, options.processes, box)
    finally:
        shutil.rmtree(box)
    print(table(answers))
    for what in MISSING:
        print(f"left out: {what}")
    faults = [(one, answer) for one, answer in answers if answer.outcome == FAULT]
    for one, answer in faults:
        print(f"FAULT: {one.reader}, {one.name}: {answer.about}")
    print(f"{len(answers)} inputs, {len(faults)} faults, {time.monotonic() - began:.0f} s, seed {options.seed}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
