"""Reads untrusted pickles without executing them.

The standard library's disassembler (`pickletools`) reads the opcodes; the stack machine here implements those of plain
data. A global name is looked up among the few builders that the caller gives and is never imported, so a pickle cannot
call anything else: objects of other classes are refused, or become inert placeholders where the caller asks for that.
No memory is allocated by a claimed size before its bytes are there, keys are text, bytes or numbers (nested tuples hash
in exponential time), and the number of opcodes is bounded.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from sftn.storage.stand_ins import ARRAYS, Array, Builder, Dtype, Forbidden, Inert

__all__ = ["ARRAYS", "Builder", "Forbidden", "unpickle"]

OPERATIONS = 2**19
"""Most opcodes in a pickle; CIFAR-100's largest file has 0.2 million. A one-byte opcode may cost 64 bytes of memory."""
ENCODED = 2**28
"""Most bytes that a pickle below protocol 3 may encode as text."""
_KEYS = (str, bytes, int)
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_RAW = {"BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
"""Opcodes with bytes as their argument, and the size in bytes of the argument's length field."""
_LONG = 2**16
"""Length in bytes from which an argument is read in place: CIFAR-100's pixels would otherwise exist up to 4 times."""


def unpickle(
    source: bytes | BinaryIO,
    builders: Mapping[str, Callable[..., Any]] = ARRAYS,
    persistent: Callable[[Any], Any] | None = None,
    *,
    text: bool = False,
    unknown: Callable[[str], Builder] | None = None,
) -> Any:
    """Read a pickle of dicts, lists, tuples, strings, bytes, numbers and objects that `builders` makes.

    Args:
        source: the pickle, or an open file (a BytesIO, a mapped file) positioned at its first byte; it is left after
            the last one.
        builders: builders by the full name used in a pickle; `numpy._core` counts as `numpy.core`.
        persistent: makes the object of a persistent id.
        text: whether Python 2's strings become text (Latin-1) instead of bytes.
        unknown: what other names become, such as `inert`; None refuses them. With it, what weights never need (sets,
            other keys of dicts, calls of anything but builders) is replaced by placeholders or dropped.

    Raises:
        Forbidden: the pickle tries to build or call anything else. Nothing has been executed.
        pickle.UnpicklingError: it is truncated, not a pickle or has more than `OPERATIONS` opcodes.
    """
    try:
        return _Machine(builders, persistent, text, unknown).run(
            io.BytesIO(source) if isinstance(source, bytes) else source
        )
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # Forged opcodes fail in many ways, which all mean the same.
        raise pickle.UnpicklingError(f"it is truncated or not a pickle ({type(error).__name__})") from error


class _Machine:
    def __init__(
        self,
        builders: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any] | None,
        text: bool,
        unknown: Callable[[str], Builder] | None,
    ) -> None:
        self.builders, self.persistent, self.text, self.unknown = builders, persistent, text, unknown
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
                self.stack.append(items if name == "LIST" else self.filled({}, items))
            case "APPEND" | "APPENDS":
                items = self.marked() if name == "APPENDS" else [self.stack.pop()]
                if isinstance(self.stack[-1], Inert):
                    return
                if type(self.stack[-1]) is not list:
                    raise pickle.UnpicklingError("it appends to something other than a list")
                self.stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self.marked() if name == "SETITEMS" else [self.stack.pop(), self.stack.pop()][::-1]
                self.filled(self.stack[-1], items)
            case "GLOBAL":
                self.stack.append(self.named(value.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                last, module = self.stack.pop(), self.stack.pop()
                self.stack.append(self.named(f"{module}.{last}" if type(module) is type(last) is str else "nothing"))
            case "REDUCE" | "NEWOBJ":
                arguments, called = self.stack.pop(), self.stack.pop()
                if isinstance(called, Builder):
                    self.stack.append(called.make(*arguments))
                elif self.unknown is not None:
                    self.stack.append(Inert())
                else:
                    raise Forbidden("to call a value")
            case "BUILD":
                state, built = self.stack.pop(), self.stack[-1]
                if isinstance(built, (Array, Dtype)):
                    built.build(state)
                elif isinstance(built, Inert):
                    built.hold(state)  # attributes of other objects are ignored
            case "BINPERSID" if self.persistent is not None:
                self.stack.append(self.persistent(self.stack.pop()))
            case "BINPERSID" | "PERSID":
                raise Forbidden("persistent")
            case _ if self.unknown is not None:
                self.replace(name)
            case _:
                raise Forbidden(f"opcode {name}")

    def replace(self, name: str) -> None:
        """Execute an opcode for objects that become placeholders."""
        match name:
            case "EMPTY_SET":
                self.stack.append(Inert())
            case "ADDITEMS":
                self.marked()
            case "FROZENSET":
                self.marked()
                self.stack.append(Inert())
            case "NEWOBJ_EX":
                del self.stack[-3:]
                self.stack.append(Inert())
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
        if name in self.builders:
            return Builder(name, self.builders[name])
        if self.unknown is None:
            raise Forbidden(name[:80])
        return self.unknown(name)

    def filled(self, target: Any, items: list[Any]) -> Any:
        """Fill a dict with alternating keys and values; only text, bytes and integers may be keys."""
        keys, values = items[::2], items[1::2]
        if len(keys) != len(values) or not (type(target) is dict or isinstance(target, Inert)):
            raise pickle.UnpicklingError("it sets items of something other than a dict")
        if self.unknown is None and not all(type(key) in _KEYS for key in keys):
            raise pickle.UnpicklingError("it has a dict with invalid keys")
        known = {key: value for key, value in zip(keys, values) if type(key) in _KEYS}
        if isinstance(target, Inert):
            target.hold(known)
        else:
            target.update(known)
        return target

    def encode(self, text: str, encoding: str) -> bytes:
        """Decode bytes as written below protocol 3; the total is limited, because a text can be reused at will."""
        self.encoded += len(text)
        if encoding not in ("latin1", b"latin1") or not isinstance(text, str) or self.encoded > ENCODED:
            raise pickle.UnpicklingError("bytes in another encoding, or too many")
        return text.encode("latin1")
