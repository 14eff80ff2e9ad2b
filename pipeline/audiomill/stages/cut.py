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
from audiomill.audio.recording import Cut
from audiomill.errors import RecordingRejected
from audiomill.stages.read import Finished


class RecordingReader(Protocol):
    """Reads one plan row; raises Rejected. See `audiomill.stages.read.read_recording`."""

    def read(self, row: dict[str, Any]) -> Iterator[Cut | Finished]: ...


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
                if isinstance(event, Cut):
                    yield from piece.add_cut(row, event)
                else:
                    yield from piece.finish_recording(row, event)
        except RecordingRejected as rejected:
            piece.reject(row, rejected)
    yield piece.close(last=True, planned=[row["id"] for row in rows])


class _PieceBuilder:
    """Collects cuts and endings into `schema.PIECE` rows of bounded size."""

    def __init__(self, part: int, piece_samples: int) -> None:
        self._part, self._limit, self._number = part, piece_samples, 0
        self._clear()

    def _clear(self) -> None:
        self._cuts: list[dict[str, Any]] = []
        self._pcm: list[NDArray[np.int16]] = []
        self._forms: list[tuple[NDArray[np.float32], ...]] = []
        self._num_samples = 0
        self._latest: dict[tuple[str, int | None], Cut] = {}
        self._seam: list[tuple[dict[str, Any], Cut, Cut | None]] = []
        self._endings: list[dict[str, Any]] = []
        self._rejections: list[dict[str, Any]] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add_cut(self, row: dict[str, Any], cut: Cut) -> Iterator[pa.Table]:
        """Takes a segment; yields the piece before it if that is full.

        Windows that share context are repeated as halos on both sides of the seam between two pieces, so
        that a word across the seam is whole for the side that owns it. All channels cross it together.
        """
        if not self._cuts or self._num_samples < self._limit:
            self._append(row, cut, is_overlap_copy=False)
            return
        before = self._latest.pop((row["id"], cut.channel), None) if cut.left else None
        self._seam.append((row, cut, before))
        if before is not None:
            self._append(row, cut, is_overlap_copy=True)
            self._latest.pop((row["id"], cut.channel))
        if cut.left and any(recording_id == row["id"] for recording_id, _ in self._latest):
            return  # the other channels' windows at this seam are still to come
        yield from self._cross_seam()

    def _cross_seam(self) -> Iterator[pa.Table]:
        """Closes the piece and starts the next one with the windows behind the seam."""
        seam, self._seam = self._seam, []
        yield self.close(last=False)
        for each_row, each, is_overlap_copy in seam:
            if is_overlap_copy is not None:
                self._append(each_row, is_overlap_copy, is_overlap_copy=True)
            self._append(each_row, each, is_overlap_copy=False)

    def _append(self, row: dict[str, Any], cut: Cut, is_overlap_copy: bool) -> None:
        fields: dict[str, Any] = {
            "channel": cut.channel,
            "start": cut.start,
            "stop": cut.stop,
            "left": cut.left,
            "right": cut.right,
        }
        fields |= {"speech": cut.speech, "forms": [len(form) for form in cut.forms], "vad_mask": cut.vad_mask}
        self._cuts.append(
            {"recording_id": row["id"], **fields, "is_overlap_copy": is_overlap_copy, "language": row["language"]}
        )
        self._pcm.append(cut.pcm_T)
        self._forms.append(cut.forms)
        self._num_samples += len(cut.pcm_T)
        self._latest[(row["id"], cut.channel)] = cut

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
        keep = [index for index, cut in enumerate(self._cuts) if cut["recording_id"] != row["id"]]
        self._cuts, self._pcm = [self._cuts[i] for i in keep], [self._pcm[i] for i in keep]
        self._forms = [self._forms[i] for i in keep]
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
            "pcm": _end_to_end([self._pcm]),
            "forms": _listed(_end_to_end(list(zip(*self._forms, strict=True)))),
            "cuts": [self._cuts],
            "endings": [self._endings],
            "rejections": [self._rejections],
            "planned": [list(planned)],
            "seconds": [list(self._seconds.items())],
        }
        self._number += 1
        self._clear()
        return pa.table(values, schema=schema.PIECE)


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
