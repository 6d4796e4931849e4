"""torchvision's classifiers as StagedNets: `torchvision:NAME`, or `torchvision:NAME@pretrained` for its own weights.

torchvision does not declare stages; here they end where the maps become smaller, as one forward shows.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.errors import InputError, unknown
from sftn.networks.foreign.cut import assemble, first_line
from sftn.networks.foreign.layout import MAP, Layout
from sftn.networks.foreign.parts import Call, Part, Step
from sftn.networks.foreign.torchvision_import import imported
from sftn.networks.staged import Shape, StagedNet, eval_mode

PREFIX = "torchvision:"

_VERIFIED: set[tuple[str, int, Shape]] = set()
"""Networks already compared with the original in this process; a student is built once per branch."""


def known(name: str) -> None:
    """Check a name without `torchvision:` and `@pretrained`.

    Raises:
        InputError: torchvision is not installed, or has no such classifier.
    """
    models = imported("torchvision.models")
    names = models.list_models(module=models)
    if name not in names:
        raise unknown("torchvision network", name, names)


def build(name: str, classes: int, image: Shape, *, pretrained: bool = False) -> StagedNet:
    """Build a classifier of torchvision for (C, H, W) images.

    Args:
        name: torchvision's name.
        classes: K; the last linear layer is replaced if the weights are pretrained.
        image: (C, H, W) of the images; ViT's structure depends on the height. For C other than 3 the first convolution
            is replaced; pretrained kernels are summed for C = 1 and otherwise repeated and scaled by 3 / C.
        pretrained: use torchvision's default weights, which torchvision downloads.

    Raises:
        InputError: torchvision is not installed, has no such network or weights, or the network cannot take such images
            or cannot be cut.
    """
    known(name)
    full = f"{PREFIX}{name}"
    model = _create(name, full, classes, image, pretrained)
    cut = _cut(model, full, image)
    verified = (name, classes, image)
    network = assemble(model, full, **cut, verify_with=None if verified in _VERIFIED else image)
    _VERIFIED.add(verified)
    return network


def _create(name: str, full: str, classes: int, image: Shape, pretrained: bool) -> nn.Module:
    models = imported("torchvision.models")
    options: dict[str, Any] = {}
    if name.startswith("vit_") and not pretrained:
        options["image_size"] = image[1]
    if name.startswith("maxvit") and not pretrained:
        options["input_size"] = image[1:]
    if name in ("googlenet", "inception_v3") and not pretrained:
        options |= {"aux_logits": False, "init_weights": True}
    try:
        if pretrained:
            model: nn.Module = models.get_model(name, weights="DEFAULT", **options)
            _reclassify(model, classes)
        else:
            model = models.get_model(name, weights=None, num_classes=classes, **options)
    except Exception as error:  # builders and downloads can raise anything
        if pretrained:
            raise InputError(
                f"torchvision's weights for {full} could not be loaded ({first_line(error)}): check the connection, or "
                "leave out @pretrained"
            ) from error
        size = "×".join(map(str, image))
        raise InputError(f"{full} cannot be built for images of {size}: {first_line(error)}") from error
    if image[0] != 3:
        _rechannel(model, image[0], pretrained)
    return model


def _reclassify(model: nn.Module, classes: int) -> None:
    name, layer = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1]
    if layer.out_features != classes:
        _put(model, name, nn.Linear(layer.in_features, classes))


def _rechannel(model: nn.Module, channels: int, pretrained: bool) -> None:
    name, old = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    if pretrained:
        with torch.no_grad():
            kernels = old.weight.sum(1, keepdim=True).expand_as(new.weight)
            cycled = old.weight[:, torch.arange(channels) % 3] * 3 / channels
            new.weight.copy_(kernels if channels == 1 else cycled)
            if new.bias is not None and old.bias is not None:
                new.bias.copy_(old.bias)
    else:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        if new.bias is not None:
            nn.init.zeros_(new.bias)
    _put(model, name, new)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, layer)


def _spatial_mean(value: Tensor) -> Tensor:
    return value.mean([2, 3])


def _pool(value: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(value, (1, 1))


_BETWEEN: dict[str, tuple[Step, ...]] = {
    "DenseNet": (nn.ReLU(), _pool),
    "MobileNetV2": (_pool,),
    "ShuffleNetV2": (_spatial_mean,),
    "MNASNet": (_spatial_mean,),
}
"""Functions that a class's forward calls between its last submodule and its classifier."""


def _cut(model: nn.Module, full: str, image: Shape) -> dict[str, Any]:
    """Find the parts of a network, as `assemble` takes them."""
    if type(model).__name__ == "VisionTransformer":
        return _cut_vit(model, image)
    try:
        # Large images distinguish stages that small ones may not.
        order = _order(model, image if type(model).__name__ == "MaxVit" else (image[0], 224, 224))
    except Exception as error:
        raise _uncut(full, first_line(error)) from error
    names = [name for name, _ in order]
    linears = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name in names]
    sizes = [shape[2] if len(shape) == 4 else 0 for _, shape in order]
    ends: list[int] = []
    for k, (size, after) in enumerate(pairwise(sizes)):
        start = ends[-1] + 1 if ends else 0
        if after < size and size > 1 and any(_learns(model, name) for name in names[start : k + 1]):
            ends.append(k)
    if len(ends) < 2 or len(set(names)) < len(names) or not linears:
        raise _uncut(full, "it does not run its stages in sequence into a linear classifier")
    channels_last = type(model).__name__ == "SwinTransformer"
    if channels_last:
        ends[-1] = max(k for k, name in enumerate(names) if name.startswith("features."))
    if len(ends) > 4:
        first, ends = ends[0] + 1, ends[1:]
    else:
        # The stem is the first module, inside the one that holds all stages if there is one.
        depth = 1 if names[0].split(".")[0] != names[ends[-1]].split(".")[0] else 2
        first = sum(name.split(".")[:depth] == names[0].split(".")[:depth] for name in names)
        ends = [end for end in ends if end >= first]
    starts = [first, *(end + 1 for end in ends)]
    body = names[starts[-1] : names.index(linears[-1])]
    place = next((k for k, name in enumerate(body) if name.startswith("classifier")), len(body))
    between = _BETWEEN.get(type(model).__name__, ())
    return {
        "stem": Part(tuple(names[:first])),
        "stages": [Part(tuple(names[start : end + 1])) for start, end in zip(starts, ends)],
        "head": Part((*body[:place], *between, *body[place:])),
        "classifier": linears[-1],
        "layouts": [Layout("channels_last") if channels_last else MAP] * (len(ends) + 1),
    }


def _uncut(full: str, reason: str) -> InputError:
    return InputError(
        f"{full} cannot be cut into stages ({reason}): use another one, or sftn.networks.foreign.cut.staged"
    )


def _order(model: nn.Module, image: Shape) -> list[tuple[str, tuple[int, ...]]]:
    """List what runs, in order, with the shapes of the outputs; containers are split into their children.

    Only shapes are propagated; nothing is computed.
    """
    order: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: order.append((name, tuple(getattr(output, "shape", ()))))

    hooks = [model.get_submodule(name).register_forward_hook(note(name)) for name in _leaves(model)]
    try:
        with eval_mode(model), torch.no_grad():
            state = chain(model.named_parameters(), model.named_buffers())
            weightless = {name: value.to("meta") for name, value in state}
            torch.func.functional_call(model, weightless, (torch.zeros(1, *image, device="meta"),))
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _leaves(model: nn.Module, prefix: str = "") -> list[str]:
    names = []
    for key, child in model.named_children():
        name = f"{prefix}{key}"
        names += (
            _leaves(child, f"{name}.") if isinstance(child, nn.Sequential | nn.ModuleList) and len(child) else [name]
        )
    return names


def _learns(model: nn.Module, name: str) -> bool:
    return next(model.get_submodule(name).parameters(), None) is not None


def _cut_vit(model: nn.Module, image: Shape) -> dict[str, Any]:
    """Cut a ViT into four stages of equally many blocks, whose flows are tokens with the class token first."""
    layers = [f"encoder.layers.{key}" for key, _ in model.get_submodule("encoder.layers").named_children()]
    patch = next(layer.kernel_size[0] for layer in model.modules() if isinstance(layer, nn.Conv2d))
    layout = Layout("tokens", 1, (image[1] // patch, image[2] // patch))
    places = [len(layers) * k // 4 for k in range(5)]
    return {
        "stem": Part((Call(_tokens),), ("conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout")),
        "stages": [Part(tuple(layers[start:end])) for start, end in pairwise(places)],
        "head": Part(("encoder.ln", _class_token)),
        "classifier": "heads.head",
        "layouts": [layout] * 5,
    }


def _tokens(model: Any, images: Tensor) -> Tensor:
    """Compute what a ViT's forward does before its blocks."""
    tokens = torch.cat([model.class_token.expand(len(images), -1, -1), model._process_input(images)], dim=1)
    out: Tensor = model.encoder.dropout(tokens + model.encoder.pos_embedding)
    return out


def _class_token(tokens: Tensor) -> Tensor:
    return tokens[:, 0]
