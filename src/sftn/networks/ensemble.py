"""Ensemble: several frozen teachers as one network, whose logits stand side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks.staged import Activations, StagedNet


class Ensemble(StagedNet):
    """Several teachers, each asked once for a batch; `sftn.methods.ensemble` combines what they answer.

    It is the first teacher, stem, stages and head, so methods that read features learn from that one. Only
    `activations` asks the others as well, for their logits; `forward` and `shapes` are those of the first.

    Args:
        members: two networks or more, of the same classes in the same order; none is copied.

    Raises:
        InputError: there are fewer than two.
    """

    def __init__(self, members: Sequence[StagedNet]) -> None:
        if len(members) < 2:
            raise InputError(f"an ensemble of {len(members)} teachers: give at least two")
        first, *others = members
        name = " and ".join(member.name for member in members)
        super().__init__(first.stem, list(first.stages), first.head, name)
        self.others = nn.ModuleList(others)
        self._first_name = first.name

    def __len__(self) -> int:
        """Number of teachers."""
        return 1 + len(self.others)

    @property
    def first(self) -> StagedNet:
        """The first teacher, which shares its modules with this one."""
        return StagedNet(self.stem, list(self.stages), self.head, self._first_name).train(self.training)

    @property
    def members(self) -> list[StagedNet]:
        """All teachers in their order."""
        return [self.first, *self.others]

    def each(self, change: Callable[[StagedNet], StagedNet]) -> Ensemble:
        """The ensemble of the changed teachers."""
        return Ensemble([change(member) for member in self.members])

    def activations(self, images: Tensor) -> Activations:
        """The first teacher's activations of (B, C, H, W) images, with the logits of all M side by side, (B, M·K)."""
        own = super().activations(images)
        return own._replace(logits=torch.cat([own.logits, *(other(images) for other in self.others)], dim=1))


def first_of(teacher: StagedNet) -> StagedNet:
    """The teacher that methods on features learn from: the first of several."""
    return teacher.first if isinstance(teacher, Ensemble) else teacher
