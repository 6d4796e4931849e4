"""Weights in files: our own as safetensors, and the public benchmarks' checkpoints under our key names."""

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
    """Read a file's weights into `network`, on whatever device that is.

    Args:
        network: the network that the file holds; it gets the projector and the head of a student of SimKD's, if the
            file is of one.
        path: what `read_state` can read, under our key names, those of a public benchmark, or for a foreign network its
            own.
        rules: how foreign key names become ours; None for those of the network's name.

    Raises:
        InputError: as `read_state`, or the weights are another network's or of other classes. The network is untouched.
    """
    state = read_state(path)
    fitting = as_in(network, state)
    own = fitting.state_dict()
    if state.keys() != own.keys():
        state = translate(state, KEYS.get(network.name, ()) if rules is None else rules)
        foreign = original_keys(own.keys())
        state = {foreign.get(key, key): value for key, value in state.items()}
    if not any(key.endswith(_COUNTER) for key in state):  # PyTorch before 0.4.1 did not count
        state |= {key: value for key, value in own.items() if key.endswith(_COUNTER)}
    _check(state, own, network.name, path)
    network.stages, network.head = fitting.stages, fitting.head
    network.load_state_dict(state)


def network_from_file(name: str, path: str | Path, classes: int, image: tuple[int, int, int]) -> StagedNet:
    """A trained network; weights that it once started from (`NAME@pretrained`) are not fetched again.

    Args:
        name: by which `sftn.networks.build` makes it.
        path: of its weights.
        classes: the number of classes.
        image: (C, H, W) of what it is given.

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
        InputError: the file cannot be written there.
    """
    # Cloned, so that tensors that share memory become independent, which the format asks for.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in _plain(network.state_dict()).items()}
    # One key only: the format keeps several in no fixed order, and equal runs should leave equal files.
    write_atomically(Path(path), safetensors.save(state, {_METADATA: json.dumps(dict(metadata or {}))}))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """A file's state dict, on the CPU, under the key names that it has.

    Reads `.safetensors`; anything else as PyTorch's format, without running code from it: a state dict, or one under
    `model` (RepDistiller, mdistiller) or `state_dict`. What DataParallel and `torch.compile` put before a key is taken
    away.

    Raises:
        InputError: the file is missing, unreadable, truncated, wants to run code or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise _absent(path)
    if path.suffix == ".safetensors":
        try:
            check_header(path)
            return _plain(safetensors.load_file(path))
        except Exception as error:  # a forged header can fail in any way
            raise _unreadable(path, "safetensors", error) from error
    content = _unpickle(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (isinstance(content, Mapping) and content and all(_is_weight(*item) for item in content.items())):
        raise InputError(f"{path} holds no state dict: save {{'model': network.state_dict()}} there")
    return _plain(content)


def read_metadata(path: str | Path) -> dict[str, str]:
    """What `save_weights` was given beside the weights; nothing for a file in PyTorch's format.

    Raises:
        InputError: the file is missing, or named as safetensors but is no whole file of them.
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
    """The same tensors with every rule applied to every key, in order."""
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
            f"{path} wants to run code ({error.name}) and was not loaded: save its state dict alone, as safetensors"
        ) from error
    except Exception as error:  # a foreign file can fail in any way
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
        parts += [f"has {_few(extra)} besides"] if extra else []
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
