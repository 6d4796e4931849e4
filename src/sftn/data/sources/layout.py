"""Layouts of folders: which folders are classes and which are splits, told by their names and by what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sftn.data.image_files import LeftOut, below, direct, has_images, subfolders
from sftn.data.splits import OTHER, TEST, TRAIN, VALIDATION, among, folded, named, plain, role
from sftn.errors import InputError

Listing = dict[str, list[str]]
"""Image files of each class, as paths within the root; classes and files are sorted by name."""

_DEEPEST = 5
"""Number of folders around everything that are opened."""
_NUMBERED = re.compile(r"(fold|part|split|subset|cv|chunk|shard|batch)[\W_]*\d+", re.IGNORECASE)
_LISTS = (".csv", ".tsv", ".txt", ".json", ".xml", ".xlsx", ".parquet")
"""Suffixes of files that may name the classes of images, and aren't read."""


@dataclass
class Layout:
    """What was understood of a folder of images."""

    root: Path
    """The folder that the listed paths are within: the given one, or one inside that holds everything."""
    parts: dict[str, Listing] = field(default_factory=dict)
    """The images of each split that was found: train, and validation and test if they are there."""
    left: LeftOut = field(default_factory=LeftOut)
    warnings: list[str] = field(default_factory=list)
    """What a person should know, in whole lines."""

    @property
    def tested(self) -> str | None:
        """The split that is tested on: test, else validation; None if a part of each class must be kept for it."""
        return next((part for part in (TEST, VALIDATION) if part in self.parts), None)


def laid_out(given: Path) -> Layout:
    """Understand the layout of a folder of images, and list them.

    Folders whose names mean splits (`sftn.data.splits.role`) are splits if they hold folders of classes; if they hold
    images, they are classes. Each class may have halves of its own instead, such as cats/train and cats/test. One
    folder that holds everything, as in an unpacked archive, is opened.

    Raises:
        InputError: nothing is there, or it can be meant in several ways.
    """
    made = Layout(_unwrapped(given))
    root, names = made.root, subfolders(made.root)
    if not names:
        raise flat(root)
    splits = _splits(made, names)
    if splits is not None:
        tested = TEST if TEST in splits else VALIDATION
        for part, within in splits.items():
            made.parts[part] = listed(root, within, made.left, strict=part in (TRAIN, tested))
        if tested in splits:
            compare(made.parts[TRAIN], made.parts[tested], root / splits[TRAIN], root / splits[tested])
        _astray(root, made.left)
    elif not _halved(made, names):
        _doubt(made, names)
        made.parts[TRAIN] = listed(root, "", made.left)
    if root != given and (own := role(root.name)) in (VALIDATION, TEST):
        made.warnings.append(f"{root} is named like images for {own}, but there are no others to train on")
    made.warnings += [*_neighbours(given.absolute()), *_alike(made.parts[TRAIN])]
    return made


def listed(root: Path, part: str, left: LeftOut, *, strict: bool = True) -> Listing:
    """List the images of a folder that has one folder per class.

    Args:
        root: the folder that the paths are within.
        part: the folder of classes within it; "" for `root` itself.
        left: counts what is left out.
        strict: whether a class without images is an error; it is left out otherwise.

    Raises:
        InputError: the folder cannot be read, or it or a class is empty.
    """
    top = root / part
    names = subfolders(top)
    if not names and strict:
        raise flat(top)
    found = {}
    for name in names:
        own = LeftOut()
        files = below(root, f"{part}/{name}" if part else name, own)
        if not files and strict:
            raise InputError(f"{top / name} has no images{own.hint()}: add some or remove the folder")
        left.add(own)
        if files:
            found[name] = files
    _astray(top, left)
    return found


def compare(train: Listing, test: Listing, trained: Path, tested: Path) -> None:
    """Check that every test class has training images.

    Args:
        train: the training images.
        test: the test images.
        trained: where the training images are, for messages.
        tested: where the test images are.

    Raises:
        InputError: a class has none, or its name is written differently.
    """
    known = {folded(name): name for name in train}
    for name in sorted(test.keys() - train.keys()):
        if alike := known.get(folded(name)):
            raise InputError(
                f"{trained} has the class {alike!r} and {tested} has {name!r}, which differ only in case, spaces or "
                "the encoding of accents: give them one name"
            )
        raise InputError(f"{tested} has the class {name}, which {trained} lacks: add or remove it")


def flat(folder: Path) -> InputError:
    """The error of a folder that has no folders of classes."""
    with suppress(InputError):
        images = len(direct(folder))
        lists = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _LISTS)
        if images:
            unread = f" ({lists[0]} is not read: classes are told by folders)" if lists else ""
            return InputError(
                f"{folder} has no folders, only {images:,} image{'s' * (images > 1)}{unread}: put the images of each "
                "class into their own folder"
            )
    return InputError(f"{folder} has no folders: put the images of each class into their own folder")


def _unwrapped(given: Path) -> Path:
    """The folder inside `given` that holds everything, if each folder down to it holds nothing else."""
    root = given
    for _ in range(_DEEPEST):
        names = subfolders(root)
        if len(names) > 1:
            return root
        if not names or has_images(root):
            break
        root /= names[0]
    return given


def _splits(made: Layout, names: list[str]) -> dict[str, str] | None:
    """Find the splits among the folders in the root: split → folder of its classes; None if they are classes."""
    root, meant = made.root, named(names)
    halves = {name: own for name, own in meant.items() if own != OTHER}
    places = {name: _inside(root, name) for name in halves}
    divided = {name: own for name, own in halves.items() if _divided(root / places[name])}
    trains = [name for name, own in halves.items() if own == TRAIN]
    if not divided:
        if (trains and len(meant) > 1) or (len(halves) > 1 and len(halves) == len(names)):
            raise InputError(
                f"{root} has {_joined(meant)}, which have no folders of classes: put the images of each class into "
                "their own folder inside them"
            )
        made.warnings += [f"{root / name} is taken for a class, because it has images in it" for name in halves]
        return None
    if not any(name in divided for name in trains):
        if trains:
            raise InputError(f"{root / next(iter(divided))} has folders of classes, but {flat(root / trains[0])}")
        if len(halves) == len(names) or _shared(root, names):
            raise InputError(f"{root} has {_joined(names)}, but no train: name the folder of training images train")
        made.warnings += [f"{root / name} is taken for a class, because there is no train beside it" for name in halves]
        return None
    found = among(divided, str(root))
    for name in (name for name in names if name not in divided):
        count = len(below(root, name, made.left))
        if not count:
            continue
        if len(found) == 1 and name not in meant:
            raise InputError(
                f"{root} has {found[TRAIN]}, which has folders of classes, beside {name}: if {name} is for testing, "
                f"rename it to test or val, or move it away; if both are classes, rename {found[TRAIN]}"
            )
        why = (
            "it has no folders of classes" if name in halves else "its name means none of training, validation and test"
        )
        made.warnings.append(f"{root / name} is left out with {count:,} images, because {why}")
    return {own: places[name] for own, name in found.items()}


def _halved(made: Layout, names: list[str]) -> bool:
    """List the halves inside each class, if there are any."""
    root = made.root
    inner = {name: named(subfolders(root / name)) for name in names}
    whole = [name for name in names if TRAIN in inner[name].values() and len(set(inner[name].values())) > 1]
    if not whole:
        halved = [name for name in names if TRAIN in inner[name].values() and len(subfolders(root / name)) > 1]
        if halved == names:
            raise InputError(
                f"every class of {root} has folders inside, such as {_joined(subfolders(root / names[0]))}: call those "
                "of images for testing test"
            )
        return False
    parts: dict[str, Listing] = {TRAIN: {}}
    for name in names:
        if TRAIN not in inner[name].values() or has_images(root / name):
            if not below(root, name, made.left):
                continue
            raise InputError(
                f"{root / whole[0]} has {_joined(inner[whole[0]])} inside, but not all images of {root / name} are in "
                "such folders: sort those of every class alike"
            )
        found = among(inner[name], str(root / name))
        for part, within in found.items():
            if files := below(root, f"{name}/{within}", made.left):
                parts.setdefault(part, {})[name] = files
            elif part == TRAIN:
                raise InputError(f"{root / name / within} has no images: add some or remove the class")
        for other in subfolders(root / name):
            if other not in found.values() and (count := len(below(root, f"{name}/{other}", made.left))):
                made.warnings.append(f"{root / name / other} is left out with {count:,} images")
    made.parts = parts
    _astray(root, made.left)
    return True


def _doubt(made: Layout, names: list[str]) -> None:
    """Refuse folders that look like parts of one data set; warn where the classes may be further inside."""
    root = made.root
    if len(names) < 2:
        return
    if all(_NUMBERED.fullmatch(name) for name in names) and (shared := _shared(root, names)):
        raise InputError(
            f"{root} has {_joined(names)}, which all have the folders {_joined(shared)}: these look like parts rather "
            "than classes; call one train and one test, or merge them"
        )
    if all(len(subfolders(root / name)) > 1 and not has_images(root / name) for name in names):
        made.warnings.append(
            f"{root}: the folders inside {_joined(names)} count as part of them; if those are the classes, move them up"
        )


def _neighbours(given: Path) -> list[str]:
    """A line if the given folder is a split itself, and another lies beside it."""
    with suppress(InputError):
        meant = named(subfolders(given.parent))
        own = meant.pop(given.name, OTHER)
        for name, other in meant.items():
            if OTHER not in (own, other) and own != other and _shared(given.parent, [given.name, name]):
                return [f"{given.parent / name} beside it is not used: to use both, give folder:{given.parent}"]
    return []


def _inside(root: Path, name: str) -> str:
    """The folder within a split that holds its classes, such as seg_train/seg_train or train/images."""
    place = name
    for _ in range(_DEEPEST):
        names = subfolders(root / place)
        if len(names) != 1 or has_images(root / place) or not subfolders(root / place / names[0]):
            break
        if not (plain(names[0]) or folded(names[0]) == folded(name) or role(names[0]) == (role(name) or "")):
            break
        place += f"/{names[0]}"
    return place


def _divided(folder: Path) -> bool:
    """Whether a folder has folders of classes."""
    names = subfolders(folder)
    return len(names) > 1 or (len(names) == 1 and not plain(names[0]) and not has_images(folder))


def _shared(root: Path, names: Iterable[str]) -> list[str]:
    """Names of the folders that all of several folders hold; none if it is one, which may be called images."""
    inner = [{folded(own): own for own in subfolders(root / _inside(root, name))} for name in names]
    both = set(inner[0]).intersection(*inner[1:])
    return sorted(inner[0][name] for name in both) if len(both) > 1 else []


def _astray(folder: Path, left: LeftOut) -> None:
    """Count the images that lie beside the folders of classes."""
    if stray := direct(folder, left):
        left.astray[str(folder)] += len(stray)


def _alike(classes: Mapping[str, object]) -> list[str]:
    """A line for two classes of nearly one name; single letters may well be classes in both cases."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(folded(name), name)
        if other != name and len(folded(name)) > 1:
            return [f"{other!r} and {name!r} are two classes: merge them if they are the same"]
    return []


def _joined(names: Iterable[str]) -> str:
    """Names in a sentence."""
    shown = list(names)
    if len(shown) > 4:
        return f"{', '.join(shown[:4])} and {len(shown) - 4} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
