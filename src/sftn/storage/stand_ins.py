"""What a pickle may build in place of others' classes: checked arrays, and placeholders that do nothing.

`sftn.storage.safe_pickle` never imports what a pickle names; it looks the name up among builders such as these.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ELEMENTS = frozenset({"b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"})


class Forbidden(pickle.UnpicklingError):
    """The pickle tries to build or call something other than plain data, called `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it refers to {name!r}, which is not plain data")
        self.name = name


class Array:
    """Replaces a NumPy array in a pickle: takes its parts, checks them, and views their bytes.

    NumPy's own reconstruction is never called: a forged dtype or shape does not reach its code.
    """

    __slots__ = ("value",)

    def __init__(self, *_arguments: Any) -> None:
        self.value: NDArray[Any] = np.empty(0, np.uint8)

    def build(self, state: Any) -> None:
        """Take the state that `ndarray.__setstate__` would."""
        _version, shape, dtype, columns_first, raw = state
        self._view(raw, dtype, shape, "F" if columns_first is True else "C")

    @staticmethod
    def frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
        """Build an array from the form that NumPy writes since protocol 5."""
        array = Array()
        array._view(raw, dtype, shape, order)
        return array

    def _view(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        if not isinstance(dtype, Dtype) or not isinstance(raw, (bytes, bytearray)):
            raise pickle.UnpicklingError("an array of something other than numbers")
        flat: NDArray[Any] = np.frombuffer(raw, dtype.value)
        if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array of an impossible shape")
        self.value = flat.reshape(shape, order="F" if order == "F" else "C")


class Dtype:
    """Replaces `numpy.dtype`: integers and booleans in little-endian order only."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_flags: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or code not in _ELEMENTS:
            raise pickle.UnpicklingError("an array of something other than integers")
        self.value = np.dtype(f"<{code}")

    def build(self, state: Any) -> None:
        """Take the state that `dtype.__setstate__` would: only the byte order matters."""
        if state[1] not in ("<", "|", b"<", b"|"):
            raise pickle.UnpicklingError("an array in another byte order")


@dataclass(frozen=True)
class Builder:
    """The replacement of a global name: the only thing that a pickle can call."""

    name: str
    make: Callable[..., Any]


class Inert:
    """Stands for an object of a class that is not known here: nothing of the class is run or imported.

    Attributes and items that the pickle gives the object are held by name (text), because a pickled module has its
    weights there; everything else is dropped.
    """

    __slots__ = ("held",)

    def __init__(self, *_arguments: Any) -> None:
        self.held: dict[str, Any] = {}

    def hold(self, state: Any) -> None:
        """Take what `__setstate__` would get: a dict of attributes, or a pair of dicts."""
        for part in state if isinstance(state, tuple) else (state,):
            if type(part) is dict:
                self.held.update({key: value for key, value in part.items() if type(key) is str})


_RUNS_CODE = frozenset(
    {"os", "posix", "nt", "subprocess", "sys", "socket", "shutil", "runpy", "importlib", "pty", "io"}
)
"""Modules whose names nobody has beside weights: a file that refers to them is refused, not only left unexecuted."""
_CALLS = frozenset({"eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"})


def inert(name: str) -> Builder:
    """The placeholder for an unknown global name, for `unpickle`.

    Raises:
        Forbidden: the name only serves to run code.
    """
    module, _, last = name.rpartition(".")
    if module.partition(".")[0] in _RUNS_CODE or (module in ("builtins", "__builtin__") and last in _CALLS):
        raise Forbidden(name[:80])
    return Builder(name, Inert)


ARRAYS: Mapping[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.numeric._frombuffer": Array.frombuffer,
    "numpy.ndarray": Array,  # only ever an argument of _reconstruct
    "numpy.dtype": Dtype,
}
"""Builders for NumPy arrays."""
