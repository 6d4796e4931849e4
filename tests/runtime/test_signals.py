from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from sftn.errors import Stopped
from sftn.runtime.signals import sigterm


def come(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_it_ends_what_is_going_on(number: int, end: type[BaseException]) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(end), sigterm():
        come(number)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def careful(number: int) -> None:
    try:
        come(number)
    except Exception:
        pytest.fail("taken for an error")


def like_c(number: int) -> None:
    try:
        come(number)
    except BaseException as error:  # as torch does when it asks for a shape
        raise TypeError("could not determine the shape") from error


@pytest.mark.parametrize("within", [careful, like_c])
@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_code_that_catches_any_error_does_not_swallow_it(
    number: int, end: type[BaseException], within: Callable[[int], None]
) -> None:
    with pytest.raises(end), sigterm():
        within(number)


def test_errors_of_their_own_stay() -> None:
    with pytest.raises(TypeError), sigterm():
        raise TypeError
