"""k-means models of scikit-learn (`.km`, `.bin`, joblib, pickle), read as data: no object is made, no code is called.

A pickle is a small program. Here its instructions are walked with `pickletools` and only those that build plain
values are followed; classes and calls stay records. joblib puts the bytes of an array right behind the record that
describes it. Sources: Python's pickletools; joblib numpy_pickle.py (format 0.10 and later).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickletools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import InputError

ARRAY_WRAPPER = "NumpyArrayWrapper"
PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\xfd7": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
    b"\x78": zlib.decompress,
}
MAX_BYTES = 4_000_000_000
STACKED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}


@dataclass
class Record:
    """Something that would have been an object: its class by name, the arguments it would have got, its state."""

    name: str
    arguments: Any = ()
    state: Any = None
    array: NDArray[Any] | None = None


@dataclass
class _Machine:
    """The stack of the walk."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        at = self.marks.pop()
        result, self.stack[at:] = self.stack[at:], []
        return result


def centroids_of(content: bytes, name: str) -> NDArray[np.float32]:
    """`cluster_centers_` of a scikit-learn KMeans or MiniBatchKMeans.

    Raises:
        InputError: not such a file.
    """
    try:
        root = _walk(io.BytesIO(_unpacked(content)))
    except (ValueError, IndexError, KeyError, TypeError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{name}: cannot be read as a scikit-learn k-means model ({error})") from error
    state = root.state if isinstance(root, Record) else root
    centers = state.get("cluster_centers_") if isinstance(state, dict) else None
    result = _array(centers)
    if result is None or result.ndim != 2:
        raise InputError(
            f"{name}: expected a k-means model with cluster_centers_, got {getattr(root, 'name', type(root).__name__)}"
        )
    return result.astype(np.float32)


def _unpacked(content: bytes) -> bytes:
    for magic, unpack in PACKED.items():
        if content.startswith(magic):
            return unpack(content)
    return content


def _walk(stream: IO[bytes]) -> Any:
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return machine.stack[-1]
        _step(machine, opcode.name, argument)
        if opcode.name == "BUILD" and machine.stack[-1].name.endswith(ARRAY_WRAPPER):
            machine.stack[-1].array = _raw_array(machine.stack[-1].state, stream)
    raise ValueError("cut short")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    stack = machine.stack
    if name in ("PROTO", "FRAME"):
        return
    if name in CONSTANTS:
        stack.append(CONSTANTS[name]())
    elif name == "MARK":
        machine.marks.append(len(stack))
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        parts = argument.split(" ") if name == "GLOBAL" else [stack.pop(-2), stack.pop()]
        stack.append(Record(".".join(parts)))
    elif name in ("REDUCE", "NEWOBJ"):
        arguments = stack.pop()
        stack.append(Record(stack.pop().name, arguments))
    elif name == "BUILD":
        state = stack.pop()
        stack[-1].state = state
    elif name in STACKED:
        count = STACKED[name]
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("TUPLE", "LIST"):
        result = machine.since_mark()
        stack.append(tuple(result) if name == "TUPLE" else result)
    elif name in ("APPEND", "SETITEM", "APPENDS", "SETITEMS", "ADDITEMS", "DICT"):
        _fill(machine, name)
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE", "PUT"):
        machine.memo[len(machine.memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(machine.memo[int(argument)])
    elif name == "POP":
        stack.pop()
    elif argument is not None:  # numbers, strings and bytes
        stack.append(argument)
    else:
        raise ValueError(f"instruction {name} has no place in a k-means model")


def _fill(machine: _Machine, name: str) -> None:
    stack = machine.stack
    if name == "DICT":
        stack.append({})
    if name in ("APPEND", "SETITEM"):
        count = 1 if name == "APPEND" else 2
        result, stack[-count:] = stack[-count:], []
    else:
        result = machine.since_mark()
    if name in ("SETITEM", "SETITEMS", "DICT"):
        stack[-1].update(zip(result[::2], result[1::2], strict=True))
    else:
        stack[-1].extend(result)


def _raw_array(state: dict[str, Any], stream: IO[bytes]) -> NDArray[Any]:
    """The array whose bytes stand behind its wrapper."""
    if state.get("numpy_array_alignment_bytes") is not None:
        stream.read(stream.read(1)[0])
    dtype, shape = _dtype(state["dtype"]), tuple(int(size) for size in state["shape"])
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if size > MAX_BYTES:
        raise ValueError(f"an array of {size} bytes")
    return np.frombuffer(stream.read(size), dtype).reshape(shape, order=state.get("order", "C"))


def _array(value: Any) -> NDArray[Any] | None:
    """An array from joblib's wrapper, or from the state that numpy pickles: (version, shape, dtype, is_fortran, bytes)."""
    if not isinstance(value, Record):
        return None
    if value.array is not None:
        return value.array
    if value.name.endswith("._frombuffer"):  # protocol 5
        raw, dtype, shape, order = value.arguments
        return np.frombuffer(raw, _dtype(dtype)).reshape(shape, order=order)
    if isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, is_fortran, raw = value.state
        if isinstance(raw, Record) and raw.name == "_codecs.encode":  # how protocol 2 writes bytes
            raw = raw.arguments[0].encode("latin1")
        return np.frombuffer(raw, _dtype(dtype)).reshape(shape, order="F" if is_fortran else "C")
    return None


def _dtype(record: Record) -> np.dtype[Any]:
    """A plain numeric dtype from `numpy.dtype('f4', ...)` with its byte order."""
    is_big = isinstance(record.state, tuple) and record.state[1] == ">"
    dtype = np.dtype(str(record.arguments[0])).newbyteorder(">" if is_big else "<")
    if dtype.kind not in "fiu":
        raise ValueError(f"an array of {dtype}")
    return dtype
