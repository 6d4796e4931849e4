"""Whether this process is the leader of those that train together; answers without importing torch."""

from __future__ import annotations

import os
import sys


def leads() -> bool:
    """Whether this process is the leader, which writes and prints; before there is a group, the environment decides."""
    dist = sys.modules.get("torch.distributed")  # without it, there is no group
    if dist is not None and dist.is_available() and dist.is_initialized():
        return bool(dist.get_rank() == 0)
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK"))
