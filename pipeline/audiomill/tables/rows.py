"""The one way from a transcript to a row of the segments table, and from segments to a recording's text."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from audiomill import schema
from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import TimedText, Transcript
from audiomill.text.repetition import compression_ratio


def segment_row(segment: Segment, transcript: Transcript | None, fingerprint: int) -> dict[str, Any]:
    """A row of `schema.SEGMENTS`.

    Args:
        segment: with its place in the recording.
        transcript: None where no text was wanted.
        fingerprint: of its sound.
    """
    row: dict[str, Any] = dict.fromkeys(schema.SEGMENTS.names)
    row |= {
        "id": segment.id,
        "recording_id": segment.recording_id,
        "channel": segment.channel,
        "start_s": seconds_from_samples(segment.start),
        "stop_s": seconds_from_samples(segment.stop),
        "fingerprint": fingerprint,
    }
    return row if transcript is None else row | text_columns(transcript, segment.start, segment.stop)


def text_columns(transcript: Transcript, start: int, stop: int) -> dict[str, Any]:
    """The columns that a text gives; `start`, `stop`: samples of the segment on the source's clock."""
    logprob, confidence = transcript.avg_logprob, stored_confidence(transcript)
    return {
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": _rounded(transcript.language_probability),
        "avg_logprob": _rounded(logprob),
        "no_speech_prob": _rounded(transcript.no_speech_prob),
        "compression_ratio": compression_ratio(transcript.text),
        "confidence": _rounded(confidence),
        "words": _timed(transcript.words, start, stop, "word"),
        "phrases": _timed(transcript.phrases, start, stop, "text"),
        "fallback_level": transcript.fallback_level,
        "failed_checks": None if transcript.failed_checks is None else list(transcript.failed_checks),
        "first_pass_text": transcript.first_pass_text,
        "self_consistency": _rounded(transcript.self_consistency),
        "nbest": None if transcript.nbest is None else [each._asdict() for each in transcript.nbest],
    }


def stored_confidence(transcript: Transcript) -> float | None:
    """Confidence as it is stored: the model's own, else the mean probability of a token."""
    if transcript.confidence is None and transcript.avg_logprob is not None:
        return float(np.exp(min(0.0, transcript.avg_logprob)))
    return transcript.confidence


def in_time_order(segments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Segments of one recording, channels of the same moment in their order."""
    return sorted(segments, key=lambda row: (row["start_s"], row["channel"] or 0))


def joined_text(segments: Iterable[Mapping[str, Any]]) -> str:
    """Text of a recording from its segments in time order."""
    return " ".join(segment["text"] for segment in segments if segment["text"])


def spoken_language(segments: Iterable[Mapping[str, Any]]) -> str | None:
    """The language of most seconds; None where no segment has one."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for segment in segments:
        if segment["language"] is not None:
            seconds[segment["language"]] += segment["stop_s"] - segment["start_s"]
    return max(seconds, key=lambda code: (seconds[code], code)) if seconds else None


def _timed(texts: tuple[TimedText, ...] | None, start: int, stop: int, name: str) -> list[dict[str, Any]] | None:
    """Times from the segment's clock to the source's, kept inside the segment."""
    if texts is None:
        return None
    return [
        {
            name: text.text,
            "start_s": seconds_from_samples(min(start + text.start, stop)),
            "stop_s": seconds_from_samples(min(start + text.stop, stop)),
            **(_confidence(text) | {"speaker": None} if name == "word" else {}),
        }
        for text in texts
    ]


def _confidence(word: TimedText) -> dict[str, float | None]:
    confidence = word.probability if word.confidence is None else word.confidence
    return {"probability": _rounded(word.probability), "confidence": _rounded(confidence)}


def _rounded(value: float | None) -> float | None:
    """Four decimals: what lies below is rounding noise of the hardware's sums, not information."""
    return None if value is None else round(value, 4)


def metadata_of(recording: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest or a .json beside the audio told of a row of the recordings table; nothing where that is no mapping."""
    try:
        values = json.loads(recording["metadata"] or "{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
