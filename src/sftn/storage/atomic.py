"""Files that outlive a power cut: whole or not there, and those of tensors with a digest of what is in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sftn.errors import InputError
from sftn.storage.faults import cannot, writing
from sftn.storage.records import check_header


class Torn(InputError):
    """A checkpoint is not whole, or not of this run."""


def write_atomically(
    path: Path, content: bytes, *, keep: Path | None = None, guard: Callable[[], None] = lambda: None
) -> None:
    """Write a whole file or none: a temporary file in the same folder, synced, renamed, the folder synced.

    Args:
        path: of the file.
        content: all of it.
        keep: what was at `path` is found here afterwards. It moves only when the new file is whole and synced.
        guard: asked last before anything that was there changes; raises if this process may no longer write.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with writing(path):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            guard()
            if keep is not None:
                with suppress(FileNotFoundError):
                    os.replace(path, keep)
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    *,
    keep: Path | None = None,
    guard: Callable[[], None] = lambda: None,
) -> None:
    """Write tensors and a JSON record as one safetensors file, with a digest of both; atomic as `write_atomically`."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(record)
    content = save(flat, metadata={"record": text, "sha256": _digest(flat, text)})
    write_atomically(path, content, keep=keep, guard=guard)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        Torn: the file is torn, foreign or was changed.
        InputError: it cannot be opened, whatever is in it.
    """
    try:
        with open(path, "rb") as readable:  # says in the system's words why not, and keeps the file at hand
            readable.read(1)
            check_header(path)
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                metadata = file.metadata() or {}
        record = json.loads(metadata["record"])
    except OSError as error:
        raise cannot("read", path, error) from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise Torn(f"{path} is not a whole checkpoint ({error})") from error
    if metadata.get("sha256") != _digest(tensors, metadata["record"]):
        raise Torn(f"{path} is damaged: its digest does not match its content")
    return tensors, record


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
