"""Results of all pieces of a part -> its tables, every second accounted for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.audio.clock import seconds_from_samples


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
        **{
            name: ending[name]
            for name in ("id", "source", "member", "sample_rate", "num_channels", "reference", "metadata")
        },
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
