"""One command for a machine with a GPU: checks that results agree with a CPU's, then measures times.

    python benchmarks/gpu.py [--out gpu.json] [--seconds 540] [--peer REPDISTILLER --data-dir DIR]

Prints Markdown, writes JSON, and takes less than ten minutes; images are noise. A failed check is printed as FAILED
with its reason and the rest continues; the exit code is then 1. Items that did not fit into the time are listed.
`--only WORD …` selects items with one of the words in their names (checks, ceiling, distil, naive, cohort, compiled …).

`--device cpu --tiny` shows in a minute that this script works, except for what only a GPU can do: a captured step is
then one that is called again on its static tensors. Its times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PAIRS = ("resnet32x4:resnet8x4", "wrn_40_2:wrn_16_2", "vgg13:vgg8", "resnet32x4:shufflev2")
CHECKS = (
    *("methods", "loader", "captured", "captured_in_bf16", "deterministic", "resumed", "sentinel", "memory"),
    *("float16", "cohort", "waiting", "compiled", "both"),
)
SLOWEST = 150.0
"""Seconds after which an item is abandoned."""
START = 120.0
"""Seconds that a process may take to start."""


def plan(options: argparse.Namespace) -> list[str]:
    """List the names of all items, most important first; compilation takes long and comes last."""
    pairs = ("resnet14:resnet8",) if options.tiny else PAIRS
    items = [f"checks {name}" for name in CHECKS if name not in ("compiled", "both")]
    items += [f"ceiling {precision}" for precision in ("bf16", "float32")]
    ways = [(precision, how) for precision in ("bf16", "float32") for how in ("captured", "eager")]
    for method in ("kd", "crd", "sskd"):
        for pair in pairs if method == "kd" or not options.tiny else ():
            items += [f"distil {pair} {method} {precision} {how}" for precision, how in ways]
    items += [f"naive {pair}" for pair in pairs]
    if options.peer:
        items += [f"peer {pair} {method}" for pair in pairs for method in ("kd", "crd")]
    for how in ("captured", "eager"):
        items += [f"teacher {pairs[0]} bf16 {how} {kind}" for kind in ("friendly", "standard")]
        items += [f"cohort {pairs[0]} bf16 {how} {2 if options.tiny else 8}"]
    items += ["tables bf16 captured"] * (not options.tiny)
    items += ["checks compiled", "checks both"]
    if not options.tiny:
        items += [f"distil {pair} kd bf16 {how}" for pair in pairs for how in ("both", "compiled")]
        items += [f"distil {pairs[0]} kd float32 both"]
    return [item for item in items if not options.only or any(word in item.split() for word in options.only)]


def carry_out(item: str, options: argparse.Namespace) -> Any:
    """Carry out one item in this process."""
    from on_gpu import kernels, runs, times
    from on_gpu.place import Place

    kind, *rest = item.split()
    bench = times.Bench(options.device, options.tiny, 0.05 if options.tiny else options.each)
    if kind == "checks":
        place, name = Place(options.device, options.tiny), rest[0]
        if name in ("compiled", "both"):
            return kernels.compiled(place, name)
        check = getattr(kernels, name, None) or getattr(runs, name)
        return check(place)
    if kind == "peer":
        import peer

        how = {"peer": options.peer.resolve(), "data_dir": options.data_dir.resolve()}
        asked = argparse.Namespace(seconds=10.0, batch=times.BATCH, workers=8, **how)
        return peer.spawn(asked, "peer", *rest)
    if kind == "cohort":
        return bench.cohort(rest[0], rest[1], rest[2], int(rest[3]))
    if kind == "teacher":
        return bench.teacher(rest[0], rest[1], rest[2], rest[3] == "friendly")
    if kind == "tables":
        return bench.tables(("table17", "table18"), rest[0], rest[1], 0.8 * SLOWEST)
    return getattr(bench, {"distil": "distill"}.get(kind, kind))(*rest)


def child(options: argparse.Namespace) -> None:
    """Carry out items in sequence and print a line of JSON for each; stop when the device has become unusable."""
    import torch
    from on_gpu import place
    from on_gpu.place import Skipped

    from sftn.training.cuda_graph import GRAPHS

    if options.device == "cpu":  # a rehearsal: the tests have a stand-in for the graph
        sys.path.append(str(Path(place.__file__).parents[2]))
        from tests.support.rerun import Rerun

        GRAPHS["cpu"] = Rerun
    for item in json.loads(options.child):
        print("BEGIN " + item, flush=True)
        began, found = time.perf_counter(), {"item": item}
        try:
            found |= {"ok": True, "result": carry_out(item, options)}
        except Skipped as reason:
            found |= {"ok": None, "result": str(reason)}
        except (Exception, SystemExit) as error:
            said = (str(error).strip() or "no reason given").splitlines()[0]
            found |= {"ok": False, "result": f"{type(error).__name__}: {said}"[:300]}
        print("RESULT " + json.dumps(found | {"seconds": time.perf_counter() - began}), flush=True)
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
            torch.ones(1, device="cuda").sum().item()  # after an illegal access every call fails: start a new process


def supervise(items: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Carry out items in child processes; one that dies or hangs costs only its current item."""
    deadline, results = time.monotonic() + options.seconds, []
    while items and time.monotonic() < deadline:
        checks, group = next(itertools.groupby(items, key=lambda item: item.startswith("checks")))
        done = _spawned(list(group), options, deadline, checks)
        results += done
        items = items[len(done) :]
        if not done:
            break
    return results + [{"item": item, "ok": None, "result": "there was no time", "seconds": 0.0} for item in items]


def _spawned(items: list[str], options: argparse.Namespace, deadline: float, checks: bool) -> list[dict[str, Any]]:
    """Run items in a child until it ends, fails or runs out of time; return the results."""
    command = [sys.executable, __file__, "--child", json.dumps(items), "--device", options.device]
    command += ["--tiny"] * options.tiny + ["--each", str(options.each)]
    if options.peer:
        command += ["--peer", str(options.peer), "--data-dir", str(options.data_dir)]
    # Makes cuBLAS reproducible; it may be slower, so the same process times nothing.
    more = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if checks else {}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | more,
        start_new_session=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    done: list[dict[str, Any]] = []
    at, last, began = "", "nothing was said", time.monotonic()
    try:
        while len(done) < len(items):
            most = SLOWEST if at else START
            until = min(deadline, began + most)
            try:
                line = lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                if until < deadline:
                    done.append(_failed(at or items[len(done)], f"gave no answer for {most:g} s"))
                break
            if line is None:
                if at or not done:
                    done.append(_failed(at or items[0], f"its process ended: {last}"))
                break
            if line.startswith("BEGIN "):
                at, began = line.removeprefix("BEGIN ").strip(), time.monotonic()
            elif line.startswith("RESULT "):
                done.append(json.loads(line.removeprefix("RESULT ")))
                at, began = "", time.monotonic()
                print(_line(done[-1]), file=sys.stderr, flush=True)
            elif line.strip():
                last = line.strip()[:200]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return done


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _failed(item: str, reason: str) -> dict[str, Any]:
    found = {"item": item, "ok": False, "result": reason, "seconds": 0.0}
    print(_line(found), file=sys.stderr, flush=True)
    return found


def _line(found: dict[str, Any]) -> str:
    word = {True: "ok", False: "FAILED", None: "not done"}[found["ok"]]
    said = found["result"] if isinstance(found["result"], str) else ""
    return f"{word:8} {found['item']} ({found['seconds']:.0f} s) {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--each", type=float, default=0.5, help="seconds per measurement")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    if options.peer and not options.data_dir:
        parser.error("--peer reads real images: give --data-dir, the folder of cifar-100-python")
    import torch
    from on_gpu.report import markdown

    from sftn.profiling.roofline import machine

    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA GPU found: --device cpu --tiny shows that the script works")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the child process ends with this one
    began = time.monotonic()
    results = supervise(plan(options), options)
    record = {
        "machine": machine(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "device": options.device,
        "tiny": options.tiny,
        "seconds": time.monotonic() - began,
        "results": results,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(markdown(record))
    sys.exit(int(any(found["ok"] is False for found in results)))


if __name__ == "__main__":
    main()
