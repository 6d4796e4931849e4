"""Automatic cutting of any module into stages: its children in execution order, grouped by resolution."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks.foreign.cut import first_line, staged
from sftn.networks.staged import Shape, StagedNet, eval_mode


def cut(module: nn.Module, image: Shape) -> StagedNet:
    """Cut a module into a StagedNet wherever the resolution of its maps changes; a StagedNet is returned as is.

    This works for modules whose direct children run in sequence, each once: plain Sequentials, and networks structured
    like ResNet. Everything before the first child with children of its own is the stem, if there is such a child. The
    cut is verified: the parts give the logits of the whole bit for bit (`sftn.networks.foreign.cut.staged`).

    Args:
        module: returns (B, K) logits for (B, C, H, W) images.
        image: (C, H, W) of the images.

    Raises:
        InputError: it cannot be cut like that; the message gives a call of `sftn.staged` to adapt.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(),
        ...                     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> len(cut(net, (3, 32, 32)).stages)
        2
    """
    if isinstance(module, StagedNet):
        return module
    name = type(module).__name__
    outputs = _outputs(module, image)
    maps = [child for child, shape in outputs if len(shape) == 4 and min(shape[2:]) > 1]
    sizes = dict(outputs)
    body = maps[: next((k for k, child in enumerate(maps) if _pools(module.get_submodule(child))), len(maps))]
    first = next((k for k, child in enumerate(body) if len(list(module.get_submodule(child).children()))), 0)
    stem, rest = body[:first], body[first:]
    stages = [list(names) for _, names in groupby(rest, key=lambda child: sizes[child][2:])]
    head = [child for child, _ in outputs if child not in body]
    try:
        if not stages or not head:
            raise InputError("its children do not return maps followed by a classifier")
        return staged(module, image, stem=stem, stages=stages, head=head)
    except InputError as error:
        call = f"sftn.staged(net, {image}, stem={stem}, stages={stages or [['…']]}, head={head or ['…']})"
        raise InputError(
            f"{name} cannot be cut into stages automatically ({error}): name its parts, as in {call}"
        ) from error


@torch.no_grad()
def _outputs(module: nn.Module, image: Shape) -> list[tuple[str, tuple[int, ...]]]:
    """List direct children in the order in which they finish, with the shapes of their outputs."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen.append((name, tuple(output.shape)))

        return hook

    handles = [child.register_forward_hook(note(name)) for name, child in module.named_children()]  # type: ignore[arg-type]
    try:
        with eval_mode(module):
            logits = module(torch.zeros(2, *image).to(next(module.parameters())))
    except StopIteration:
        raise InputError(f"{type(module).__name__} has no parameters: there is nothing to train") from None
    except Exception as error:
        size = "×".join(map(str, image))
        raise InputError(
            f"{type(module).__name__} cannot take images of {size} ({first_line(error)}): give it networks and images "
            "that fit"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise InputError(f"{type(module).__name__} does not return (B, K) logits: wrap it in a module that does")
    return list(dict(seen).items())


def _pools(child: nn.Module) -> bool:
    return isinstance(child, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.Flatten)
