from __future__ import annotations

import logging
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


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Which convolutions are faster as products is measured for the tests, and left nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _a_log_as_it_was() -> Iterator[None]:
    """A command that is run in this process shows the log from then on, and caplog sees no more of it."""
    logger = logging.getLogger("sftn")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
