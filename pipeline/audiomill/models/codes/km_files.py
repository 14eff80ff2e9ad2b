"""k-means models of scikit-learn (`.km`, `.bin`, joblib, pickle), read as data: no object is made, no code is called.

joblib puts the bytes of an array right behind the record that describes it. Source: joblib numpy_pickle.py (format 0.10
and later).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import InputError
from audiomill.models.restricted_unpickler import UNREADABLE, StubUnpickler, UnpickledStub

ARRAY_WRAPPER = "NumpyArrayWrapper"
PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\xfd7": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
    b"\x78": zlib.decompress,
}
MAX_BYTES = 4_000_000_000


def centroids_of(content: bytes, name: str) -> NDArray[np.float32]:
    """`cluster_centers_` of a scikit-learn KMeans or MiniBatchKMeans.

    Raises:
        InputError: not such a file.
    """
    try:
        root = _read(io.BytesIO(_unpacked(content)))
    except (*UNREADABLE, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{name}: cannot be read as a scikit-learn k-means model ({error})") from error
    state = root.state if isinstance(root, UnpickledStub) else root
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


def _read(stream: IO[bytes]) -> Any:
    """The model, with stubs for objects; arrays of joblib are the `content` of theirs."""

    def take_array(stub: UnpickledStub) -> None:
        if stub.name.endswith(ARRAY_WRAPPER):
            stub.content = _raw_array(stub.state, stream)

    return StubUnpickler(stream, {}, take_array).load()


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
    if not isinstance(value, UnpickledStub):
        return None
    if value.content is not None:
        return value.content  # type: ignore[no-any-return]
    if value.name.endswith("._frombuffer"):  # protocol 5
        raw, dtype, shape, order = value.given
        return np.frombuffer(raw, _dtype(dtype)).reshape(shape, order=order)
    if isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, is_fortran, raw = value.state
        if isinstance(raw, UnpickledStub) and raw.name == "_codecs.encode":  # how protocol 2 writes bytes
            raw = raw.given[0].encode("latin1")
        return np.frombuffer(raw, _dtype(dtype)).reshape(shape, order="F" if is_fortran else "C")
    return None


def _dtype(record: UnpickledStub) -> np.dtype[Any]:
    """A plain numeric dtype from `numpy.dtype('f4', ...)` with its byte order."""
    is_big = isinstance(record.state, tuple) and record.state[1] == ">"
    dtype = np.dtype(str(record.given[0])).newbyteorder(">" if is_big else "<")
    if dtype.kind not in "fiu":
        raise ValueError(f"an array of {dtype}")
    return dtype
