from __future__ import annotations

import pytest
import torch

from sftn.errors import InputError
from sftn.runtime.memory import memory


def test_what_no_machine_can_allocate_is_told_in_one_line() -> None:
    """By PyTorch's own error, which has no type of its own on a CPU."""
    expected = r"^out of memory on cpu, in a test: .*, [\d.]+ \w+ more were needed; take less; .*$"
    with pytest.raises(InputError, match=expected), memory("cpu", lambda: "in a test", "take less"):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize(
    "said",
    [
        "MPS backend out of memory (MPS allocated: 8.00 GB, …)",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_libraries_whose_errors_have_no_type_are_known_by_what_they_say(said: str) -> None:
    with pytest.raises(InputError, match=r"^out of memory on "), memory("cpu", lambda: "", ""):
        raise RuntimeError(said)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"), memory("cpu", lambda: "", ""):
        torch.ones(2, 3) @ torch.ones(2, 3)
