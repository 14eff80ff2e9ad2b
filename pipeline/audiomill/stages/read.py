"""A planned recording -> its segments, with every failure named. Runs inside decode processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import SegmentSpec
from audiomill.audio.recording import Ending, RecordingSpec, StageClock, cut_recording
from audiomill.config.stages import DecodeConfig
from audiomill.errors import AudiomillError, RecordingRejected
from audiomill.sources.entry import Sidecar
from audiomill.sources.shards import ShardReader
from audiomill.storage.fs import is_transient
from audiomill.text.encodings import UnknownEncoding, decoded

NUM_READS = 4
_FIRST_DELAY_S = 0.5


class Finished(NamedTuple):
    """The last event of a recording: its account, and the text found beside it."""

    ending: Ending
    reference: str | None
    metadata: str | None
    seconds: dict[str, float]


def read_recording(
    row: dict[str, Any], reader: ShardReader, decode: DecodeConfig, segments: SegmentSpec, clock: StageClock
) -> Iterator[Segment | Finished]:
    """Segments of one plan row, then `Finished`. A broken connection is tried again where it stopped.

    Raises:
        RecordingRejected: the recording cannot be used; segments yielded before do not count.
    """
    num_given = 0
    for attempt in range(NUM_READS):
        try:
            for number, event in enumerate(_read_once(row, reader, decode, segments, clock)):
                if number >= num_given:
                    num_given += 1
                    yield event
            return
        except RecordingRejected:
            raise
        except Exception as error:
            reader.close()
            if attempt == NUM_READS - 1 or not is_transient(error):
                raise _named(error) from error
            clock.on_progress()
            time.sleep(_FIRST_DELAY_S * 2**attempt)


def _read_once(
    row: dict[str, Any], reader: ShardReader, decode: DecodeConfig, segments: SegmentSpec, clock: StageClock
) -> Iterator[Segment | Finished]:
    if row["reason"] is not None:
        raise RecordingRejected("plan", row["reason"], row["detail"] or "")
    clock.seconds.clear()
    before = time.perf_counter()
    spec = RecordingSpec(
        channels=decode.channels,
        track=decode.track if row["track"] is None else str(row["track"]),
        is_every_track=row["track"] is not None,
        channel=row["channel"],
        recording_id=row["id"],
        language=row["language"],
        start_s=row["span_start_s"],
        duration_s=row["span_duration_s"],
        min_s=decode.min_recording_seconds,
        max_s=decode.max_recording_hours * 3600,
    )
    with reader.open(row["source"], row["kind"], row["position"], row["size"]) as handle:
        clock.seconds["read"] += time.perf_counter() - before
        clock.on_progress()
        for event in cut_recording(handle, spec, segments, clock):
            if isinstance(event, Ending):
                reference, metadata, notes = _sidecar_texts(row, reader)
                note = "; ".join([*([event.notes] if event.notes else []), *notes]) or None
                yield Finished(event._replace(notes=note), reference, metadata, dict(clock.seconds))
            else:
                yield event


def _sidecar_texts(row: dict[str, Any], reader: ShardReader) -> tuple[str | None, str | None, list[str]]:
    """Reference text and metadata, from the plan, or else from the .txt and .json beside the audio; and notes on these."""
    reference, metadata = row["reference"], row["metadata"]
    notes = []
    for sidecar in (Sidecar(**fields) for fields in row["sidecars"] or ()):
        try:
            text, note = decoded(reader.sidecar(row["source"], row["kind"], sidecar))
        except UnknownEncoding as unknown:
            notes.append(f"the .{sidecar.kind} beside it is left out: {unknown}")
            continue
        notes += [f"the .{sidecar.kind} beside it is {note}"] if note else []
        if sidecar.kind.lower() == "txt" and reference is None:
            reference = text.strip()
        elif sidecar.kind.lower() == "json":
            metadata = metadata or text.strip()
    return (_text_of(metadata) if reference is None and metadata else reference), metadata, notes


def _text_of(text: str) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    result = value.get("text") if isinstance(value, dict) else None
    return result if isinstance(result, str) else None


def _named(error: Exception) -> RecordingRejected:
    """The rejection that an exception of a library stands for."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, FileNotFoundError):
        return RecordingRejected("read", "not_found", f"expected a file, got {detail}")
    if isinstance(error, MemoryError):
        return RecordingRejected("decode", "memory_limit", f"expected to fit the decode process, got {detail}")
    if isinstance(error, (OSError, pa.ArrowException, AudiomillError)) or is_transient(error):
        return RecordingRejected("read", "unreadable", f"expected readable bytes, got {detail}")
    return RecordingRejected("decode", "decode_failed", f"expected decodable audio, got {detail}")
