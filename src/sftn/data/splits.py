"""Names of splits: the words that mean training, validation and test, and the line that says what was understood."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from sftn.errors import InputError

TRAIN, VALIDATION, TEST, OTHER = "train", "validation", "test", "other"
ROLES = (TRAIN, VALIDATION, TEST)

WORDS = {
    TRAIN: ("train", "training", "trainings", "trn", "trainval"),
    VALIDATION: ("val", "valid", "validation", "validate", "validating", "vali", "vld", "dev", "devel", "development"),
    TEST: ("test", "tests", "testing", "tst", "eval", "evaluation", "evaluate", "evaluating", "holdout", "heldout"),
    OTHER: ("unlabeled", "unlabelled", "unsupervised", "unsup", "extra", "pred", "predict", "prediction", "inference"),
}
"""Words for each split, without upper case; OTHER holds images that are neither trained nor tested on."""
_FILLERS = "set sets split data dataset datasets image images img imgs picture pictures photo photos folder dir"
FILLERS = (*_FILLERS.split(), "sample", "samples", "example", "examples", "jpg", "png")
"""Words beside them that say nothing: `train_images` and `TrainSet` are training images."""

_ROLE = {word: role for role, words in WORDS.items() for word in words}
_EVALUATION = ("eval", "evaluation", "evaluate", "evaluating")
_SHOWN = 5
"""Number of classes that are named in a line."""


def folded(name: str) -> str:
    """What a name is without its case, spaces around it, and the way in which its accents are encoded."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def role(name: str) -> str | None:
    """The split that a name means, in any case and with any `FILLERS` and digits; None if it means none.

    Example:
        >>> [role(name) for name in ("Training", "val2017", "test_images", "TrainSet", "cats", "images")]
        ['train', 'validation', 'test', 'train', None, None]
    """
    return _ROLE.get(_meaning(name))


def plain(name: str) -> bool:
    """Whether a name consists of `FILLERS` and digits alone, such as images or dataset."""
    return not _meaning(name)


def named(names: Iterable[str]) -> dict[str, str]:
    """The split that each of several neighbours means; names that mean none are left out.

    Neighbours may share other words: seg_train and seg_test are splits because both are there.
    """
    names = list(names)
    found = {name: own for name in names if (own := role(name))}
    if any(own != OTHER for own in found.values()):
        return found
    stems: dict[str, dict[str, str]] = {}
    for name in names:
        words = _words(name)
        for own, word in ((_ROLE[word], word) for word in words if word in _ROLE):
            stems.setdefault(" ".join(other for other in words if other != word), {})[name] = own
    whole = [group for group in stems.values() if TRAIN in group.values() and len(set(group.values())) > 1]
    return whole[0] if len(whole) == 1 else found


def among(meant: Mapping[str, str], where: str) -> dict[str, str]:
    """The name of each split: split → name.

    Args:
        meant: the split that each name means, from `named`.
        where: what has them, for messages.

    Raises:
        InputError: two of them mean the same split.
    """
    meant = dict(meant)
    # Beside a test split, "eval" is what is looked at meanwhile.
    if VALIDATION not in meant.values() and list(meant.values()).count(TEST) == 2:
        meant |= {name: VALIDATION for name in meant if _meaning(name) in _EVALUATION}
    found: dict[str, str] = {}
    for name, own in meant.items():
        if found.setdefault(own, name) != name and own != OTHER:
            raise InputError(
                f"{where} has {found[own]} and {name}, which both mean {own}: merge them, or rename or move one"
            )
    return {own: found[own] for own in ROLES if own in found}


def understood(
    name: str, found: Mapping[str, int], used: tuple[int, int], tested: str | None, classes: Sequence[str]
) -> str:
    """The line that says what was understood of a data set.

    Args:
        name: the data set's name.
        found: number of images in each split that was found; only training images mean that there are no splits.
        used: number of images for training and for testing.
        tested: the split that is used for testing; None if a part of each class is kept for it.
        classes: names of the classes.

    Example:
        >>> understood("hf:x", {"train": 1200, "validation": 300}, (1200, 300), "validation", ("cat", "dog"))
        'hf:x: train 1,200, validation 300, test 0 → trained on 1,200, tested on 300 (validation); 2 classes: cat, dog'
    """
    if len(found) == 1 and tested is None:
        before = f"{sum(found.values()):,} images, not split"
        after = "a fifth of each class"
    else:
        before = ", ".join(f"{own} {found.get(own, 0):,}" for own in ROLES)
        after = tested or "a fifth of each class"
    unused = ", the validation images are not used" if tested == TEST and found.get(VALIDATION) else ""
    own = ", ".join([*classes[:_SHOWN], *["…"] * (len(classes) > _SHOWN)])
    return (
        f"{name}: {before} → trained on {used[0]:,}, tested on {used[1]:,} ({after}){unused}; "
        f"{len(classes):,} classes: {own}"
    )


def _words(name: str) -> list[str]:
    """Words of a name, without upper case, digits and fillers."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    return [word for word in re.findall(r"[^\W\d_]+", apart.casefold()) if word not in FILLERS]


def _meaning(name: str) -> str:
    """The words of a name as one, without a filler at its end or beginning."""
    whole = "".join(_words(name))
    for filler in FILLERS if whole not in _ROLE else ():
        for rest in (whole.removesuffix(filler), whole.removeprefix(filler)):
            if rest in _ROLE:
                return rest
    return whole
