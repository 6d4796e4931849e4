"""Layouts of folders: what is a class, what is a split, what is refused, and what is said of it."""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path

import pytest
from PIL import Image

from sftn.data.dataset import Dataset, fingerprint
from sftn.data.load import load
from sftn.data.sources.layout import laid_out
from sftn.errors import InputError
from tests.support.messages import of


def paint(path: Path) -> None:
    """A picture of its own for every path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = sum(str(path).encode()) % 256
    Image.new("RGB", (8, 8), (level, len(str(path)) % 256, sum(path.name.encode()) % 256)).save(path)


def tree(root: Path, places: str, each: int = 3) -> Path:
    """`each` images in each folder of a list such as "train/cat {train,test}/dog": braces stand for several."""
    for place in places.split():
        parts = [part.split(",") for part in re.split(r"[{}]", place)]
        for names in itertools.product(*parts):
            for i in range(each):
                paint(root / "".join(names) / f"{i}.png")
    return root


def opened(root: Path) -> Dataset:
    return load(f"folder:{root}", size=8)


@pytest.mark.parametrize(
    ("places", "train", "test", "classes"),
    [
        ("train/{cat,dog} eval/{cat,dog}", 6, 6, "cat dog"),
        ("TRAIN/{cat,dog} Testing/{cat,dog}", 6, 6, "cat dog"),
        ("training_set/{cat,dog} test_set/{cat,dog}", 6, 6, "cat dog"),
        ("trn/{cat,dog} dev/{cat,dog}", 6, 6, "cat dog"),
        ("train/{cat,dog} holdout/{cat,dog}", 6, 6, "cat dog"),
        ("train/{cat,dog} val/{cat,dog} test/{cat,dog}", 6, 6, "cat dog"),
        ("seg_train/seg_train/{cat,dog} seg_test/seg_test/{cat,dog} seg_pred/seg_pred", 6, 6, "cat dog"),
        ("archive/data/train/{cat,dog} archive/data/test/{cat,dog}", 6, 6, "cat dog"),
        ("pets/{cat,dog}", 4, 2, "cat dog"),
        ("cat/{train,test} dog/{train,test}", 6, 6, "cat dog"),
        ("cat/{Train,Valid} dog/{Train,Valid}", 6, 6, "cat dog"),
        ("{train,bus,plane}", 6, 3, "bus plane train"),
        ("{valid,invalid}", 4, 2, "invalid valid"),
        ("{train,bus}/images", 4, 2, "bus train"),
        ("train/{cat,dog}", 4, 2, "cat dog"),
        ("{1,10,2}", 6, 3, "1 10 2"),
        ("{A,a}", 4, 2, "A a"),
    ],
)
def test_a_layout_is_understood(places: str, train: int, test: int, classes: str, tmp_path: Path) -> None:
    made = opened(tree(tmp_path, places))
    assert (len(made.train), len(made.test), made.classes) == (train, test, tuple(classes.split()))
    assert made.test.labels.bincount(minlength=len(made.classes)).min() > 0


@pytest.mark.parametrize(
    ("places", "match"),
    [
        (
            "train/{cat,dog} second/{cat,dog}",
            "train, which has folders of classes, beside second: .* rename it to test",
        ),
        ("train/{cat,dog} bus", "beside bus: .* if both are classes, rename train"),
        ("{train,test}", "test and train, which have no folders of classes"),
        ("{train,unlabeled}", "no folders of classes"),
        ("{test,val}/{cat,dog}", "test and val, but no train"),
        ("test/{cat,dog} rest/{cat,dog}", "rest and test, but no train"),
        ("train test/{cat,dog}", "test has folders of classes, but .*train has no folders, only 3 images"),
        ("{train,training,test}/{cat,dog}", "train and training, which both mean train"),
        ("cat/{train,test} dog", "cat has test and train inside, but not all images of .*dog"),
        ("cat/{train,rest} dog/{train,rest}", "rest and train: call those of images for testing test"),
        ("{fold1,fold2}/{cat,dog}", "these look like parts rather than classes"),
        ("train/{Cats,dog} test/{cats,dog}", "the class 'Cats' and .* has 'cats', which differ only in case"),
        ("", "has no folders, only 3 images: put the images of each class"),
        ("pets/cat", "images of 1 class"),
    ],
)
def test_what_can_be_meant_in_several_ways_is_refused(places: str, match: str, tmp_path: Path) -> None:
    tree(tmp_path, places or "{}")
    with pytest.raises(InputError, match=match) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_a_space_after_a_class_makes_no_other_class(tmp_path: Path) -> None:
    tree(tmp_path, "train/{cat,dog} test/dog")
    paint(tmp_path / "test" / "cat " / "0.png")
    with pytest.raises(InputError, match=r"'cat' and .* has 'cat '"):
        opened(tmp_path)


def test_a_list_beside_images_is_said_not_to_be_read(tmp_path: Path) -> None:
    tree(tmp_path, "{}")
    (tmp_path / "labels.csv").write_text("0.png,cat")
    with pytest.raises(InputError, match=r"labels\.csv is not read: classes are told by folders"):
        opened(tmp_path)


def test_the_wrapper_of_an_archive_changes_nothing(tmp_path: Path) -> None:
    tree(tmp_path, "pets/pets-1.0/{cat,dog}", 6)
    (tmp_path / "__MACOSX" / "pets").mkdir(parents=True)
    (tmp_path / "pets" / "LICENSE").write_text("free")
    assert fingerprint(opened(tmp_path)) == fingerprint(opened(tmp_path / "pets" / "pets-1.0"))


def test_validation_images_are_listed_even_where_they_are_not_used(tmp_path: Path) -> None:
    made = laid_out(tree(tmp_path, "train/{cat,dog} val/cat test/{cat,dog}"))
    assert made.parts["validation"] == {"cat": [f"val/cat/{i}.png" for i in range(3)]}
    assert (list(made.parts), made.tested) == (["train", "validation", "test"], "test")


def said(root: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "sftn"):
        opened(root)
    return [line.replace(str(root), "ROOT") for line in of(caplog, "folder", "image_files")]


def test_what_was_understood_stands_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path / "three", "train/{cat,dog} val/cat test/{cat,dog}")
    assert said(tmp_path / "three", caplog) == [
        "folder:ROOT: train 6, validation 3, test 6 → trained on 6, tested on 6 (test), the validation images are not "
        "used; 2 classes: cat, dog"
    ]
    tree(tmp_path / "wrapped", "pets/{cat,dog}")
    assert said(tmp_path / "wrapped", caplog) == [
        "folder:ROOT (all in pets): 6 images, not split → trained on 4, tested on 2 (a fifth of each class); "
        "2 classes: cat, dog"
    ]


@pytest.mark.parametrize(
    ("places", "within", "expected"),
    [
        ("train/{cat,dog} test", "", "ROOT/test is left out with 3 images, because it has no folders of classes"),
        ("{train,test,more}/{cat,dog}", "", "ROOT/more is left out with 6 images, because its name means none"),
        ("{train,bus}", "", "ROOT/train is taken for a class, because it has images in it"),
        ("{Training,Testing}/{cat,dog}", "Training", "Testing beside it is not used: to use both, give folder:"),
        ("{seg_train,seg_test}/{cat,dog}", "seg_train", "seg_test beside it is not used"),
        ("test/{cat,dog}", "", "is named like images for test, but there are no others to train on"),
        ("mammal/{cat,dog} bird/{owl,emu}", "", "the folders inside bird and mammal count as part of them"),
        ("{Cats,cats,dog}", "", "'Cats' and 'cats' are two classes"),
        ("train/{cat,dog,} test/{cat,dog}", "", "left out: 3 images directly in ROOT/train, which belong to no class"),
    ],
)
def test_what_a_person_should_know_is_said(
    places: str, within: str, expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree(tmp_path, places)
    assert any(expected in line for line in said(tmp_path / within, caplog))


def test_linked_splits_and_classes_are_as_good_as_others(tmp_path: Path) -> None:
    tree(tmp_path / "store", "a/{cat,dog} b/{cat,dog}")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to("../store/a")
    (tmp_path / "set" / "test").symlink_to("../store/b")
    made = opened(tmp_path / "set")
    assert (len(made.train), len(made.test)) == (6, 6)


def test_a_class_says_what_it_has_instead_of_images(tmp_path: Path) -> None:
    tree(tmp_path, "{cat,dog}")
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "0.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"eel has no images \(only 1 \.heic\)"):
        opened(tmp_path)
