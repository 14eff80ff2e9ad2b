"""One pass over an output's tables, part by part: distributions, the worst segments, and the details for side files."""

from __future__ import annotations

import datetime
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from audiomill import schema
from audiomill.config.defaults import FIRST
from audiomill.report.classes import Worst
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import in_schema, part_name, read_table
from audiomill.tables.chosen import with_texts
from audiomill.text.scripts import units
from audiomill.text.wer import NO_ERRORS, Errors, errors_by_piece, score_pair

MAX_PARTS = 2_000
"""Parts that are looked at; of more, as many, evenly spread."""
MAX_RECORDINGS, MAX_HOURS = 100_000, 10_000.0
"""Of so many the report keeps every detail; of larger outputs, of an even choice of parts."""
MAX_SCORED = 20_000
"""Recordings with a reference that are scored: aligning takes time."""
NOT_SHOWN = ("nbest", "fingerprint")
DURATION_EDGES = (0, 1, 2, 5, 10, 20, 30, 60, 300, 1800, 3600, 7200, float("inf"))
SOUND_EDGES: Mapping[str, tuple[float, ...]] = {
    "snr_db": tuple(float(number) for number in range(-20, 85, 5)),
    "dnsmos_overall": tuple(1 + number / 4 for number in range(17)),
    "bandwidth_hz": tuple(500.0 * number for number in range(17)),
    "loudness_lufs": tuple(float(number) for number in range(-70, 5, 5)),
}
SHARE_EDGES = tuple(number / 10 for number in range(11))

_Row = dict[str, Any]


@dataclass
class Gathered:
    """What the tables of an output tell. `calibration`: (confidence, share of right words, words) of recordings."""

    worst: Worst
    durations: Counter[int] = field(default_factory=Counter)
    speech_shares: Counter[int] = field(default_factory=Counter)
    confidences: Counter[int] = field(default_factory=Counter)
    sound: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Segments by column of the quality table and bin of SOUND_EDGES."""
    languages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calibration: list[tuple[float, float, int]] = field(default_factory=list)
    errors: Errors = NO_ERRORS
    num_scored: int = 0
    num_recordings: int = 0
    num_detailed: int = 0
    transcript: int = FIRST
    recordings: dict[str, _Row] = field(default_factory=dict)
    """Those that the worst segments are of, by id."""
    references: dict[str, str] = field(default_factory=dict)
    """Texts that `audiomill score` was given, by recording id."""


def parts_to_read(entries: Sequence[Mapping[str, Any]]) -> tuple[list[int], set[int]]:
    """Finished parts, or an even choice of them where there are very many; and those of them that are kept in detail."""
    chosen = entries[:: max(1, -(-len(entries) // MAX_PARTS))]
    sums = ledger.totals(chosen).numbers
    count, hours = sums["num_recordings"], sums["duration_s"] / 3600
    step = max(1, math.ceil(count / MAX_RECORDINGS), math.ceil(hours / MAX_HOURS))
    return [entry["part"] for entry in chosen], {entry["part"] for entry in chosen[::step]}


def read_part(output: Place, part: int, transcript: int = FIRST) -> tuple[list[_Row], dict[str, list[_Row]]]:
    """Recordings of a part, and their segments by recording id."""
    name = part_name(part) + ".parquet"
    columns = [column for column in schema.SEGMENTS.names if column not in NOT_SHOWN]
    recordings = in_schema(read_table(output.join("recordings", name)), schema.RECORDINGS)
    rows = read_table(output.join("segments", name), columns if transcript == FIRST else None)
    known = schema.SEGMENTS if transcript != FIRST else pa.schema([schema.SEGMENTS.field(each) for each in columns])
    rows = in_schema(rows, known)
    segments: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in with_texts(output, part, "segments", rows, transcript).to_pylist():
        segments[row["recording_id"]].append(row)
    result = with_texts(output, part, "recordings", recordings, transcript).to_pylist()
    turns = _turns(output, name)
    return [{**recording, "turns": turns.get(recording["id"], [])} for recording in result], segments


def _turns(output: Place, name: str) -> dict[str, list[_Row]]:
    """Who speaks when, by recording; nothing where nobody asked."""
    turns: defaultdict[str, list[_Row]] = defaultdict(list)
    place = output.join("turns", name)
    if place.exists():
        for row in read_table(
            place, ["recording_id", "channel", "speaker", "start_s", "stop_s", "overlap_s"]
        ).to_pylist():
            turns[row["recording_id"]].append(row)
    return turns


def gather(
    output: Place, entries: Sequence[Mapping[str, Any]], gathered: Gathered
) -> Iterator[tuple[int, list[tuple[_Row, list[_Row]]]]]:
    """Goes through the parts.

    Args:
        output: of a run.
        entries: of its ledger.
        gathered: takes the sums.

    Yields:
        A part's number, and its recordings with their segments: none where no details are kept.
    """
    parts, detailed = parts_to_read(entries)
    for part in parts:
        recordings, segments = read_part(output, part, gathered.transcript)
        _count_sound(gathered, output.join("quality", part_name(part) + ".parquet"))
        details = []
        for recording in recordings:
            mine = segments.get(recording["id"], [])
            recording["reference"] = gathered.references.get(recording["id"], recording["reference"])
            _count(gathered, recording, mine)
            recording["kinds"] = sorted({kind for row in mine for kind in gathered.worst.add({**row, "part": part})})
            if part in detailed:
                gathered.num_detailed += 1
                details.append((recording, mine))
        worst_ids = {row["recording_id"] for kind in gathered.worst.counts for row in gathered.worst.rows(kind)}
        gathered.recordings |= {recording["id"]: recording for recording in recordings if recording["id"] in worst_ids}
        yield part, details


def _count_sound(gathered: Gathered, place: Place) -> None:
    if not place.exists():
        return
    rows = read_table(place, list(SOUND_EDGES))
    for name, edges in SOUND_EDGES.items():
        values = [value for value in rows.column(name).to_pylist() if value is not None]
        bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        gathered.sound[name].update(bins.tolist())


def _count(gathered: Gathered, recording: _Row, segments: Sequence[_Row]) -> None:
    gathered.num_recordings += 1
    duration = recording["duration_s"]
    gathered.durations[int(np.searchsorted(DURATION_EDGES, duration, side="right")) - 1] += 1
    if duration > 0:
        gathered.speech_shares[min(9, int(10 * recording["speech_s"] / duration))] += 1
    if recording["language"] is not None:
        gathered.languages[recording["language"]] += recording["speech_s"]
    for row in segments:
        if row["confidence"] is not None:
            gathered.confidences[min(9, int(10 * row["confidence"]))] += 1
    if recording["reference"] is not None and recording["text"] is not None and gathered.num_scored < MAX_SCORED:
        _score(gathered, recording, segments)


def _score(gathered: Gathered, recording: _Row, segments: Sequence[_Row]) -> None:
    """WER of a recording, and how much of it each of its segments has to answer for."""
    gathered.num_scored += 1
    words, _ = score_pair(recording["reference"], recording["text"], recording["language"])
    recording["wer"] = words.rate
    gathered.errors += words
    pieces = errors_by_piece(recording["reference"], [row["text"] or "" for row in segments], recording["language"])
    for row, piece in zip(segments, pieces, strict=True):
        row["wer"], row["reference"] = piece.rate, piece.reference
    rated = [(row["confidence"], len(units(row["text"] or ""))) for row in segments if row["confidence"] is not None]
    num_words = sum(count for _, count in rated)
    if num_words:
        expected = sum(confidence * count for confidence, count in rated) / num_words
        gathered.calibration.append((expected, max(0.0, 1.0 - words.rate), num_words))


def reliability_bins(calibration: Sequence[tuple[float, float, int]]) -> list[tuple[float, float]]:
    """Mean confidence against the share of right words, of tenths of the recordings in order of confidence."""
    ordered = sorted(calibration)
    size = max(1, -(-len(ordered) // 10))
    bins = []
    for start in range(0, len(ordered), size):
        group = ordered[start : start + size]
        weight = sum(count for _, _, count in group)
        bins.append(tuple(sum(each[at] * each[2] for each in group) / weight for at in (0, 1)))
    return [(expected, true) for expected, true in bins]


def throughput(entries: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Hours at work, without the time between runs, against audio seconds a second, in up to forty stretches."""
    timed = [(entry["began"], _time(entry["finished"]), entry["duration_s"]) for entry in entries if entry["began"]]
    spans = list(_without_gaps(sorted(timed)))
    if not spans:
        return []
    first, last = spans[0][0], max(stop for _, stop, _ in spans)
    width = max((last - first) / 40, 1.0)
    done: defaultdict[int, float] = defaultdict(float)
    for began, stop, seconds in spans:
        cells = range(int((began - first) / width), int((max(stop, began + 1e-6) - first) / width) + 1)
        for cell in cells:
            done[cell] += seconds / len(cells)
    return [((cell + 0.5) * width / 3600, done[cell] / width) for cell in range(max(done) + 1)]


def _without_gaps(spans: Sequence[tuple[float, float, float]]) -> Iterator[tuple[float, float, float]]:
    """Moved together where nothing was under way."""
    gone, reached = 0.0, spans[0][0] if spans else 0.0
    for began, stop, seconds in spans:
        gone += max(0.0, began - reached)
        reached = max(reached, stop)
        yield began - gone, max(stop, began) - gone, seconds


def busy_seconds(entries: Sequence[Mapping[str, Any]]) -> float:
    """Time in which at least one part was under way: of runs after each other and of shards side by side."""
    spans = sorted(
        (entry["began"], max(_time(entry["finished"]), entry["began"])) for entry in entries if entry["began"]
    )
    total, reached = 0.0, 0.0
    for start, stop in spans:
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def _time(stamp: str) -> float:
    return datetime.datetime.fromisoformat(stamp).timestamp()
