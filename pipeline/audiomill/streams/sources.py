"""Audio as it comes: files and URLs by the decode process, PCM without a header from files and standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.audio.resample import Resampler
from audiomill.config.stages import DecodeConfig, PlanConfig, SourceConfig
from audiomill.errors import InputError, RecordingRejected, UsageError
from audiomill.stages.plan import listed
from audiomill.stages.read import Finished
from audiomill.stages.sandbox import Decoder

STDIN = "-"
BLOCK_S = 60.0
"""Of a file at a time."""
BEHIND_THE_END = ("no_samples", "offset_out_of_range", "too_short")
"""Reasons for which a block behind others is not there."""
PIECE_S = 0.1
"""Of PCM at a time, so that words do not wait for more."""
RAW = SourceConfig()
HEADERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3\x03": "MP3", b"ID3\x04": "MP3"}
SAMPLE_BYTES = {"s16le": 2, "s32le": 4, "f32le": 4, "mulaw": 1, "alaw": 1}
SUBTYPES = {"s16le": "PCM_16", "s32le": "PCM_32", "f32le": "FLOAT", "mulaw": "ULAW", "alaw": "ALAW"}
"""As libsndfile names them."""


def open_stream(source: str, config: SourceConfig) -> Iterator[NDArray[np.int16]]:
    """pcm_T at 16 kHz, one channel, piece by piece.

    Raises:
        InputError: what came is no audio of the kind that was told.
    """
    if source == STDIN:
        yield from _raw(sys.stdin.buffer, config, "standard input")
    elif config.raw_rate is None and (config.raw_format, config.raw_channels) != (RAW.raw_format, RAW.raw_channels):
        raise UsageError(
            f"--raw-format and --raw-channels: {source} is read as a file with a header; add --raw-rate for one without"
        )
    elif config.raw_rate is not None:
        path = Path(source)
        if not path.is_file():
            raise UsageError(
                f"{source}: no such file; PCM without a header is read from a local file or from - (standard input)"
            )
        with path.open("rb") as file:
            yield from _raw(file, config, source)
    else:
        yield from _file(source, config)


def _raw(file: IO[bytes], config: SourceConfig, name: str) -> Iterator[NDArray[np.int16]]:
    rate, width = config.raw_rate or MODEL_SAMPLE_RATE, SAMPLE_BYTES[config.raw_format] * config.raw_channels
    resampler = Resampler(rate, 1)
    size, rest, is_first = max(1, int(PIECE_S * rate)) * width, b"", True
    while piece := _read(file, size):
        if is_first and (kind := HEADERS.get(piece[:4])) is not None:
            raise InputError(
                f"{name}: {kind} with a header, not plain PCM; name it as a file, or decode it before: "
                "ffmpeg -i INPUT -f s16le -ar 16000 -ac 1 - | audiomill listen -"
            )
        is_first, piece = False, rest + piece
        whole = len(piece) // width * width
        piece, rest = piece[:whole], piece[whole:]
        yield _int16(resampler.push(_mono(piece, config)))
    yield _int16(resampler.finish())
    if rest:
        print(
            f"note: {name}: the last {len(rest)} bytes are no whole sample of {width} bytes; they are left out",
            file=sys.stderr,
        )


def _read(file: IO[bytes], size: int) -> bytes:
    """What is there now, up to `size` bytes: a pipe is not waited for until it has filled them."""
    read1 = getattr(file, "read1", None)
    result: bytes = file.read(size) if read1 is None else read1(size)
    return result


def _mono(piece: bytes, config: SourceConfig) -> NDArray[np.float32]:
    """wave_T1 from -1 to 1."""
    wave_TC, _ = soundfile.read(
        io.BytesIO(piece),
        dtype="float32",
        always_2d=True,
        samplerate=config.raw_rate or MODEL_SAMPLE_RATE,
        channels=config.raw_channels,
        format="RAW",
        subtype=SUBTYPES[config.raw_format],
        endian="LITTLE",
    )
    return np.asarray(np.nan_to_num(wave_TC).mean(1, dtype=np.float32, keepdims=True), np.float32)


def _int16(wave_T1: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.asarray(np.rint(np.clip(wave_T1[:, 0], -1.0, 32767 / 32768) * 32768.0), np.int16)


def _file(source: str, config: SourceConfig) -> Iterator[NDArray[np.int16]]:
    """A recording, decoded block by block in the process that foreign bytes are kept to."""
    decode = DecodeConfig(channels="mix")
    listing = listed((source,), PlanConfig(storage_options=config.storage_options), decode, "")
    if len(listing.entries) != 1:
        raise InputError(f"{source}: holds {len(listing.entries)} recordings; name one audio file")
    (entry,) = listing.entries
    row = {**entry._asdict(), "id": entry.id}
    decoder = Decoder(decode, whole_spec(BLOCK_S + 2), listing.options(config.storage_options))
    start_s = row["span_start_s"] or 0.0
    try:
        while True:
            block = {**row, "span_start_s": start_s, "span_duration_s": BLOCK_S, "sidecars": None}
            try:
                events = list(decoder.read(block))
            except RecordingRejected as rejected:
                if start_s > (row["span_start_s"] or 0.0) and rejected.reason in BEHIND_THE_END:
                    return
                raise InputError(f"{source}: {rejected.reason}: {rejected.detail}") from rejected
            pcm_T = np.concatenate(
                [np.zeros(0, np.int16), *(each.pcm_T for each in events if isinstance(each, Segment))]
            )
            yield pcm_T[: samples_from_seconds(BLOCK_S)]
            if len(pcm_T) < samples_from_seconds(BLOCK_S):
                errors = [event.ending.error for event in events if isinstance(event, Finished) and event.ending.error]
                if errors:
                    raise InputError(f"{source}: {errors[0]}; the words so far are told")
                return
            start_s += BLOCK_S
    finally:
        decoder.close()
