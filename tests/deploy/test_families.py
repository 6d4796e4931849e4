"""Every network that has a name becomes an ONNX file."""

from __future__ import annotations

import pytest
import torch

from sftn.deploy.classifier import Classifier
from sftn.deploy.parity import compare, noise
from sftn.deploy.preprocessing import Images, config
from sftn.networks import NETWORKS, build

NAMES = [*sorted(NETWORKS), "timm:resnet10t", "torchvision:shufflenet_v2_x0_5"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_family_exports(name: str) -> None:
    pytest.importorskip("onnxscript")
    from sftn.deploy.onnx_file import Session, to_onnx
    from sftn.deploy.torch_export import Program, to_torch_export

    source = name.partition(":")[0]
    if source in ("timm", "torchvision"):
        from sftn.networks.foreign.torchvision_import import imported

        pytest.importorskip(source, exc_type=Exception) if source == "timm" else imported(source)
    side = 224 if name.startswith("imagenet") else 64 if ":" in name else 32
    images = Images(tuple("abcdef"), (3, side, side), side, (120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
    classifier = Classifier(build(name, 6, 3, (side, side)), images, name)
    pixels = noise(images.shape, 8)
    classifier.train()
    with torch.no_grad():
        classifier(torch.from_numpy(pixels))  # statistics for the batch norms
    classifier.eval()
    session = Session(to_onnx(classifier, config(name, images, "")))
    assert compare(classifier, session.logits, pixels, "images of noise", "ONNX").same == 8
    program = Program(to_torch_export(classifier, config(name, images, "")))
    assert compare(classifier, program.logits, pixels, "images of noise", "a .pt2 file").same == 8
