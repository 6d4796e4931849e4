"""Reads untrusted pickles without executing them.

The standard library's disassembler (`pickletools`) reads the opcodes; the stack machine here implements those of plain
data. A global name is looked up among the few builders that the caller gives and is never imported, so a pickle cannot
call anything else. No memory is allocated by a claimed size before its bytes are there, keys are text, bytes or numbers
(nested tuples hash in exponential time), and the number of opcodes is bounded.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

OPERATIONS = 2**19
"""Most opcodes in a pickle; CIFAR-100's largest file has 0.2 million. A one-byte opcode may cost 64 bytes of memory."""
ENCODED = 2**28
"""Most bytes that a pickle below protocol 3 may encode as text."""
_ELEMENTS = frozenset({"b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"})
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_RAW = {"BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
"""Opcodes with bytes as their argument, and the size in bytes of the argument's length field."""
_LONG = 2**16
"""Length in bytes from which an argument is read in place: CIFAR-100's pixels would otherwise exist up to 4 times."""


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
        if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray)):
            raise pickle.UnpicklingError("an array of something other than numbers")
        flat: NDArray[Any] = np.frombuffer(raw, dtype.value)
        if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array of an impossible shape")
        self.value = flat.reshape(shape, order="F" if order == "F" else "C")


class _Dtype:
    """Replaces `numpy.dtype`: integers and booleans in little-endian order only."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_flags: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or code not in _ELEMENTS:
            raise pickle.UnpicklingError("an array of something other than integers")
        self.value = np.dtype(f"<{code}")

    def build(self, state: Any) -> None:
        if state[1] not in ("<", "|", b"<", b"|"):
            raise pickle.UnpicklingError("an array in another byte order")


@dataclass(frozen=True)
class Builder:
    """The replacement of a global name: the only thing that a pickle can call."""

    name: str
    make: Callable[..., Any]


ARRAYS: Mapping[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.numeric._frombuffer": Array.frombuffer,
    "numpy.ndarray": Array,  # only ever an argument of _reconstruct
    "numpy.dtype": _Dtype,
}
"""Builders for NumPy arrays."""


def unpickle(
    source: bytes | BinaryIO,
    builders: Mapping[str, Callable[..., Any]] = ARRAYS,
    persistent: Callable[[Any], Any] | None = None,
    *,
    text: bool = False,
) -> Any:
    """Read a pickle of dicts, lists, tuples, strings, bytes, numbers and objects that `builders` makes.

    Args:
        source: the pickle, or an open file (a BytesIO, a mapped file) positioned at its first byte; it is left after
            the last one.
        builders: builders by the full name used in a pickle; `numpy._core` counts as `numpy.core`.
        persistent: makes the object of a persistent id.
        text: whether Python 2's strings become text (Latin-1) instead of bytes.

    Raises:
        Forbidden: the pickle tries to build or call anything else. Nothing has been executed.
        pickle.UnpicklingError: it is truncated, not a pickle or has more than `OPERATIONS` opcodes.
    """
    try:
        return _Machine(builders, persistent, text).run(io.BytesIO(source) if isinstance(source, bytes) else source)
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # Forged opcodes fail in many ways, which all mean the same.
        raise pickle.UnpicklingError(f"it is truncated or not a pickle ({type(error).__name__})") from error


class _Machine:
    def __init__(
        self, builders: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any] | None, text: bool
    ) -> None:
        self.builders, self.persistent, self.text = builders, persistent, text
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.encoded = self.end = 0

    def run(self, stream: BinaryIO) -> Any:
        begin = stream.tell()
        stream.seek(0, io.SEEK_END)
        self.end = stream.tell()
        stream.seek(begin)
        for _ in range(OPERATIONS + 1):
            opcode = _OPCODES[stream.read(1)]
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _RAW and not (self.text and opcode.name == "BINSTRING"):
                self.stack.append(self.raw(stream, _RAW[opcode.name]))
            else:
                self.step(opcode.name, None if opcode.arg is None else opcode.arg.reader(stream))
        raise pickle.UnpicklingError(f"it has more than {OPERATIONS} opcodes")

    def raw(self, stream: BinaryIO, width: int) -> bytes | bytearray:
        """Read bytes after their length field; long ones as a bytearray, which an array can use as its memory."""
        count = int.from_bytes(stream.read(width), "little")
        if count > self.end - stream.tell():
            raise EOFError
        if count < _LONG or not hasattr(stream, "readinto"):
            return stream.read(count)
        content = bytearray(count)
        stream.readinto(content)
        return content

    def step(self, name: str, value: Any) -> None:
        """Execute one opcode; the frequent ones come first."""
        stack = self.stack
        match name:
            case "BININT" | "BININT1" | "BININT2" | "INT" | "LONG" | "LONG1" | "LONG4" | "BINFLOAT" | "FLOAT":
                stack.append(value)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":  # BINSTRING only as text
                stack.append(value if self.text else value.encode("latin1"))
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(value)
            case "SHORT_BINBYTES":
                stack.append(value)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[value] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[value])
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_LITERALS[name])
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                below = len(stack) - _TUPLES[name]
                items = tuple(stack[below:]) if below >= 0 else stack[below]
                del stack[below:]
                stack.append(items)
            case _:
                self.compose(name, value)

    def compose(self, name: str, value: Any) -> None:
        """Execute an opcode that builds containers, or objects from them."""
        match name:
            case "TUPLE":
                items = self.marked()
                self.stack.append(tuple(items))
            case "EMPTY_LIST" | "EMPTY_DICT":
                self.stack.append([] if name == "EMPTY_LIST" else {})
            case "LIST" | "DICT":
                items = self.marked()
                self.stack.append(items if name == "LIST" else _filled({}, items))
            case "APPEND" | "APPENDS":
                items = self.marked() if name == "APPENDS" else [self.stack.pop()]
                if type(self.stack[-1]) is not list:
                    raise pickle.UnpicklingError("it appends to something other than a list")
                self.stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self.marked() if name == "SETITEMS" else [self.stack.pop(), self.stack.pop()][::-1]
                _filled(self.stack[-1], items)
            case "GLOBAL":
                self.stack.append(self.named(value.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                last, module = self.stack.pop(), self.stack.pop()
                self.stack.append(self.named(f"{module}.{last}" if type(module) is type(last) is str else "nothing"))
            case "REDUCE" | "NEWOBJ":
                arguments, called = self.stack.pop(), self.stack.pop()
                if not isinstance(called, Builder):
                    raise Forbidden("to call a value")
                self.stack.append(called.make(*arguments))
            case "BUILD":
                state, built = self.stack.pop(), self.stack[-1]
                if isinstance(built, (Array, _Dtype)):
                    built.build(state)  # attributes of other objects are ignored
            case "BINPERSID" if self.persistent is not None:
                self.stack.append(self.persistent(self.stack.pop()))
            case "BINPERSID" | "PERSID":
                raise Forbidden("persistent")
            case _:
                raise Forbidden(f"opcode {name}")

    def marked(self) -> list[Any]:
        """Pop and return the items above the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def named(self, name: str) -> Builder:
        name = name.replace("numpy._core", "numpy.core", 1)  # renamed by NumPy 2
        if name == "_codecs.encode":
            return Builder(name, self.encode)
        if name not in self.builders:
            _forbid(name)
        return Builder(name, self.builders[name])

    def encode(self, text: str, encoding: str) -> bytes:
        """Decode bytes as written below protocol 3; the total is limited, because a text can be reused at will."""
        self.encoded += len(text)
        if encoding not in ("latin1", b"latin1") or not isinstance(text, str) or self.encoded > ENCODED:
            raise pickle.UnpicklingError("bytes in another encoding, or too many")
        return text.encode("latin1")


def _filled(target: Any, items: list[Any]) -> Any:
    """Fill a dict with alternating keys and values; only text, bytes and integers may be keys."""
    keys, values = items[::2], items[1::2]
    if type(target) is not dict or len(keys) != len(values):
        raise pickle.UnpicklingError("it sets items of something other than a dict")
    if not all(type(key) in (str, bytes, int) for key in keys):
        raise pickle.UnpicklingError("it has a dict with invalid keys")
    target.update(zip(keys, values))
    return target


def _forbid(name: str) -> NoReturn:
    raise Forbidden(name[:80])
