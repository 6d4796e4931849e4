"""Images that are no numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sftn.data.loader import Batch, Loader

BAD = 5
"""The step of a run, counted from 1, whose numbers are not finite; an epoch of 48 images has three."""


class BadImages(Loader):
    """The pixels of one batch are no numbers."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(super().epoch(epoch, start), start=1 + epoch * len(self) + start):
            yield batch._replace(images=batch.images * math.nan) if step == BAD else batch


class Without(Loader):
    """That batch is not there."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(super().epoch(epoch, start), start=1 + epoch * len(self) + start):
            if step != BAD:
                yield batch
