"""`load`: names, parts of a data set, and its fingerprint."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sftn.data.dataset import Dataset, Request, Split, fingerprint
from sftn.data.load import SOURCES, load, source
from sftn.errors import InputError

ABOVE = ("sftn.data.load", "sftn.data.loader", "sftn.data.streaming", "sftn.data.workers", "sftn.data.sources")


@pytest.fixture
def uneven(monkeypatch) -> Dataset:
    """Classes of 6, 3 and 1 training images, each image filled with its own number, under the name `uneven`."""
    labels = torch.tensor([1, 0, 0, 2, 0, 1, 0, 0, 1, 0])
    images = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(10, 3, 4, 4).contiguous()
    test = Split(images[:4], torch.tensor([2, 1, 0, 1]))
    dataset = Dataset("uneven", Split(images, labels), test, ("a", "b", "c"), flip=False, padding=1)
    monkeypatch.setitem(SOURCES, "uneven", lambda request: dataset)
    return dataset


def kept(dataset: Dataset) -> list[int]:
    return dataset.train.images[:, 0, 0, 0].tolist()


def test_every_source_says_in_a_line_what_it_gives():
    assert set(SOURCES) == {"cifar10", "cifar100", "digits", "folder", "hf", "imagenet", "stl10", "tiny-imagenet"}
    for name in SOURCES:
        says = source(name).__doc__
        assert says is not None
        assert len(says.splitlines()[0]) > 20


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (3, [0, 1, 3]),
        (4, [0, 1, 2, 3]),
        (5, [0, 1, 2, 3, 5]),
        (7, [0, 1, 2, 3, 4, 5, 8]),
        (8, [0, 1, 2, 3, 4, 5, 6, 8]),
        (10, list(range(10))),
    ],
)
def test_limit_keeps_the_first_images_of_each_class_evenly(uneven, limit, expected):
    dataset = load("uneven", limit=limit)
    assert kept(dataset) == expected
    assert torch.equal(dataset.train.labels, uneven.train.labels[expected])
    assert torch.equal(dataset.test.images, uneven.test.images)
    assert (dataset.flip, dataset.padding, dataset.classes) == (False, 1, ("a", "b", "c"))


def test_classes_keeps_the_first_ones_of_both_splits(uneven):
    dataset = load("uneven", classes=2)
    assert dataset.classes == ("a", "b")
    assert kept(dataset) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert dataset.train.labels.tolist() == [1, 0, 0, 0, 1, 0, 0, 1, 0]
    assert dataset.test.labels.tolist() == [1, 0, 1]
    assert kept(load("uneven", classes=2, limit=4)) == [0, 1, 2, 5]


def test_the_normalisation_is_that_of_the_part(uneven):
    assert load("uneven").normalisation[0][0] == 4.5
    assert load("uneven", limit=3).normalisation[0][0] == torch.tensor([0.0, 1.0, 3.0]).mean()


@pytest.mark.parametrize("limit", [0, -1, 2, 11])
def test_an_impossible_limit_names_the_possible_ones(uneven, limit):
    with pytest.raises(InputError, match=rf"limit {limit}: .* 3 .* to 10"):
        load("uneven", limit=limit)


@pytest.mark.parametrize("classes", [-1, 0, 1, 4])
def test_impossible_classes_name_the_possible_ones(uneven, classes):
    with pytest.raises(InputError, match=rf"classes {classes}: .* 2 to 3"):
        load("uneven", classes=classes)


def test_a_part_without_test_images_is_refused(uneven, monkeypatch):
    only = replace(uneven, test=Split(uneven.test.images[:1], torch.tensor([2])))
    monkeypatch.setitem(SOURCES, "uneven", lambda request: only)
    with pytest.raises(InputError, match="no test images"):
        load("uneven", classes=2)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cifar", "cifar10"),
        ("digit", "digits"),
        ("CIFAR100", "did you mean cifar100"),
        ("", "choose from"),
        ("folders:x", "folder:PATH"),
        ("digits:8", "takes nothing after its name"),
        ("folder", "folder:PATH"),
        ("hf", "hf:NAME"),
    ],
)
def test_unknown_names_get_an_answer(name, match):
    with pytest.raises(InputError, match=match):
        load(name)


def test_a_source_gets_the_whole_request(monkeypatch, uneven, tmp_path):
    asked = []
    monkeypatch.setitem(SOURCES, "folder", lambda request: asked.append(request) or uneven)
    load("folder:C:/pets", data_dir=tmp_path, size=64, download=True)
    assert asked == [Request("C:/pets", tmp_path, 64, True)]
    load("folder:x", stream=True, memory=2, damaged="skip", workers=3)
    assert asked[1] == Request("x", None, None, False, True, 2 * 2**30, "skip", 3)


def test_what_is_small_is_not_streamed():
    with pytest.raises(InputError, match="fits into memory"):
        load("digits", stream=True)


def test_the_fingerprint_tells_pixels_labels_and_splits_apart(uneven):
    train, test = uneven.train, uneven.test
    other = train.images.clone()
    other[3, 1, 2, 2] += 1
    labels = train.labels.clone()
    labels[0] = 2
    changed = [
        replace(uneven, train=Split(other, train.labels)),
        replace(uneven, train=Split(train.images, labels)),
        replace(uneven, train=test, test=train),
        replace(uneven, train=Split(train.images.reshape(10, 12, 2, 2), train.labels)),
        load("uneven", limit=9),
    ]
    prints = {fingerprint(dataset) for dataset in (uneven, *changed)}
    assert len(prints) == 6
    assert all(len(text) == 64 for text in prints)
    renamed = replace(uneven, name="other", train=Split(train.images.clone(), train.labels.clone()))
    assert fingerprint(renamed) == fingerprint(uneven)
    assert fingerprint(uneven).startswith(uneven.identity)
    assert len(uneven.identity) == 16


@pytest.mark.parametrize("module", ["sftn.data.batch", "sftn.methods"])
def test_a_loss_needs_neither_sources_nor_loaders(module):
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in {ABOVE}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
