"""The stages: plan rows -> pieces -> results -> part files. Arrow in, Arrow out; no engine, no globals.

A part passes as one row. Only a part with more speech than `piece_samples` (a long recording) passes as
several, so that memory stays bounded; its results wait under OUTPUT/_pieces until the last one is there.
"""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.audio.bucket import budget_batches
from pipeline.audio.clock import seconds_from_samples
from pipeline.audio.recording import Cut
from pipeline.errors import Rejected
from pipeline.models.base import TimedText, Transcriber, Transcript, Utterance
from pipeline.read import Finished


class RecordingReader(Protocol):
    """Reads one plan row; raises Rejected. See `pipeline.read.read_recording`."""

    def read(self, row: dict[str, Any]) -> Iterator[Cut | Finished]: ...


# ---------------------------------------------------------------- read, decode, segment


def cut_part(part: int, rows: Sequence[dict[str, Any]], reader: RecordingReader, piece_samples: int) -> Iterator[pa.Table]:
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
                    piece.finish_recording(row, event)
        except Rejected as rejected:
            piece.reject(row, rejected)
    yield piece.close(last=True)


class _PieceBuilder:
    """Collects cuts and endings into `schema.PIECE` rows of bounded size."""

    def __init__(self, part: int, piece_samples: int) -> None:
        self._part, self._limit, self._number = part, piece_samples, 0
        self._clear()

    def _clear(self) -> None:
        self._cuts: list[dict[str, Any]] = []
        self._pcm: list[NDArray[np.int16]] = []
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
            self._append(row, cut, halo=False)
            return
        before = self._latest.pop((row["id"], cut.channel), None) if cut.left else None
        self._seam.append((row, cut, before))
        if before is not None:
            self._append(row, cut, halo=True)
            self._latest.pop((row["id"], cut.channel))
            if any(recording_id == row["id"] for recording_id, _ in self._latest):
                return  # the other channels' windows at this seam are still to come
        seam = self._seam
        yield self.close(last=False)
        for each_row, each, halo in seam:
            if halo is not None:
                self._append(each_row, halo, halo=True)
            self._append(each_row, each, halo=False)

    def _append(self, row: dict[str, Any], cut: Cut, halo: bool) -> None:
        fields = {"channel": cut.channel, "start": cut.start, "stop": cut.stop, "left": cut.left, "right": cut.right}
        self._cuts.append({"recording_id": row["id"], **fields, "halo": halo, "language": row["language"]})
        self._pcm.append(cut.pcm_T)
        self._num_samples += len(cut.pcm_T)
        self._latest[(row["id"], cut.channel)] = cut

    def finish_recording(self, row: dict[str, Any], finished: Finished) -> None:
        named = {name: row[name] for name in ("id", "source", "member")}
        texts = {"reference": finished.reference, "metadata": finished.metadata}
        self._endings.append({**named, **texts, **finished.ending._asdict()})
        for stage, seconds in finished.seconds.items():
            self._seconds[stage] += seconds

    def reject(self, row: dict[str, Any], rejected: Rejected) -> None:
        self._seam = []
        keep = [index for index, cut in enumerate(self._cuts) if cut["recording_id"] != row["id"]]
        self._cuts, self._pcm = [self._cuts[i] for i in keep], [self._pcm[i] for i in keep]
        named = {name: row[name] for name in ("id", "source", "member")}
        self._rejections.append({**named, "stage": rejected.stage, "reason": rejected.reason, "detail": rejected.detail})

    def close(self, last: bool) -> pa.Table:
        pcm = np.concatenate(self._pcm) if self._pcm else np.zeros(0, np.int16)
        offsets = pa.py_buffer(np.array([0, pcm.nbytes], np.int64))
        values = {
            "part": [self._part],
            "piece": [self._number],
            "last": [last],
            "pcm": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(pcm)]),
            "cuts": [self._cuts],
            "endings": [self._endings],
            "rejections": [self._rejections],
            "seconds": [list(self._seconds.items())],
        }
        self._number += 1
        self._clear()
        return pa.table(values, schema=schema.PIECE)


# ---------------------------------------------------------------- infer


class Batched(NamedTuple):
    """Raw results in plan order, with what they cost."""

    raw: list[Any]
    num_real: int
    num_padded: int
    failed: list[int]


def infer_piece(piece: pa.Table, model: Transcriber, batch_samples: int) -> pa.Table:
    """Runs the model over one piece.

    Args:
        piece: one row of `schema.PIECE`.
        model: see `pipeline.models.base`.
        batch_samples: padded samples a batch.

    Returns:
        One row of `schema.RESULT`, segments in plan order.
    """
    before = time.perf_counter()
    (row,) = piece.select(["part", "piece", "last", "cuts", "endings", "rejections", "seconds"]).to_pylist()
    cuts, utterances = row["cuts"], _utterances(piece, row["cuts"])
    batched = run_batches(utterances, model, batch_samples)
    good = [index for index in range(len(cuts)) if index not in set(batched.failed)]
    transcripts = model.finish([utterances[i] for i in good], [batched.raw[i] for i in good])
    assert len(transcripts) == len(good), "one transcript per utterance"
    lost: defaultdict[str, int] = defaultdict(int)
    for index in batched.failed:
        lost[cuts[index]["recording_id"]] += cuts[index]["stop"] - cuts[index]["start"]
    seconds = dict(row["seconds"])
    seconds["infer"] = time.perf_counter() - before
    seconds["infer_real_audio"] = seconds_from_samples(batched.num_real)
    seconds["infer_padded_audio"] = seconds_from_samples(batched.num_padded)
    result = {
        **{name: row[name] for name in ("part", "piece", "last", "endings", "rejections")},
        "segments": [_segment_row(cuts[i], transcript) for i, transcript in zip(good, transcripts, strict=True) if not cuts[i]["halo"]],
        "lost": list(lost.items()),
        "seconds": list(seconds.items()),
    }
    return pa.Table.from_pylist([result], schema=schema.RESULT)


def run_batches(utterances: Sequence[Utterance], model: Transcriber, batch_samples: int) -> Batched:
    """Length-sorted batches under a padded budget; results come back in the order given.

    A batch that raises is run again row by row; a row that fails alone is reported in `failed`. If all fail
    the fault is not in the audio and the error is raised.
    """
    lengths = np.array([len(u.pcm_T) for u in utterances], np.int64)
    padded = np.array([model.padded_length(n) for n in lengths.tolist()], np.int64)
    raw: list[Any] = [None] * len(utterances)
    failed: list[int] = []
    error: Exception | None = None
    num_padded = 0
    for rows in budget_batches(padded, batch_samples):
        num_padded += int(padded[rows].max()) * len(rows)
        batch = [utterances[i] for i in rows]
        try:
            results = model.decode(batch)
        except RuntimeError:
            results, error = _one_by_one(batch, model, error)
        assert len(results) == len(rows), "one result per utterance"
        for index, result in zip(rows.tolist(), results, strict=True):
            raw[index] = result
            if result is None:
                failed.append(index)
    if error is not None and len(failed) == len(utterances):
        raise error
    return Batched(raw, int(lengths.sum()), num_padded, failed)


def _one_by_one(batch: list[Utterance], model: Transcriber, error: Exception | None) -> tuple[list[Any], Exception | None]:
    results: list[Any] = []
    for utterance in batch:
        try:
            results += model.decode([utterance])
        except RuntimeError as alone:
            results.append(None)
            error = alone
    return results, error


def _utterances(piece: pa.Table, cuts: list[dict[str, Any]]) -> list[Utterance]:
    """Zero-copy views of the piece's samples."""
    column = piece.column("pcm")
    chunk = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    first, last = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + 2]
    buffer = chunk.buffers()[2]
    pcm = np.frombuffer(buffer, np.int16)[first // 2 : last // 2] if buffer is not None else np.zeros(0, np.int16)
    found, at = [], 0
    for cut in cuts:
        length = cut["left"] + cut["stop"] - cut["start"] + cut["right"]
        track = (cut["recording_id"], cut["channel"])
        found.append(Utterance(pcm[at : at + length], cut["left"], cut["right"], track, cut["start"], cut["language"]))
        at += length
    assert at == len(pcm), "cuts cover the piece"
    return found


def _segment_row(cut: dict[str, Any], transcript: Transcript) -> dict[str, Any]:
    channel = "" if cut["channel"] is None else f"-c{cut['channel']}"
    logprob = transcript.avg_logprob
    return {
        "id": f"{cut['recording_id']}{channel}-{cut['start']:010d}",
        "recording_id": cut["recording_id"],
        "channel": cut["channel"],
        "start_s": seconds_from_samples(cut["start"]),
        "stop_s": seconds_from_samples(cut["stop"]),
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": _rounded(transcript.language_probability),
        "avg_logprob": _rounded(logprob),
        "no_speech_prob": _rounded(transcript.no_speech_prob),
        "compression_ratio": compression_ratio(transcript.text),
        "confidence": None if logprob is None else _rounded(float(np.exp(min(0.0, logprob)))),
        "words": _timed(transcript.words, cut, "word"),
        "phrases": _timed(transcript.phrases, cut, "text"),
        "rung": transcript.rung,
    }


def _timed(texts: tuple[TimedText, ...] | None, cut: dict[str, Any], name: str) -> list[dict[str, Any]] | None:
    """Times from the segment's clock to the source's, kept inside the segment."""
    if texts is None:
        return None
    limit = cut["stop"]
    return [
        {
            name: each.text,
            "start_s": seconds_from_samples(min(cut["start"] + each.start, limit)),
            "stop_s": seconds_from_samples(min(cut["start"] + each.stop, limit)),
            **({"probability": _rounded(each.probability)} if name == "word" else {}),
        }
        for each in texts
    ]


def _rounded(value: float | None) -> float | None:
    """Four decimals: what lies below is rounding noise of the hardware's sums, not information."""
    return None if value is None else round(value, 4)


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib form, as Whisper computes it; 0 for empty text."""
    encoded = text.encode()
    return round(len(encoded) / len(zlib.compress(encoded)), 4) if encoded else 0.0


# ---------------------------------------------------------------- assemble


def assemble(results: Sequence[dict[str, Any]]) -> dict[str, pa.Table]:
    """The tables of one part from the results of its pieces, in order.

    Returns:
        `recordings`, `segments` and `rejections`: every recording is in exactly one of the first and the last.
    """
    segments_of: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    lost: defaultdict[str, int] = defaultdict(int)
    for result in results:
        for segment in result["segments"]:
            segments_of[segment["recording_id"]].append(segment)
        for recording_id, samples in result["lost"]:
            lost[recording_id] += samples
    recordings, kept, rejections = [], [], [r for result in results for r in result["rejections"]]
    for ending in (ending for result in results for ending in result["endings"]):
        segments = sorted(segments_of[ending["id"]], key=lambda s: (s["start_s"], s["channel"] or 0))
        if lost[ending["id"]] and not segments:
            detail = f"expected text, got an error of the model on {seconds_from_samples(lost[ending['id']]):.3f} s"
            named = {name: ending[name] for name in ("id", "source", "member")}
            rejections.append({**named, "stage": "infer", "reason": "model_failed", "detail": detail})
            continue
        recordings.append(_recording_row(ending, segments, lost[ending["id"]]))
        kept += segments
    rows = {"recordings": recordings, "segments": kept, "rejections": rejections}
    return {name: pa.Table.from_pylist(rows[name], schema=schema.TABLES[name]) for name in rows}


def _recording_row(ending: dict[str, Any], segments: list[dict[str, Any]], lost: int) -> dict[str, Any]:
    speech = max(0, ending["speech_samples"] - lost)
    failed = ending["failed_samples"] + (ending["speech_samples"] - speech)
    by_language: defaultdict[str, float] = defaultdict(float)
    for segment in segments:
        if segment["language"] is not None:
            by_language[segment["language"]] += segment["stop_s"] - segment["start_s"]
    problems = [ending["error"]] if ending["error"] else []
    problems += [f"the model failed on {seconds_from_samples(lost):.3f} s"] if lost else []
    return {
        **{name: ending[name] for name in ("id", "source", "member", "sample_rate", "num_channels", "reference", "metadata")},
        "span_start_s": seconds_from_samples(ending["origin"]),
        "duration_s": seconds_from_samples(ending["num_samples"]),
        "text": " ".join(segment["text"] for segment in segments if segment["text"]),
        "language": max(by_language, key=lambda code: (by_language[code], code)) if by_language else None,
        "num_segments": len(segments),
        "speech_s": seconds_from_samples(speech),
        "non_speech_s": seconds_from_samples(ending["num_samples"] - speech - failed),
        "failed_s": seconds_from_samples(failed),
        "error": "; ".join(problems) or None,
    }
