"""Read a pickle that somebody else wrote without letting it build anything but plain data."""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

_ELEMENTS = frozenset({"b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"})


class Array:
    """Stands where the pickle wants a NumPy array: takes its parts, checks them, and views their bytes.

    NumPy's own reconstruction is never called: a forged dtype or shape reaches none of its code.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, columns_first, raw = state
        self._view(raw, dtype, shape, "F" if columns_first else "C")

    def _view(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray)):
            raise pickle.UnpicklingError("an array of something else than numbers")
        flat: NDArray[Any] = np.frombuffer(raw, dtype.value)
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array of an impossible shape")
        self.value = flat.reshape(tuple(shape), order="F" if order == "F" else "C")


class _Dtype:
    """Stands for `numpy.dtype`: integers and booleans in little-endian order."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_flags: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if code not in _ELEMENTS:
            raise pickle.UnpicklingError(f"an array of {str(code)[:20]!r}")
        self.value = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|", b"<", b"|"):
            raise pickle.UnpicklingError("an array in another byte order")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # New functions at each call: a pickle may set attributes on what it is given.
        def empty(*_arguments: Any) -> Array:
            return Array()

        def frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
            array = Array()
            array._view(raw, dtype, shape, order)
            return array

        def encode(text: str, encoding: str) -> bytes:
            if encoding not in ("latin1", b"latin1"):
                raise pickle.UnpicklingError("bytes in another encoding")
            return str.encode(text, "latin1")

        # NumPy 2 renamed its core; Python 2 and 3 name bytes differently.
        match module.replace("numpy._core", "numpy.core"), name:
            case "numpy.core.multiarray", "_reconstruct":
                return empty
            case "numpy.core.numeric", "_frombuffer":
                return frombuffer
            case "numpy", "ndarray":
                return "ndarray"  # only ever an argument of _reconstruct
            case "numpy", "dtype":
                return _Dtype
            case "_codecs", "encode":
                return encode
            case _:
                self._refuse(module, name)

    def persistent_load(self, pid: Any) -> NoReturn:
        self._refuse("persistent", str(pid))

    @staticmethod
    def _refuse(module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants {f'{module}.{name}'[:80]!r}, which is no plain data")


def unpickle(raw: bytes) -> Any:
    """The dicts, lists, tuples, strings, bytes, numbers and arrays (as `Array`) of a pickle; Python 2 strings as bytes.

    Raises:
        pickle.UnpicklingError: it is truncated, is no pickle, or wants to build or call anything else. Nothing has run.
    """
    try:
        return _Restricted(io.BytesIO(raw), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # Forged opcodes make the unpickler fail in many ways; each of them means the same.
        raise pickle.UnpicklingError(f"it is truncated or no pickle ({type(error).__name__})") from error
