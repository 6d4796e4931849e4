"""The digits: sizes, levels, and a split that is fixed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from sklearn.datasets import load_digits

from sftn.data.dataset import fingerprint
from sftn.data.load import load
from sftn.errors import InputError


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_shapes_and_augmentation(digits):
    assert digits.name == "digits"
    assert digits.image == (1, 32, 32)
    assert (len(digits.train), len(digits.test)) == (797, 1000)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    assert digits.classes == tuple("0123456789")
    assert digits.flip is False
    assert digits.padding == 4


def test_the_levels_fill_the_range_and_are_enlarged_bilinearly(digits):
    images = torch.cat([digits.train.images, digits.test.images])
    assert int(images.min()) == 0
    assert int(images.max()) == 255
    raw = torch.from_numpy(load_digits().images) * (255 / 16)
    # Half a source pixel from the border, bilinear enlargement by 4 repeats the corner's value.
    assert sorted(images[:, 0, 0, 0].tolist()) == sorted(raw[:, 0, 0].round().tolist())
    # Pixel 9 of the first row lies at 9.5/4 - 0.5 = 1.875 of the source: 7/8 of its pixel 2 and 1/8 of its pixel 1.
    between = raw[:, 0, 1] / 8 + raw[:, 0, 2] * 7 / 8
    made = images[:, 0, 0, 9].double().sort().values
    assert (made - between.sort().values).abs().max() < 0.51
    assert len(made.unique()) > 17


def test_the_split_is_stratified(digits):
    train, test = digits.train.labels.bincount(), digits.test.labels.bincount()
    assert ((train + test) * 1000 / 1797 - test).abs().max() < 1


def test_the_two_splits_are_the_whole_data_set(digits):
    ours = torch.cat([digits.train.images, digits.test.images]).flatten(1)
    labels = torch.cat([digits.train.labels, digits.test.labels])
    assert labels.bincount().tolist() == torch.from_numpy(load_digits().target).bincount().tolist()
    assert len(ours.unique(dim=0)) == len(torch.from_numpy(load_digits().images).flatten(1).unique(dim=0))


def test_the_split_never_changes(digits):
    assert fingerprint(digits) == "01120cb71e34f5aef7458929aad98577f9778b6d44330245be01e74ac05725a2"
    assert fingerprint(load("digits")) == fingerprint(digits)


def test_another_size_is_refused():
    assert load("digits", size=32).image == (1, 32, 32)
    with pytest.raises(InputError, match="32×32"):
        load("digits", size=64)


def test_no_source_imports_a_library_before_it_is_needed():
    code = """
import sys
from sftn.data.load import SOURCES, source
assert "sftn.data.sources" not in sys.modules
for name in SOURCES:
    source(name)
sys.exit(any(name.split(".")[0] in ("sklearn", "PIL", "datasets") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
