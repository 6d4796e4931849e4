"""What `gpu.py` found, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

EPOCHS, STEPS, EVALUATION = 240, 782, 10_000 / 50_000 / 3
"""CIFAR-100 at batch 64; a test image costs a third of a training image."""


def markdown(record: dict[str, Any]) -> str:
    """All of it: checks, speeds, what follows from them."""
    found = {one["item"]: one for one in record["results"]}
    good = {item: one["result"] for item, one in found.items() if one["ok"]}
    cuda = f", CUDA {record['cuda']}" if record["cuda"] else ""
    lines = [f"{record['machine']}{cuda}, Python {record['python']}; {record['seconds']:.0f} s in all", ""]
    if record["tiny"]:
        lines += ["Tiny: this shows that the script works. Its times mean nothing.", ""]
    lines += [*_checks(found), *_speeds(good), *_others(good), *_missing(found), *_advice(found, good)]
    return "\n".join(lines)


def _checks(found: dict[str, Any]) -> Iterator[str]:
    rows = {item.removeprefix("checks "): one for item, one in found.items() if item.startswith("checks ")}
    if not rows:
        return
    yield "| check | | what was seen |\n|---|---|---|"
    for name, one in rows.items():
        word = {True: "ok", False: "**FAILED**", None: "not done"}[one["ok"]]
        yield f"| {name.replace('_', ' ')} | {word} | {one['result'].replace('|', '/')} |"
    yield ""


def _speeds(good: dict[str, Any]) -> Iterator[str]:
    rows = {tuple(item.split()[1:]): one for item, one in good.items() if item.startswith("distil ")}
    if not rows:
        return
    for precision in ("bf16", "float32"):
        best = good.get(f"ceiling {precision}")
        if best:
            arithmetic = max(best["product"], best["convolution"])
            yield f"Ceiling in {precision}: {arithmetic:,.0f} GFLOP/s, {best['bandwidth']:,.0f} GB/s.\n"
    yield "| pair | method | precision | steps | images/s | ms a step | over eager | over naive | of ceiling | MiB |"
    yield "|---|---|---|---|---:|---:|---:|---:|---:|---:|"
    for (pair, method, precision, how), one in sorted(rows.items(), key=lambda row: (row[0][1], row[0][0], row[0][2:])):
        speed = one["images_per_second"]
        eager, naive = rows.get((pair, method, precision, "eager")), good.get(f"naive {pair}")
        best = good.get(f"ceiling {precision}")
        cells = [
            f"{speed / eager['images_per_second']:.2f}" if eager else "",
            f"{speed / naive['images_per_second']:.2f}" if naive and method == "kd" else "",
            f"{speed * one['flop'] / 1e7 / max(best['product'], best['convolution']):.1f} %" if best else "",
        ]
        yield (
            f"| {pair.replace(':', ' → ')} | {method} | {precision} | {how} | {speed:,.0f} | "
            f"{1000 * one['step']:.2f} | {' | '.join(cells)} | {one['memory'] / 2**20:,.0f} |"
        )
    yield ""


def _others(good: dict[str, Any]) -> Iterator[str]:
    for item, one in good.items():
        kind, *rest = item.split()
        pair = rest[0].replace(":", " → ") if rest else ""
        if kind == "naive":
            yield f"- Naive loop, {pair}, KD, float32: {one['images_per_second']:,.0f} images/s."
        elif kind == "peer":
            yield f"- RepDistiller's loop, {pair}, {rest[1]}: {one['speed']:,.0f} images/s."
        elif kind == "cohort":
            yield (
                f"- {rest[3]} students of {pair} by KD, {rest[1]}, {rest[2]}: {one['together']:,.0f} images/s "
                f"together, {one['alone']:,.0f} one at a time: {one['ratio']:.2f} times."
            )
        elif kind == "teacher":
            yield f"- {rest[3]} teacher of {pair}, {rest[1]}, {rest[2]}: {1000 * one['step']:.2f} ms a step."
        elif kind == "tables":
            took = f"{one['runs']} runs, {one['hours']:.1f} hours"
            yield f"- Tables 17 and 18, {rest[0]}, {rest[1]}: {took} ({one['how']})."
    for how in ("captured", "eager"):
        teachers = {
            item: one for item, one in good.items() if item.startswith("teacher ") and f" {how} friendly" in item
        }
        for item, one in teachers.items():
            pair = item.split()[1]
            student = good.get(f"distil {pair} kd bf16 {how}")
            if student:
                hours = EPOCHS * STEPS * (one["step"] + student["step"]) * (1 + EVALUATION) / 3600
                yield (
                    f"- {pair.replace(':', ' → ')}: 240 epochs of the friendly teacher and 240 of the student by KD, "
                    f"{how}: {60 * hours:.0f} minutes together, evaluations counted as {100 * EVALUATION:.0f} % of it."
                )
    yield ""


def _missing(found: dict[str, Any]) -> Iterator[str]:
    for item, one in found.items():
        if not one["ok"] and not item.startswith("checks "):
            yield f"- {'FAILED' if one['ok'] is False else 'Not done'}: {item}: {one['result']}"
    yield ""


def _advice(found: dict[str, Any], good: dict[str, Any]) -> Iterator[str]:
    """Which way of taking steps was the fastest, and whether the checks allow it."""
    rates: dict[str, dict[str, float]] = {}
    for item, one in good.items():
        if item.startswith("distil "):
            *what, how = item.split()[1:]
            rates.setdefault(" ".join(what), {})[how] = one["images_per_second"]
    gains: dict[str, list[float]] = {}
    for ways in rates.values():
        for how, rate in ways.items():
            if "eager" in ways and how != "eager":
                gains.setdefault(how, []).append(rate / ways["eager"])
    needs = {
        "captured": ("captured", "captured_in_bf16", "deterministic", "resumed", "sentinel", "cohort"),
        "compiled": ("compiled",),
        "both": ("captured", "resumed", "sentinel", "compiled", "both"),
    }
    for how, ratios in sorted(gains.items(), key=lambda pair: -max(pair[1])):
        failed = [name for name in needs[how] if not (found.get(f"checks {name}") or {"ok": None})["ok"]]
        verdict = f"but not passed here: {', '.join(failed)}" if failed else "and all its checks passed"
        yield f"- `{how}`: {min(ratios):.2f} to {max(ratios):.2f} times eager steps, {verdict}."
    yield "- The default is eager steps, on any device (`--compile`, `--cuda-graphs`)."
