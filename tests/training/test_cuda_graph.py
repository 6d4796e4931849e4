"""How CUDA graphs are used, with stand-ins for PyTorch's streams and graphs: no GPU is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sftn.errors import InputError
from sftn.training.cuda_graph import WARM, CudaGraph, HostSync, Seen


class FakeCuda:
    """Stands in for torch.cuda's streams and graphs, and notes in which order they are used."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.mode = 0

    def graph(self, graph: Any, *, pool: Any, stream: Any, capture_error_mode: str) -> Any:
        self.calls.append(("capture", pool, capture_error_mode))

        @contextmanager
        def capturing() -> Iterator[None]:
            try:
                yield
            except RuntimeError:
                raise RuntimeError("operation failed due to a previous error during capture") from None

        return capturing()

    def set_sync_debug_mode(self, mode: Any) -> None:
        self.mode = mode
        self.calls.append(("sync", mode))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    stream = SimpleNamespace(wait_stream=lambda other: fake.calls.append("wait"))
    graph = lambda: SimpleNamespace(pool=lambda: "pool", replay=lambda: fake.calls.append("replay"))  # noqa: E731
    for name, value in {
        "CUDAGraph": graph,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "current_device": lambda: 0,
        "stream": lambda given: nullcontext(),
        "graph": fake.graph,
        "get_sync_debug_mode": lambda: fake.mode,
        "set_sync_debug_mode": fake.set_sync_debug_mode,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("sftn.training.cuda_graph._STREAMS", {})
    monkeypatch.setattr(CudaGraph, "_alive", type(CudaGraph._alive)())
    return fake


def test_a_graph_is_warmed_aside_and_shares_memory_with_others(cuda: FakeCuda) -> None:
    one, other = CudaGraph(), CudaGraph()
    function = lambda: cuda.calls.append("step") or (torch.zeros(1), torch.zeros(1))  # noqa: E731
    one.warm(function)
    assert cuda.calls == ["wait", *["step"] * (WARM - 1), ("sync", "error"), "step", ("sync", 0), "wait"]
    cuda.calls.clear()
    one.record(function)
    other.record(function)
    other.replay()
    capture = ["wait", ("capture", None, "thread_local"), "step", "wait"]
    assert cuda.calls == [*capture, *capture[:1], ("capture", "pool", "thread_local"), *capture[2:], "replay"]


def test_what_goes_wrong_with_a_graph_is_one_line(cuda: FakeCuda) -> None:
    def failing(error: Exception) -> Any:
        def function() -> Seen:
            if cuda.mode == 0 or isinstance(error, ZeroDivisionError):
                raise error
            raise RuntimeError("called a synchronizing CUDA operation")

        return function

    graph = CudaGraph()
    with pytest.raises(InputError, match=r"^a step cannot be captured \(no such kernel\): leave --cuda-graphs out$"):
        graph.record(failing(RuntimeError("no such kernel\nat line 3")))
    with pytest.raises(torch.OutOfMemoryError):
        graph.record(failing(torch.OutOfMemoryError("CUDA out of memory")))
    calls = iter([None, None])
    with pytest.raises(HostSync, match="synchronizing"):
        graph.warm(lambda: next(calls, None) or failing(RuntimeError())() if cuda.mode else (torch.zeros(1),) * 2)
    assert cuda.mode == 0
