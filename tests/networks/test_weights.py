"""What may be read as weights, what is refused, and that refusing changes and runs nothing."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks import KEYS, NETWORKS, build
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights, read_metadata, read_state, save_weights, translate


class Hostile:
    """Creates a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def network() -> StagedNet:
    torch.manual_seed(0)
    return build("wrn_10_1", classes=5)


def copy_of(network: StagedNet) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_what_is_saved_loads_again(network: StagedNet, tmp_path: Path) -> None:
    network(torch.randn(4, 3, 16, 16))  # moves the running statistics too
    save_weights(network, tmp_path / "weights.safetensors", {"network": "wrn_10_1"})
    other = build("wrn_10_1", classes=5)
    assert not same(other.state_dict(), network.state_dict())
    load_weights(other, tmp_path / "weights.safetensors")
    assert same(other.state_dict(), network.state_dict())
    assert read_metadata(tmp_path / "weights.safetensors") == {"network": "wrn_10_1"}
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_channels_last_weights_are_saved_in_order(network: StagedNet, tmp_path: Path) -> None:
    before = copy_of(network)
    save_weights(network.to(memory_format=torch.channels_last), tmp_path / "w.safetensors")
    assert same(read_state(tmp_path / "w.safetensors"), before)


def test_a_failed_save_leaves_the_old_file(network: StagedNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(network, path)
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    nn.init.zeros_(network.head.linear.weight)
    with pytest.raises(InputError, match="No space left"):
        save_weights(network, path)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_saving_where_there_is_no_folder_is_refused(network: StagedNet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*absent"):
        save_weights(network, tmp_path / "absent" / "w.safetensors")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 240, "best_acc": torch.tensor(76.5)},
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "opt": argparse.Namespace(lr=0.05)},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    ],
    ids=["plain", "RepDistiller", "state_dict", "with options", "DataParallel", "compiled", "both", "before 0.4.1"],
)
def test_every_wrapping_is_understood(network: StagedNet, tmp_path: Path, wrap) -> None:
    torch.save(wrap(network.state_dict()), tmp_path / "w.pth")
    other = build("wrn_10_1", classes=5)
    load_weights(other, tmp_path / "w.pth")
    assert same(other.state_dict(), network.state_dict())


def test_the_old_format_of_pytorch_is_read(network: StagedNet, tmp_path: Path) -> None:
    torch.save({"model": network.state_dict()}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(read_state(tmp_path / "w.pth"), network.state_dict())


def test_metadata_of_other_files(network: StagedNet, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert read_metadata(tmp_path / "w.pth") == {}
    save_weights(network, tmp_path / "w.safetensors")
    assert read_metadata(tmp_path / "w.safetensors") == {}
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-1])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        read_metadata(tmp_path / "torn.safetensors")
    with pytest.raises(InputError, match="no weights at"):
        read_metadata(tmp_path / "absent.safetensors")


def test_rules_can_be_given(network: StagedNet, tmp_path: Path) -> None:
    torch.save({f"net/{key}": value for key, value in network.state_dict().items()}, tmp_path / "w.pth")
    other = build("wrn_10_1", classes=5)
    load_weights(other, tmp_path / "w.pth", rules=((r"^net/", ""),))
    assert same(other.state_dict(), network.state_dict())


def test_the_groups_first_norm_of_a_wrn_closes_the_stage_before_it() -> None:
    keys = ["block1.layer.0.bn1.weight", "block2.layer.0.bn1.weight", "bn1.weight", "block2.layer.1.bn1.weight"]
    assert list(translate(dict.fromkeys(keys, torch.ones(1)), KEYS["wrn_16_2"])) == [
        "stages.0.blocks.0.norm1.weight",
        "stages.0.closing_norm.weight",
        "stages.2.closing_norm.weight",
        "stages.1.blocks.1.norm1.weight",
    ]


def test_every_network_has_rules() -> None:
    assert KEYS.keys() == NETWORKS.keys()


def refused(network: StagedNet, path: Path) -> str:
    before = copy_of(network)
    with pytest.raises(InputError) as caught:
        load_weights(network, path)
    assert same(network.state_dict(), before)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [None, 0, 2, 4])
def test_a_pickle_that_wants_to_run_code_does_not(network: StagedNet, tmp_path: Path, protocol: int | None) -> None:
    proof, path = tmp_path / "it-ran", tmp_path / "w.pth"
    content = {"model": network.state_dict(), "extra": Hostile(proof)}
    if protocol is None:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["extra"], protocol))
    assert "would run code" in refused(network, path)
    assert not proof.exists()
    if protocol is None:
        torch.load(path, weights_only=False)  # the proof would be there, had it run
        assert proof.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_truncated_file_is_refused(network: StagedNet, tmp_path: Path, suffix: str, keep: int) -> None:
    whole, torn = tmp_path / f"whole{suffix}", tmp_path / f"torn{suffix}"
    save_weights(network, whole) if suffix == ".safetensors" else torch.save(network.state_dict(), whole)
    torn.write_bytes(whole.read_bytes()[:keep])
    assert "is not a whole" in refused(network, torn)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
def test_a_foreign_file_is_refused(network: StagedNet, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"readme{suffix}"
    path.write_text("# Weights\nare elsewhere\n")
    assert "is not a whole" in refused(network, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    assert "is not a whole" in refused(network, path)


def test_a_missing_file_and_a_folder_are_refused(network: StagedNet, tmp_path: Path) -> None:
    assert "no weights at" in refused(network, tmp_path / "absent.pth")
    assert "that is a folder" in refused(network, tmp_path)


@pytest.mark.parametrize("content", [{}, [1, 2], {"model": {"a": 3}}, {"epoch": 4}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(network: StagedNet, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "holds no state dict" in refused(network, tmp_path / "w.pth")


def test_other_classes_are_counted(network: StagedNet, tmp_path: Path) -> None:
    save_weights(build("wrn_10_1", classes=7), tmp_path / "w.safetensors")
    assert "has 7 classes, not 5" in refused(network, tmp_path / "w.safetensors")


def test_another_network_is_named_by_its_keys_or_shapes(network: StagedNet, tmp_path: Path) -> None:
    save_weights(build("resnet8", classes=5), tmp_path / "w.safetensors")
    message = refused(network, tmp_path / "w.safetensors")
    assert "is not a wrn_10_1: it lacks stages.0.blocks.0.norm1.weight" in message
    assert "more" in message
    assert len(message.removeprefix(str(tmp_path))) < 400

    save_weights(build("wrn_10_2", classes=5), tmp_path / "w.safetensors")
    message = refused(network, tmp_path / "w.safetensors")
    assert "is not a wrn_10_1: it also has stages.0.blocks.0.shortcut.weight" in message

    save_weights(build("wrn_10_1", classes=5, channels=1), tmp_path / "w.safetensors")
    assert "stem.body.0.weight (16×1×3×3, not 16×3×3×3)" in refused(network, tmp_path / "w.safetensors")
