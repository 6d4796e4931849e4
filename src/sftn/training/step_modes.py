"""How the steps of a phase are taken: eagerly, compiled, or recorded once as a CUDA graph and then repeated.

On small images the kernels of a step are over sooner than Python can launch them. A graph launches all of them at
once: forward, backward, the sentinel's look and the optimiser's step, on tensors that stay where they are. What changes
from step to step is copied into them before: the batch, the learning rate (a tensor on the device, where the fused
optimiser reads it), and what a frozen teacher answers where answers are kept or shared. The smaller batch at an epoch's
end is taken eagerly.

What PyTorch sees to: random numbers of the device's generator are drawn anew at each replay, from its seed and
position, which then moves on as it would have, so a seed that is set between two replays holds; gradients, dropped at
the end of a step, live in the graph's own memory. The casts that autocast keeps are made and dropped inside the graph,
for the forward begins and ends there. To forbid them would change how gradients of weights that are used twice add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from sftn.data.batch import Batch
from sftn.errors import InputError, unknown
from sftn.training.cuda_graph import GRAPHS, HostSync, Seen, line

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STEPS = ("eager", "compiled", "captured", "both")
"""`both` captures compiled steps."""
Take = Callable[[int, Batch], Seen]
"""(its number in the epoch, counted from 1; the batch): forward, backward, a look, the optimiser's step."""


def resolve_step_mode(step: str, device: str, precision: str, processes: int, say: Callable[[str], None]) -> str:
    """What is done of what was asked for.

    Args:
        step: one of `STEPS`.
        device: kind of device.
        precision: float32, bf16 or float16, whose scaler decides after each step and so stays out of a graph.
        processes: that share every batch; they take their steps eagerly.
        say: is told, in a line, if another one of `STEPS` comes back.

    Raises:
        InputError: the name is unknown, or the device has no graphs.
    """
    if step not in STEPS:
        raise unknown("step", step, STEPS)
    if step in ("captured", "both") and device not in GRAPHS:
        raise InputError(f"step {step} needs a CUDA GPU, not {device}: use --step eager or compiled")
    if processes > 1 and step != "eager":
        say(f"steps are taken eagerly, not {step}: several processes share every batch")
        return "eager"
    if precision == "float16" and step in ("captured", "both"):
        instead = "eager" if step == "captured" else "compiled"
        say(f"steps are {instead}, not captured: float16's scaler decides after each of them")
        return instead
    return step


def wrap_step(
    step: str,
    take: Take,
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
    full: int,
    say: Callable[[str], None] = print,
) -> Take:
    """Take the steps of a phase in one of the ways of `STEPS`.

    Args:
        step: as `resolve_step_mode` gave it.
        take: the eager step.
        task: that `take` computes the loss of.
        optimizer: that it uses; resumed already.
        fabric: device and precision.
        full: images of a whole batch.
        say: is told if steps cannot be captured after all.
    """
    if step in ("compiled", "both"):
        take = Compiled(take, task, full)
    return Captured(take, task, optimizer, fabric, full, say) if step in ("captured", "both") else take


class Compiled:
    """Steps whose forward and backward are compiled for a whole batch; results agree with eager ones up to rounding."""

    def __init__(self, take: Take, task: nn.Module, full: int) -> None:
        self.take, self.full = take, full
        torch._dynamo.reset()  # what was compiled for the phase or run before counts against a limit
        task.compile(dynamic=False)
        if getattr(task, "answers", None) is not None:
            task.answers = torch.compiler.disable(task.answers)

    def __call__(self, step: int, batch: Batch) -> Seen:
        """Take one.

        Raises:
            InputError: the task cannot be compiled on this machine.
        """
        if len(batch.labels) != self.full:
            with torch.compiler.set_stance("force_eager"):
                return self.take(step, batch)
        try:
            return self.take(step, batch)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise InputError(f"steps cannot be compiled here ({line(error)}): use --step eager") from error


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
        say: Callable[[str], None] = print,
    ) -> None:
        self.take, self.task, self.optimizer, self.fabric, self.full, self.say = (
            take,
            task,
            optimizer,
            fabric,
            full,
            say,
        )
        self.graph = GRAPHS[fabric.device.type]()
        self.answers: Callable[[Tensor, Tensor], Any] | None = getattr(task, "answers", None)
        self.possible = True
        self._static: list[Tensor] = []
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=fabric.device)
            for parameter in group["params"] if group["momentum"] else ():
                # Zeros lead to what a first step does, which a graph would do every time.
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))

    def __call__(self, step: int, batch: Batch) -> Seen:
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
        """The batch, and what the teacher is found to answer to it: whoever answers may wait, or serve others too."""
        if self.answers is None:
            return list(batch)
        with self.fabric.autocast(), torch.no_grad():
            answer = self.answers(self.fabric._precision.convert_input(batch.images), batch.index)
        leaves, self._form = tree_flatten(answer)
        return [*batch, *leaves]

    def _record(self, given: Sequence[Tensor]) -> None:
        static = [torch.empty_like(tensor).copy_(tensor) for tensor in given]
        images, labels, index, *answered = static
        answer = tree_unflatten(answered, self._form) if answered else None

        def recall(images: Tensor, index: Tensor) -> Any:
            return answer

        def again() -> Seen:
            if self.answers is not None:
                self.task.answers = recall  # type: ignore[assignment]
            try:
                return self.take(1, Batch(images, labels, index))
            finally:
                if self.answers is not None:
                    self.task.answers = self.answers  # type: ignore[assignment]

        changed = self.changed()
        before = [tensor.detach().clone() for tensor in changed]
        device = self.fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            try:
                self.graph.warm(again)
                self._seen = self.graph.record(again)
                self._static = static
            except HostSync as error:
                self.say(f"steps are taken eagerly, not captured: one of them waits for the GPU ({error})")
                self.possible = False
            finally:
                self.optimizer.zero_grad(set_to_none=True)
                with torch.no_grad():
                    for tensor, value in zip(changed, before):
                        tensor.copy_(value)
