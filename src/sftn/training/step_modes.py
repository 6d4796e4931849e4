"""Step modes: how the steps of a phase are taken: eagerly, compiled, or captured once as a CUDA graph and replayed.

On small images the kernels of a step finish sooner than Python can launch them. A graph launches all of them at once:
forward, backward, the sentinel's record and the optimiser's step, on tensors with fixed addresses. What changes from
step to step is copied into them before each replay: the batch, the learning rate (a tensor on the device, where the
fused optimiser reads it), and a frozen teacher's outputs where these are stored or shared. The smaller batch at the end
of an epoch is run eagerly.

PyTorch takes care of the rest: each replay draws new random numbers from the device's generator, by its seed and
position, and advances it as an eager step would, so a seed set between two replays takes effect; gradients, dropped at
the end of a step, live in the graph's own memory. The casts that autocast caches are made and dropped inside the graph,
because the forward pass begins and ends there. Disabling that cache would change how gradients of weights that are used
twice are summed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from sftn.data.batch import Batch
from sftn.errors import InputError, unknown
from sftn.networks.staged import Activations
from sftn.runtime.leader import leads
from sftn.training.cuda_graph import GRAPHS, HostSync, Seen, line
from sftn.training.teacher_outputs import KnownOutputs, TeacherOutputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STEPS = ("eager", "compiled", "captured", "both")
"""Names of the step modes; `both` captures compiled steps."""
logger = logging.getLogger(__name__)


class Take(Protocol):
    """Takes one step: forward, backward, the sentinel's record, the optimiser's step."""

    def __call__(self, step: int, batch: Batch, *known: TeacherOutputs) -> Seen:
        """Take a step, counted from 1 in its epoch; `known` is passed to the task after the batch."""


def resolve_step_mode(step: str, device: str, precision: str, processes: int) -> str:
    """The step mode to use, given the requested one; a warning is logged if they differ.

    Args:
        step: the requested mode, one of `STEPS`.
        device: kind of device.
        precision: float32, bf16 or float16, whose scaler decides after each step and cannot be part of a graph.
        processes: number of processes that share every batch; several take their steps eagerly.

    Returns:
        One of `STEPS`.

    Raises:
        InputError: the mode is unknown, or the device has no graphs.
    """
    if step not in STEPS:
        raise unknown("step", step, STEPS)
    if step in ("captured", "both") and device not in GRAPHS:
        raise InputError(f"CUDA graphs need a CUDA GPU, not {device}: leave --cuda-graphs out")
    if processes > 1 and step != "eager":
        if leads():
            logger.warning("steps are taken eagerly, not %s: several processes share every batch", step)
        return "eager"
    if precision == "float16" and step in ("captured", "both"):
        instead = "eager" if step == "captured" else "compiled"
        logger.warning("steps are %s, not captured: float16's scaler decides after each of them", instead)
        return instead
    return step


def wrap_step(
    step: str,
    take: Take,
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
    full: int,
) -> Take:
    """Wrap the eager step of a phase in one of the modes of `STEPS`.

    Args:
        step: the mode, as `resolve_step_mode` returned it.
        take: the eager step.
        task: the task whose loss `take` computes.
        optimizer: the optimiser that `take` uses, already restored if the run resumes.
        fabric: device and precision.
        full: number of images of a full batch.
    """
    if step in ("compiled", "both"):
        take = Compiled(take, task, fabric, full)
    return Captured(take, task, optimizer, fabric, full) if step in ("captured", "both") else take


def _looked_up(task: Any, fabric: Fabric, batch: Batch) -> Activations | tuple[()]:
    """The teacher's outputs for a batch, if they are looked up before the step because that may wait for the device."""
    if not isinstance(outputs := getattr(task, "teacher_outputs", None), TeacherOutputs) or not outputs.before_step:
        return ()
    with fabric.autocast(), torch.no_grad():
        return outputs(task.teacher, fabric.strategy.precision.convert_input(batch.images), batch.index)


class Compiled:
    """Steps compiled forward and backward for a full batch; results agree with eager ones up to rounding."""

    def __init__(self, take: Take, task: nn.Module, fabric: Fabric, full: int) -> None:
        self.take, self.task, self.fabric, self.full = take, task, fabric, full
        torch._dynamo.reset()  # code compiled for earlier phases or runs counts against a limit
        task.compile(dynamic=False)

    def __call__(self, step: int, batch: Batch, *known: TeacherOutputs) -> Seen:
        """Take a step; a smaller batch is run eagerly.

        Raises:
            InputError: the task cannot be compiled on this machine.
        """
        if len(batch.labels) != self.full:
            with torch.compiler.set_stance("force_eager"):
                return self.take(step, batch)
        if not known and (outputs := _looked_up(self.task, self.fabric, batch)):
            known = (KnownOutputs(outputs),)
        try:
            return self.take(step, batch, *known)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise InputError(f"steps cannot be compiled here ({line(error)}): leave --compile out") from error


class Captured:
    """Steps captured once as a graph and replayed for every full batch.

    Capturing takes some steps on the first batch (`sftn.training.cuda_graph.WARM`). Afterwards weights, momentum, all
    buffers of the task (batch-norm statistics, CRD banks) and the random state are restored, so that training proceeds
    as if they had not been taken. A step that waits for the device cannot be captured: this is detected beforehand,
    and all steps are then taken eagerly.

    Results equal those of eager steps bit for bit, except through the learning rate, which a GPU gets as float32 where
    eager steps use float64.

    Raises:
        InputError: at the first call, if capturing fails.
    """

    def __init__(
        self,
        take: Take,
        task: nn.Module,
        optimizer: torch.optim.Optimizer,
        fabric: Fabric,
        full: int,
    ) -> None:
        self.take, self.task, self.optimizer, self.fabric, self.full = take, task, optimizer, fabric, full
        self.graph = GRAPHS[fabric.device.type]()
        self.possible = True
        self._static: list[Tensor] = []
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=fabric.device)
            for parameter in group["params"] if group["momentum"] else ():
                # Momentum from zeros equals a first step; a captured first step would be repeated every time.
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))

    def __call__(self, step: int, batch: Batch, *known: TeacherOutputs) -> Seen:
        """Take a step; a smaller batch is run eagerly."""
        if len(batch.labels) != self.full or not self.possible:
            return self.take(step, batch)
        given = self._inputs(batch)
        if not self._static:
            self._record(given)
        if [tensor.shape for tensor in given] != [tensor.shape for tensor in self._static]:
            return self.take(step, batch)
        for static, tensor in zip(self._static, given):
            static.copy_(tensor)
        self.graph.replay()
        values, row = self._seen
        return values.clone(), row.clone()

    def changed(self) -> list[Tensor]:
        """The tensors that a step changes; their addresses are fixed once a step is captured."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        momenta = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*parameters, *(value for value in momenta if isinstance(value, Tensor)), *self.task.buffers()]

    def _inputs(self, batch: Batch) -> list[Tensor]:
        """The tensors that a step reads: the batch, and the teacher's outputs if they are looked up."""
        leaves, self._form = tree_flatten(_looked_up(self.task, self.fabric, batch))
        return [*batch, *leaves]

    def _record(self, given: Sequence[Tensor]) -> None:
        static = [torch.empty_like(tensor).copy_(tensor) for tensor in given]
        images, labels, index, *leaves = static
        outputs = tree_unflatten(leaves, self._form)
        known = (KnownOutputs(outputs),) if outputs else ()

        def again() -> Seen:
            return self.take(1, Batch(images, labels, index), *known)

        changed = self.changed()
        before = [tensor.detach().clone() for tensor in changed]
        device = self.fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            try:
                self.graph.warm(again)
                self._seen = self.graph.record(again)
                self._static = static
            except HostSync as error:
                logger.warning("steps are taken eagerly, not captured: one of them waits for the GPU (%s)", error)
                self.possible = False
            finally:
                self.optimizer.zero_grad(set_to_none=True)
                with torch.no_grad():
                    for tensor, value in zip(changed, before):
                        tensor.copy_(value)
