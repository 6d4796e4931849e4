from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from sftn.networks import KEYS, NETWORKS
from tests.support import tiny


@pytest.fixture
def tiny_networks() -> Iterator[None]:
    """`tiny` and `wide` are networks that can be named in runs and commands."""
    builders = {"tiny": partial(tiny.network, (4, 6, 8)), "wide": partial(tiny.network, (6, 8, 12))}
    NETWORKS.update(builders)
    KEYS.update(dict.fromkeys(builders, ()))
    yield
    for name in builders:
        del NETWORKS[name], KEYS[name]


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
