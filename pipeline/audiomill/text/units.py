"""Discrete codes as text, for training language models: one line of units a recording."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audiomill.errors import InputError

Track = tuple[str, int | None]
"""Recording id and channel."""


class UnitLine(NamedTuple):
    """Of a recording, or one of its channels; `durations`: frames of each unit."""

    recording_id: str
    units: str
    durations: str


def unit_lines(
    codes: pa.Table, segments: pa.Table, quantizer: str | None, is_tagged: bool = False
) -> Iterator[UnitLine]:
    """Units of every recording (and channel, where they were split), in time order.

    Several codebooks are written side by side, `12-45`, as fairseq writes vq-wav2vec's. Where the run de-duplicated,
    runs are joined here too, over the seams of segments and for all codebooks together.

    Args:
        codes: rows of one part's codes table.
        segments: `id` and `channel` of that part's segments.
        quantizer: whose codes; may be left out where there is one.
        is_tagged: `<u12>` in place of `12`, `<u0_12><u1_45>` in place of `12-45`: names that tokenizers take as they are.

    Raises:
        InputError: several quantizers or models and no choice.
    """
    if quantizer is not None:
        codes = codes.filter(pc.equal(codes.column("quantizer"), quantizer))
    kinds = sorted({tuple(row.values()) for row in codes.group_by(["model", "quantizer"]).aggregate([]).to_pylist()})
    if len(kinds) > 1:
        raise InputError(f"codes of {', '.join(kind[1] for kind in kinds)}; choose with --quantizer")
    channels = dict(zip(segments.column("id").to_pylist(), segments.column("channel").to_pylist(), strict=True))
    is_joined = codes.num_rows > 0 and codes.column("durations").null_count == 0
    tracks: dict[Track, list[NDArray[np.uint16]]] = {}
    ids, recordings = codes.column("segment_id").to_pylist(), codes.column("recording_id").to_pylist()
    row = 0
    while row < len(ids):
        stop = row
        while stop < len(ids) and ids[stop] == ids[row]:
            stop += 1
        frames_KF = np.stack([_frames(codes, i) for i in range(row, stop)])
        tracks.setdefault((recordings[row], channels[ids[row]]), []).append(frames_KF)
        row = stop
    for (recording, _), pieces in tracks.items():
        yield _line(recording, np.concatenate(pieces, axis=1), is_joined, is_tagged)


def _frames(codes: pa.Table, row: int) -> NDArray[np.uint16]:
    """One code a frame."""
    result: NDArray[np.uint16] = np.asarray(codes.column("codes")[row].values)
    durations = codes.column("durations")[row].values
    return result if durations is None else np.repeat(result, np.asarray(durations))


def _line(recording: str, frames_KF: NDArray[np.uint16], is_joined: bool, is_tagged: bool) -> UnitLine:
    num_frames = frames_KF.shape[1]
    starts = np.arange(num_frames)
    if is_joined and num_frames:
        changes = np.flatnonzero((np.diff(frames_KF.astype(np.int32), axis=1) != 0).any(0)) + 1
        starts = np.concatenate([[0], changes])
    columns = frames_KF[:, starts].T.tolist()
    write = _tagged if is_tagged else _plain
    durations = " ".join(map(str, np.diff(starts, append=num_frames).tolist()))
    return UnitLine(recording, " ".join(map(write, columns)), durations)


def _plain(column: list[int]) -> str:
    return "-".join(map(str, column))


def _tagged(column: list[int]) -> str:
    if len(column) == 1:
        return f"<u{column[0]}>"
    return "".join(f"<u{codebook}_{code}>" for codebook, code in enumerate(column))
