"""Splitting modules without changing what they compute: parts of a network, and their closing activations."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Hardswish, nn.GELU)
"""Modules that are split off when they close a stage."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_RELUS: set[Any] = {F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_"}
_ADDS: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_"}


class Opened(NamedTuple):
    """A module split into a body and its closing activation."""

    body: nn.Module
    """The module without the activation; parameters and their names are the same."""
    activation: nn.Module
    """The activation, out of place, so that its input is unchanged."""
    norm: str | None
    """Name in `body` of the batch norm before the activation, or on the longer arm of the sum before it."""


def restrict(module: nn.Module, keep: Collection[str]) -> nn.Module:
    """Make a shallow copy with only the submodules, parameters and buffers that `keep` names (dotted).

    The rest is removed from containers, which may become empty, and is an identity elsewhere. The original is
    unchanged.
    """
    own = {name for name in keep if "." not in name}
    clone = _shallow(module)
    # Some classes correct old key names while loading, which needs submodules that a part lacks.
    clone.__dict__["_load_from_state_dict"] = partial(nn.Module._load_from_state_dict, clone)
    hidden = module._non_persistent_buffers_set
    clone._parameters = {name: value for name, value in module._parameters.items() if value is None or name in own}
    clone._buffers = {name: v for name, v in module._buffers.items() if v is None or name in own or name in hidden}
    for name, child in module._modules.items():
        inner = [kept[len(name) + 1 :] for kept in keep if kept.startswith(f"{name}.")]
        if child is None or name in own:
            continue
        if inner or isinstance(child, _CONTAINERS):
            clone._modules[name] = restrict(child, inner)
        elif isinstance(module, _CONTAINERS):
            del clone._modules[name]
        else:
            clone._modules[name] = nn.Identity()
    return clone


def split_closing(model: nn.Module, steps: Sequence[object]) -> tuple[nn.Module, nn.Module | None, str | None]:
    """Split a model that runs `steps` in order before its closing activation.

    Returns the model without the activation, the activation, and the name of its batch norm; (model, None, None) if the
    last step does not end with an activation of `ACTIVATIONS`.
    """
    last = steps[-1] if steps else None
    opened = open_end(model.get_submodule(last)) if isinstance(last, str) else None
    if opened is None:
        return model, None, None
    norm = None if opened.norm is None else f"{last}.{opened.norm}".rstrip(".")
    before = steps[-2] if len(steps) > 1 else None
    if isinstance(opened.body, nn.Identity) and isinstance(before, str):
        inside = _ending_norm(model.get_submodule(before))
        norm = None if inside is None else f"{before}.{inside}".rstrip(".")
    return _with(model, str(last), opened.body), opened.activation, norm


def open_end(module: nn.Module) -> Opened | None:
    """Split a module before its closing activation; None if it has none or `torch.fx` cannot trace its forward."""
    if isinstance(module, ACTIVATIONS):
        return Opened(nn.Identity(), _out_of_place(module), None)
    if isinstance(module, nn.BatchNorm2d):
        # timm's batch norms include the activation that follows them.
        act = getattr(module, "act", None)
        if not isinstance(act, ACTIVATIONS):
            return None
        return Opened(_with(module, "act", nn.Identity()), _out_of_place(act), "")
    graph = _graph(module)
    if graph is None:
        return None
    last = _before_identities(graph.output_node().args[0], module)
    if last is None or not last.args or not isinstance(last.args[0], fx.Node):
        return None
    if last.op == "call_module":
        name = str(last.target)
        child = module.get_submodule(name)
        once = sum(node.target == name for node in graph.nodes) == 1
        if isinstance(child, ACTIVATIONS):
            norm = _norm_before(last.args[0], module)
            body = _with(module, name, nn.Identity()) if once else _without(module, last)
            return None if body is None else Opened(body, _out_of_place(child), norm)
        inner = open_end(child) if once else None
        if inner is None:
            return None
        norm = None if inner.norm is None else f"{name}.{inner.norm}".rstrip(".")
        return Opened(_with(module, name, inner.body), inner.activation, norm)
    if last.target in _RELUS:
        norm, body = _norm_before(last.args[0], module), _without(module, last)
        return None if body is None else Opened(body, nn.ReLU(), norm)
    return None


class _Calls(fx.Tracer):
    """Traces only a module's own forward: every submodule is one call."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _graph(module: nn.Module) -> fx.Graph | None:
    """Trace a module's forward, if it does the same in training and eval mode."""
    if type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential):
        return None
    mode, graphs = module.training, []
    try:
        for training in (True, False):
            module.training = training
            graphs.append(_Calls().trace(module))
    except Exception:  # forwards that depend on values or shapes fail in many ways
        return None
    finally:
        module.training = mode
    return graphs[1] if _lines(graphs[0]) == _lines(graphs[1]) else None


def _lines(graph: fx.Graph) -> list[str]:
    return [str(node.format_node()) for node in graph.nodes]


def _without(module: nn.Module, last: fx.Node) -> nn.Module | None:
    """Make the module without `last`, the node that it returns."""
    graph = last.graph
    last.replace_all_uses_with(last.args[0])  # type: ignore[arg-type]
    graph.erase_node(last)
    body = fx.GraphModule(module, graph)
    return body if body.state_dict().keys() == module.state_dict().keys() else None


def _norm_before(node: fx.Node, module: nn.Module) -> str | None:
    """Find the batch norm that computes a node; for a sum, that of the arm with more modules."""
    node = _before_identities(node, module) or node
    if node.op == "call_module":
        inside = _ending_norm(module.get_submodule(str(node.target)))
        return None if inside is None else f"{node.target}.{inside}".rstrip(".")
    if node.target in _ADDS:
        arms = [arm for arm in node.args if isinstance(arm, fx.Node)]
        return _norm_before(max(arms, key=lambda arm: _modules_behind(arm, module)), module) if arms else None
    return None


def _ending_norm(module: nn.Module) -> str | None:
    """Name of the batch norm, without activation, at the end of a module; "" if it is the module itself."""
    if isinstance(module, nn.BatchNorm2d):
        return None if isinstance(getattr(module, "act", None), ACTIVATIONS) else ""
    if type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential):
        return None
    graph = _graph(module)
    last = _before_identities(graph.output_node().args[0], module) if graph else None
    return _norm_before(last, module) if last is not None and last.op == "call_module" else None


def _before_identities(node: object, module: nn.Module) -> fx.Node | None:
    """Find the node that computes a value, skipping identities."""
    while isinstance(node, fx.Node) and node.op == "call_module":
        if not isinstance(module.get_submodule(str(node.target)), nn.Identity):
            return node
        node = node.args[0]
    return node if isinstance(node, fx.Node) else None


def _modules_behind(node: fx.Node, module: nn.Module) -> int:
    seen, waiting = set(), [node]
    while waiting:
        seen.add(here := waiting.pop())
        waiting += [before for before in here.all_input_nodes if before not in seen]
    called = [module.get_submodule(str(node.target)) for node in seen if node.op == "call_module"]
    return sum(len(list(child.modules())) for child in called)


def _out_of_place(activation: nn.Module) -> nn.Module:
    activation = copy.copy(activation)
    if hasattr(activation, "inplace"):
        activation.__dict__["inplace"] = False
    return activation


def _with(module: nn.Module, name: str, child: nn.Module) -> nn.Module:
    """Make a shallow copy with another submodule in place of `name` (dotted)."""
    first, _, rest = name.partition(".")
    clone = _shallow(module)
    clone._modules[first] = _with(module.get_submodule(first), rest, child) if rest else child
    return clone


def _shallow(module: nn.Module) -> nn.Module:
    clone = module.__new__(type(module))
    clone.__dict__ = module.__dict__.copy()
    for kind in ("_parameters", "_buffers", "_modules"):
        clone.__dict__[kind] = dict(module.__dict__[kind])
    return clone
