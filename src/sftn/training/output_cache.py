"""Output cache: stores a frozen teacher's outputs, so that it is run only once on each view of an image."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from sftn.errors import InputError
from sftn.storage.row_store import RowStore

logger = logging.getLogger(__name__)
FLOOR = 16
"""Smallest batch that the teacher is run on: with fewer images, matrix products are rounded in another order."""
STEP = 4
"""Larger batches are multiples of this: for every new size oneDNN prepares all convolutions again."""
DOUBTED = 64
"""Outputs of other processes that are computed again and compared before the others are believed."""


def hit_rate(epochs: int, outcomes: int) -> float:
    """The expected share of lookups that hit, over `epochs` epochs of uniformly drawn augmentation outcomes."""
    return 1 - outcomes * (1 - (1 - 1 / outcomes) ** epochs) / epochs


class Rows(Protocol):
    """A table of outputs by place: the index of an image times the number of outcomes, plus the outcome."""

    places: int

    def find(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) places -> (n,) bool, which of them have an output; and the (k, D) outputs of those, in order."""

    def put(self, at: Tensor, outputs: Tensor) -> None:
        """Keep (n, D) outputs for (n,) places."""

    def others(self, at: Tensor) -> Tensor:
        """(n,) places with an output -> (n,) bool: which of these outputs came from another process."""


class InMemory:
    """Outputs in this process's memory; pages that are never written take none.

    Args:
        places: number of outputs.
        like: (…, D) an output, for its dtype.
        device: where they are kept.

    Raises:
        InputError: the memory cannot be allocated.
    """

    def __init__(self, places: int, like: Tensor, device: torch.device) -> None:
        def made(count: int, dtype: torch.dtype) -> Tensor:
            return _mapped(count, dtype) if device.type == "cpu" else torch.zeros(count, dtype=dtype, device=device)

        self.places = places
        self._outputs = made(places * like.shape[-1], like.dtype).view(places, -1)
        self._known = made(places, torch.bool)

    def find(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """As `Rows.find`."""
        known = self._known[at]
        return known, self._outputs[at[known]]

    def put(self, at: Tensor, outputs: Tensor) -> None:
        """As `Rows.put`."""
        self._outputs[at] = outputs
        self._known[at] = True

    def others(self, at: Tensor) -> Tensor:
        """None: no other process sees this memory."""
        return torch.zeros_like(at, dtype=torch.bool)


class OnDisk:
    """Outputs in stores that all processes of a machine share; with several stores, side by side.

    What cannot be written is not kept, and reported once.

    Args:
        stores: one or more, all with the same places.
        like: (…, D) an output, for its dtype; the stores' rows make up its bytes.
    """

    def __init__(self, stores: Sequence[RowStore], like: Tensor) -> None:
        self.places, self.dtype = stores[0].places, like.dtype
        self._stores: Sequence[RowStore] = stores
        self.filled = min(store.filled for store in stores)
        """Share of the places that had an output when the stores were opened."""
        self._own, self._writable = _mapped(self.places, torch.bool), True

    def find(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """As `Rows.find`."""
        found = [store.find(at.tolist()) for store in self._stores]
        known = torch.stack([torch.from_numpy(there) for there, _ in found]).all(0)
        return known, torch.cat([torch.from_numpy(rows) for _, rows in found], 1)[known].view(self.dtype)

    def put(self, at: Tensor, outputs: Tensor) -> None:
        """As `Rows.put`."""
        if not self._writable:
            return
        parts = outputs.contiguous().view(torch.uint8).split([store.width for store in self._stores], dim=1)
        try:
            for store, rows in zip(self._stores, parts):
                store.put(at.tolist(), rows.numpy())
        except OSError as error:
            logger.warning("a teacher's outputs are no longer kept in %s: %s", store.path, error.strerror or error)
            self._writable = False
            return
        self._own[at] = True

    def others(self, at: Tensor) -> Tensor:
        """As `Rows.others`."""
        return ~self._own[at]


class OutputCache:
    """A frozen teacher's outputs, stored by image and augmentation outcome as they were first computed.

    The teacher is run on the views that are missing, together with enough other images of the batch to make at least
    `FLOOR` and a multiple of `STEP`, or the whole batch. On a CPU an image's output is then usually the same, bit for
    bit, whichever images share its batch, so training proceeds as if the teacher had been run every time, provided that
    all batches have one size; `same_in_parts` checks this for a teacher on a device. Where it does not hold, an output
    is the one first computed, which differs from a new one by rounding only.

    Outputs that another process left on disk are compared with new ones until `DOUBTED` agree. If one does not agree,
    the stores are reported and no longer used.

    Finding the missing views waits for the device, which costs nothing on a CPU.

    Args:
        answer: (B, C, H, W) images -> (B, D); logits, embedding, or both side by side. Its dtype is kept.
        images: N, the number of images.
        outcomes: number of augmentation outcomes of an image: `Loader.views`.
        room: memory for outputs, in bytes; if N·outcomes·D numbers do not fit, only the first images are stored.
        rows: where outputs are stored, for the first images; None for memory within `room`.
        device: where outputs in memory are stored.

    Raises:
        InputError: at the first call, if the memory cannot be allocated.
    """

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor],
        images: int,
        outcomes: int,
        *,
        room: int = 2**31,
        rows: Rows | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.answer, self.images, self.outcomes, self.room = answer, images, outcomes, room
        self.device = torch.device(device)
        self._rows, self._doubted = rows, DOUBTED
        self.asked = self.hits = self.from_others = 0

    @torch.no_grad()
    def __call__(self, views: Tensor, index: Tensor, outcome: Tensor) -> Tensor:
        """The teacher's outputs, looked up where they are stored.

        Args:
            views: (B, C, H, W) augmented images.
            index: (B,) indices of the images.
            outcome: (B,) int64 augmentation outcome of each image, from 0, as `Loader.outcomes` gives it.

        Returns:
            (B, D) outputs.
        """
        self.asked += len(views)
        if self._rows is None:
            first = self.answer(views)
            row = self.outcomes * first.shape[1] * first.element_size()
            kept = max(1, min(self.images, self.room // row))
            self._rows = InMemory(kept * self.outcomes, first, self.device)
            self._keep(index, outcome, first)
            return first
        fits = (index < self.kept).nonzero()[:, 0]
        at = index[fits] * self.outcomes + outcome[fits]
        there, found = self._rows.find(at)
        known = torch.zeros(len(views), dtype=torch.bool, device=views.device)
        known[fits[there]] = True
        others = self._rows.others(at[there])
        if self._doubted and others.any():
            return self._compared(views, index, outcome, known, found)
        self.hits += len(found)
        self.from_others += int(others.sum())
        missing = (~known).nonzero()[:, 0]
        if not len(missing):
            return found
        beside = fits[there][: size(len(missing)) - len(missing)]
        fresh = self.answer(_like(views, views[torch.cat([missing, beside])]))[: len(missing)]
        self._keep(index[missing], outcome[missing], fresh)
        answers = fresh.new_empty(len(views), fresh.shape[1])
        answers[missing], answers[known] = fresh, found
        return answers

    @property
    def kept(self) -> int:
        """Number of images whose outputs are stored; 0 before the first call, unless they are on disk."""
        return 0 if self._rows is None else self._rows.places // self.outcomes

    @property
    def rate(self) -> float:
        """The share of outputs so far that were looked up."""
        return self.hits / max(1, self.asked)

    def _compared(self, views: Tensor, index: Tensor, outcome: Tensor, known: Tensor, found: Tensor) -> Tensor:
        """New outputs for a whole batch, with which those found for the `known` ones of its images are compared."""
        assert self._rows is not None
        fresh = self.answer(views)
        if torch.equal(fresh[known].view(torch.uint8), found.view(torch.uint8)):
            self._doubted = max(0, self._doubted - len(found))
        else:
            logger.warning(
                "outputs of a teacher on disk are not its own, and ignored: sftn runs cache --clear removes them"
            )
            self._rows, self._doubted = InMemory(self._rows.places, fresh, self.device), 0
            known = torch.zeros_like(known)
        self._keep(index[~known], outcome[~known], fresh[~known])
        return fresh

    def _keep(self, index: Tensor, outcome: Tensor, answers: Tensor) -> None:
        assert self._rows is not None
        fits = index < self.kept
        self._rows.put((index * self.outcomes + outcome)[fits], answers[fits])


def size(missing: int) -> int:
    """Images that the teacher is run on when `missing` are missing, if the batch has that many."""
    return max(FLOOR, STEP * -(-missing // STEP))


@torch.no_grad()
def same_in_parts(answer: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Whether outputs for parts of a batch, of all sizes that the cache uses, equal those for the whole bit for bit.

    Each part is a random selection of the batch in random order. For a batch of 64 this costs nine forward passes.
    """
    whole = answer(images)
    generator = torch.Generator().manual_seed(0)
    for count in (*range(FLOOR, len(images), STEP), len(images)):
        which = torch.randperm(len(images), generator=generator)[:count].to(images.device)
        if not torch.equal(answer(_like(images, images[which])), whole[which]):
            return False
    return True


def _like(images: Tensor, part: Tensor) -> Tensor:
    """Give a part of a batch the batch's memory format, which indexing may lose."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _mapped(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros in a separate memory map: pages are allocated when first written and freed when the tensor is dropped.

    Memory from malloc would be reused for activations, so the next run would not find it in one piece.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    try:
        pages = mmap.mmap(-1, count * dtype.itemsize, **private)
    except OSError as error:
        room = f"{count * dtype.itemsize / 2**30:.1f} GiB"
        raise InputError(
            f"a teacher's outputs may take {room}, which cannot be allocated: give a smaller --teacher-cache"
        ) from error
    return torch.frombuffer(pages, dtype=dtype)
