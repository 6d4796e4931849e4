"""The file format of checkpoints: tensors and a JSON record in one safetensors file, with a digest of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sftn.errors import InputError
from sftn.storage.atomic import write_atomically
from sftn.storage.faults import file_error
from sftn.storage.records import LARGEST


class Torn(InputError):
    """A checkpoint is incomplete or damaged, or belongs to another run."""


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    *,
    keep: Path | None = None,
    guard: Callable[[], None] = lambda: None,
) -> None:
    """Write tensors and a JSON record as one safetensors file with a digest, atomically as `write_atomically` does."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(record)
    content = save(flat, metadata={"record": text, "sha256": _digest(flat, text)})
    write_atomically(path, content, keep=keep, guard=guard)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that `save_tensors` wrote.

    Raises:
        Torn: the file is incomplete, foreign or was changed.
        InputError: the file cannot be opened.
    """
    try:
        with open(path, "rb") as readable:  # raises the system's own error if unreadable, and keeps the file open
            readable.read(1)
            check_header(path)
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                metadata = file.metadata() or {}
        record = json.loads(metadata["record"])
    except OSError as error:
        raise file_error("read", path, error) from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise Torn(f"{path} is not a complete checkpoint ({error})") from error
    if metadata.get("sha256") != _digest(tensors, metadata["record"]):
        raise Torn(f"{path} is damaged: its digest does not match its content")
    return tensors, record


def load_record(path: Path) -> dict[str, Any]:
    """Read the record alone of a file that `save_tensors` wrote, without its tensors and without checking the digest.

    Raises:
        Torn: the file is incomplete or foreign.
        InputError: the file cannot be opened.
    """
    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["record"])
        if not isinstance(record, dict):
            raise ValueError("its record is no object")
    except OSError as error:
        raise file_error("read", path, error) from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise Torn(f"{path} is not a complete checkpoint ({error})") from error
    return record


def check_header(path: Path) -> None:
    """Check the size of a safetensors file's header before it is parsed.

    Raises:
        ValueError: the header is larger than `records.LARGEST` or cut short; the format allows 100 MB, which take
            seconds to parse.
    """
    with open(path, "rb") as file:
        size = file.read(8)
    if len(size) < 8 or int.from_bytes(size, "little") > min(LARGEST, path.stat().st_size):
        raise ValueError("its header is too large")


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
