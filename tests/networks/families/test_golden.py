"""The public benchmark's networks: its checkpoints load, and compute what its own code computes (tests/golden/models).

A golden file holds a checkpoint's keys and shapes and, for weights that a formula gives, what each tap averages to over
height and width.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sftn.networks import build
from sftn.networks.weights import load_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "models"
SLOW = {"ResNet101", "ResNet152"}
CASES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted(GOLDEN.glob("*.npz"))
]


def formula(keys: list[tuple[str, list[int]]]) -> dict[str, Tensor]:
    """The state dict whose j-th tensor is made of sin(1.7·i + j)."""
    state = {}
    for j, (key, shape) in enumerate(keys):
        size = int(np.prod(shape))
        wave = np.sin(1.7 * np.arange(size) + j).reshape(shape)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        if len(shape) >= 2:
            values = wave * np.sqrt(2 / (size / shape[0]))
        elif key.endswith(("running_var", "weight")):
            values = 1 + 0.1 * wave
        else:
            values = 0.1 * wave
        state[key] = torch.tensor(values, dtype=torch.float32)
    return state


def close(ours: Tensor, golden: np.ndarray) -> None:
    """Equal to 1e-5 of the largest value: float32 sums of some hundred layers, single values may cancel to near 0."""
    np.testing.assert_allclose(ours.numpy(), golden, rtol=1e-5, atol=1e-5 * float(np.abs(golden).max()))


def averaged(tap: Tensor) -> Tensor:
    return tap.mean((2, 3)) if tap.ndim == 4 else tap


def test_golden_files_are_there() -> None:
    assert len(CASES) == 20


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_benchmark_checkpoint_loads_and_computes_the_same(path: Path, tmp_path: Path) -> None:
    with np.load(path) as file:
        golden = dict(file)
    keys = json.loads(str(golden["keys"]))
    torch.save({"epoch": 240, "model": formula(keys)}, tmp_path / "ckpt_epoch_240.pth")
    network = build(path.stem.lower(), classes=100).eval()
    assert len(network.state_dict()) == len(keys)
    assert sum(parameter.numel() for parameter in network.parameters()) == int(golden["parameters"])

    load_weights(network, tmp_path / "ckpt_epoch_240.pth")
    images = torch.from_numpy(golden["input"])
    stem, found = network.stem(images), network.activations(images)
    features = [stem.feature, *found.features, found.embedding]
    preacts = [stem.preact, *found.preacts, found.embedding]

    assert [list(feature.shape) for feature in features] == json.loads(str(golden["feature_shapes"]))
    for k, (feature, preact) in enumerate(zip(features, preacts)):
        close(averaged(feature), golden[f"feature_mean{k}"])
        close(averaged(preact), golden[f"preact_mean{k}"])
    close(found.logits, golden["logits"])
