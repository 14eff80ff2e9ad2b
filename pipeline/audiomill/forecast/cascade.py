"""What the second model does in a sample: its share of the segments and of the time, and what its texts change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from audiomill.config.defaults import SECOND_PASS_LEVEL
from audiomill.tables.rows import in_time_order, joined_text
from audiomill.text.wer import NO_ERRORS, score_pair


class Cascade(NamedTuple):
    """Of the sample's segments. `time_share`: of the models' time; `first_wer`, `wer`: by the first model alone and with the
    second one, on recordings with a reference; None without one."""

    num_segments: int
    num_redone: int
    num_changed: int
    time_share: float
    first_wer: float | None
    wer: float | None


def cascade_of(tables: Mapping[str, pa.Table], summary: Mapping[str, Any]) -> Cascade | None:
    """None where the job has no second model, or never needed it."""
    if not summary["second_model_s"] or "segments" not in tables:
        return None
    segments = (
        tables["segments"]
        .select(["recording_id", "start_s", "channel", "text", "first_pass_text", "fallback_level"])
        .to_pylist()
    )
    redone = [row for row in segments if row["fallback_level"] == SECOND_PASS_LEVEL]
    first = [
        {**row, "text": row["text"] if row["first_pass_text"] is None else row["first_pass_text"]} for row in segments
    ]
    infer = max(summary["seconds"].get("infer", 0.0), 1e-9)
    return Cascade(
        len(segments),
        len(redone),
        sum(row["first_pass_text"] is not None for row in redone),
        min(1.0, summary["second_model_s"] / infer),
        _wer(tables["recordings"], first),
        _wer(tables["recordings"], segments),
    )


def _wer(recordings: pa.Table, segments: list[dict[str, Any]]) -> float | None:
    spoken: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in segments:
        spoken[row["recording_id"]].append(row)
    total = NO_ERRORS
    for row in recordings.select(["id", "reference", "language"]).to_pylist():
        if row["reference"] is not None:
            text = joined_text(in_time_order(spoken[row["id"]]))
            total += score_pair(row["reference"], text, row["language"])[0]
    return total.rate if total.num_reference else None


def describe(cascade: Cascade) -> str:
    """In one sentence."""
    changed = f"{cascade.num_changed} of them get another text" if cascade.num_redone else "none of them"
    words = ""
    if cascade.first_wer is not None and cascade.wer is not None:
        words = f"; on the sample's references {100 * cascade.wer:.1f}% WER, {100 * cascade.first_wer:.1f}% by the first model alone"
    return (
        f"The second model writes {cascade.num_redone} of {cascade.num_segments} segments of the sample again and takes "
        f"{100 * cascade.time_share:.0f}% of the models' time; {changed}{words}."
    )
