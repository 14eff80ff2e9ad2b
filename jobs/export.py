"""audiomill export: transcripts as subtitles, text, JSON lines or CSV; codes as lines of units."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import click

from audiomill import schema
from audiomill.errors import InputError
from audiomill.jobs.options import JsonMapping, WithExamples
from audiomill.sources.entry import stem
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import part_name, read_table
from audiomill.text.subtitles import Cue, cues_of_words, srt, vtt
from audiomill.text.units import unit_lines

EXAMPLES = """\
Examples:
  audiomill export out/ --format srt --to subtitles/
  audiomill export out/ --format jsonl > transcripts.jsonl
  audiomill export units/ --format txt --to units.txt
"""
ONE_FILE_EACH = ("srt", "vtt", "txt", "json")
CSV_COLUMNS = ("recording_id", "source", "member", "channel", "start_s", "stop_s", "language", "confidence", "text")
MAX_NAME_BYTES = 255 - len(".jsonl")
"""Most systems take 255 bytes, the suffix included."""
UNSAFE = frozenset('<>:"/\\|?*')
"""In no file name that every system takes."""
TOLD = [name for name in schema.RECORDINGS.names if name not in ("envelope", "envelope_s")]
"""Columns of a recording that are text or numbers."""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--format", "kind", type=click.Choice((*ONE_FILE_EACH, "jsonl", "csv")), required=True, help="What to write."
)
@click.option(
    "--to",
    metavar="PLACE",
    help="Folder for srt, vtt, txt, json [default: OUTPUT/export]; file for jsonl, csv [default: standard output].",
)
@click.option(
    "--codes",
    "as_units",
    is_flag=True,
    help="txt: units of the codes table, one line a recording [default: where the output has no text].",
)
@click.option("--quantizer", metavar="TEXT", help="txt: whose codes, where there are several.")
@click.option("--ids", is_flag=True, help="txt: recording id and a tab before each line of units.")
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def export(
    output: str,
    kind: str,
    to: str | None,
    as_units: bool,
    quantizer: str | None,
    ids: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Write transcripts or codes in other formats.

    srt, vtt, txt and json: one file a recording, named after it: fox.srt; fox.mp4.srt beside fox.webm.srt; a short id
    behind it where names are still equal. json: segments with words as WhisperX writes them. jsonl: one line a recording
    with its segments. csv: one row a segment. txt of codes: one file, one line of units a recording, codebooks side by
    side as 12-45.
    """
    place = Place(output, storage_options or {})
    if kind == "txt" and (as_units or _has_only_codes(place)):
        _export_units(place, Place(to, storage_options or {}) if to else None, quantizer, ids)
        return
    recordings = ledger.tables(place, "recordings", TOLD).to_pylist()
    if not recordings:
        raise InputError(f"{output}: no finished recordings; expected the --output of a transcribe run")
    if kind != "jsonl" and all(recording["text"] is None for recording in recordings):
        raise InputError(f"{output}: holds no text; expected the --output of a transcribe run (codes: --format txt)")
    segments: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for segment in ledger.tables(place, "segments").to_pylist():
        segments[segment["recording_id"]].append(segment)
    if kind in ONE_FILE_EACH:
        folder = Place(to, storage_options or {}) if to else place.join("export")
        for name, recording in _names(recordings):
            folder.join(f"{name}.{kind}").write(_file(kind, recording, segments[recording["id"]]).encode())
        click.echo(f"{len(recordings)} files in {folder.url}")
        return
    text = _jsonl(recordings, segments) if kind == "jsonl" else _csv(recordings, segments)
    if to:
        Place(to, storage_options or {}).write(text.encode())
    else:
        click.echo(text, nl=False)


def _has_only_codes(place: Place) -> bool:
    if not place.join("codes").names():
        return False
    texts = ledger.tables(place, "recordings", ["text"]).column("text")
    return bool(texts.null_count == len(texts))


def _export_units(place: Place, to: Place | None, quantizer: str | None, ids: bool) -> None:
    """Part by part: a corpus of units may be larger than memory."""
    count = 0
    if not place.join("codes").names():
        raise InputError(f"{place.url}: no codes; expected the --output of an encode run")
    with to.open_for_writing() if to is not None else contextlib.nullcontext() as handle:
        for part in sorted(ledger.done_parts(place)):
            codes, segments = (
                read_table(place.join(name, part_name(part) + ".parquet")) for name in ("codes", "segments")
            )
            for recording, line in unit_lines(codes, segments, quantizer):
                count += 1
                text = f"{recording}\t{line}\n" if ids else f"{line}\n"
                if handle is None:
                    click.echo(text, nl=False)
                else:
                    handle.write(text.encode())
    if count == 0:
        found = sorted(set(ledger.tables(place, "codes", ["quantizer"]).column("quantizer").to_pylist()))
        raise InputError(
            f"{place.url}: no codes of {quantizer!r}; there are those of {', '.join(found) or 'nothing yet'}"
        )
    if to is not None:
        click.echo(f"{count} lines in {to.url}")


def _names(recordings: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """File names that say which recording it is, each used once, none leading out of the folder."""
    files = [(r["member"] or r["source"]).rsplit("/", 1)[-1] for r in recordings]
    stems = [_safe(stem(name)) for name in files]
    wanted = _unless_shared(stems, [_safe(name) for name in files])
    fitting = [_fitting(name, r["id"]) for name, r in zip(wanted, recordings, strict=True)]
    yield from zip(
        _unless_shared(
            fitting, [_fitting(name, r["id"], always=True) for name, r in zip(wanted, recordings, strict=True)]
        ),
        recordings,
        strict=True,
    )


def _fitting(name: str, id: str, always: bool = False) -> str:
    """A name with a short id behind it, where it would be too long for a file, or always."""
    tail, content = f"-{id[:8]}", name.encode()
    if not always and len(content) <= MAX_NAME_BYTES:
        return name
    return content[: MAX_NAME_BYTES - len(tail)].decode("utf-8", "ignore") + tail


def _unless_shared(names: list[str], longer: list[str]) -> list[str]:
    """Names, the longer one where several would be the same on some systems."""
    count = Counter(name.lower() for name in names)
    return [name if count[name.lower()] == 1 else other for name, other in zip(names, longer, strict=True)]


def _safe(name: str) -> str:
    """Blanks and marks stay: players look for the very name."""
    kept = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in name).lstrip(".")
    return kept or "recording"


def _file(kind: str, recording: dict[str, Any], segments: list[dict[str, Any]]) -> str:
    if kind == "txt":
        return "\n".join(segment["text"] for segment in segments if segment["text"]) + "\n"
    if kind == "json":
        return json.dumps(_as_whisperx(recording, segments), ensure_ascii=False, indent=1) + "\n"
    cues = [cue for segment in segments for cue in _cues(segment)]
    return srt(cues) if kind == "srt" else vtt(cues)


def _cues(segment: dict[str, Any]) -> list[Cue]:
    """The finest times there are: words, or else phrases, or else the segment's own."""
    prefix = "" if segment["channel"] is None else f"[{segment['channel']}] "
    if segment["words"]:
        cues = cues_of_words([Cue(w["start_s"], w["stop_s"], w["word"]) for w in segment["words"]])
    elif segment["phrases"]:
        cues = [Cue(p["start_s"], p["stop_s"], p["text"]) for p in segment["phrases"]]
    else:
        cues = [Cue(segment["start_s"], segment["stop_s"], segment["text"])] if segment["text"] else []
    return [cue._replace(text=prefix + cue.text) for cue in cues]


def _as_whisperx(recording: dict[str, Any], segments: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields that WhisperX writes (github.com/m-bain/whisperX): seconds, words with their score."""
    found, all_words = [], []
    for segment in segments:
        if not segment["text"]:
            continue
        words = [
            {"word": w["word"], "start": w["start_s"], "end": w["stop_s"], "score": w["confidence"]}
            for w in segment["words"] or []
        ]
        speaker = {} if segment["channel"] is None else {"speaker": f"CHANNEL_{segment['channel']}"}
        told = {"start": segment["start_s"], "end": segment["stop_s"], "text": segment["text"]}
        found.append({**told, **speaker, "words": words})
        all_words += words
    return {"segments": found, "word_segments": all_words, "language": recording["language"]}


def _jsonl(recordings: list[dict[str, Any]], segments: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        json.dumps({**recording, "segments": segments[recording["id"]]}, ensure_ascii=False) for recording in recordings
    ]
    return "".join(line + "\n" for line in lines)


def _csv(recordings: list[dict[str, Any]], segments: dict[str, list[dict[str, Any]]]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for recording in recordings:
        for segment in segments[recording["id"]]:
            writer.writerow({**segment, "source": recording["source"], "member": recording["member"]})
    return sink.getvalue()
