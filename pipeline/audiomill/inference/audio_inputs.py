"""What a model may be given in memory: paths, URLs, bytes, arrays, Hugging Face `Audio` values -> recordings of a plan.

T samples, C channels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiomill.audio.recording import LOUDEST
from audiomill.errors import RecordingRejected
from audiomill.sources.entry import Entry
from audiomill.storage.urls import absolute, protocol

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Samples a second that audio has."""
MAX_CHANNELS = 64
WAV, LONG_WAV = "WAV", "RF64"
MAX_WAV_BYTES = 2**32 - 2**16
_UNITS = {np.dtype(np.uint8): "PCM_U8", np.dtype(np.int16): "PCM_16", np.dtype(np.int32): "PCM_32"}
"""Integer samples, and how a WAV file says so: full scale is that of the type."""


class MemoryInput(NamedTuple):
    """One recording. `content`: its encoded bytes, where it is no file; `is_ours`: and they were encoded here; `seconds`: of it,
    where they are known."""

    entry: Entry
    content: bytes | None = None
    seconds: float | None = None
    is_ours: bool = False


def memory_input(audio: object, number: int, rate: int | None) -> MemoryInput:
    """An input as a recording. What cannot be one is a recording that its entry rejects.

    Args:
        audio: a path or URL, bytes of a file, an open file, an array (T), (T, C) or (C, T) of NumPy or torch, a pair of array
            and rate in either order, or a value of a Hugging Face `Audio` column.
        number: of the input, which names what has no name.
        rate: of arrays that come without one, in samples a second.
    """
    name = f"input-{number:06d}"
    try:
        return _taken(audio, name, rate)
    except RecordingRejected as rejected:
        return MemoryInput(Entry(name, reason=rejected.reason, detail=rejected.detail))


def _taken(audio: object, name: str, rate: int | None) -> MemoryInput:
    """Raises RecordingRejected for what is no audio."""
    if isinstance(audio, (str, os.PathLike)):
        path = os.fspath(audio)
        path = os.fsdecode(path) if isinstance(path, bytes) else path
        return MemoryInput(Entry(absolute(path), size=_size(path)))
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return MemoryInput(Entry(name, size=len(audio)), bytes(audio))
    if hasattr(audio, "get_all_samples"):  # a decoder of torchcodec, which newer versions of datasets give
        samples = audio.get_all_samples()
        return _array(samples.data, int(samples.sample_rate), name)
    if isinstance(audio, Mapping):
        return _hugging_face(audio, name, rate)
    if isinstance(audio, tuple) and len(audio) == 2:
        first, second = audio
        return _array(second, first, name) if isinstance(first, (int, np.integer)) else _array(first, second, name)
    if hasattr(audio, "read"):
        content = audio.read()
        if not isinstance(content, bytes):
            raise _rejected("a file opened for reading bytes", f"one that gives {type(content).__name__}")
        return MemoryInput(Entry(name, size=len(content)), content)
    return _array(audio, rate, name)


def _size(path: str) -> int | None:
    is_here = protocol(path) == "file"
    return os.path.getsize(path) if is_here and os.path.isfile(path) else None


def _hugging_face(value: Mapping[Any, Any], name: str, rate: int | None) -> MemoryInput:
    """A decoded value (`array`, `sampling_rate`) or one that is not decoded (`bytes`, `path`)."""
    if value.get("array") is not None:
        return _array(value["array"], value.get("sampling_rate", rate), name)
    if value.get("bytes") is not None:
        return _taken(value["bytes"], name, rate)
    if value.get("path") is not None:
        return _taken(value["path"], name, rate)
    raise _rejected(
        "a mapping with `array` and `sampling_rate`, `bytes` or `path`", f"one with {sorted(map(str, value))}"
    )


def _array(values: Any, rate: Any, name: str) -> MemoryInput:
    """Samples as the WAV file that they would be: what follows is what a file gets."""
    samples_TC = _samples(values)
    if rate is None:
        raise _rejected("the rate of an array", "none: say rate=16000, or give (array, rate)")
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer, float)) or int(rate) != rate:
        raise _rejected("a rate in whole samples a second", f"{rate!r}")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise _rejected(
            f"a rate from {MIN_RATE} to {MAX_RATE} Hz", f"{rate}: rates are in samples a second, not in thousands"
        )
    sink, unit = io.BytesIO(), _UNITS.get(samples_TC.dtype, "FLOAT")
    kind = WAV if samples_TC.nbytes < MAX_WAV_BYTES else LONG_WAV
    soundfile.write(sink, samples_TC, int(rate), unit, format=kind)
    return MemoryInput(Entry(name, size=sink.tell()), sink.getvalue(), len(samples_TC) / int(rate), is_ours=True)


def _samples(values: Any) -> NDArray[Any]:
    """samples_TC: uint8, int16, int32 or float32. Raises RecordingRejected for what no audio is."""
    if hasattr(values, "detach"):  # a torch tensor, on whatever device; NumPy has no bfloat16
        tensor = values.detach().cpu()
        values = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    if not isinstance(values, (np.ndarray, list)):
        raise _rejected("a path, URL, bytes, array, tensor or Hugging Face Audio value", type(values).__name__)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise _rejected("numbers in one or two dimensions", f"lists of different lengths ({error})") from error
    if array.dtype == np.int64:  # lists of whole numbers come as these
        array = array.astype(np.int16) if not array.size or np.abs(array).max() <= 32_768 else array
    if array.dtype not in _UNITS and array.dtype.kind != "f":
        raise _rejected("samples as uint8, int16, int32 or floats", f"{array.dtype}")
    if array.ndim not in (1, 2):
        raise _rejected(
            "an array of shape (T,), (T, C) or (C, T)", f"shape {array.shape}: give one recording at a time"
        )
    if array.ndim == 2 and 0 < array.shape[0] <= MAX_CHANNELS and array.shape[0] < array.shape[1]:
        array = array.T
    if array.ndim == 2 and array.shape[1] > MAX_CHANNELS:
        raise _rejected(f"{MAX_CHANNELS} channels at most", f"shape {array.shape}")
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        if array.size and np.isfinite(array).all() and (peak := float(np.abs(array).max())) > LOUDEST:
            raise _rejected(
                "floats from -1 to 1", f"{peak:g}: divide by full scale (32768 for 16 bits), or give integers"
            )
    return np.ascontiguousarray(array)


def _rejected(expected: str, got: str) -> RecordingRejected:
    return RecordingRejected("plan", "invalid_array", f"expected {expected}, got {got}")
