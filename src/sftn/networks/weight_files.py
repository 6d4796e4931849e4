"""Reads files of weights: the sets that they hold, and their metadata. Nothing in a file is executed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors import torch as safetensors
from torch import Tensor

from sftn.errors import InputError
from sftn.networks import contents
from sftn.networks.contents import State
from sftn.storage import torch_files
from sftn.storage.json_files import sha256
from sftn.storage.records import read_text
from sftn.storage.safe_pickle import Forbidden
from sftn.storage.tensor_files import check_header

METADATA = "sftn"
"""The one key under which all metadata are stored, as JSON."""
INDEX = ".index.json"
"""End of the name of a file that lists weights in several files, as Hugging Face's tools write it."""
_SHARD = re.compile(r"-\d+-of-\d+\.")


def read_state(path: str | Path, part: str | None = None) -> State:
    """Read the one set of weights of a file onto the CPU, or the averaged one of several; see `read_sets`.

    Raises:
        InputError: as `read_sets`, or it holds several sets and none is the averaged one.
    """
    found = read_sets(path, part)
    return found[contents.choose(found, str(path))]


def read_sets(path: str | Path, part: str | None = None) -> dict[str, State]:
    """Read every set of weights of a file onto the CPU, by the names that lead to it, with the file's key names.

    Reads `.safetensors`, the `.index.json` of weights in several files, and anything else as PyTorch's format, without
    running code from it: a state dict, wherever it stands in what was saved, and whole modules, pickled or as
    TorchScript. Prefixes that DataParallel and `torch.compile` add to keys are removed.

    Args:
        path: the file.
        part: only the sets with this name, or behind this prefix of their keys.

    Raises:
        InputError: the file is missing, unreadable, truncated, wants to run code, holds no weights, or no such part.
    """
    path = Path(path)
    if not path.is_file():
        raise _absent(path)
    if path.name.endswith(INDEX):
        whole: State = {}
        for shard in shards(path):
            for state in _stored(shard).values():
                whole |= state
        found = {"": whole}
    elif _SHARD.search(path.name):
        raise InputError(f"{path} is one of several files of the same weights: give their list, *{INDEX}, beside it")
    else:
        found = _stored(path)
    found = {name: plain(state) for name, state in found.items()}
    if not found:
        raise InputError(f"{path} holds no state dict: save {{'model': network.state_dict()}} there")
    return found if part is None else contents.named(found, part, str(path))


def _stored(path: Path) -> dict[str, State]:
    if path.suffix != ".safetensors":
        return _unpickled(path)
    try:
        check_header(path)
        return {"": safetensors.load_file(path)}
    except Exception as error:  # a forged header can raise anything
        raise _unreadable(path, "safetensors", error) from error


def shards(index: Path) -> list[Path]:
    """The files that an `.index.json` lists, all beside it.

    Raises:
        InputError: it is not such a list, or a file is missing.
    """
    try:
        names = sorted(set(json.loads(read_text(index))["weight_map"].values()))
        if not all(isinstance(name, str) and Path(name).name == name and not name.endswith(INDEX) for name in names):
            raise ValueError("it names files elsewhere")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{index} does not list the files of weights beside it ({error})") from error
    for name in names:
        if not (index.parent / name).is_file():
            raise InputError(f"{index} lists {name}, which is missing: download it, too")
    return [index.parent / name for name in names]


def file_and_part(what: str | Path) -> tuple[Path, str | None]:
    """Split `FILE#PART`, which names one of several sets of weights; a file whose name has a # is itself."""
    text = str(what)
    if "#" not in text or Path(text).exists():
        return Path(text), None
    file, _, part = text.rpartition("#")
    return Path(file), part


def file_digest(path: Path) -> str:
    """SHA-256 of a file of weights in hexadecimal digits; for a list of files, of all of them."""
    if not path.name.endswith(INDEX):
        return sha256(path)
    return hashlib.sha256("".join(map(sha256, shards(path))).encode()).hexdigest()


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
            record = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            return {str(key): str(value) for key, value in record.items()}
    except Exception as error:
        raise _unreadable(path, "safetensors", error) from error


def _unpickled(path: Path) -> dict[str, State]:
    try:
        return contents.sets(torch_files.read(path))
    except Forbidden as error:
        raise InputError(
            f"{path} would run code ({error.name}) and was not loaded: save only its state dict, as safetensors"
        ) from error
    except Exception as error:  # a foreign file can raise anything
        if inside := torch_files.packed(path):
            raise InputError(f"{path} is an archive ({inside}): unpack it, and give the file of weights") from error
        raise _unreadable(path, "PyTorch", error) from error


def _absent(path: Path) -> InputError:
    return InputError(f"no weights at {path}: {'that is a folder' if path.is_dir() else 'give an existing file'}")


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return InputError(f"{path} is not a whole {kind} file ({reason[0][:80].rstrip('.')}): copy or download it again")


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the prefixes that DataParallel and `torch.compile` add."""
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state
