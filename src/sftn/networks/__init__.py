"""The networks by name. Adding one takes a file with its builder, one line here and one test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

from sftn.errors import InputError, unknown
from sftn.networks.families import mobilenet, resnet, resnet_bottleneck, shufflenet, vgg, wrn
from sftn.networks.families.layers import Rules
from sftn.networks.foreign import from_timm, from_torchvision
from sftn.networks.staged import StagedNet

NETWORKS: dict[str, Callable[..., StagedNet]] = {
    **resnet.NETWORKS,
    **resnet_bottleneck.NETWORKS,
    **wrn.NETWORKS,
    **vgg.NETWORKS,
    **shufflenet.NETWORKS,
    **mobilenet.NETWORKS,
}
"""Builders by name; each takes `(classes, channels=3)`, and VGG builders also the `image` size."""

PACKAGED: Mapping[str, Callable[..., StagedNet]] = dict(NETWORKS)
"""Names of the package's own networks, which every process knows, whatever else is registered."""

KEYS: dict[str, Rules] = {
    **dict.fromkeys(resnet.NETWORKS, resnet.KEYS),
    **dict.fromkeys(resnet_bottleneck.NETWORKS, resnet_bottleneck.KEYS),
    **dict.fromkeys(wrn.NETWORKS, wrn.KEYS),
    **dict.fromkeys(vgg.NETWORKS, vgg.KEYS),
    **shufflenet.KEYS,
    **dict.fromkeys(mobilenet.NETWORKS, mobilenet.KEYS),
}
"""Rules by network name that turn the key names of public checkpoints into ours."""


PRETRAINED = "@pretrained"

_FOREIGN: dict[str, ModuleType] = {"timm": from_timm, "torchvision": from_torchvision}
"""Modules that build `timm:NAME` and `torchvision:NAME`."""


def check_name(name: str) -> None:
    """Check that `build` knows a name, without building the network.

    Raises:
        InputError: the name is unknown, or the package that a foreign name needs is not installed.
    """
    source, foreign, rest = name.partition(":")
    if not foreign:
        if name not in NETWORKS:
            raise unknown("network", name, NETWORKS)
    elif source not in _FOREIGN:
        raise unknown("source of networks", source, _FOREIGN)
    else:
        _FOREIGN[source].known(rest.removesuffix(PRETRAINED))


def build(name: str, classes: int, channels: int = 3, image: tuple[int, ...] = (32, 32)) -> StagedNet:
    """Build a freshly initialised network.

    Args:
        name: one of `NETWORKS`; `timm:NAME` or `torchvision:NAME`, with `@pretrained` for their weights.
        classes: K, the number of logits.
        channels: channels of the images.
        image: (H, W) or (C, H, W) of the images; the structures of VGG and of some foreign networks depend on it.

    Raises:
        InputError: the name is unknown, classes or channels are below 1, or a foreign network cannot be loaded or cut.
    """
    check_name(name)
    if classes < 1 or channels < 1:
        raise InputError(f"{name} cannot have {classes} classes and {channels} channels: give at least 1 of each")
    source, foreign, rest = name.partition(":")
    if foreign:
        pretrained = rest.endswith(PRETRAINED)
        shape = (channels, image[-2], image[-1])
        network: StagedNet = _FOREIGN[source].build(
            rest.removesuffix(PRETRAINED), classes, shape, pretrained=pretrained
        )
        return network
    sized = {"image": image} if name in vgg.NETWORKS else {}
    return NETWORKS[name](classes=classes, channels=channels, **sized)
