"""The part of a report that plays originals beside what a codec's codes make of them."""

from __future__ import annotations

import html
import io
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import soundfile

from audiomill.audio.clock import Form
from audiomill.config.defaults import WINDOW_S
from audiomill.config.output_jobs import COPIES_FOLDER
from audiomill.errors import RecordingRejected
from audiomill.html.page import Raw, table
from audiomill.report.clip_reader import data_uri
from audiomill.resynthesis.copies import copy_file, flac, quality_of
from audiomill.resynthesis.originals import Originals
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.watch.journal import redacted

_Row = Mapping[str, Any]


def copies_section(output: Place, num_clips: int, storage_options: dict[str, Any]) -> str:
    """A table with two players a row, the worst copies first; empty where `resynthesize` made none."""
    folder = output.join(COPIES_FOLDER)
    rows = quality_of(folder).to_pylist() if folder.join("quality").names() else []
    if not rows:
        return ""
    worst = sorted(rows, key=lambda row: (-(row["wer"] or 0.0), -(row["mel_distance_db"] or 0.0)))[:num_clips]
    segments = _segments(output, {row["segment_id"] for row in worst})
    info = soundfile.info(io.BytesIO(copy_file(folder, worst[0]["segment_id"]).read()))
    originals = Originals(output, Form(info.samplerate, info.channels), storage_options)
    try:
        lines = [_line(row, segments[row["segment_id"]], originals, folder, info.samplerate) for row in worst]
    finally:
        originals.close()
    names = (
        "segment",
        "original",
        "copy",
        "SI-SDR, dB",
        "log-mel distance, dB",
        "WER",
        "heard in the original, in the copy",
    )
    shown = table(names, lines)
    return (
        f'<section id="copies"><h2>Originals and copies</h2><p>{len(rows):,} segments were made again from the codes of '
        f"{html.escape(worst[0]['model'])} ({worst[0]['codebooks']} codebooks); these are the worst.</p>{shown}</section>"
    )


def _segments(output: Place, ids: Collection[str]) -> dict[str, _Row]:
    wanted, columns = pa.array(sorted(ids)), ["id", "recording_id", "channel", "start_s", "stop_s"]
    segments: dict[str, _Row] = {}
    for _, rows in ledger.each_part(output, "segments", columns):
        segments |= {row["id"]: row for row in rows.filter(pc.is_in(rows.column("id"), wanted)).to_pylist()}
    return segments


def _line(row: _Row, segment: _Row, originals: Originals, folder: Place, rate: int) -> list[Any]:
    try:
        original: Any = _player(flac(originals.sound(segment)[: round(WINDOW_S * rate)], rate))
    except RecordingRejected as rejected:
        original = redacted(rejected.detail)
    file = io.BytesIO(copy_file(folder, row["segment_id"]).read())
    sound, _ = soundfile.read(file, frames=round(WINDOW_S * rate), dtype="float32", always_2d=True)
    copy = _player(flac(sound, rate))
    texts = " / ".join(row[name] for name in ("text", "copy_text") if row[name] is not None)
    return [row["segment_id"], original, copy, row["si_sdr_db"], row["mel_distance_db"], row["wer"], texts]


def _player(file: bytes) -> Raw:
    return Raw(f'<audio controls preload="none" src="{data_uri(file)}"></audio>')
