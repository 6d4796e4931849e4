"""Names of splits: every usual word in every case, and neighbours that share another word."""

from __future__ import annotations

import pytest

from sftn.data.splits import OTHER, TEST, TRAIN, VALIDATION, among, folded, named, plain, role, understood
from sftn.errors import InputError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            "train Train TRAINING trn trainset TrainSet train_images images-train train2017 01_train training_data",
            TRAIN,
        ),
        ("val Valid VALIDATION dev development val_set val2017 valset ImagesVal", VALIDATION),
        ("test Testing TST test_set eval Evaluation TestImages hold-out held_out holdout", TEST),
        ("cat trainer trains bus testament images dataset 2017 validity devil protest", None),
    ],
)
def test_a_name_means_a_split_in_any_case_and_with_words_that_say_nothing(names: str, expected: str | None) -> None:
    assert {name: role(name) for name in names.split()} == dict.fromkeys(names.split(), expected)


def test_what_is_neither_trained_nor_tested_on_has_a_role_of_its_own() -> None:
    assert {role(name) for name in ("unlabeled", "Unlabelled", "extra", "pred")} == {OTHER}


def test_neighbours_that_share_a_word_are_splits_together() -> None:
    assert named(["seg_train", "seg_test", "seg_pred"]) == {"seg_train": TRAIN, "seg_test": TEST, "seg_pred": OTHER}
    assert named(["seg_train", "buildings"]) == {}
    assert named(["dog_training", "dog_food", "cat"]) == {}
    # Two classes, each with its halves: not one pair of splits.
    assert named(["cat_train", "cat_test", "dog_train", "dog_test"]) == {}
    assert named(["train", "seg_test"]) == {"train": TRAIN}


def test_a_split_has_one_name() -> None:
    assert among(named(["Training", "Testing", "dev", "cats"]), "x") == {
        TRAIN: "Training",
        VALIDATION: "dev",
        TEST: "Testing",
    }
    assert among(named(["train", "test", "eval"]), "x") == {TRAIN: "train", VALIDATION: "eval", TEST: "test"}
    assert among(named(["train", "eval", "unlabeled", "extra"]), "x") == {TRAIN: "train", TEST: "eval"}
    with pytest.raises(InputError, match="x has train and training, which both mean train"):
        among(named(["train", "training", "test"]), "x")
    with pytest.raises(InputError, match="both mean test"):
        among(named(["train", "val", "eval", "test"]), "x")


def test_case_spaces_and_the_encoding_of_accents_make_no_other_name() -> None:
    assert folded("Cafe\u0301 ") == folded("caf\u00e9")
    assert folded("cats") != folded("cat")
    assert (plain("images"), plain("Data_2"), plain("cat")) == (True, True, False)


@pytest.mark.parametrize(
    ("found", "used", "tested", "expected"),
    [
        (
            {TRAIN: 1500},
            (1200, 300),
            None,
            "1,500 images, not split → trained on 1,200, tested on 300 (a fifth of each",
        ),
        ({TRAIN: 9, TEST: 3}, (9, 3), TEST, "train 9, validation 0, test 3 → trained on 9, tested on 3 (test); 7"),
        (
            {TRAIN: 9, VALIDATION: 2},
            (9, 2),
            VALIDATION,
            "train 9, validation 2, test 0 → trained on 9, tested on 2 (val",
        ),
        ({TRAIN: 9, VALIDATION: 2, TEST: 3}, (9, 3), TEST, "tested on 3 (test), the validation images are not used; 7"),
    ],
)
def test_a_line_says_what_was_understood(
    found: dict[str, int], used: tuple[int, int], tested: str | None, expected: str
) -> None:
    line = understood("x", found, used, tested, tuple("abcdefg"))
    assert line.startswith("x: ")
    assert expected in line
    assert line.endswith("7 classes: a, b, c, d, e, …")
