"""`sftn export` and `sftn predict`: write a network for deployment, and classify images with it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from sftn.cli import options
from sftn.cli.console import say, show_table
from sftn.deploy import exporter as exporting
from sftn.deploy import model_card
from sftn.deploy import predict as predicting
from sftn.deploy.source import Source
from sftn.errors import InputError


def export(asked: options.Export) -> None:
    """Export a run's network."""
    found = exporting.export(
        asked.run,
        asked.to,
        out=asked.out,
        check_images=asked.check_images,
        int8=asked.quantize,
        licence=asked.license,
        data=asked.data,
        data_dir=asked.data_dir,
    )
    if found.agreement is not None:
        say(found.agreement.line)
    if found.measured:
        header, *rows = model_card.table([asdict(row) for row in found.measured])
        table = Table(box=None, pad_edge=False)
        for place, column in enumerate(header):
            table.add_column(column, justify="left" if place < 2 else "right", no_wrap=place > 0, overflow="fold")
        for row in rows:
            table.add_row(*row)
        show_table(table)
        say(f"Times are medians on this CPU, with {model_card.threads(exporting.thread_count())}; measured in turns.")
    say(f"Written: {', '.join(map(str, found.files))}; its card is {found.folder / model_card.NAME}")


def predict(asked: options.Predict) -> None:
    """Classify image files; unreadable ones are reported, the others classified, and the exit code is then 2.

    Raises:
        InputError: the model or an image cannot be read.
    """
    if not asked.images:
        raise InputError("name at least one image, or a folder of images")
    model = _model(asked.what, asked.data, asked.data_dir)
    bad: list[InputError] = []

    def note(error: InputError) -> None:
        bad.append(error)
        print(f"sftn: {error}", file=sys.stderr)

    paths = list(predicting.files(asked.images))
    for answer in predicting.predict(model, paths, top=asked.top, bad=note if len(paths) > 1 else None):
        classes = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in answer.classes)
        say(f"{answer.path}: {classes}")
    if bad:
        raise InputError(f"{len(bad)} of {len(paths)} images could not be read: see the lines above")


def _model(what: Path, data: str | None, data_dir: Path | None) -> predicting.Model:
    if not what.is_dir():
        if not what.exists():
            raise InputError(f"{what} does not exist: give a run's folder, or a file that sftn export wrote")
        return predicting.opened(what)
    return predicting.of_classifier(Source.of(what, data, data_dir).classifier)
