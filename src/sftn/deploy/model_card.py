"""Model cards in Hugging Face's format: what users of an exported network must know."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftn.deploy.classifier import Classifier
from sftn.deploy.source import Source
from sftn.errors import InputError
from sftn.profiling.layers import layers
from sftn.runs.caveats import Record
from sftn.spec.run import Run, Weights
from sftn.storage.atomic import write_atomically
from sftn.storage.escapes import code, markdown

NAME = "README.md"
LOWEST = 5
"""So many classes, those with the lowest recall, are listed where classes are unequal in size."""
_MARK = "<!-- written by sftn export -->"


def check_place(folder: Path) -> None:
    """Check that a card may be written into a folder.

    Raises:
        InputError: the folder has a README.md that is not a card of ours.
    """
    path = folder / NAME
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{path} was not written by sftn export: choose another --out")


def check_licence(licence: str | None) -> None:
    """Check the name of a licence.

    Raises:
        InputError: it does not have the form of Hugging Face's identifiers.
    """
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise InputError(f"--license {licence!r}: write Hugging Face's identifier, such as mit, apache-2.0 or other")


def write(folder: Path, text: str) -> None:
    """Write a card."""
    check_place(folder)
    write_atomically(folder / NAME, text.encode())


def card(source: Source, exports: Sequence[Mapping[str, Any]], licence: str | None) -> str:
    """Make the card of a run's network, as Markdown.

    Args:
        source: the run's network.
        exports: the entries of `export.json`, for the files exported into the folder.
        licence: licence of the weights; None if not stated.
    """
    run, classifier = source.run, source.classifier
    front = ["library_name: sftn", "pipeline_tag: image-classification", "metrics:", "- accuracy"]
    front += ["tags:", "- image-classification", "- knowledge-distillation", "- sftn"]
    if licence is not None:
        front.append(f"license: {json.dumps(licence)}")
    parts = [
        "\n".join(["---", *front, "---", _MARK]),
        f"# {markdown(run.name)}",
        f"An image classifier: {markdown(run.network)}, {len(classifier.classes)} classes. Trained with sftn.",
        _numbers(source, exports),
        _use(classifier, exports),
        _training(source),
        _classes(classifier),
        _limits(source, licence),
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(source: Source, exports: Sequence[Mapping[str, Any]]) -> str:
    own, run, classifier = source.result, source.run, source.classifier
    rows = [(f"accuracy on the test images (in {run.precision})", f"{own['accuracy']:.2f} %")]
    judged = Record.of(own)
    if judged.unequal:
        rows.append(("balanced accuracy (mean recall of the classes)", f"{judged.balanced:.2f} %"))
        tested = sorted((r, name) for r, name in zip(judged.recall, judged.names) if r is not None)
        rows += [(f"recall of {markdown(name)}", f"{recall:.2f} %") for recall, name in tested[:LOWEST]]
    if isinstance(run.teacher, Run):
        done = source.trained.teacher().result()
        which = "the first of its teachers" if run.further else "its teacher"
        rows.append((f"accuracy of {which}", f"{done['accuracy']:.2f} %" if done else "not recorded here"))
    found = layers(classifier.network, classifier.images.shape)
    rows.append(("parameters", f"{sum(p.numel() for p in classifier.network.parameters()):,}"))
    rows.append(("multiply-adds per image", f"{sum(layer.multiply_adds for layer in found):,}"))
    warnings = [f"> **It {markdown(warning)}.**" for warning in own.get("warnings", judged.caveats())]
    lines = [
        "## Numbers",
        "",
        *(line for warning in warnings for line in (warning, "")),
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    for entry in exports:
        if entry.get("measured"):
            lines += [
                "",
                f"Measured with onnxruntime on a CPU, {threads(entry['threads'])}, the median of a batch:",
                "",
            ]
            lines += _markdown(entry["measured"])
    return "\n".join(lines)


def threads(count: int) -> str:
    """Write out a number of threads."""
    return f"{count} thread{'s' if count > 1 else ''}"


def _markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    header, *cells = table(rows)
    return ["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *cells)]


def table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Measurements of files as rows of text, beginning with the header."""
    sizes = list(rows[0]["seconds"])
    found: list[tuple[str, ...]] = [
        ("", "numbers", "file", "test accuracy", *(f"{'image' if str(n) == '1' else f'batch of {n}'}" for n in sizes))
    ]
    for row in rows:
        times = [f"{1000 * row['seconds'][size]:.2f} ms" for size in sizes]
        label = f"{row['role']} {row['network']}"
        found.append((label, row["numbers"], f"{row['bytes'] / 1e6:.2f} MB", f"{row['accuracy']:.2f} %", *times))
    return found


def _use(classifier: Classifier, exports: Sequence[Mapping[str, Any]]) -> str:
    channels, height, width = classifier.images.shape
    lines = ["## Use", ""]
    files = [name for entry in exports for name in entry["files"]]
    if any(name.endswith(".safetensors") for name in files):
        lines += [
            "```python",
            "from sftn.deploy.hub import Student",
            "student = Student.from_pretrained(FOLDER)  # or the name of its repository",
            "print(student.predict([IMAGE]))",
            "```",
            "",
        ]
    if "model.onnx" in files:
        lines += [
            "```python",
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("model.onnx")',
            'logits, probabilities = session.run(None, {"images": pixels})',
            "```",
            "",
        ]
    if "model.pt2" in files:
        lines += [
            "```python",
            "import torch",
            'module = torch.export.load("model.pt2").module()',
            "logits, probabilities = module(pixels)",
            "```",
            "",
        ]
    colours = "RGB" if channels == 3 else "grey" if channels == 1 else f"{channels} channels"
    resize = classifier.images.resize
    lines.append(
        f"`pixels` are {colours}, uint8 in 0..255, (B, {channels}, {height}, {width}): the shorter side of an image "
        f"resized to {resize}, then its centre cropped. The normalisation is inside. `config.json` and the file itself "
        "name the classes. For image files: `sftn predict FILE IMAGE`."
    )
    for entry in exports:
        if entry.get("check"):
            check = entry["check"]
            lines += [
                "",
                f"`{entry['files'][0]}` was checked against PyTorch: {check['same']} of {check['images']} "
                f"{check['kind']} get the same class, logits differ by at most {check['difference']:.1e}.",
            ]
    return "\n".join(lines)


def _training(source: Source) -> str:
    run, lines = source.run, ["## Training", ""]
    given = [f"{name} {getattr(run.data, name)}" for name in ("limit", "classes", "size") if getattr(run.data, name)]
    lines.append("- images: " + ", ".join([markdown(data_name(run)), *given, f"fingerprint {run.data.fingerprint}"]))
    lines += [f"- {line}" for line in _teaching(run)]
    s = run.schedule
    falls = ", ".join(f"{m:g}" for m in s.milestones)
    lines.append(
        f"- schedule: {s.epochs} epochs of batches of {s.batch}, SGD, learning rate {s.lr:g}, times {s.gamma:g} at "
        f"{falls}, momentum {s.momentum:g}, weight decay {s.weight_decay:g}, {run.precision}"
    )
    lines.append(f"- seed {run.seed}; run {run.id}")
    environment = source.result.get("environment", {})
    lines.append(f"- sftn {environment.get('sftn', '?')}, PyTorch {environment.get('torch', '?')}")
    return "\n".join(lines)


def data_name(run: Run) -> str:
    """Name of a run's images without parent folders, because cards are public."""
    source, colon, path = run.data.name.partition(":")
    return source + colon + Path(path).name if colon else source


def _teaching(run: Run) -> list[str]:
    lines = []
    if run.fine_tune is not None:
        frozen, rate = run.fine_tune.frozen_stages, run.fine_tune.backbone_rate
        lines.append(f"fine-tuned from trained weights, backbone at {rate:g} of the rate, {frozen} stages frozen")
    if run.friendly is not None:
        lines.append(f"friendly to {run.friendly.student}: {_weights(run)}")
    for teacher in run.teachers:
        if isinstance(teacher, Weights):
            lines.append(f"teacher: {teacher.network}, from a file of weights (SHA-256 {teacher.sha256})")
        else:
            kind = f"friendly to {teacher.friendly.student} ({_weights(teacher)})" if teacher.friendly else "standard"
            lines.append(f"teacher: {teacher.network}, {kind}, {teacher.schedule.epochs} epochs, run {teacher.id}")
    if run.further:
        how = {"mean": "weighed equally", "ca": "weighed by their cross-entropy on each image (CA-MKD)"}[run.ensemble]
        lines.append(f"the {len(run.teachers)} teachers together, {how}; methods on features learn from the first")
    if run.objective is not None:
        kd = f", KD at temperature {run.objective.temperature:g}" if run.objective.kd else ""
        lines.append(f"objective {run.objective.name}: {run.objective.formula}{kd}")
    return lines or ["no teacher: labels alone"]


def _weights(run: Run) -> str:
    how = run.friendly
    assert how is not None
    logits = ", standardised logits" if how.branch_logits == "std" else ""
    return f"λ_T {how.teacher_ce:g}, λ_R^KL {how.branch_kl:g}, λ_R^CE {how.branch_ce:g}, τ {how.temperature:g}{logits}"


def _classes(classifier: Classifier, most: int = 1000) -> str:
    lines = [f"{number}. {code(name)}" for number, name in enumerate(classifier.classes[:most])]
    left = len(classifier.classes) - most
    return "\n".join(["## Classes", "", *lines, *([f"and {left} more, see config.json"] if left > 0 else [])])


def _limits(source: Source, licence: str | None) -> str:
    stated = f"The licence of the weights: {licence}." if licence else "The licence of the weights is not stated."
    return "\n".join(
        [
            "## Limits",
            "",
            f"Every image gets one of the {len(source.classifier.classes)} classes, even if it shows none of them. "
            f"The accuracy was measured on the test images of {markdown(data_name(source.run))}; with other cameras, "
            "places or times it may be lower, and probabilities were not calibrated. "
            f"{stated} That of the images was not checked.",
        ]
    )
