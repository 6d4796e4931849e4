"""Weight files: our own safetensors, and public benchmarks' checkpoints with their key names translated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks import KEYS, PRETRAINED, build, contents
from sftn.networks.contents import State
from sftn.networks.families.layers import Rules
from sftn.networks.foreign.cut import original_keys
from sftn.networks.reused_head import as_in
from sftn.networks.staged import StagedNet
from sftn.networks.weight_files import METADATA, plain, read_metadata, read_sets, read_state
from sftn.storage.atomic import write_atomically

__all__ = ["load_weights", "network_from_file", "read_metadata", "read_sets", "read_state", "save_weights"]

_COUNTER = ".num_batches_tracked"


def load_weights(
    network: StagedNet,
    path: str | Path,
    rules: Rules | None = None,
    *,
    part: str | None = None,
    columns: Sequence[int] | None = None,
    new_head: bool = False,
) -> str:
    """Load a file's weights into `network`, on its current device.

    Of several sets of weights in a file, the one that fits the network is taken, behind whatever prefix its keys have;
    if several fit, the averaged one.

    Args:
        network: the network whose weights the file holds; it gets the projector and the head of a SimKD student if the
            file is one's.
        path: a file that `read_sets` can read, with our key names, those of a public benchmark, or a foreign network's
            original ones.
        rules: how to translate foreign key names into ours; None for the rules that belong to the network's name.
        part: the name of one of several sets of weights, or a prefix of its keys (`student`); None to choose by rule.
        columns: for each class of the network, its place among the classes of the file; None for the same classes.
        new_head: leave the network's classifier as it is.

    Returns:
        What was chosen among several sets, as a sentence; empty if there was no choice.

    Raises:
        InputError: as `read_sets`, or the weights belong to another network or have other classes; then the network
            is left unchanged.
    """
    found = read_sets(path, part)
    rules = KEYS.get(network.name, ()) if rules is None else rules

    seen: dict[int, tuple[State, tuple[StagedNet, State]]] = {}  # with the state itself, so that no id is used again

    def as_own(state: State) -> tuple[StagedNet, State]:
        """The state under the network's key names, and with its classes; made once, as a SimKD head draws numbers."""
        if id(state) not in seen:
            seen[id(state)] = state, translated(state)
        return seen[id(state)][1]

    def translated(state: State) -> tuple[StagedNet, State]:
        fitting_network = as_in(network, state)
        ours = fitting_network.state_dict()
        if state.keys() != ours.keys():
            state = translate(state, rules)
            foreign = original_keys(ours.keys())
            state = {foreign.get(key, key): value for key, value in state.items()}
        if not any(key.endswith(_COUNTER) for key in state):  # PyTorch before 0.4.1 did not count batches
            state = state | {key: value for key, value in ours.items() if key.endswith(_COUNTER)}
        return fitting_network, _with_classes(state, fitting_network, columns, new_head)

    def fits(state: State) -> bool:
        fitting_network, state = as_own(state)
        ours = fitting_network.state_dict()
        return state.keys() == ours.keys() and all(state[key].shape == ours[key].shape for key in ours)

    fitted = contents.fitting(found, fits)
    if not fitted:
        if part is None and any(map(contents.roles, found.values())):
            raise contents.several(["student", "teacher"], str(path))
        ours = {key for key in network.state_dict() if not key.endswith(_COUNTER)}
        nearest = contents.nearest(found, lambda state: len(as_own(state)[1].keys() & ours))
        fitting_network, state = as_own(nearest)
        _check(state, fitting_network.state_dict(), network.name, path)
    name = contents.choose(fitted, str(path))
    fitting_network, state = as_own(fitted[name])
    network.stages, network.head = fitting_network.stages, fitting_network.head
    network.load_state_dict(state)
    others = [other for other in (fitted if len(fitted) > 1 else found) if other not in (name, "")]
    others = [other for other in others if not name.startswith(f"{other}.")]
    role = name.rpartition(".")[2]
    if not others and any(role in contents.roles(state) for state in found.values()):
        others = [name.removesuffix(role) + ("teacher" if role == "student" else "student")]
    if not others or part is not None:
        return ""
    taken, *left = contents.shortened([name, *others])
    which = f"{taken}, the averaged one," if contents.averaged(name) else taken
    return f"{path} holds {contents.listed([taken, *left])}: {which} is taken; {path}#{left[0]} names another"


def _with_classes(state: State, network: StagedNet, columns: Sequence[int] | None, new_head: bool) -> State:
    """A state whose classifier has the network's classes, in their order."""
    if columns is None and not new_head:
        return state
    own = network.state_dict()
    keys = [key for key in classifier_keys(network) if key in state]
    if new_head:
        return state | {key: own[key] for key in keys}
    assert columns is not None
    index = torch.tensor(columns)
    return state | {key: state[key][index] for key in keys if len(state[key]) > max(columns)}


def classifier_keys(network: StagedNet) -> list[str]:
    """The keys of the last layer's weight and bias, whose rows are the classes."""
    layers = [
        name
        for name, layer in network.head.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and isinstance(layer.weight, Tensor)
    ]
    own = network.state_dict().keys()
    names = [".".join(part for part in ("head", *layers[-1:], kind) if part) for kind in ("weight", "bias")]
    return [name for name in names if name in own]


def network_from_file(
    name: str, path: str | Path, classes: int, image: tuple[int, int, int], part: str | None = None
) -> StagedNet:
    """Build a network and load its trained weights; pretrained ones (`NAME@pretrained`) are not downloaded again.

    Args:
        name: its name for `sftn.networks.build`.
        path: the file of weights.
        classes: number of classes.
        image: (C, H, W) of its images.
        part: one of several sets of weights, as in `load_weights`.

    Raises:
        InputError: as `load_weights`.
    """
    channels, height, width = image
    network = build(name.removesuffix(PRETRAINED), classes, channels, (height, width))
    load_weights(network, path, part=part)
    return network


def save_weights(network: StagedNet, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write `network`'s state as safetensors, whole or not at all, with `metadata` in the file's header.

    Raises:
        InputError: the file cannot be written.
    """
    # Cloned because the format does not allow tensors that share memory.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in plain(network.state_dict()).items()}
    # One key only, because the format orders several arbitrarily, and equal runs should write equal files.
    write_atomically(Path(path), safetensors.save(state, {METADATA: json.dumps(dict(metadata or {}))}))


def translate(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Apply every rule to every key, in order; the tensors are the same."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


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
        raise InputError(
            f"{path} has {theirs[0]} classes, not {ours[0]}: use the data set that it was trained on, name its "
            "classes with --teacher-classes FILE, or train it on these (sftn train-teacher --teacher FILE)"
        )
    shapes = [f"{key} ({_size(theirs)}, not {_size(ours)})" for key, (theirs, ours) in wrong.items()]
    raise InputError(f"{path} is not this {name}: other shapes in {_few(shapes)}; name the network that it holds")


def _few(names: Iterable[str], most: int = 3) -> str:
    names = sorted(names, key=lambda name: name.endswith(_COUNTER))  # the counters say least
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _size(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "scalar"
