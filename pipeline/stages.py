"""The infer stage: a piece -> its result. Arrow in, Arrow out; no engine, no globals."""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.audio.bucket import budget_batches
from pipeline.audio.clock import seconds_from_samples
from pipeline.models.base import TimedText, Transcriber, Transcript, Utterance


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
    began, before = time.time(), time.perf_counter()
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
        "segments": [
            _segment_row(cuts[i], transcript)
            for i, transcript in zip(good, transcripts, strict=True)
            if not cuts[i]["halo"]
        ],
        "lost": list(lost.items()),
        "seconds": list(seconds.items()),
        "began": began,
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


def _one_by_one(
    batch: list[Utterance], model: Transcriber, error: Exception | None
) -> tuple[list[Any], Exception | None]:
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
