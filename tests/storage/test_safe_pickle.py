"""Pickles that are nothing but data: what is built of them, what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sftn.storage.safe_pickle import unpickle
from tests.support.cifar_files import dump, python2


@pytest.mark.parametrize(
    "raw",
    [
        b"cbuiltins\neval\n(U\x011tR.",
        b"cnumpy\nload\n(U\x01xtR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"ccopyreg\n_reconstructor\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
        b"P1\n.",
        b"cnumpy\ndtype\n(U\x01OK\x00K\x01tR.",
        b"cnumpy\ndtype\n(U\x08V1000000tR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR.",
        b"",
        b"no pickle",
        b"(l",
    ],
)
def test_nothing_but_plain_data_is_built(raw):
    with pytest.raises(pickle.UnpicklingError) as error:
        unpickle(raw)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_many_bytes_are_read_once_and_belong_to_the_array(protocol, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3072), np.uint8)
    path = tmp_path / "x"
    path.write_bytes(dump(pixels) if protocol == 2 else pickle.dumps(pixels, protocol))
    with path.open("rb") as file:
        found = unpickle(file).value
    assert np.array_equal(found, pixels)
    assert found.flags.writeable
    raw = path.read_bytes()
    with pytest.raises(pickle.UnpicklingError, match="truncated"):
        unpickle(raw[: len(raw) // 2])


def test_an_array_may_not_claim_more_than_its_bytes():
    raw = dump(np.zeros((2, 3072), np.uint8))
    assert unpickle(raw).value.shape == (2, 3072)
    for forged in ((200, 3072), (-1, 3072)):
        with pytest.raises(pickle.UnpicklingError):
            unpickle(raw.replace(python2((2, 3072)), python2(forged)))
