"""`sftn analyse`: load networks and images by name, analyse them, then show and save the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from sftn.analysis import calibration, corruption, curves, similarity, transfer
from sftn.analysis.corrupted import Corrupted, find, generate
from sftn.analysis.corruptions import CORRUPTIONS, SEVERITIES, check
from sftn.cli import analysis_options
from sftn.cli.console import console, say
from sftn.data.dataset import Dataset
from sftn.data.load import load
from sftn.errors import InputError
from sftn.report import terminal
from sftn.report.analysis_files import Found, keep
from sftn.report.figures import analysis
from sftn.runs.folder import RunFolder
from sftn.runs.trained import Trained
from sftn.runtime.device import make_fabric
from sftn.spec.differences import labels


def analyse(command: analysis_options.Analyse) -> Path:
    """Run an analysis, show its table, and write JSON, CSV and figures.

    Returns:
        The folder that contains analysis.json, analysis.csv and the figures.

    Raises:
        InputError: the input is wrong.
    """
    asked = command.analysis
    if not asked.runs:
        raise InputError("nothing to analyse: give folders of runs or weights files")
    plain = asked if isinstance(asked, analysis_options.Curves) else asked.look
    if plain.figure:
        analysis.require()
    if isinstance(asked, analysis_options.Corruption):
        found = _corruption(asked)
    elif isinstance(asked, analysis_options.Transfer):
        found = _transfer(asked)
    elif isinstance(asked, analysis_options.Similarity):
        found = _similarity(asked)
    elif isinstance(asked, analysis_options.Entropy):
        found = _entropy(asked)
    else:
        found = _curves(asked)
    page = keep(found, type(asked).__name__.lower(), plain.out)
    terminal.show(page, console)
    names = ("analysis.json", "analysis.csv", *(f"{name}.svg" for name in found.figures))
    say(f"Written: {page.folder}/{', '.join(names)}")
    return page.folder


def _corruption(asked: analysis_options.Corruption) -> Found:
    names = asked.corruptions or tuple(CORRUPTIONS)
    for kind in names:
        check(kind)
    look = asked.look
    tested = _subjects(asked.runs, look)
    reference = 0
    if asked.reference is not None:
        named = Trained.of(asked.reference, look.network)
        identities = [one.identity for one in tested]
        if named.identity not in identities:
            tested.append(named)
        reference = [*identities, named.identity].index(named.identity)
    dataset = _images(tested, look)
    fabric = make_fabric(look.device, look.precision)
    networks = [one.network(dataset) for one in tested]
    if asked.corrupted is not None:
        given = asked.corrupted
        corrupted = Corrupted(given, dataset.test, generated=(given / "generated.json").exists())
    else:
        corrupted = find(dataset, look.data_dir) or generate(
            dataset, look.out / "corrupted", names, seed=asked.seed, threads=asked.threads
        )
    found = []
    for one, network in zip(tested, networks):
        network.to(fabric.device)
        found.append(corruption.robustness(network, corrupted, dataset.normalisation, fabric, names, name=one.name))
        say(f"{one.name}: {found[-1].clean:.2f} % clean, {found[-1].mean:.2f} % corrupted")
    columns = ("clean", *map(str, SEVERITIES))
    rows: list[dict[str, Any]] = [{"network": one.network, **dict(zip(columns, one.averages))} for one in found]
    if asked.reference is not None:
        for row, tested_one in zip(rows, found):
            row["mCE"] = tested_one.mce(found[reference])
    data = [
        {"network": one.network, "corruption": kind, "severity": severity, "accuracy": value}
        for one in found
        for kind, values in one.accuracy.items()
        for severity, value in zip(SEVERITIES, values)
    ]
    origin = "generated" if corrupted.generated else "official"
    return Found(
        f"Accuracy in %, clean and at intensities 1 to 5 of {len(names)} corruptions of {dataset.name} "
        f"({origin} images, {corrupted.folder.name})",
        rows,
        _settings(tested, dataset, names=names, images=corrupted.folder.name, reference=asked.reference),
        data,
        {"corruption": analysis.robustness(found)} if look.figure else {},
        {"images": origin, "folder": corrupted.folder.name, "networks": [one.record() for one in found]},
    )


def _transfer(asked: analysis_options.Transfer) -> Found:
    look = asked.look
    probe = transfer.Probe(epochs=asked.epochs, seed=asked.seed, milestones=_milestones(asked.epochs))
    tested = _subjects(asked.runs, look)
    size = look.size or 32
    fabric = make_fabric(look.device, look.precision)
    networks = [one.network_alone((size, size)).to(fabric.device) for one in tested]
    rows: list[dict[str, Any]] = []
    targets = []
    for target in (look.data,) if look.data else asked.to:
        sized = target.partition(":")[0] in ("folder", "stl10", "tiny-imagenet")
        dataset = load(target, data_dir=look.data_dir, size=size if sized else None, limit=asked.limit)
        targets.append(dataset)
        for one, network in zip(tested, networks):
            result = transfer.transfer(network, dataset, fabric, probe)
            rows.append({"network": one.name, "to": dataset.name, **result, "features": int(result["features"])})
            say(f"{one.name} on {dataset.name}: {result['accuracy']:.2f} %")
    marked = [row | {"label": f"{row['network']}\non {row['to']}"} for row in rows]
    columns = {"accuracy": "accuracy of a linear classifier in %"}
    return Found(
        f"Transfer: a linear classifier on frozen features, images at {size}×{size}, {asked.epochs} epochs",
        rows,
        _settings(tested, targets[0], to=[one.name for one in targets], probe=vars(probe), size=size),
        rows,
        {"transfer": analysis.values(marked, "label", columns)} if look.figure else {},
        {},
    )


def _similarity(asked: analysis_options.Similarity) -> Found:
    look = asked.look
    students = _subjects(asked.runs, look)
    if asked.teacher is None:
        teachers = [one.teacher() for one in students]
    else:
        teachers = [Trained.of(asked.teacher, asked.teacher_network)] * len(students)
    dataset = _images(students, look)
    fabric = make_fabric(look.device, look.precision)
    rows = []
    for theirs, ours in zip(teachers, students):
        pair = [one.network(dataset).to(fabric.device) for one in (theirs, ours)]
        alike = similarity.similarity(
            pair[0], pair[1], dataset.test, dataset.normalisation, fabric, minibatch=asked.minibatch
        )
        rows.append({"teacher": theirs.name, "student": ours.name, **alike})
    columns = {"kl": "KL(teacher ‖ student) in nats", "cka": "linear CKA, exact", "agreement": "top-1 agreement in %"}
    return Found(
        f"Similarity on {len(dataset.test):,} test images of {dataset.name}; CKA of the pooled last stage",
        rows,
        _settings([*teachers, *students], dataset, minibatch=asked.minibatch),
        rows,
        {"similarity": analysis.values(rows, "student", columns)} if look.figure else {},
        {},
    )


def _entropy(asked: analysis_options.Entropy) -> Found:
    look = asked.look
    if asked.bins < 1:
        raise InputError(f"bins {asked.bins}: give at least 1")
    tested = _subjects(asked.runs, look)
    dataset = _images(tested, look)
    fabric = make_fabric(look.device, look.precision)
    rows = []
    for one in tested:
        network = one.network(dataset).to(fabric.device)
        for part, split in (("training", dataset.train), ("test", dataset.test)):
            found = calibration.confidence(
                network, split.to(fabric.device), dataset.normalisation, fabric, bins=asked.bins
            )
            rows.append({"network": one.name, "images": part, **found})
    marked = [row | {"label": f"{row['network']}\n{row['images']} images"} for row in rows]
    columns = {"entropy": "entropy in nats", "ece": "calibration error in %"}
    return Found(
        f"Entropy (nats) and expected calibration error ({asked.bins} bins, %) on {dataset.name}, not augmented",
        rows,
        _settings(tested, dataset, bins=asked.bins),
        rows,
        {"entropy": analysis.values(marked, "label", columns)} if look.figure else {},
        {},
    )


def _curves(asked: analysis_options.Curves) -> Found:
    folders = [RunFolder(Path(run)) for run in asked.runs]
    names = labels([folder.run() for folder in folders])
    drawn = [replace(curves.curve(folder), name=name) for folder, name in zip(folders, names)]
    points = curves.points(folders)
    rows = []
    for one in drawn:
        kl = [value for value in one.kl if value is not None]
        accuracy = [value for value in one.accuracy if value is not None]
        rows.append(
            {
                "run": f"{one.name} (seed {one.seed})",
                "epochs": len(one.epochs),
                "kl, first epoch": kl[0] if kl else None,
                "kl, last epoch": kl[-1] if kl else None,
                "kl, mean": fmean(kl) if kl else None,
                "test accuracy": accuracy[-1] if accuracy else None,
            }
        )
    drawings = {}
    if asked.figure:
        drawings["curves"] = analysis.training(drawn)
        if points:
            drawings["capacity"] = analysis.capacity(points)
    return Found(
        "Training: the KD term (τ²·KL, nats) and test accuracy in %",
        rows,
        {"runs": [folder.path.resolve().name for folder in folders]},
        curves.rows(drawn),
        drawings,
        {"curves": [vars(one) for one in drawn], "teachers and students": [vars(point) for point in points]},
    )


def _subjects(names: Sequence[str], look: analysis_options.LookOptions) -> list[Trained]:
    return [Trained.of(name, look.network) for name in names]


def _images(tested: Sequence[Trained], look: analysis_options.LookOptions) -> Dataset:
    """The images to test networks on: those named in the options, or those of the first run."""
    first = next((one for one in tested if one.run is not None), tested[0])
    return first.images(look.data, look.data_dir, look.size)


def _milestones(epochs: int) -> tuple[int, ...]:
    """Epochs at which the learning rate drops: 30 %, 60 % and 90 % of all."""
    return tuple(round(share * epochs) for share in (0.3, 0.6, 0.9))


def _settings(tested: Sequence[Trained], dataset: Dataset, **others: Any) -> dict[str, Any]:
    return {"networks": [one.identity for one in tested], "data": dataset.name, "test": len(dataset.test), **others}
