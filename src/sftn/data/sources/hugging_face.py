"""Data sets of the Hugging Face Hub, or saved by its library, through `datasets`."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from sftn.data.dataset import Dataset, Request, held_out
from sftn.data.sources.from_files import gather
from sftn.data.splits import TEST, TRAIN, VALIDATION, among, named, understood
from sftn.errors import InputError

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

SIZE = 32
OLDEST = 4
"""First version of the library that never runs code from a data set, even if the environment allows it."""
LABELS = ("label", "labels", "fine_label")
"""Preferred columns where several would do."""


def load(request: Request) -> Dataset:
    """Images of a data set of the Hugging Face Hub or of its library's folders, 3×size×size, size 32 by default.

    `hf:NAME` is a name on the Hub, which is contacted only with `--download`; without, the library's cache is used.
    NAME can also be a folder that `save_to_disk` wrote, or one of files that the library can read. Images are taken
    from the column of type Image; labels from the column of type ClassLabel, or one called label. Splits may have any
    of the names that `sftn.data.splits` knows. The test split is tested on, or the validation split if there is no test
    split or it has no labels; if there is neither, a fifth of each class is held out, chosen by a hash of the row's
    number. What was understood is logged.

    Raises:
        InputError: the library is missing, nothing is found, columns are ambiguous, an image has no class, or an image
            is damaged.
    """
    if not request.path:
        raise InputError("the data set hf needs a name: hf:NAME, or hf:FOLDER")
    name = f"hf:{request.path}"
    parts = _splits(_parts(request), name)
    train = parts[TRAIN]
    image, column = _columns(train, name)
    classes, own = _classes(train, column, name)
    if min(own, default=0) < 0:
        raise InputError(f"{name}: row {own.index(min(own))} of train has no class (label {min(own)}): remove it")
    tested, theirs = None, list[int]()
    for part in (part for part in (TEST, VALIDATION) if part in parts):
        theirs = _labels(parts[part], column, classes, name)
        if min(theirs, default=-1) >= 0:
            tested = part
            break
    if tested is None and len(parts) > 1:
        raise InputError(f"{name} has no split with labels for testing: add one called test")
    rows = list(enumerate(own))
    if tested is None:
        rows, held = _parted(rows, classes, name)
    else:
        held = [(len(own) + i, label) for i, label in enumerate(theirs)]
    if len(set(own)) < 2:
        raise InputError(f"{name} has images of {len(set(own))} class: at least 2 are needed")
    found = {part: len(table) for part, table in parts.items()}
    logger.info(understood(name, found, (len(rows), len(held)), tested, classes))
    if tested == VALIDATION and TEST in parts:
        logger.warning(f"{name}: the {found[TEST]:,} test images have no labels and are not used")
    reader = Rows.of(request.path, image, [train] if tested is None else [train, parts[tested]])
    return gather(name, reader, (rows, held), classes, request, SIZE if request.size is None else request.size)


@dataclass(frozen=True)
class Rows:
    """Reads the encoded images of a column of one or two tables, which are memory-mapped."""

    place: str
    column: str
    tables: tuple[datasets.Dataset, ...]
    sizes: NDArray[np.int64]
    stamp: str

    @staticmethod
    def of(place: str, column: str, tables: list[datasets.Dataset]) -> Rows:
        """Look up the sizes of the stored images."""
        from datasets import Image

        raw = tuple(table.select_columns([column]).cast_column(column, Image(decode=False)) for table in tables)
        sizes = [size for table in raw for size in _lengths(table, column, place)]
        stamp = " ".join(str(table._fingerprint) for table in raw)
        return Rows(place, column, raw, np.array(sizes, np.int64), f"hf {place} {stamp}")

    def name(self, row: int) -> str:
        """Number of an image, because stored images need not have a name."""
        return str(row)

    def open(self, row: int) -> tuple[Path, BinaryIO | None]:
        """Content of an image, or its path if only that is stored."""
        table, within = (0, row) if row < len(self.tables[0]) else (1, row - len(self.tables[0]))
        stored = self.tables[table][within][self.column]
        path = Path(f"hf:{self.place}[{row}]")
        if stored is None:
            return path, io.BytesIO()
        return (path, io.BytesIO(stored["bytes"])) if stored["bytes"] is not None else (Path(stored["path"]), None)


def _parts(request: Request) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise InputError("the data set hf needs the datasets library: pip install 'sftn[hf]'") from error
    if int(datasets.__version__.partition(".")[0]) < OLDEST:
        raise InputError(f"datasets {datasets.__version__} runs code found in data sets: pip install -U 'sftn[hf]'")
    path = Path(request.path).expanduser()
    if not path.exists() and request.data_dir is not None and (request.data_dir / path).exists():
        path = request.data_dir / path
    datasets.disable_progress_bars()
    try:
        with _offline(not request.download):  # a folder, too, may name files to download
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                found = datasets.load_from_disk(str(path))
            else:
                found = datasets.load_dataset(str(path) if path.exists() else request.path)
        parts = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
        for table in parts.values():
            table.data.validate(full=True)  # pyarrow trusts forged lengths and would crash
    except Exception as error:
        # The library, its builders and the network raise many kinds of errors; all of them mean the same.
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        local = path.exists() and "://" not in reason
        hint = "" if local or request.download else "; downloading from the Hub needs --download"
        raise InputError(f"hf:{request.path} cannot be loaded ({type(error).__name__}: {reason}){hint}") from error
    return parts


def _splits(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """The table of each split; a single table is the training split, whatever its name."""
    meant = named(tables)
    chosen = among(meant, name)
    if TRAIN not in chosen and len(tables) == 1:
        return {TRAIN: next(iter(tables.values()))}
    if TRAIN not in chosen:
        raise InputError(f"{name} has the splits {', '.join(tables)} but no train: it has no training images")
    unused = [own for own in tables if own not in chosen.values()]
    strange = [own for own in unused if own not in meant]
    if strange and len(chosen) == 1:
        raise InputError(
            f"{name} has {chosen[TRAIN]} beside {strange[0]}, whose name isn't known: rename it to test if it is for "
            "testing, or remove it"
        )
    for own in unused:
        logger.warning(f"{name}: {own} is left out with {len(tables[own]):,} images, because its name means no split")
    return {part: tables[own] for part, own in chosen.items()}


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Make the library use local files only, if `wanted`.

    The library reads its own switch on import and ignores it for addresses in a folder's README.md, so every connection
    is blocked in the meantime.
    """
    from datasets import config
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ConnectionRefusedError("nothing is downloaded without --download")

    changes: list[tuple[Any, str, Any]] = [(place, "HF_HUB_OFFLINE", True) for place in (config, constants)]
    changes += [(socket.socket, name, refuse) for name in ("connect", "connect_ex")]
    changes.append((socket, "getaddrinfo", refuse))
    before = [(place, name, getattr(place, name)) for place, name, _ in changes]
    try:
        for change in changes if wanted else ():
            setattr(*change)
        yield
    finally:
        for known in before:
            setattr(*known)


def _columns(train: Any, name: str) -> tuple[str, str]:
    """Find the column of images and that of labels."""
    from datasets import ClassLabel, Image

    images = [column for column, kind in train.features.items() if isinstance(kind, Image)]
    if len(images) != 1:
        raise InputError(
            f"{name} has {len(images)} columns of images among {', '.join(train.features)}: it must be one"
        )
    labels = [column for column, kind in train.features.items() if isinstance(kind, ClassLabel)]
    if len(labels) == 1:
        return images[0], labels[0]
    chosen = next((column for column in LABELS if column in (labels or train.features)), None)
    if chosen is None:
        raise InputError(f"{name} has no column of labels among {', '.join(train.features)}: call it label")
    return images[0], chosen


def _classes(train: Any, column: str, name: str) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes, and the label of each training image."""
    from datasets import ClassLabel

    kind = train.features[column]
    if isinstance(kind, ClassLabel):
        return tuple(kind.names), [-1 if value is None else int(value) for value in train[column]]
    values = list(train[column])
    if not all(isinstance(value, int | str) for value in values):
        raise InputError(f"{name}: the column {column} holds neither numbers nor names of classes")
    classes = sorted(set(values))
    return tuple(map(str, classes)), [classes.index(value) for value in values]


def _labels(table: Any, column: str, classes: tuple[str, ...], name: str) -> list[int]:
    """Label of each test image, -1 where there is none."""
    from datasets import ClassLabel

    if column not in table.features:
        raise InputError(f"{name}: the test split has no column {column}")
    values = [-1 if value is None else value for value in table[column]]
    kind = table.features[column]
    named = (
        [kind.int2str(value) if value >= 0 else None for value in values] if isinstance(kind, ClassLabel) else values
    )
    known = {text: label for label, text in enumerate(classes)}
    found = [-1 if value in (None, -1) else known.get(str(value), -2) for value in named]
    if -2 in found:
        raise InputError(f"{name}: the test split has the class {named[found.index(-2)]}, which train lacks: remove it")
    return found


def _parted(
    rows: list[tuple[int, int]], classes: tuple[str, ...], name: str
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Split each class: four fifths for training, the rest for testing."""
    train, test = [], []
    for label, text in enumerate(classes):
        own = [row for row, its in rows if its == label]
        if len(own) == 1:
            raise InputError(f"{name} has one image of {text}: add another, so that one can be kept for testing")
        chosen = held_out([str(row) for row in own], max(1, round(len(own) / 5))) if own else set()
        train += [(row, label) for i, row in enumerate(own) if i not in chosen]
        test += [(row, label) for i, row in enumerate(own) if i in chosen]
    return sorted(train), sorted(test)


def _lengths(table: Any, column: str, place: str) -> list[int]:
    """Size of each encoded image in bytes; images stored in the table are not read for it."""
    import pyarrow.compute as pc

    found: list[int] = []
    for batch in table.with_format("arrow").iter(1000):
        stored = batch[column]
        inside, paths = pc.binary_length(pc.struct_field(stored, "bytes")), pc.struct_field(stored, "path")
        found += [size if size is not None else _size(path, place) for size, path in zip(*map(_list, (inside, paths)))]
    return found


def _list(array: Any) -> list[Any]:
    return list(array.to_pylist())


def _size(path: str | None, place: str) -> int:
    """Size in bytes of an image that is stored as a file; 0 if there is no image."""
    try:
        return 0 if path is None else Path(path).stat().st_size
    except OSError as error:
        raise InputError(f"hf:{place}: {path} cannot be read ({error.strerror}): download it again") from error
