"""The environment recorded with a result: versions, machine, commit, and everything else that may change its bits."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import sftn


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and commit, recorded so that a result can be repeated.

    Two runs with the same seed agree bit for bit if all of this is the same; on a CPU `threads` matters, and a GPU also
    needs `deterministic`.

    Args:
        device: the device that computes, such as cpu or cuda:0.
    """
    commit, changed = _commit()
    found: dict[str, Any] = {
        "sftn": sftn.__version__,
        "commit": commit,
        "changed": changed,
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "safetensors": _version("safetensors"),
        "fabric": _version("lightning-fabric") or _version("lightning"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": f"{device} ({_name(device)})",
        "threads": torch.get_num_threads(),
        "cpu": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if device.startswith("cuda"):
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def changes(recorded: Mapping[str, Any], device: str) -> list[str]:
    """Differences between this environment and a recorded one, such as `threads 4 (here 1)`.

    Args:
        recorded: what `environment` returned then; values that it lacks are not compared.
        device: the device that computes now.
    """
    here = environment(device)
    names = [name for name in here if name in recorded and recorded[name] != here[name]]
    return [f"{name} {recorded[name]} (here {here[name]})" for name in names]


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()


@cache
def processor() -> str:
    """The model of the processor, if the system reports it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> tuple[str | None, bool | None]:
    """The commit of the checkout that this code runs from, and whether the code has uncommitted changes.

    An installed package has neither, even inside another repository.
    """
    here = Path(__file__).resolve().parents[1]
    if _git(here, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit, status = _git(here, "rev-parse", "HEAD"), _git(here, "status", "--porcelain", "--", ".")
    return commit or None, None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=False)
    except OSError:  # git is missing, or there is no memory to start it
        return None
    return done.stdout.strip() if done.returncode == 0 else None
