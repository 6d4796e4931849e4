"""Weight files: our own safetensors, and public benchmarks' checkpoints with their key names translated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors import torch as safetensors
from torch import Tensor

from sftn.errors import InputError
from sftn.networks import KEYS, PRETRAINED, build
from sftn.networks.families.layers import Rules
from sftn.networks.foreign.cut import original_keys
from sftn.networks.reused_head import as_in
from sftn.networks.staged import StagedNet
from sftn.storage import torch_files
from sftn.storage.atomic import write_atomically
from sftn.storage.safe_pickle import Forbidden
from sftn.storage.tensor_files import check_header

_COUNTER = ".num_batches_tracked"
_METADATA = "sftn"


def load_weights(network: StagedNet, path: str | Path, rules: Rules | None = None) -> None:
    """Load a file's weights into `network`, on its current device.

    Args:
        network: the network whose weights the file holds; it gets the projector and the head of a SimKD student if the
            file is one's.
        path: a file that `read_state` can read, with our key names, those of a public benchmark, or a foreign network's
            original ones.
        rules: how to translate foreign key names into ours; None for the rules that belong to the network's name.

    Raises:
        InputError: as `read_state`, or the weights belong to another network or have other classes; then the network
            is left unchanged.
    """
    state = read_state(path)
    fitting = as_in(network, state)
    own = fitting.state_dict()
    if state.keys() != own.keys():
        state = translate(state, KEYS.get(network.name, ()) if rules is None else rules)
        foreign = original_keys(own.keys())
        state = {foreign.get(key, key): value for key, value in state.items()}
    if not any(key.endswith(_COUNTER) for key in state):  # PyTorch before 0.4.1 did not count batches
        state |= {key: value for key, value in own.items() if key.endswith(_COUNTER)}
    _check(state, own, network.name, path)
    network.stages, network.head = fitting.stages, fitting.head
    network.load_state_dict(state)


def network_from_file(name: str, path: str | Path, classes: int, image: tuple[int, int, int]) -> StagedNet:
    """Build a network and load its trained weights; pretrained ones (`NAME@pretrained`) are not downloaded again.

    Args:
        name: its name for `sftn.networks.build`.
        path: the file of weights.
        classes: number of classes.
        image: (C, H, W) of its images.

    Raises:
        InputError: as `load_weights`.
    """
    channels, height, width = image
    network = build(name.removesuffix(PRETRAINED), classes, channels, (height, width))
    load_weights(network, path)
    return network


def save_weights(network: StagedNet, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write `network`'s state as safetensors, whole or not at all, with `metadata` in the file's header.

    Raises:
        InputError: the file cannot be written.
    """
    # Cloned because the format does not allow tensors that share memory.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in _plain(network.state_dict()).items()}
    # One key only, because the format orders several arbitrarily, and equal runs should write equal files.
    write_atomically(Path(path), safetensors.save(state, {_METADATA: json.dumps(dict(metadata or {}))}))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a file's state dict onto the CPU, with the file's key names.

    Reads `.safetensors`; anything else as PyTorch's format, without running code from it: a state dict, or one under
    `model` (RepDistiller, mdistiller) or `state_dict`. Prefixes that DataParallel and `torch.compile` add to keys are
    removed.

    Raises:
        InputError: the file is missing, unreadable, truncated, contains code or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise _absent(path)
    if path.suffix == ".safetensors":
        try:
            check_header(path)
            return _plain(safetensors.load_file(path))
        except Exception as error:  # a forged header can raise anything
            raise _unreadable(path, "safetensors", error) from error
    content = _unpickle(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (isinstance(content, Mapping) and content and all(_is_weight(*item) for item in content.items())):
        raise InputError(f"{path} holds no state dict: save {{'model': network.state_dict()}} there")
    return _plain(content)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata that `save_weights` stored; empty for a file in PyTorch's format.

    Raises:
        InputError: the file is missing, or is called .safetensors but is not a complete file of that format.
    """
    path = Path(path)
    if not path.is_file():
        raise _absent(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            return {str(key): str(value) for key, value in record.items()}
    except Exception as error:
        raise _unreadable(path, "safetensors", error) from error


def translate(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Apply every rule to every key, in order; the tensors are the same."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _unpickle(path: Path) -> object:
    try:
        return torch_files.read(path)
    except Forbidden as error:
        raise InputError(
            f"{path} would run code ({error.name}) and was not loaded: save only its state dict, as safetensors"
        ) from error
    except Exception as error:  # a foreign file can raise anything
        raise _unreadable(path, "PyTorch", error) from error


def _absent(path: Path) -> InputError:
    return InputError(f"no weights at {path}: {'that is a folder' if path.is_dir() else 'give an existing file'}")


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return InputError(f"{path} is not a whole {kind} file ({reason[0][:80].rstrip('.')}): copy or download it again")


def _is_weight(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _check(state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str, path: str | Path) -> None:
    missing, extra = [key for key in own if key not in state], [key for key in state if key not in own]
    if missing or extra:
        parts = [f"lacks {_few(missing)}"] if missing else []
        parts += [f"also has {_few(extra)}"] if extra else []
        raise InputError(f"{path} is not a {name}: it {' and '.join(parts)}; name the network that it holds")
    wrong = {key: (state[key].shape, own[key].shape) for key in own if state[key].shape != own[key].shape}
    if not wrong:
        return
    if all(key.startswith("head.") and theirs[1:] == ours[1:] for key, (theirs, ours) in wrong.items()):
        theirs, ours = next(iter(wrong.values()))
        raise InputError(f"{path} has {theirs[0]} classes, not {ours[0]}: use the data set that it was trained on")
    shapes = [f"{key} ({_size(theirs)}, not {_size(ours)})" for key, (theirs, ours) in wrong.items()]
    raise InputError(f"{path} is not this {name}: other shapes in {_few(shapes)}; name the network that it holds")


def _few(names: Iterable[str], most: int = 3) -> str:
    names = sorted(names, key=lambda name: name.endswith(_COUNTER))  # the counters say least
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _size(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "scalar"
