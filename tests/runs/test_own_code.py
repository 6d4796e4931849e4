"""The code of what is not the package's belongs to a run; the package's own does not."""

from __future__ import annotations

import functools
import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from sftn.methods import METHODS
from sftn.methods.base import Method
from sftn.networks import NETWORKS
from sftn.runs.own_code import signed, source_of
from sftn.spec.objective import Objective, Term
from sftn.spec.run import Friendly, Run, Weights
from sftn.tasks.recipes import objective
from tests.support import tiny

MINE = '''
from sftn.methods.base import Method
import mine_parts

FACTOR = 2.0


def apart(value):
    return value + 1


def helper(value):
    return FACTOR * mine_parts.squared(value)


class Base(Method):
    def scale(self, value):
        return helper(value)


class Mine(Base):
    """A loss of one's own."""

    def forward(self, student, teacher, batch):
        return self.scale((student.logits - teacher.logits).mean())


def network(classes, channels=3):
    return helper(classes)
'''
PARTS = "def squared(value):\n    return value**2\n"


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """Imports a person's module after an edit."""

    def load(*edit: str, parts: str = PARTS) -> ModuleType:
        text = MINE.replace(*edit) if edit else MINE
        found = None
        for name, content in (("mine_parts", parts), ("mine", text)):
            path = tmp_path / f"{name}.py"
            path.write_text(content)
            linecache.checkcache()
            found = ModuleType(name)
            found.__file__ = str(path)
            sys.modules[name] = found
            exec(compile(content, str(path), "exec"), vars(found))
        assert found is not None
        return found

    yield load
    for name in ("mine", "mine_parts"):
        sys.modules.pop(name, None)


def run() -> Run:
    return tiny.run(tiny.dataset(), "resnet8", teacher=Weights("resnet14", "ab", "x"), objective=objective("crd+kd"))


def test_the_packages_own_code_changes_no_id() -> None:
    plain = run()
    friendly = replace(plain, teacher=None, objective=None, friendly=Friendly(student="resnet8+wrn_10_1"))
    for one in (plain, friendly):
        assert signed(one) == one
        assert signed(one).id == one.id


@pytest.mark.parametrize(
    ("edit", "same"),
    [
        (("- teacher.logits", "+ teacher.logits"), False),
        (("FACTOR = 2.0", "FACTOR = 3.0"), False),
        (("return FACTOR *", "return 2 * FACTOR *"), False),
        (("return helper(value)", "return -helper(value)"), False),
        (("value + 1", "value + 2"), True),
        ((), True),
    ],
    ids=["the loss", "a constant", "a helper", "its base class", "something else in the file", "nothing"],
)
def test_an_edited_loss_is_another_run(
    edit: tuple[str, ...], same: bool, imported: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(run(), objective=Objective("mine", terms=(Term("mine"),)))
    monkeypatch.setitem(METHODS, "mine", imported().Mine)
    before = signed(mine)
    assert before.code
    assert before.id != mine.id
    monkeypatch.setitem(METHODS, "mine", imported(*edit).Mine)
    assert (signed(mine).id == before.id) is same


def test_files_of_ones_own_beside_it_count(
    imported: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(run(), objective=Objective("mine", terms=(Term("mine"),)))
    monkeypatch.setitem(METHODS, "mine", imported().Mine)
    before = signed(mine).id
    monkeypatch.setitem(METHODS, "mine", imported(parts=PARTS.replace("2", "3")).Mine)
    assert signed(mine).id != before


def test_networks_count_wherever_a_run_has_them(
    imported: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(run(), teacher=None, objective=None)
    runs = [
        replace(plain, network="mine"),
        replace(plain, friendly=Friendly(student="resnet8+mine")),
        replace(run(), teacher=Weights("mine", "ab", "x")),
    ]
    monkeypatch.setitem(NETWORKS, "mine", functools.partial(imported().network, channels=1))
    before = [signed(one).code for one in runs]
    assert all(before)
    monkeypatch.setitem(NETWORKS, "mine", functools.partial(imported().network, channels=3))
    assert not set(before) & {signed(one).code for one in runs}
    monkeypatch.setitem(NETWORKS, "mine", functools.partial(imported("FACTOR * ", "").network, channels=1))
    assert not set(before) & {signed(one).code for one in runs}


def test_code_that_cannot_be_read_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    scope = {"Method": Method, "__name__": "typed_in"}
    exec("class Typed(Method):\n    def forward(self, student, teacher, batch):\n        return 0", scope)
    assert source_of("method typed", scope["Typed"]) == ""
    assert source_of("method typed", scope["Typed"]) == ""
    (line,) = (line for line in caplog.messages if "method typed" in line)
    assert line == "the code of method typed cannot be read: if you change it, give --out another folder"


def test_libraries_are_not_read() -> None:
    assert source_of("network", nn.Sequential) == ""
    assert source_of("method", METHODS["crd"]) == ""
