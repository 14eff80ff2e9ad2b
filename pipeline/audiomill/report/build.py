"""The report of an output: report.html, and report/ with the files that it loads when they are needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from audiomill.config.defaults import FIRST, WINDOW_S
from audiomill.html.figures import bars, histogram, line
from audiomill.report.classes import KINDS, FailureKind, Worst, speaking_rate
from audiomill.report.clip_reader import ClipReader
from audiomill.report.gather import (
    DURATION_EDGES,
    SHARE_EDGES,
    SOUND_EDGES,
    Gathered,
    busy_seconds,
    gather,
    read_part,
    reliability_bins,
    throughput,
)
from audiomill.report.original_and_copy import copies_section
from audiomill.report.page import body, report_document
from audiomill.report.recording_details import Index, display_name, index_row, part_file, script, side_segment
from audiomill.report.remarks import remarks
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import read_table
from audiomill.watch.journal import redacted
from audiomill.watch.progress import counted, duration_text, size_text

_FOLDER = "report"
_MAX_CLIP_S = WINDOW_S
MAX_REJECTIONS = 50
_STAGES = ("read", "decode", "resample", "segment", "infer", "redecode", "write")

_Row = dict[str, Any]

SOUND_TITLES = {
    "snr_db": ("Speech to noise", "dB"),
    "dnsmos_overall": ("DNSMOS, overall", "mean opinion score"),
    "bandwidth_hz": ("Bandwidth", "Hz"),
    "loudness_lufs": ("Loudness", "LUFS"),
}
"""Of the quality table: column -> heading and unit."""


def write_report(output: Place, num_clips: int, storage_options: dict[str, Any], transcript: int = FIRST) -> None:
    """Writes the report of a finished or unfinished output.

    Args:
        output: of a run.
        num_clips: to listen to, for each kind of failure.
        storage_options: to read the audio again.
        transcript: which of the job's texts.
    """
    folder = output.join(_FOLDER)
    folder.remove(recursive=True)
    entries = list(ledger.entries(output))
    index = Index(folder)
    result = Gathered(Worst(num_clips), references=_given_references(output), transcript=transcript)
    for part, details in gather(output, entries, result):
        if details:
            folder.join(f"part-{part:06d}.js").write(script("audiomill.part", [part, part_file(details)]))
        for recording, segments in details:
            index.add(index_row(part, recording, segments))
    if not entries:
        return
    index.flush()
    _write_parts_of_worst(output, result, folder)
    chosen = {kind: result.worst.rows(kind.name) for kind in KINDS if result.worst.rows(kind.name)}
    kinds = [_kind(kind, rows, result) for kind, rows in chosen.items()]
    sounds = _sounds(output, {row["id"]: row for rows in chosen.values() for row in rows}, storage_options)
    record = json.loads(output.join("run.json").read())
    content = body(
        _headline(entries, result),
        [_made_by(record), *_notes(entries, result), *_remarks(output)],
        _charts(entries, result),
        kinds,
        sorted(result.languages),
        _rejections(output, entries),
        [_run_row(run) for run in _runs(output)],
        copies_section(output, num_clips, storage_options),
    )
    facts = {"folder": _FOLDER, "chunks": index.num_chunks, "detailed": result.num_detailed}
    page = report_document(_title(record), content, {**facts, "kinds": kinds, "sounds": sounds})
    output.join("report.html").write(page.encode())


def _write_parts_of_worst(output: Place, gathered: Gathered, folder: Place) -> None:
    """Details of the recordings that the worst clips are of, where the corpus is too large for all of them."""
    there = set(folder.names())
    wanted = {row["part"] for kind in KINDS for row in gathered.worst.rows(kind.name)}
    for part in sorted(wanted):
        if f"part-{part:06d}.js" not in there:
            recordings, segments = read_part(output, part, gathered.transcript)
            mine = [(row, segments.get(row["id"], [])) for row in recordings if row["id"] in gathered.recordings]
            folder.join(f"part-{part:06d}.js").write(script("audiomill.part", [part, part_file(mine)]))


def _given_references(output: Place) -> dict[str, str]:
    """What the output was scored against last, by recording id."""
    place = output.join("scores.parquet")
    if not place.exists():
        return {}
    scored = read_table(place, ["id", "reference"])
    return dict(zip(scored.column("id").to_pylist(), scored.column("reference").to_pylist(), strict=True))


def _title(record: _Row) -> str:
    names = [str(url).rstrip("/").rsplit("/", 1)[-1] for url in record["inputs"]]
    return f"audiomill {record['job']}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"


def _made_by(record: _Row) -> str:
    models = [record["model_name"]] if isinstance(record["model_name"], str) else record["model_name"]
    return (
        f"Read by {', '.join(models)}; audiomill {record.get('audiomill', '')}. Inputs: {', '.join(record['inputs'])}."
    )


def _kind(kind: FailureKind, rows: Sequence[Mapping[str, Any]], gathered: Gathered) -> _Row:
    """A kind of failure that happened, with its clips."""
    clips = [_clip(row, gathered.recordings[row["recording_id"]]) for row in rows]
    count = gathered.worst.counts[kind.name]
    return {"name": kind.name, "title": kind.title, "meaning": kind.meaning, "count": count, "clips": clips}


def _sounds(output: Place, rows: Mapping[str, Mapping[str, Any]], storage_options: dict[str, Any]) -> dict[str, _Row]:
    """Sound of segments by their id."""
    if not rows:
        return {}
    plan = ledger.load_plan(output)
    assert plan is not None
    ids = pa.array([row["recording_id"] for row in rows.values()], pa.string())
    planned = {row["id"]: row for row in plan.filter(pc.is_in(plan.column("id"), value_set=ids)).to_pylist()}
    settled = ledger.claim_of(output).get("results", {})
    listener = ClipReader(settled.get("channels", "mix"), _MAX_CLIP_S, storage_options)
    try:
        sounds = {}
        for identity, row in rows.items():
            sounds[identity] = listener.hear(
                planned[row["recording_id"]], row["start_s"], row["stop_s"], row["channel"]
            )._asdict()
        return sounds
    finally:
        listener.close()


def _clip(row: Mapping[str, Any], recording: _Row) -> _Row:
    wer = row.get("wer")
    facts = [
        None if row["confidence"] is None else f"confidence {row['confidence']:.2f}",
        None if wer is None else f"WER {100 * wer:.0f}%",
        f"attempt {row['fallback_level']}" if row["fallback_level"] else None,
        f"{speaking_rate(row):.1f} letters a second" if row["text"] else None,
        ", ".join(row["failed_checks"] or ()) or None,
    ]
    return {
        **side_segment(dict(row)),
        "id": row["id"],
        "recording": row["recording_id"],
        "part": row["part"],
        "name": display_name(recording),
        "facts": ", ".join(text for text in facts if text),
        "reference": row.get("reference") or None,
    }


def _runs(output: Place) -> list[_Row]:
    names = [name for name in output.join("ledger").names() if name.startswith("run-")]
    return [json.loads(output.join("ledger", name).read()) for name in names]


def _run_row(run: _Row) -> list[str]:
    return [
        run["finished"].replace("T", " ").removesuffix("+00:00"),
        f"{run['audio_s_this_run'] / 3600:.2f} h in {duration_text(run['wall_s'])}",
        f"{run['x_real_time']:.1f}x real time",
        f"{run['device']}, {run['precision']}, {run['engine']}",
        f"{run['device_busy_pct']:.0f}%",
        f"{run['padding_waste_pct']:.0f}%",
    ]


def _headline(entries: Sequence[_Row], gathered: Gathered) -> list[tuple[str, str]]:
    totals = ledger.totals(entries)
    sums = totals.numbers
    figures = [
        ("recordings", f"{sums['num_recordings']:,.0f}"),
        ("rejected", f"{sums['num_rejections']:,.0f}"),
        ("audio", f"{sums['duration_s'] / 3600:,.2f} h"),
        ("speech", f"{100 * sums['speech_s'] / max(sums['duration_s'], 1e-9):.0f}%"),
        ("segments", f"{sums['num_segments']:,.0f}"),
        ("tables", size_text(totals.num_bytes.total())),
    ]
    wall = busy_seconds(entries)
    if wall > 0:
        figures.append(("speed", f"{sums['duration_s'] / wall:,.1f}x real time"))
    if gathered.num_scored:
        figures.append(("word error rate", f"{100 * gathered.errors.rate:.2f}%"))
    if sums["failed_s"] > 0.05:
        figures.append(("lost in damaged files", f"{sums['failed_s']:,.1f} s"))
    return figures


def _remarks(output: Place) -> list[str]:
    return [f"{counted(count, 'recording')}: {note}." for note, count in remarks(output)]


def _notes(entries: Sequence[_Row], gathered: Gathered) -> list[str]:
    num = int(ledger.totals(entries).numbers["num_recordings"])
    notes = []
    if gathered.num_recordings < num:
        notes.append(f"Charts and clips are of {gathered.num_recordings:,} recordings, evenly spread over all {num:,}.")
    if gathered.num_detailed < num:
        notes.append(f"{gathered.num_detailed:,} recordings can be searched and opened here; the tables hold all.")
    if gathered.num_scored:
        notes.append(
            f"{gathered.num_scored:,} recordings are scored against their references, normalised as `audiomill score` does."
        )
    return notes


def _charts(entries: Sequence[_Row], gathered: Gathered) -> list[str]:
    totals = ledger.totals(entries)
    seconds = {stage: totals.seconds[stage] for stage in _STAGES if stage in totals.seconds}
    rejections, levels = totals.rejections, totals.fallback_levels
    charts = [
        bars(
            "Where the time went",
            "seconds, all workers",
            list(seconds),
            [round(value, 2) for value in seconds.values()],
        )
    ]
    charts += _histograms(gathered)
    if len(gathered.languages) > 1:
        ordered = sorted(gathered.languages.items(), key=lambda pair: -pair[1])[:15]
        charts.append(bars("Languages", "hours of speech", [n for n, _ in ordered], [v / 3600 for _, v in ordered]))
    if len(gathered.calibration) >= 2:
        points = reliability_bins(gathered.calibration)
        charts.append(
            line("Calibration of confidence", "confidence said", "share of right words", points, diagonal=True)
        )
    if rejections:
        charts.append(bars("Rejected, by reason", "recordings", *zip(*rejections.most_common(15), strict=True)))
    if set(levels) - {"0"}:
        names = {"0": "first attempt", "1": "longer context", "2": "sampled, 0.4", "3": "sampled, 0.8", "4": "beam search", "5": "second model"}  # fmt: skip
        ordered = sorted(levels.items())
        charts.append(
            bars("Attempt that was kept", "segments", [names[k] for k, _ in ordered], [v for _, v in ordered])
        )
    speed = throughput(entries)
    if len(speed) > 2:
        charts.append(line("Throughput", "hours at work", "x real time", speed))
    return charts


def _histograms(gathered: Gathered) -> list[str]:
    last = max(gathered.durations, default=0)
    labels = [f"{_span(low)} to {_span(high)}" for low, high in pairwise(DURATION_EDGES)]
    first = min(gathered.durations, default=0)
    charts = [
        bars(
            "Durations", "recordings", labels[first : last + 1], [gathered.durations[n] for n in range(first, last + 1)]
        )
    ]
    charts.append(
        histogram(
            "Speech share",
            "share of the recording",
            SHARE_EDGES,
            [gathered.speech_shares[n] for n in range(10)],
            "recordings",
        )
    )
    for name, (title, unit) in SOUND_TITLES.items():
        counts = gathered.sound[name]
        if counts:
            edges = SOUND_EDGES[name]
            charts.append(histogram(title, unit, edges, [counts[n] for n in range(len(edges) - 1)], "segments"))
    if gathered.confidences:
        charts.append(
            histogram(
                "Confidence",
                "expected share of right words",
                SHARE_EDGES,
                [gathered.confidences[n] for n in range(10)],
                "segments",
            )
        )
    return charts


def _span(seconds: float) -> str:
    if seconds == float("inf"):
        return "longer"
    if seconds >= 3600:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def _rejections(output: Place, entries: Sequence[_Row]) -> list[_Row]:
    """The first few, without reading every part."""
    rows: list[_Row] = []
    for entry in entries:
        if entry["num_rejections"] and len(rows) < MAX_REJECTIONS:
            rows += ledger.tables(output, "rejections", parts=[entry["part"]]).to_pylist()
    return [{**row, "name": display_name(row), "detail": redacted(row["detail"])} for row in rows[:MAX_REJECTIONS]]
