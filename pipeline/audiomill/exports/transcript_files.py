"""One file a recording: subtitles, text, WhisperX's JSON, and the formats that tell speakers."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from audiomill.errors import InputError
from audiomill.sources.entry import stem
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.speaker_tables import TURNS
from audiomill.tables.voice_tables import voices_of, with_names
from audiomill.text.speaker_files import ctm, rttm, textgrid
from audiomill.text.subtitles import Cue, cues_of_text, cues_of_words, srt, vtt

MAX_NAME_BYTES = 255 - len(".jsonl")
"""Most systems take 255 bytes, the suffix included."""
UNSAFE = frozenset('<>:"/\\|?*')
"""In no file name that every system takes."""


def file_names(recordings: pa.Table) -> dict[str, str]:
    """File names by recording id that say which one it is, each used once, none leading out of the folder."""
    ids, sources, members = (recordings.column(name).to_pylist() for name in ("id", "source", "member"))
    files = [(member or source).rsplit("/", 1)[-1] for source, member in zip(sources, members, strict=True)]
    wanted = _unless_shared([_safe(stem(name)) for name in files], [_safe(name) for name in files])
    fitting = [_fitting(name, id) for name, id in zip(wanted, ids, strict=True)]
    longer = [_fitting(name, id, always=True) for name, id in zip(wanted, ids, strict=True)]
    whole = [_fitting(name, id, always=True, length=len(id)) for name, id in zip(wanted, ids, strict=True)]
    return dict(zip(ids, _unless_shared(_unless_shared(fitting, longer), whole), strict=True))


def _fitting(name: str, id: str, always: bool = False, length: int = 8) -> str:
    """A name with a short id behind it, where it would be too long for a file, or always."""
    tail, content = f"-{id[:length]}", name.encode()
    if not always and len(content) <= MAX_NAME_BYTES:
        return name
    return content[: MAX_NAME_BYTES - len(tail)].decode("utf-8", "ignore") + tail


def _unless_shared(names: list[str], longer: list[str]) -> list[str]:
    """Names, the longer one where several would be the same on some systems."""
    count = Counter(name.lower() for name in names)
    return [name if count[name.lower()] == 1 else other for name, other in zip(names, longer, strict=True)]


def _safe(name: str) -> str:
    """Blanks and marks stay: players look for the very name."""
    safe = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in name).lstrip(".")
    return safe or "recording"


def check_has_columns(place: Place, kind: str) -> None:
    """Raises InputError for formats of what an output does not have: speakers, or words with times."""
    if kind == "rttm" and not place.join("turns").names():
        raise InputError(f"{place.url}: knows no speakers; expected the --output of a run with --speakers")
    if kind == "ctm":
        parts = ledger.each_part(place, "segments", ["words"])
        if all(rows.column("words").null_count == rows.num_rows for _, rows in parts):
            raise InputError(
                f"{place.url}: has no words with times; expected text of Whisper with --word-times, or of a CTC model"
            )


def each_turns(place: Place, kind: str) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Turns by recording, part by part, where the format has a place for them and the output knows them; else empty ones."""
    if kind not in ("rttm", "TextGrid") or not place.join("turns").names():
        yield from itertools.repeat({})
    voices = voices_of(place)
    columns = [name for name in TURNS.names if name != "vector"]
    for _, rows in ledger.each_part(place, "turns", columns):
        results: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows.to_pylist():
            results[row["recording_id"]].append(with_names(row, voices))
        yield results


def file_of(
    kind: str, recording: dict[str, Any], segments: list[dict[str, Any]], name: str, turns: list[dict[str, Any]]
) -> str:
    if kind == "rttm":
        return rttm(name, turns)
    if kind == "ctm":
        return ctm(name, segments)
    if kind == "TextGrid":
        return textgrid(recording["span_start_s"] + recording["duration_s"], turns, segments)
    if kind == "txt":
        return "\n".join(segment["text"] for segment in segments if segment["text"]) + "\n"
    if kind == "json":
        return json.dumps(_as_whisperx(recording, segments), ensure_ascii=False, indent=1) + "\n"
    cues = sorted(
        (cue for segment in segments for cue in _cues(segment)), key=lambda cue: cue.start_s
    )  # of all channels
    return srt(cues) if kind == "srt" else vtt(cues)


def _cues(segment: dict[str, Any]) -> list[Cue]:
    """The finest times there are: words, or else phrases, or else the segment's own."""
    prefix = "" if segment["channel"] is None or segment["speaker"] is not None else f"[{segment['channel']}] "
    if segment["words"]:
        words = [Cue(w["start_s"], w["stop_s"], w["word"], w["speaker"]) for w in segment["words"]]
        cues = cues_of_words(words, segment["text"] or "")
    elif segment["phrases"]:
        phrases = [Cue(p["start_s"], p["stop_s"], p["text"], segment["speaker"]) for p in segment["phrases"]]
        cues = [cue for phrase in phrases for cue in cues_of_text(phrase)]
    else:
        cues = cues_of_text(Cue(segment["start_s"], segment["stop_s"], segment["text"] or "", segment["speaker"]))
    return [cue._replace(text=prefix + cue.text) for cue in cues]


def _as_whisperx(recording: dict[str, Any], segments: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields that WhisperX writes (github.com/m-bain/whisperX): seconds, words with their score."""
    result, all_words = [], []
    for segment in segments:
        if not segment["text"]:
            continue
        words = [
            {
                "word": w["word"],
                "start": w["start_s"],
                "end": w["stop_s"],
                "score": w["confidence"],
                **_named(w["speaker"]),
            }
            for w in segment["words"] or []
        ]
        channel = None if segment["channel"] is None else f"CHANNEL_{segment['channel']}"
        speaker = _named(segment["speaker"] or channel)
        entry = {"start": segment["start_s"], "end": segment["stop_s"], "text": segment["text"]}
        result.append({**entry, **speaker, "words": words})
        all_words += words
    return {"segments": result, "word_segments": all_words, "language": recording["language"]}


def _named(speaker: str | None) -> dict[str, str]:
    return {} if speaker is None else {"speaker": speaker}
