"""ImageNet (ILSVRC 2012) in its official folders, under the conditions of section B.2."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from sftn.data.dataset import Dataset, Request
from sftn.data.image_files import LeftOut, direct, subfolders
from sftn.data.sources.cifar import roots
from sftn.data.sources.folder import of_paths, say
from sftn.data.sources.layout import Layout, Listing, compare, listed
from sftn.data.splits import TRAIN, VALIDATION, role
from sftn.errors import InputError
from sftn.storage.records import read_text

SIZE = 224
FOLDERS = ("", "imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
"""Folders in which those of the splits are searched; the last is Kaggle's unpacked archive."""
SOLUTION = "LOC_val_solution.csv"
STATISTICS = (
    (0.485 * 255, 0.456 * 255, 0.406 * 255),
    (0.229 * 255, 0.224 * 255, 0.225 * 255),
)
"""Mean and standard deviation of each channel, the customary values."""


def load(request: Request) -> Dataset:
    """ImageNet: 1,281,167 training and 50,000 validation images, 3×224×224, 1,000 classes, streamed from files.

    The folders train/ and val/, by any of the names that `sftn.data.splits` knows, are searched in `data_dir` and the
    usual places. Each class has a folder named after its WordNet id, such as n01440764; val/ may also hold all images
    in one folder if LOC_val_solution.csv, in Kaggle's format, is beside or above val/ and gives their classes. A subset
    of the classes and images works too. Classes are named after their ids and sorted by them; the validation images are
    the test split, because the official test images have no labels.

    Evaluation resizes the shorter side to 256 and crops the centre; section B.2 may mean both sides. Photographs are
    turned upright by their EXIF orientation, which the usual loaders ignore.

    Raises:
        InputError: the files are missing or incomplete, or images in memory are requested.
    """
    if request.stream is False:
        raise InputError("imagenet is always streamed: use folder:PATH to keep it in memory")
    root, trained, tested = _find(request.data_dir)
    made = Layout(root)
    train = made.parts[TRAIN] = listed(root, trained, made.left)
    strange = [name for name in train if not (name.startswith("n") and name[1:].isdigit())]
    if strange:
        raise InputError(f"{root / trained / strange[0]} is not named after a WordNet id: use folder:{root} instead")
    if len(train) < 2:
        raise InputError(f"{root / trained} has images of {len(train)} class: give at least 2")
    sorted_in = bool(subfolders(root / tested))
    test = listed(root, tested, made.left) if sorted_in else _solved(root, tested, made.left)
    made.parts[VALIDATION] = test
    compare(train, test, root / trained, root / tested)
    say("imagenet", made, (train, test))
    size = SIZE if request.size is None else request.size
    return of_paths("imagenet", root, (train, test), request, size, streamed=True, statistics=STATISTICS)


def _find(data_dir: Path | None) -> tuple[Path, str, str]:
    """The folder of ImageNet, and the names of its training and validation folders."""
    places = roots(data_dir)
    for place in places:
        for folder in FOLDERS:
            if (place / folder).is_dir():
                there = subfolders(place / folder)
                official = [name for name in ("train", "val") if name in there]
                meant = {role(name): name for name in (*there, *official)}
                if TRAIN in meant and VALIDATION in meant:
                    return place / folder, meant[TRAIN], meant[VALIDATION]
    raise InputError(
        f"imagenet is missing: no train/ and val/ in {', '.join(map(str, places))}; get it from https://image-net.org, "
        "unpack it, and give the folder with --data-dir"
    )


def _solved(root: Path, tested: str, left: LeftOut) -> Listing:
    """Images of a flat val/ by class, from a file with rows of an image's name and `n01440764 left top …`."""
    path = next((place / SOLUTION for place in (root, *list(root.parents)[:3]) if (place / SOLUTION).is_file()), None)
    if path is None:
        raise InputError(
            f"{root / tested} has no folders of classes, and {SOLUTION} is not beside it: put the images of each class "
            f"into a folder, or the file beside {tested}/"
        )
    try:
        rows = csv.reader(io.StringIO(read_text(path), newline=""))
        next(rows, None)
        classes = {row[0]: row[1].split()[0] for row in rows if row}
    except (InputError, IndexError, csv.Error) as error:
        raise InputError(f"{path} is not a list of images and classes ({error}): download it again") from error
    found: Listing = {}
    for name in direct(root / tested, left):
        stem = Path(name).stem
        if stem not in classes:
            raise InputError(f"{path} does not give the class of {name}: download it again")
        found.setdefault(classes[stem], []).append(f"{tested}/{name}")
    if not found:
        raise InputError(f"{root / tested} has no images: unpack the archive again")
    return dict(sorted(found.items()))
