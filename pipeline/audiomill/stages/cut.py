"""The read-decode-segment stage: plan rows of a part -> its pieces. Arrow out; no engine.

A part passes as one row. Only a part with more speech than `piece_samples` (a long recording) passes as
several, so that memory stays bounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill import schema
from audiomill.audio.cutting.segment import Segment
from audiomill.errors import RecordingRejected
from audiomill.stages.read import Finished


class RecordingReader(Protocol):
    """Reads one plan row; raises Rejected. See `audiomill.stages.read.read_recording`."""

    def read(self, row: dict[str, Any]) -> Iterator[Segment | Finished]: ...


def cut_part(
    part: int, rows: Sequence[dict[str, Any]], reader: RecordingReader, piece_samples: int
) -> Iterator[pa.Table]:
    """Reads, decodes and segments the recordings of one part.

    Args:
        part: its number.
        rows: its plan rows, in plan order.
        reader: gives the segments of a plan row.
        piece_samples: a piece is closed when it holds this much audio.

    Yields:
        One-row tables of `schema.PIECE`; the last one says so.
    """
    piece = _PieceBuilder(part, piece_samples)
    for row in rows:
        try:
            for event in reader.read(row):
                if isinstance(event, Segment):
                    yield from piece.add(event)
                else:
                    yield from piece.finish_recording(row, event)
        except RecordingRejected as rejected:
            piece.reject(row, rejected)
    yield piece.close(last=True, planned=[row["id"] for row in rows])


class _PieceBuilder:
    """Collects segments and endings into `schema.PIECE` rows of bounded size."""

    def __init__(self, part: int, piece_samples: int) -> None:
        self._part, self._limit, self._number = part, piece_samples, 0
        self._clear()

    def _clear(self) -> None:
        self._segments: list[Segment] = []
        self._num_samples = 0
        self._latest: dict[tuple[str, int | None], Segment] = {}
        self._seam: list[tuple[Segment, Segment | None]] = []
        self._endings: list[dict[str, Any]] = []
        self._rejections: list[dict[str, Any]] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, segment: Segment) -> Iterator[pa.Table]:
        """Takes a segment; yields the piece before it if that is full.

        Windows that share context are repeated as overlap copies on both sides of the seam between two pieces, so
        that a word across the seam is whole for the side that owns it. All channels cross it together.
        """
        if not self._segments or self._num_samples < self._limit:
            self._append(segment)
            return
        before = self._latest.pop(segment.track, None) if segment.left else None
        self._seam.append((segment, before))
        if before is not None:
            self._append(segment._replace(is_overlap_copy=True))
            self._latest.pop(segment.track)
        if segment.left and any(recording_id == segment.recording_id for recording_id, _ in self._latest):
            return  # the other channels' windows at this seam are still to come
        yield from self._cross_seam()

    def _cross_seam(self) -> Iterator[pa.Table]:
        """Closes the piece and starts the next one with the windows behind the seam."""
        seam, self._seam = self._seam, []
        yield self.close(last=False)
        for segment, before in seam:
            if before is not None:
                self._append(before._replace(is_overlap_copy=True))
            self._append(segment)

    def _append(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._num_samples += len(segment.pcm_T)
        self._latest[segment.track] = segment

    def finish_recording(self, row: dict[str, Any], finished: Finished) -> Iterator[pa.Table]:
        """Takes the account of a recording; a seam that not every channel will reach any more is crossed now."""
        if self._seam:
            yield from self._cross_seam()
        named = {name: row[name] for name in ("id", "source", "member")}
        texts = {"reference": finished.reference, "metadata": finished.metadata}
        self._endings.append({**named, **texts, **finished.ending._asdict()})
        for stage, seconds in finished.seconds.items():
            self._seconds[stage] += seconds

    def reject(self, row: dict[str, Any], rejected: RecordingRejected) -> None:
        self._seam = []
        self._segments = [segment for segment in self._segments if segment.recording_id != row["id"]]
        named = {name: row[name] for name in ("id", "source", "member")}
        self._rejections.append(
            {**named, "stage": rejected.stage, "reason": rejected.reason, "detail": rejected.detail}
        )

    def close(self, last: bool, planned: Sequence[str] = ()) -> pa.Table:
        assert not self._seam, "windows behind a seam belong to the next piece"
        values = {
            "part": [self._part],
            "piece": [self._number],
            "last": [last],
            "pcm": _end_to_end([[segment.pcm_T for segment in self._segments]]),
            "waves": _listed(_end_to_end(list(zip(*(segment.waves for segment in self._segments), strict=True)))),
            "segments": [[_plain_fields(segment) for segment in self._segments]],
            "endings": [self._endings],
            "rejections": [self._rejections],
            "planned": [list(planned)],
            "seconds": [list(self._seconds.items())],
        }
        self._number += 1
        self._clear()
        return pa.table(values, schema=schema.PIECE)


def _plain_fields(segment: Segment) -> dict[str, Any]:
    """A value of `schema.PIECE_SEGMENT`."""
    names = ("recording_id", "channel", "start", "left", "right", "is_overlap_copy", "language", "speech", "vad_mask")
    counts = {"num_samples": len(segment.pcm_T), "wave_samples": [len(wave_TK) for wave_TK in segment.waves]}
    return {name: getattr(segment, name) for name in names} | counts


def segments_of(piece: pa.Table, wave_channels: Sequence[int]) -> list[Segment]:
    """The segments of a piece, with zero-copy views of its samples.

    Args:
        piece: one row of `schema.PIECE`.
        wave_channels: of each form of the run, in the order of `Segment.waves`.
    """
    pcm_T = _view(piece.column("pcm").combine_chunks(), 0, np.int16)
    streams = piece.column("waves").combine_chunks().flatten()
    waves = [_view(streams, n, np.float32).reshape(-1, count) for n, count in enumerate(wave_channels[: len(streams)])]
    segments, at, wave_at = [], 0, [0] * len(waves)
    for fields in piece.column("segments").to_pylist()[0]:
        track, counts = (fields.pop("recording_id"), fields.pop("channel")), fields.pop("wave_samples")
        stop, wave_stop = at + fields.pop("num_samples"), [a + n for a, n in zip(wave_at, counts, strict=True)]
        mine = tuple(wave_TK[a:b] for wave_TK, a, b in zip(waves, wave_at, wave_stop, strict=True))
        segments.append(Segment(pcm_T[at:stop], track=track, waves=mine, **fields))
        at, wave_at = stop, wave_stop
    assert at == len(pcm_T), "segments cover the piece"
    return segments


def _view(column: Any, number: int, kind: type[Any]) -> NDArray[Any]:
    """The bytes of a value of a binary column as numbers, without a copy."""
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    buffer = array[number].as_buffer()
    return np.frombuffer(buffer, kind) if buffer is not None and buffer.size else np.zeros(0, kind)


def _end_to_end(streams: Sequence[Sequence[NDArray[Any]]]) -> pa.Array:
    """The bytes of each stream, without a copy more than joining takes."""
    joined = [np.concatenate(stream) if len(stream) != 1 else stream[0] for stream in streams if stream]
    sizes = [each.nbytes for each in joined] or [0] * len(streams)
    offsets = pa.py_buffer(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    flat = [np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in joined]
    data = flat[0] if len(flat) == 1 else np.concatenate([np.zeros(0, np.uint8), *flat])
    return pa.Array.from_buffers(pa.large_binary(), len(sizes), [None, offsets, pa.py_buffer(data)])


def _listed(values: pa.Array) -> pa.Array:
    """All values as one row."""
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
