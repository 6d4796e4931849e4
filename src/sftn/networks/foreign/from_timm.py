"""timm's networks as StagedNets: `timm:NAME`, or `timm:NAME@pretrained` for timm's own weights.

Stages end where timm's `feature_info` says; one forward shows what runs between these places, and in which order.
Networks whose blocks take more than the output of the previous block cannot be cut and are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sftn.errors import InputError, unknown
from sftn.networks.foreign.cut import assemble, first_line
from sftn.networks.foreign.layout import MAP, Layout
from sftn.networks.foreign.parts import Call, Part
from sftn.networks.foreign.torchvision_import import imported
from sftn.networks.staged import Shape, StagedNet, eval_mode

PREFIX = "timm:"

_VERIFIED: set[tuple[str, int, Shape]] = set()
"""Networks already compared with the original in this process; a student is built once per branch."""


def known(name: str) -> None:
    """Check a name without `timm:` and `@pretrained`.

    Raises:
        InputError: timm is not installed, or has no such network.
    """
    timm = imported("timm")
    if not timm.is_model(name):
        raise unknown("timm network", name, timm.list_models())
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise InputError(
            f"{PREFIX}{name} names weights that timm does not have: leave out {name.partition('.')[2]}"
        ) from error


def build(name: str, classes: int, image: Shape, *, pretrained: bool = False) -> StagedNet:
    """Build a network of timm for (C, H, W) images.

    Its stages are those of `feature_info` after the stem; a network whose maps all have one size (ViT) gets four stages
    of equally many blocks.

    Args:
        name: timm's name, with or without a tag of weights.
        classes: K; the classifier is replaced.
        image: (C, H, W) of the images; networks made for one size depend on it.
        pretrained: use timm's weights, which timm downloads.

    Raises:
        InputError: timm is not installed, has no such network or no weights for it, or the network cannot take such
            images or cannot be cut.
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
    timm = imported("timm")
    channels, height, width = image
    config = timm.get_pretrained_cfg(name)
    if pretrained and not (config and config.has_weights):
        raise InputError(f"timm has no weights for {full}: leave out @pretrained")
    sized = {"img_size": (height, width)} if config is not None and config.fixed_input_size else {}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=classes, in_chans=channels, **sized
        )
    except Exception as error:  # timm's builders and downloads can raise anything
        if pretrained:
            raise InputError(
                f"timm's weights for {full} could not be loaded ({first_line(error)}): check the connection, or "
                "leave out @pretrained"
            ) from error
        size = "×".join(map(str, image))
        raise InputError(f"{full} cannot be built for images of {size}: {first_line(error)}") from error
    return model


class _Seen(NamedTuple):
    """A submodule that ran, and the shape of its output."""

    name: str
    shape: tuple[int, ...]


def _cut(model: nn.Module, full: str, image: Shape) -> dict[str, Any]:
    """Find the parts of a network, as `assemble` takes them."""
    info = getattr(model, "feature_info", None)
    taps = [dict(entry) for entry in (getattr(info, "info", info) or [])]
    ends = list(dict.fromkeys(_block(model, str(tap["module"])) for tap in taps))
    classifier = _classifier(model)
    if len(ends) < 2 or None in ends or classifier is None:
        raise _uncut(full, "timm lists no stages or no single classifier for it")
    try:
        with torch.no_grad():
            order = _order(model, [str(end) for end in ends], torch.zeros(2, *image))
    except Exception as error:
        size = "×".join(map(str, image))
        raise InputError(f"{full} cannot take images of {size} ({first_line(error)}): give larger ones") from error
    names = [unit.name for unit in order]
    if len(set(names)) < len(names) or any(end not in names for end in ends):
        raise _uncut(full, "it does not run them in sequence")
    places = sorted(names.index(str(end)) for end in ends)
    if not all(order[place].shape for place in places):
        raise _uncut(full, "its stages return more than one tensor")
    reductions = {int(tap["reduction"]) for tap in taps}
    if len(places) > 4 and len(reductions) > 1:
        first, places = places[0] + 1, places[1:]
    else:
        # The stem ends where the modules that hold the stages begin.
        first = next(k for k, name in enumerate(names) if name.split(".")[0] == names[places[0]].split(".")[0])
    if len(reductions) == 1:
        places = _quarters(places)
    while len(places) > 1 and not _weights(model, names[places[-2] + 1 : places[-1] + 1]):
        places = places[:-1]  # a pool alone is not a stage
    layouts = _layouts(model, [order[max(first - 1, 0)], *(order[place] for place in places)], reductions, image)
    if layouts is None:
        raise _uncut(full, "its tokens do not form a map")
    starts = [first, *(place + 1 for place in places)]
    stages = [Part(tuple(names[start : place + 1])) for start, place in zip(starts, places)]
    tail = tuple(names[starts[-1] :])
    rest = [name for name, _ in model.named_children() if name not in {unit.split(".")[0] for unit in names}]
    own = [name for name, _ in model.named_parameters(recurse=False)]
    own += [name for name, _ in model.named_buffers(recurse=False) if name in model.state_dict()]
    return {
        "stem": Part((Call("forward_features"),), (*names[:first], *own)),
        "stages": stages,
        "head": Part((*tail, Call("forward_head", {"pre_logits": True})), tuple(rest)),
        "classifier": classifier,
        "layouts": layouts,
    }


def _uncut(full: str, reason: str) -> InputError:
    return InputError(
        f"{full} cannot be cut into stages, {reason}: use another network, or cut it with "
        "sftn.networks.foreign.cut.staged"
    )


def _block(model: nn.Module, name: str) -> str | None:
    """Find the submodule of that name, or the one that contains it and runs as a whole; None if neither ran."""
    path, module = name.split("."), model
    for depth, key in enumerate(path, 1):
        found = dict(module.named_children()).get(key)
        if found is None:
            return None
        module = found
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            return ".".join(path[:depth])
    return name


def _classifier(model: Any) -> str | None:
    layer = model.get_classifier() if hasattr(model, "get_classifier") else None
    name = next((name for name, found in model.named_modules() if found is layer), None)
    parent = (name or "").rpartition(".")[0]
    # timm names only its linear layer, but passes the embedding to the batch norm before that.
    return parent if type(model.get_submodule(parent)).__name__ == "NormLinear" else name


def _order(model: Any, ends: list[str], images: Tensor) -> list[_Seen]:
    """List what `forward_features` runs, in order: the submodules between which stages end."""
    split = {end.rsplit(".", depth)[0] for end in ends for depth in range(1, end.count(".") + 1)}
    units = [f"{p}.{c}".lstrip(".") for p in ("", *sorted(split)) for c, _ in model.get_submodule(p).named_children()]
    order: list[_Seen] = []

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: order.append(_Seen(name, tuple(getattr(output, "shape", ()))))

    hooks = [model.get_submodule(unit).register_forward_hook(note(unit)) for unit in units if unit not in split]
    try:
        with eval_mode(model):
            model.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _quarters(places: list[int]) -> list[int]:
    """Pick up to four evenly spaced ones, including the last."""
    count = min(4, len(places))
    return [places[len(places) * (k + 1) // count - 1] for k in range(count)]


def _weights(model: nn.Module, names: list[str]) -> bool:
    return any(True for name in names for _ in model.get_submodule(name).parameters())


def _layouts(model: nn.Module, outputs: list[_Seen], reductions: set[int], image: Shape) -> list[Layout] | None:
    """Memory layouts of the outputs of the stem and each stage; None for tokens that do not form a map."""
    if all(len(output.shape) == 4 for output in outputs):
        channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return [Layout("channels_last") if channels_last else MAP] * len(outputs)
    if len(reductions) > 1:
        return None
    height, width = (size // next(iter(reductions)) for size in image[1:])
    tokens = outputs[-1].shape[1]
    prefix = tokens - height * width
    if not 0 <= prefix <= int(getattr(model, "num_prefix_tokens", 0)):
        return None
    return [Layout("tokens", prefix, (height, width))] * len(outputs)
