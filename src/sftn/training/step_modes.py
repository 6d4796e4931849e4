"""How the steps of a phase are taken: eagerly, compiled, or recorded once as a CUDA graph and then repeated.

On small images the kernels of a step are over sooner than Python can launch them. A graph launches all of them at
once: forward, backward, the sentinel's look and the optimiser's step, on tensors that stay where they are. What changes
from step to step is copied into them before: the batch, the learning rate (a tensor on the device, where the fused
optimiser reads it), and a frozen teacher's outputs where these are kept or shared. The smaller batch at an epoch's end
is taken eagerly.

What PyTorch sees to: random numbers of the device's generator are drawn anew at each replay, from its seed and
position, which then moves on as it would have, so a seed that is set between two replays holds; gradients, dropped at
the end of a step, live in the graph's own memory. The casts that autocast keeps are made and dropped inside the graph,
for the forward begins and ends there. To forbid them would change how gradients of weights that are used twice add up.
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
from sftn.runtime.processes import leads
from sftn.training.cuda_graph import GRAPHS, HostSync, Seen, line
from sftn.training.teacher_outputs import KnownOutputs, TeacherOutputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STEPS = ("eager", "compiled", "captured", "both")
"""`both` captures compiled steps."""
logger = logging.getLogger(__name__)


class Take(Protocol):
    """Takes one step: forward, backward, the sentinel's look, the optimiser's step."""

    def __call__(self, step: int, batch: Batch, *known: TeacherOutputs) -> Seen:
        """`step` is counted from 1 in its epoch; `known` is given to the task behind the batch."""


def resolve_step_mode(step: str, device: str, precision: str, processes: int) -> str:
    """The step mode that is possible, given the one that was asked for; a warning is logged if it is another one.

    Args:
        step: one of `STEPS`.
        device: kind of device.
        precision: float32, bf16 or float16, whose scaler decides after each step and so stays out of a graph.
        processes: that share every batch; they take their steps eagerly.

    Returns:
        One of `STEPS`.

    Raises:
        InputError: the name is unknown, or the device has no graphs.
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
    """Take the steps of a phase in one of the ways of `STEPS`.

    Args:
        step: as `resolve_step_mode` gave it.
        take: the eager step.
        task: that `take` computes the loss of.
        optimizer: that it uses; resumed already.
        fabric: device and precision.
        full: images of a whole batch.
    """
    if step in ("compiled", "both"):
        take = Compiled(take, task, fabric, full)
    return Captured(take, task, optimizer, fabric, full) if step in ("captured", "both") else take


def _looked_up(task: Any, fabric: Fabric, batch: Batch) -> Activations | tuple[()]:
    """The teacher's outputs for a batch, if they are looked up before its step: a lookup may wait for the device."""
    if not isinstance(outputs := getattr(task, "teacher_outputs", None), TeacherOutputs) or not outputs.before_step:
        return ()
    with fabric.autocast(), torch.no_grad():
        return outputs(task.teacher, fabric.strategy.precision.convert_input(batch.images), batch.index)


class Compiled:
    """Steps whose forward and backward are compiled for a whole batch; results agree with eager ones up to rounding."""

    def __init__(self, take: Take, task: nn.Module, fabric: Fabric, full: int) -> None:
        self.take, self.task, self.fabric, self.full = take, task, fabric, full
        torch._dynamo.reset()  # what was compiled for the phase or run before counts against a limit
        task.compile(dynamic=False)

    def __call__(self, step: int, batch: Batch, *known: TeacherOutputs) -> Seen:
        """Take one.

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
    """Steps recorded once, and repeated for every whole batch.

    Recording takes some steps with the batch that is there (`sftn.training.cuda_graph.WARM`). Afterwards weights,
    momentum, all buffers of the task (statistics of batch norms, banks of CRD) and random numbers are put back, so that
    training goes as if nothing had been. A step that waits for the device cannot be recorded: it is noticed before, and
    then all are taken eagerly.

    Results are those of eager steps bit for bit, but for the learning rate: a GPU is given it as float32, where eager
    steps have it as float64.

    Raises:
        InputError: on a call, if recording fails.
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
                # Zeros lead to what a first step does, which a graph would do every time.
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))

    def __call__(self, step: int, batch: Batch, *known: TeacherOutputs) -> Seen:
        """Take one."""
        if len(batch.labels) != self.full or not self.possible:
            return self.take(step, batch)
        given = self._given(batch)
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
        """What a step changes; it stays where it is from the first recorded step on."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        momenta = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*parameters, *(value for value in momenta if isinstance(value, Tensor)), *self.task.buffers()]

    def _given(self, batch: Batch) -> list[Tensor]:
        """What a step reads: the batch, and the teacher's outputs where these are looked up."""
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
