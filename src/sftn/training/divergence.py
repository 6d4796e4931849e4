"""Sentinel: sums up the terms of the loss and finds the step at which a number went wrong, without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from sftn.errors import Diverged
from sftn.runtime.collectives import gathered, rank, total, world

if TYPE_CHECKING:
    from sftn.data.loader import Batches
    from sftn.training.phase import Phase
    from sftn.training.progress import Position

NORM, WEIGHTS = "gradient norm", "weights"


class Step(NamedTuple):
    """A step at which a number was not finite."""

    step: int
    """Counted from 1."""
    terms: dict[str, float]
    """The terms of its loss and the gradient's norm."""


class Sentinel:
    """Watches the numbers of one phase.

    Every step leaves its terms and the norm of its gradient on the device, and only `look` reads them: at an epoch's
    end and before a checkpoint, which also looks at the weights themselves. The norm takes one thread of a CPU under
    0.2 % of a step of resnet20 or wrn_16_2 on 64 images. Under float16 it is not taken: a gradient that overflows is
    part of finding the loss's scale, and the scaler leaves out its step.

    With `skip` a step whose numbers are not finite changes nothing: the fused optimiser is told so by a flag on the
    device, and the buffers that the forward changed (statistics of batch norms, banks of CRD) are put back from a copy
    of them that was made before. That costs two copies of all buffers a step.

    Several processes each see their own images; `look` and `totals` tell all of them of all images, so they find the
    same. With `skip` they agree at every step.

    Args:
        modules: what the phase trains.
        optimizer: of their parameters; fused.
        scaled: whether a scaler of float16 sees to the gradients.
        skip: whether bad steps are skipped.
    """

    def __init__(
        self, modules: Iterable[nn.Module], optimizer: torch.optim.SGD, *, scaled: bool = False, skip: bool = False
    ) -> None:
        self.optimizer, self.scaled, self.skip = optimizer, scaled, skip
        self.names: list[str] = []
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.buffers = list({id(b): b for module in modules for b in module.buffers()}.values())
        self._copies = [buffer.clone() for buffer in self.buffers] if skip else []
        if skip:
            for parameter in self.parameters:  # else a first step that is skipped would leave it uninitialised
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        floats = [t for t in (*self.parameters, *self.buffers) if t.is_floating_point()]
        # A buffer that was not finite from the start, such as a mask, is no sign of anything.
        self._finite = [t for t, fine in zip(floats, _all_finite(floats)) if fine]

    def begin(self, position: Position) -> None:
        """An epoch begins or goes on."""
        sums = position.sums or {}
        self.names = list(sums) or self.names
        self.sums = torch.tensor(list(sums.values()) or 0.0, dtype=torch.float64, device=self.parameters[0].device)
        if rank():  # of one process: they are added up over all
            self.sums.zero_()
        self.images, self.skipped = position.images, position.skipped
        self.first: Step | None = None
        """The first bad step since the epoch began or went on, once `look` has seen it."""
        self._seen: list[tuple[int, int, Tensor]] = []

    def before(self) -> None:
        """A step is about to begin."""
        for copy, buffer in zip(self._copies, self.buffers):
            copy.copy_(buffer)

    @torch.no_grad()
    def see(self, terms: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """A step's loss and gradient are there; the optimiser has not moved yet.

        Returns:
            The terms as they count, and with the gradient's norm as they are: for `note`.
        """
        self.names = list(terms)
        values = torch.stack([terms[name].detach().double() for name in self.names])
        seen = values
        if not self.scaled:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            seen = torch.cat([values, torch.nn.utils.get_total_norm(gradients).double().view(1)])
        if self.skip:
            bad = total((~seen.isfinite().all()).float()) > 0
            values = values.where(~bad, 0.0)
            if not self.scaled:
                self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            for copy, buffer in zip(self._copies, self.buffers):
                buffer.copy_(torch.where(bad, copy, buffer))
        return values, seen

    def note(self, step: int, seen: tuple[Tensor, Tensor], images: int) -> None:
        """What `see` gave is that of a step, counted from 1, with so many images."""
        values, row = seen
        self.sums = self.sums + values * images
        self._seen.append((step, images, row))

    def look(self) -> Step | None:
        """Read what was left on the device since the last look; the one thing here that waits for it.

        Returns:
            The first step with a number that is not finite and that was not skipped; None if all is well.
        """
        if not self._seen:
            return None
        steps, images, seen = zip(*self._seen)
        self._seen = []
        rows = torch.stack(seen)
        if world() > 1:  # the terms of all images: a number that is not finite anywhere makes them so everywhere
            own = rows.new_tensor(images).unsqueeze(1)
            both = total(torch.cat([rows * own, own], dim=1))
            rows, images = both[:, :-1] / both[:, -1:], tuple(round(count) for count in both[:, -1].tolist())
        numbers = rows.tolist()
        bad = [not all(map(math.isfinite, row)) for row in numbers]
        self.images += sum(count for count, wrong in zip(images, bad) if not wrong)
        self.skipped += sum(bad)
        names = [*self.names, NORM]
        if any(bad) and self.first is None:
            at = bad.index(True)
            self.first = Step(steps[at], dict(zip(names, numbers[at])))
        if any(bad) and not self.skip:
            return self.first
        if not all(_all_finite(self._finite)):
            return Step(steps[-1], dict(zip(names, numbers[-1])) | {WEIGHTS: math.nan})
        return None

    def totals(self) -> dict[str, float]:
        """The sums of the terms over the images of the epoch so far."""
        return dict(zip(self.names, total(self.sums).tolist()))


def diverged(phase: Phase, epoch: int, found: Step, loader: Batches) -> Diverged:
    """The error that says what a person needs to see why.

    Args:
        phase: which.
        epoch: counted from 0.
        found: the step.
        loader: tells which images that step had; they follow from the epoch.
    """
    index = gathered(next(iter(loader.epoch(epoch, start=found.step - 1))).index).tolist()
    rate = phase.schedule.lr_at(epoch)
    said = ", ".join(f"{name} {value:.4g}" for name, value in found.terms.items())
    some = ", ".join(map(str, index[:4])) + (" …" if len(index) > 4 else "")
    terms = {name: value if math.isfinite(value) else str(value) for name, value in found.terms.items()}
    return Diverged(
        f"{phase.name}, epoch {epoch + 1}, step {found.step}, learning rate {rate:g}: {said} (images {some})",
        {"phase": phase.name, "epoch": epoch + 1, "step": found.step, "lr": rate, "terms": terms, "images": index},
    )


def _all_finite(tensors: list[Tensor]) -> list[bool]:
    return torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).tolist() if tensors else []
