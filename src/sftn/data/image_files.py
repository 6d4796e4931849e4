"""Image files below a folder: which files are pictures, by suffix or content, and what is left out, by kind."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sftn.data.decoding import formats, suffixes
from sftn.errors import InputError

logger = logging.getLogger(__name__)

_UNREAD = ".heic .heif .hif .avif .avifs .jxl .jxr .svg .eps .ps .pdf .ai .wmf .emf .exr .hdr .xcf .dcm .nii .fits .fit"
UNREAD = frozenset(_UNREAD.split())
"""Suffixes of pictures that Pillow doesn't read or reads with other programs only."""
_RAW = ".raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .3fr .erf .kdc .x3f"
RAW = frozenset(_RAW.split())
"""Suffixes of cameras' raw files. Some begin like a TIFF, but what a reader would find there is a thumbnail."""
_OTHERS = ".txt .csv .tsv .json .jsonl .xml .yaml .yml .toml .ini .md .rst .html .htm .py .ipynb .log .db .sh .zip .gz"
_OTHERS += " .tar .npy .npz .pt .pth .mat .pfm .mp4 .avi .mov .mkv .webm .mp3 .wav .parquet .arrow .tfrecord .lnk .url"
OTHERS = frozenset(_OTHERS.split())
"""Suffixes of files whose content isn't looked at."""
_JUNK = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"})
"""Folders that operating systems and archives leave, without upper case."""
_SIGNATURES = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("GIF", rb"GIF8[79]a"),
    ("WEBP", rb"RIFF....WEBP"),
    ("TIFF", rb"II\*\0|MM\0\*"),
    ("BMP", rb"BM....\0\0\0\0"),
    ("AVIF", rb"....ftypavi[fs]"),
    ("JPEG2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("PPM", rb"P[1-6]\s[\d#\s]"),
    ("PSD", rb"8BPS\x00\x01"),
    ("QOI", rb"qoif\0"),
)
"""How files begin that are pictures whatever they are called."""


@dataclass
class LeftOut:
    """Files that were found and aren't used, by kind."""

    others: Counter[str] = field(default_factory=Counter)
    """Files that aren't pictures, by suffix."""
    unread: Counter[str] = field(default_factory=Counter)
    """Pictures that cannot be read, by suffix."""
    astray: Counter[str] = field(default_factory=Counter)
    """Pictures that belong to no class, by the folder in which they are."""
    hidden: int = 0
    links: int = 0
    """Links to folders whose images are there already."""

    def add(self, other: LeftOut) -> None:
        """Add what was counted elsewhere."""
        self.others += other.others
        self.unread += other.unread
        self.astray += other.astray
        self.hidden += other.hidden
        self.links += other.links

    def lines(self) -> tuple[list[str], list[str]]:
        """What to say, in lines without a subject: what is worth knowing, and what is worth a warning."""
        parts = []
        if self.others:
            are = "aren't pictures" if self.others.total() > 1 else "isn't a picture"
            parts.append(f"{_files(self.others, 'file')} that {are} ({_kinds(self.others)})")
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden")
        if self.links:
            parts.append(f"{self.links:,} link{'s' * (self.links > 1)} to folders that are there already")
        warnings = []
        if self.unread:
            warnings.append(
                f"{_files(self.unread, 'picture')} of a kind that isn't read here ({_kinds(self.unread)}): "
                "convert them to PNG or JPEG"
            )
        warnings += [
            f"{count:,} image{'s' * (count > 1)} directly in {where}, which belong{'s' * (count == 1)} to no class"
            for where, count in self.astray.items()
        ]
        return ([", ".join(parts)] if parts else []), warnings

    def log(self, name: str) -> None:
        """Log what was left out of the data set or folder `name`."""
        known, warnings = self.lines()
        for line in known:
            logger.info(f"{name}: left out: {line}")
        for line in warnings:
            logger.warning(f"{name}: left out: {line}")

    def hint(self) -> str:
        """What there is instead of images, for a message that says that there are none."""
        kinds = self.unread + self.others
        return f" (only {_kinds(kinds)})" if kinds else ""


def _files(kinds: Counter[str], word: str) -> str:
    count = kinds.total()
    return f"{count:,} {word}{'s' * (count > 1)}"


def _kinds(kinds: Counter[str]) -> str:
    most = sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0]))[:4]
    rest = kinds.total() - sum(count for _, count in most)
    return ", ".join([f"{count:,} {kind}" for kind, count in most] + [f"{rest:,} others"] * (rest > 0))


def picture(path: str | Path, left: LeftOut | None = None) -> bool:
    """Whether a file is a picture that is read: by its suffix, or by its first bytes where the suffix is another.

    Args:
        path: the file.
        left: counts it if it is none.
    """
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        if left is not None:
            left.hidden += 1
        return False
    if suffix in suffixes():
        return True
    if suffix not in RAW | OTHERS and _begins(path) in formats():
        return True
    if left is not None:
        (left.unread if suffix in UNREAD | RAW else left.others)[suffix or "without a suffix"] += 1
    return False


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones and those that systems leave behind don't count.

    Raises:
        InputError: it cannot be read.
    """
    with _listing(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and visible(entry.name))


def direct(folder: Path, left: LeftOut | None = None) -> list[str]:
    """Names of the pictures that lie in a folder itself, sorted.

    Raises:
        InputError: it cannot be read.
    """
    with _listing(folder) as entries:
        return sorted(entry.name for entry in entries if _file(entry) and picture(entry.path, left))


def has_images(folder: Path) -> bool:
    """Whether a picture lies in a folder itself.

    Raises:
        InputError: it cannot be read.
    """
    with _listing(folder) as entries:
        return any(_file(entry) and picture(entry.path) for entry in entries)


def visible(name: str) -> bool:
    """Whether a folder of this name may hold images of one's own."""
    return not name.startswith(".") and name.casefold() not in _JUNK


def below(root: Path, within: str, left: LeftOut) -> list[str]:
    """Paths within `root` of the pictures in and below its folder `within`, at any depth, sorted by their components.

    Links to folders are followed, after all other folders, if they lead to a folder that wasn't there yet.

    Raises:
        InputError: a folder cannot be read.
    """
    found: list[str] = []
    top = root / within
    seen = {_identity(place) for place in (*top.absolute().parents, *top.resolve().parents)}
    folders, links = [within], list[str]()
    while folders or links:
        place = folders.pop() if folders else links.pop()
        identity = _identity(root / place)
        if identity in seen:
            left.links += 1
            continue
        seen.add(identity)
        with _listing(root / place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                path = f"{place}/{entry.name}" if place else entry.name
                if entry.is_dir():
                    if visible(entry.name):
                        (links if entry.is_symlink() else folders).append(path)
                    else:
                        left.hidden += 1
                elif _file(entry) and picture(entry.path, left):
                    found.append(path)
    return sorted(found, key=lambda path: path.split("/"))


def _listing(folder: Path) -> os._ScandirIterator[str]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): make it readable") from error


def _file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a broken link, which is named when it is read."""
    try:
        return entry.is_file() or (entry.is_symlink() and not entry.is_dir())
    except OSError:
        return True


def _identity(folder: Path) -> tuple[int, int]:
    try:
        known = os.stat(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): make it readable") from error
    return known.st_dev, known.st_ino


def _begins(path: str | Path) -> str | None:
    """Pillow's name of the format that a file begins like; None for none, and for what cannot be read."""
    try:
        with open(path, "rb") as file:
            first = file.read(16)
    except OSError:
        return None
    return next((name for name, pattern in _SIGNATURES if re.match(pattern, first, re.DOTALL)), None)
