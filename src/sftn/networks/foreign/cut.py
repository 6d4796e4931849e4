"""Foreign networks as StagedNets: their own modules, cut into stem, stages and head.

Weights are shared, not copied. A part is a shallow copy of the whole network with only the submodules that the part
runs, under their own names: it calls what the network calls, and the StagedNet's state dict has the original's keys
after prefixes such as `stem.model.` and `stages.0.model.`. Every cut is verified: the logits must equal the original's
bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from sftn.errors import InputError, unknown
from sftn.networks.foreign.layout import MAP, Layout
from sftn.networks.foreign.parts import ForeignHead, ForeignStage, ForeignStem, Part, Step, found
from sftn.networks.staged import Shape, StagedNet, eval_mode


def staged(
    module: nn.Module,
    image: Shape,
    *,
    stem: Step | Sequence[Step],
    stages: Sequence[Step | Sequence[Step]],
    head: Step | Sequence[Step],
    name: str | None = None,
) -> StagedNet:
    """Cut a network: `staged(net, (3, 32, 32), stem=["conv", "bn"], stages=["layer1", "layer2"], head=["pool", "fc"])`.

    Each part is a step or a list of steps, in order: dotted names of submodules, the submodules themselves, or
    functions such as `torch.nn.functional.relu`. Together the parts run what `module(images)` runs. The StagedNet
    shares the module's parameters: training one trains the other.

    If a stage's last operation is an activation, as after the residual sum in a ResNet's last block, its preact is that
    activation's input, and its closing norm the batch norm before it (or before the sum). Any other stage has its
    output as preact, and no closing norm. The input of the head's last step is the embedding; a Sequential at the end
    of the head is split for that.

    Args:
        module: returns (B, K) logits for (B, C, H, W) images; its stages' outputs are (B, C, H, W).
        image: (C, H, W), for the check that the parts equal the whole.
        stem: the steps before the stages; may be empty.
        stages: one entry per stage.
        head: the steps after the stages; maps are flattened before the first linear layer.
        name: its name in tables and files; the class's name by default.

    Raises:
        InputError: a submodule does not exist, is in no part or in two, or the parts do not equal the whole.
    """
    name = type(module).__name__.lower() if name is None else name
    if not stages or not head:
        raise InputError(f"{name} has no {'head' if stages else 'stages'}: name the submodules that run there")
    *body, classifier = _taken_apart(module, [_named(module, step) for step in _listed(head)])
    return assemble(
        module,
        name,
        stem=Part(tuple(_named(module, step) for step in _listed(stem))),
        stages=[Part(tuple(_named(module, step) for step in _listed(stage))) for stage in stages],
        head=Part(tuple(body)),
        classifier=classifier,
        verify_with=image,
    )


def assemble(
    model: nn.Module,
    name: str,
    *,
    stem: Part,
    stages: Sequence[Part],
    head: Part,
    classifier: Step,
    layouts: Sequence[Layout] = (),
    verify_with: Shape | None = None,
) -> StagedNet:
    """Assemble a StagedNet from a network's parts.

    Args:
        model: the network.
        name: its name in tables and files.
        stem: from the images to the first stage.
        stages: one entry per stage.
        head: from the last stage to the embedding.
        classifier: from the embedding to the logits.
        layouts: memory layouts of the outputs of the stem and each stage; empty for (B, C, H, W).
        verify_with: (C, H, W) of images for comparing the parts with the whole; None to skip that.

    Raises:
        InputError: a parameter is in no part or in two, or the parts do not equal the whole.
    """
    layouts = layouts or [MAP] * (len(stages) + 1)
    network = StagedNet(
        ForeignStem(model, stem, layouts[0]),
        [ForeignStage(model, part, layout) for part, layout in zip(stages, layouts[1:])],
        ForeignHead(model, head, classifier, layouts[-1]),
        name,
    )
    _check_keys(model, network)
    if verify_with is not None:
        verify(model, network, verify_with)
    return network


def original_keys(keys: Collection[str]) -> dict[str, str]:
    """Map a foreign network's own key names to those of its StagedNet; empty for one of our networks."""
    return {original: key for key in keys for original in [_original(key)] if original != key}


@torch.no_grad()
def verify(model: nn.Module, network: StagedNet, image: Shape) -> None:
    """Compare a StagedNet with the network that it was cut from, in eval mode, on two random (C, H, W) images.

    Uses its own random generator and leaves modes and states unchanged.

    Raises:
        InputError: one of the two cannot take such images, any bit of their logits differs, or a stage modifies the
            previous one's output in place.
    """
    reference = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *image, generator=generator).to(reference)
    size = "×".join(map(str, image))
    with eval_mode(model, network):
        try:
            expected = model(images.clone())
        except Exception as error:  # a foreign network can raise anything
            raise InputError(f"{network.name} cannot take images of {size}: {first_line(error)}") from error
        try:
            taps = [network.stem(images)]
            seen = [taps[0].feature.clone()]
            for stage in network.stages:
                taps.append(stage(taps[-1].flow))
                seen.append(taps[-1].feature.clone())
            _, logits = network.head(taps[-1].flow)
        except Exception as error:
            raise InputError(f"{network.name} cannot be run in parts ({first_line(error)}): {_REMEDY}") from error
    if not (isinstance(expected, Tensor) and expected.shape == logits.shape and torch.equal(expected, logits)):
        raise InputError(f"{network.name} in parts does not give the logits of the whole: {_REMEDY}")
    for number, (tap, feature) in enumerate(zip(taps, seen)):
        if not torch.equal(tap.feature, feature):
            raise InputError(
                f"{network.name}: the layer after stage {number} (0 is the stem) changes that stage's output in place: "
                "give that layer inplace=False"
            )


def first_line(error: Exception) -> str:
    """An error's message as a short line without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120].rstrip(". ")


_REMEDY = (
    "name its submodules in the order in which they run, with sftn.networks.foreign.cut.staged (docs/own-models.md)"
)


def _listed(part: Step | Sequence[Step]) -> list[Step]:
    return list(part) if isinstance(part, list | tuple) else [part]  # type: ignore[list-item]


def _named(module: nn.Module, step: Step) -> Step:
    """Replace a step by its name if it is one of the module's submodules."""
    if isinstance(step, str):
        names = [name for name, _ in module.named_modules() if name]
        if step not in names:
            raise unknown(f"submodule of {type(module).__name__}", step, names)
        return step
    if isinstance(step, nn.Module):
        return next((name for name, found in module.named_modules() if found is step), step)
    if isinstance(getattr(step, "__self__", None), nn.Module):
        method = getattr(step, "__qualname__", "a step")
        raise InputError(f"{method} is a method of a module: name the submodules that it runs, or make it a module")
    return step


def _taken_apart(module: nn.Module, steps: list[Step]) -> list[Step]:
    """Replace a Sequential at the end of the steps by its children."""
    while isinstance(last := found(module, steps[-1]), nn.Sequential) and len(last):
        name = steps[-1]
        inner = [f"{name}.{key}" if isinstance(name, str) else child for key, child in last.named_children()]
        steps = [*steps[:-1], *inner]
    return steps


def _original(key: str) -> str:
    part, found, rest = key.partition(".model.")
    return rest if found and (part in ("stem", "head") or part.startswith("stages.")) else key


def _check_keys(model: nn.Module, network: StagedNet) -> None:
    count = Counter(_original(key) for key in network.state_dict())
    whole = model.state_dict().keys()
    left = [key for key in whole if key not in count]
    if left:
        raise InputError(f"{network.name} has weights in no part ({_few(left)}): name their submodules in one")
    twice = [key for key in count if count[key] > 1]
    if twice:
        raise InputError(
            f"{network.name} has weights in two parts ({_few(twice)}): keep the modules that share them in one"
        )
    more = [key for key in count if key not in whole]
    if more:
        raise InputError(f"{network.name} has steps with weights that are not its own ({_few(more)})")


def _few(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
