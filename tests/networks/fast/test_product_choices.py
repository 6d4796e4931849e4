from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sftn.networks.fast.product_choices import (
    Choices,
    Layer,
    ProductConvolution,
    Table,
    can_be_product,
    faster,
    times,
    use_products,
)

LAYER = Layer("bfloat16", 64, 64, 4, 4, 3, 1, 1, 64)


class Measure:
    """Gives a choice, and counts how often it was asked."""

    def __init__(self, how: str) -> None:
        self.how, self.asked = how, 0

    def __call__(self, layer: Layer) -> str:
        self.asked += 1
        return self.how


def test_a_layer_is_measured_once_on_a_machine(tmp_path: Path) -> None:
    first, again = Measure("fw"), Measure("i")
    path = tmp_path / "not" / "there" / "table.json"
    table = Table("here", path, first)
    assert [table.look_up(LAYER), table.look_up(LAYER), first.asked] == ["fw", "fw", 1]
    assert Table("here", path, again).look_up(LAYER) == "fw"
    assert again.asked == 0
    assert Table("elsewhere", path, again).look_up(LAYER) == "i"
    assert json.loads(path.read_text())["machines"].keys() == {"here", "elsewhere"}
    assert Table("here", path, again).look_up(LAYER) == "fw"  # what others wrote stays


def test_what_another_process_wrote_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    one, other = Table("here", path, Measure("f")), Table("here", path, Measure("w"))
    one.look_up(LAYER)
    other.look_up(LAYER._replace(batch=32))
    assert len(json.loads(path.read_text())["machines"]["here"]) == 2


BAD = {
    "empty": b"",
    "torn": b'{"format": 1, "machines": {"here": {"64 bf',
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "foreign": b'{"name": "something else"}',
    "of another version": b'{"format": 2, "machines": {"here": {"64 ' + str(LAYER).encode() + b'": "fiw"}}}',
    "strange machines": b'{"format": 1, "machines": [1]}',
    "strange choices": b'{"format": 1, "machines": {"here": {"64 ' + str(LAYER).encode() + b'": "wif"}}}',
    "numbers": b'{"format": 1, "machines": {"here": {"64 ' + str(LAYER).encode() + b'": 1}}}',
    "deep": b"[" * 100_000,
    "large": b" " * (16 * 2**20 + 1),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_damaged_table_is_measured_anew(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)
    measure = Measure("f")
    with caplog.at_level(logging.INFO):
        assert Table("here", path, measure).look_up(LAYER) == "f"
    assert measure.asked == 1
    assert "measured anew" in caplog.text
    assert json.loads(path.read_text())["machines"] == {"here": {f"64 {LAYER}": "f"}}


def test_a_table_that_cannot_be_written_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    table = Table("here", tmp_path / "file" / "table.json", Measure("f"))
    with caplog.at_level(logging.INFO):
        assert table.look_up(LAYER) == "f"
        assert table.look_up(LAYER._replace(batch=8)) == "f"
    assert caplog.text.count("is not kept") == 1


def test_a_folder_in_the_place_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "table.json").mkdir()
    assert Table("here", tmp_path / "table.json", Measure("f")).look_up(LAYER) == "f"


def test_a_run_chooses_once_for_a_layer_whatever_the_batch() -> None:
    measure = Measure("fiw")
    choices = Choices(Table("here", None, measure))
    assert [choices.of(LAYER), choices.of(LAYER._replace(batch=7))] == ["fiw", "fiw"]
    assert choices.of(LAYER._replace(channels=8)) == ""  # too narrow to be worth the question
    assert choices.of(LAYER._replace(height=32, width=32)) == ""
    assert measure.asked == 1


def test_what_was_chosen_is_restored_whatever_the_table_says_now() -> None:
    first = Choices(Table("here", None, Measure("fw")))
    wide = LAYER._replace(out=128)
    first.of(LAYER)
    first.table = Table("here", None, Measure(""))
    first.of(wide)
    record = json.loads(json.dumps(first.record()))
    again = Choices(Table("here", None, Measure("fiw")))
    again.restore(record)
    assert [again.of(LAYER), again.of(wide)] == ["fw", ""]
    elsewhere = Choices(Table("another", None, Measure("i")))
    elsewhere.restore(record)
    assert elsewhere.of(LAYER) == "i"


@pytest.mark.parametrize("record", [None, [], {}, {"machine": "here"}, {"machine": "here", "chosen": {"a": "x"}}])
def test_a_record_of_something_else_is_ignored(record: object) -> None:
    choices = Choices(Table("here", None, Measure("f")))
    choices.restore(record)
    assert choices.made == {}


def test_measuring_draws_no_random_numbers_and_knows_all_passes() -> None:
    before = torch.get_rng_state()
    found = times(LAYER)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(found) == ["f", "i", "w"]
    assert [list(ways) for ways in found.values()] == [["convolution", "f"], ["convolution", "i"], ["convolution", "w"]]
    assert all(seconds > 0 for ways in found.values() for seconds in ways.values())
    assert list(times(LAYER._replace(dtype="float32"))["w"]) == ["convolution", "w", "W"]
    assert list(times(LAYER._replace(dtype="float32", stride=2))["w"]) == ["convolution", "w"]


def test_what_is_not_faster_stays_a_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {"f": {"convolution": 1.0, "f": 0.5}, "i": {"convolution": 1.0, "i": 0.97}, "w": {"convolution": 1.0}}
    monkeypatch.setattr("sftn.networks.fast.product_choices.times", lambda layer: spent)
    assert faster(LAYER) == "f"
    spent |= {"f": {"convolution": 1.0, "f": 0.5, "F": 0.4}, "w": {"convolution": 1.0, "w": 0.9, "W": 0.92}}
    assert faster(LAYER) == "Fw"


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1, bias=False), nn.Conv2d(32, 40, 1, 2)
    )


def choosing(how: str) -> Choices:
    return Choices(Table("here", None, Measure(how)))


@pytest.mark.parametrize("autocast", [False, True])
def test_a_network_learns_the_same_and_keeps_its_parameters(autocast: bool) -> None:
    plain = small()
    quick, choices = copy.deepcopy(plain), choosing("fiw")
    hooks: list[int] = []
    quick[2].register_forward_hook(lambda *_: hooks.append(1))
    before = {name: value.data_ptr() for name, value in quick.state_dict().items()}
    assert use_products(quick, choices) == 3
    assert {name: value.data_ptr() for name, value in quick.state_dict().items()} == before
    images, outcomes = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last), []
    for network in (plain, quick):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = network(images)
        out.float().square().sum().backward()
        outcomes.append([out, *(parameter.grad for parameter in network.parameters())])
    assert hooks == [1]
    assert sum(how == "fiw" for how in choices.made.values()) == 2  # three channels are too few
    for one, other in zip(*outcomes):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= (2e-2 if autocast else 1e-5) * one.norm()


def test_in_eval_mode_a_convolution_stays_what_it_was() -> None:
    network, choices = small(), choosing("fiw")
    images = torch.randn(4, 3, 8, 8)
    expected = network.eval()(images)
    use_products(network, choices)
    assert torch.equal(network(images), expected)
    assert choices.made == {}


def test_kinds_that_are_left_alone() -> None:
    others = [
        nn.Conv2d(32, 32, 5, padding=2),
        nn.Conv2d(32, 32, (1, 3)),
        nn.Conv2d(32, 32, 3, stride=(1, 2)),
        nn.Conv2d(32, 32, 3, groups=2),
        nn.Conv2d(32, 32, 3, dilation=2),
        nn.Conv2d(32, 32, 3, padding="same"),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(32, 32, 1, padding=1),
    ]
    assert not any(map(can_be_product, others))
    assert use_products(nn.Sequential(*others), choosing("fiw")) == 0


def test_a_copy_asks_the_same_choices() -> None:
    network, choices = small(), choosing("f")
    use_products(network, choices)
    twin = copy.deepcopy(network)[2]
    assert isinstance(twin, ProductConvolution)
    assert twin.choices is choices
    x = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(twin(x), F.conv2d(x, twin.weight, None, 2, 1))


def test_whoever_measures_first_chooses_for_all_processes(tmp_path: Path) -> None:
    path, later = tmp_path / "table.json", Measure("w")
    one, other = Table("here", path, Measure("fiw")), Table("here", path, later)
    assert (one.look_up(LAYER), other.look_up(LAYER), later.asked) == ("fiw", "fiw", 0)
