"""The networks by name. A new one is a file with its builder, one line here and one test."""

from __future__ import annotations

from collections.abc import Callable

from sftn.errors import InputError, unknown
from sftn.networks import deep_resnet, mobilenet, resnet, shufflenet, vgg, wrn
from sftn.networks.layers import Rules
from sftn.networks.staged import StagedNet

NETWORKS: dict[str, Callable[..., StagedNet]] = {
    **resnet.NETWORKS,
    **deep_resnet.NETWORKS,
    **wrn.NETWORKS,
    **vgg.NETWORKS,
    **shufflenet.NETWORKS,
    **mobilenet.NETWORKS,
}
"""Builders by name; each takes `(classes, channels=3)`, and those of VGG also the `image` size."""

KEYS: dict[str, Rules] = {
    **dict.fromkeys(resnet.NETWORKS, resnet.KEYS),
    **dict.fromkeys(deep_resnet.NETWORKS, deep_resnet.KEYS),
    **dict.fromkeys(wrn.NETWORKS, wrn.KEYS),
    **dict.fromkeys(vgg.NETWORKS, vgg.KEYS),
    **shufflenet.KEYS,
    **dict.fromkeys(mobilenet.NETWORKS, mobilenet.KEYS),
}
"""How the key names of a network's public checkpoints become ours."""


def build(name: str, classes: int, channels: int = 3, image: tuple[int, ...] = (32, 32)) -> StagedNet:
    """A freshly initialised network.

    Args:
        name: one of `NETWORKS`.
        classes: K, the length of the logits.
        channels: of the images.
        image: (H, W) or (C, H, W) of the images; only VGG's structure depends on it.

    Raises:
        InputError: no network has that name, or there is nothing to classify.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    if classes < 1 or channels < 1:
        raise InputError(f"{name} cannot have {classes} classes and {channels} channels: give at least 1 of each")
    sized = {"image": image} if name in vgg.NETWORKS else {}
    return NETWORKS[name](classes=classes, channels=channels, **sized)
