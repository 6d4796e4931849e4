"""The map that a classifier averages, and the classifier: for methods that read more than activations."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks.staged import Activations, Shape, StagedNet


def classifier(network: StagedNet, method: str) -> nn.Linear:
    """The only linear layer of a network's head, (K, D).

    Raises:
        InputError: it has none, or several.
    """
    layers = [module for module in network.head.modules() if isinstance(module, nn.Linear)]
    if len(layers) != 1:
        raise InputError(f"{method} needs a head with one linear classifier, not {network.name}'s: use another method")
    return layers[0]


def last_map(activations: Activations, place: str) -> Tensor:
    """(B, C, H, W): what enters the head, at the place that `place_of_flow` found."""
    return activations.features[-1] if place == "feature" else activations.preacts[-1].relu()


@torch.no_grad()
def place_of_flow(network: StagedNet, image: Shape, method: str) -> str:
    """Where activations hold what enters the head: "feature", or "preact", before its ReLU, of pre-activation networks.

    Raises:
        InputError: nowhere, or it is no map.
    """
    twin = copy.deepcopy(network).eval()
    reference = next(twin.parameters())
    draw = torch.Generator().manual_seed(0)
    flow = twin.stem(torch.randn(2, *image, generator=draw).to(reference)).flow
    for stage in twin.stages:
        feature, preact, flow = stage(flow)
    if flow.dim() == 4:
        for place, found in (("feature", feature), ("preact", preact.relu())):
            if found.shape == flow.shape and torch.equal(found, flow):
                return place
    raise InputError(f"{method} needs the map that a network's head reads, which {network.name} does not show")


def after_body(head: nn.Module, flow: Tensor) -> Tensor:
    """The map that a head averages: its `body` runs once more, without moving the statistics of its batch norms."""
    body = getattr(head, "body", None)
    if body is None:
        return flow
    copies = {name: buffer.clone() for name, buffer in body.named_buffers()}
    return torch.func.functional_call(body, copies, (flow,)) if copies else body(flow)


@torch.no_grad()
def classifies_the_mean(network: StagedNet, flow: Shape, method: str) -> bool:
    """Whether a network's logits are its classifier's of the mean over the pixels of `after_body`."""
    head = copy.deepcopy(network.head).eval()
    layer = classifier(network, method)
    given = torch.rand(2, *flow, generator=torch.Generator().manual_seed(0)).to(layer.weight)
    averaged = after_body(head, given)
    if averaged.shape[1] != layer.in_features:
        return False
    found, expected = nn.functional.linear(averaged.mean((2, 3)), layer.weight, layer.bias), head(given)[1]
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
