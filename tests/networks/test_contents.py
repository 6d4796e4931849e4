"""Which weights a file holds beside everything else, and which of them a network gets."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks import build
from sftn.networks.staged import StagedNet
from sftn.networks.weight_files import file_and_part, file_digest
from sftn.networks.weights import load_weights, read_sets, read_state
from tests.support import tiny

State = dict[str, Tensor]


class Options(dict[str, Any]):
    """A dict of a class that nobody else has."""


class Level(enum.Enum):
    LOW = 1


def network(seed: int = 0, widths: tuple[int, ...] = (4, 6, 8)) -> StagedNet:
    torch.manual_seed(seed)
    return tiny.network(widths)


WANTED, OTHER = network(0).state_dict(), network(1).state_dict()
WIDER = network(2, (4, 6, 10)).state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def loaded(path: Path, part: str | None = None) -> tuple[State, str]:
    into = network(3)
    said = load_weights(into, path, part=part)
    return into.state_dict(), said


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def schedule() -> dict[str, Any]:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 8]).state_dict()


def optimizer() -> dict[str, Any]:
    layer = nn.Linear(2, 2)
    found = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(3, 2)).sum().backward()
    found.step()
    return found.state_dict()


BESIDE: dict[str, Callable[[], Any]] = {
    "a schedule with a Counter": schedule,
    "an optimizer": optimizer,
    "a defaultdict": lambda: collections.defaultdict(list, {"accuracy": [1.0, 2.0]}),
    "options with a path": lambda: argparse.Namespace(out=pathlib.PurePosixPath("runs/a"), lr=0.1),
    "sets": lambda: ({1, 2}, frozenset("ab")),
    "dates": lambda: (datetime.datetime(2024, 1, 1), datetime.timedelta(1)),
    "classes of their own": lambda: (Options(lr=0.1), Level.LOW, Options),
    "NumPy": lambda: (np.float64(3.0), np.zeros(3), np.dtype("f4"), np.random.default_rng(0)),
    "keys of all kinds": lambda: {(1, 2): 3, 0.5: 1, None: 2},
    "builtins": lambda: (range(3), slice(1), 1j, b"x", bytearray(b"x"), len),
    "PyTorch": lambda: (torch.device("cpu"), torch.float16, torch.Size([1]), torch.get_rng_state(), nn.Linear),
    "strange tensors": lambda: (torch.zeros(2, dtype=torch.complex64), torch.eye(3).to_sparse()),
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE.keys())
@pytest.mark.parametrize(("protocol", "zipped"), [(2, True), (4, True), (2, False)])
def test_what_stands_beside_the_weights_does_not_matter(
    beside: Callable[[], Any], protocol: int, zipped: bool, tmp_path: Path
) -> None:
    content = {"state_dict": WANTED, "beside": beside()}
    torch.save(content, tmp_path / "w.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    state, said = loaded(tmp_path / "w.pth")
    assert same(state, WANTED)
    assert said == ""


def module_with(state: State) -> nn.Module:
    found = network(4)
    found.load_state_dict(state)
    return found


WRAPPED: dict[str, Callable[[], Any]] = {
    "Lightning": lambda: {"state_dict": under("model.", WANTED), "hyper_parameters": Options(lr=0.1)},
    "mmengine": lambda: {"meta": {"epoch": 1}, "state_dict": under("backbone.", WANTED), "optimizer": optimizer()},
    "a tutorial": lambda: {"model_state_dict": WANTED, "optimizer_state_dict": optimizer(), "epoch": 1},
    "net": lambda: {"net": WANTED, "acc": 90.0},
    "several wrappers": lambda: {"state_dict": under("module.model.net.", WANTED)},
    "compiled": lambda: {"model": under("_orig_mod.", WANTED)},
    "beside its statistics": lambda: under("model.", WANTED) | {"mean": torch.zeros(1, 3, 1, 1)},
    "numbers among the tensors": lambda: {**WANTED, "epoch": 3},
    "thop": lambda: {**WANTED, "total_ops": torch.zeros(1), "stem.total_params": torch.zeros(1)},
    "a module": lambda: module_with(WANTED),
    "a module in DataParallel": lambda: {"model": nn.DataParallel(module_with(WANTED)), "epoch": 1},
    "doubles": lambda: {key: value.double() if value.is_floating_point() else value for key, value in WANTED.items()},
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED.keys())
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_prefixes_are_taken_away(wrapped: Callable[[], Any], zipped: bool, tmp_path: Path) -> None:
    torch.save(wrapped(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    state, said = loaded(tmp_path / "w.pth")
    assert same(state, WANTED)
    assert said == ""


def test_half_precision_is_widened(tmp_path: Path) -> None:
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in WANTED.items()}, tmp_path / "w.pth"
    )
    state, _ = loaded(tmp_path / "w.pth")
    assert state["head.linear.weight"].dtype == torch.float32
    assert torch.equal(state["head.linear.weight"], WANTED["head.linear.weight"].half().float())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"state_dict": OTHER, "state_dict_ema": WANTED}, "holds state_dict_ema and state_dict: state_dict_ema, the"),
        ({"model": OTHER, "model_ema": {"n_averaged": torch.tensor(3)} | under("module.", WANTED)}, "model_ema, the"),
        ({"model": OTHER, "ema": {"shadow": WANTED, "decay": 0.9}}, "holds ema and model: ema, the averaged one, is"),
        ({"online_model": OTHER, "swa_model": WANTED}, "swa_model, the averaged one, is taken"),
        ({"generator": WIDER, "discriminator": WANTED}, "holds discriminator and generator: discriminator is taken"),
        ({"state_dict": under("student.", WANTED) | under("teacher.", WIDER)}, "holds student and teacher: student is"),
    ],
    ids=["timm", "torchvision", "shadow", "swa", "the one that fits", "the student that fits"],
)
def test_of_several_sets_one_is_taken_by_rule_and_said(content: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    state, said = loaded(tmp_path / "w.pth")
    assert same(state, WANTED)
    assert sentence in said


DISTILLERS = {
    "in one state dict": {"model": under("module.student.", WANTED) | under("module.teacher.", OTHER)},
    "side by side": {"student": under("module.backbone.", WANTED), "teacher": under("backbone.", OTHER)},
    "with a loss": {"state_dict": under("student.", WANTED) | under("teacher.", OTHER) | {"crit.w": torch.ones(2, 2)}},
}


@pytest.mark.parametrize("content", DISTILLERS.values(), ids=DISTILLERS.keys())
def test_a_distiller_holds_student_and_teacher(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert str(caught.value) == (f"{path} holds student and teacher: say which, as in {path}#student or {path}#teacher")
    for part, state in (("student", WANTED), ("teacher", OTHER)):
        assert same(loaded(path, part)[0], state)
    with pytest.raises(InputError, match="did you mean student"):
        loaded(path, "studnt")


def test_sets_without_a_rule_are_named_and_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"best": WANTED, "last": OTHER}, path)
    with pytest.raises(InputError, match="holds best and last: say which, as in"):
        loaded(path)
    assert same(loaded(path, "last")[0], OTHER)
    with pytest.raises(InputError, match="holds best and last"):
        read_state(path)


def test_a_part_is_named_behind_a_hash(tmp_path: Path) -> None:
    assert file_and_part("a/w.pth#student") == (Path("a/w.pth"), "student")
    assert file_and_part("a/w.pth") == (Path("a/w.pth"), None)
    (tmp_path / "run#3.pth").write_bytes(b"")
    assert file_and_part(tmp_path / "run#3.pth") == (tmp_path / "run#3.pth", None)


def test_classes_can_be_reordered_chosen_or_left_out(tmp_path: Path) -> None:
    torch.save(WANTED, tmp_path / "w.pth")
    into = tiny.network(classes=2)
    load_weights(into, tmp_path / "w.pth", columns=[3, 1])
    assert torch.equal(into.head.linear.weight, WANTED["head.linear.weight"][[3, 1]])
    assert torch.equal(into.head.linear.bias, WANTED["head.linear.bias"][[3, 1]])
    fresh = tiny.network(classes=7)
    own = fresh.head.linear.weight.clone()
    load_weights(fresh, tmp_path / "w.pth", new_head=True)
    assert torch.equal(fresh.head.linear.weight, own)
    assert torch.equal(fresh.stem.body[0].weight, WANTED["stem.body.0.weight"])


def test_weights_in_several_files_are_one(tmp_path: Path) -> None:
    keys = list(WANTED)
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, own in zip(names, (keys[:9], keys[9:])):
        save_file({key: WANTED[key] for key in own}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: names[place >= 9] for place, key in enumerate(keys)}}))
    assert same(loaded(index)[0], WANTED)
    with pytest.raises(InputError, match=r"is one of several files .* give their list, \*\.index\.json"):
        loaded(tmp_path / names[0])
    before = file_digest(index)
    save_file({key: OTHER[key] for key in keys[9:]}, tmp_path / names[1])
    assert file_digest(index) != before
    (tmp_path / names[1]).unlink()
    with pytest.raises(InputError, match=r"lists model-00002-of-00002\.safetensors, which is missing"):
        loaded(index)
    index.write_text(json.dumps({"weight_map": {"a": "../w.safetensors"}}))
    with pytest.raises(InputError, match="names files elsewhere"):
        loaded(index)


def test_torchscript_is_read_without_its_code(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.jit.trace(plain.eval(), torch.ones(1, 3, 8, 8)).save(str(tmp_path / "w.pt"))
    (state,) = read_sets(tmp_path / "w.pt").values()
    assert same({key: state[key] for key in plain.state_dict()}, plain.state_dict())


def test_archives_around_a_file_are_named(tmp_path: Path) -> None:
    torch.save(WANTED, tmp_path / "net.pth")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "net.pth", "net.pth")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "net.pth", "net.pth")
    for name, inside in (("x.tar.gz", "gzip"), ("x.zip", r"net\.pth")):
        with pytest.raises(InputError, match=rf"is an archive \({inside}\): unpack it"):
            loaded(tmp_path / name)


def test_a_module_that_holds_itself_ends(tmp_path: Path) -> None:
    looped = module_with(WANTED)
    vars(looped)["_modules"]["again"] = looped
    torch.save(looped, tmp_path / "w.pth")
    with pytest.raises(InputError, match="too many parts"):
        loaded(tmp_path / "w.pth")


def test_the_error_is_about_the_nearest_part(tmp_path: Path) -> None:
    torch.save({"state_dict": under("model.", WIDER), "extra": {"a": torch.ones(2, 2)}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"is not this tiny: other shapes in .*stages\.2"):
        loaded(tmp_path / "w.pth")
    resnet = build("resnet8", 4).state_dict()
    torch.save({"state_dict": under("model.", resnet)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="has 4 classes, not 5"):
        load_weights(build("resnet8", 5), tmp_path / "w.pth")
