"""audiomill export: transcripts as subtitles, text, JSON lines or CSV; codes as lines of units; training data in shards."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
import pyarrow as pa
from click.core import ParameterSource

from audiomill import schema
from audiomill.errors import InputError, UsageError
from audiomill.exports.shard_files import FORMATS
from audiomill.exports.splits import BY_RECORDING
from audiomill.exports.transcript_files import check_has_columns, each_turns, file_names, file_of
from audiomill.exports.unit_files import Units, code_lines, format_line, write_units
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.chosen import check_chosen, transcript_parts
from audiomill.tables.conditions import Condition, check_measured, check_met, conditions_of, meeting
from audiomill.tables.voice_tables import voices_of, with_names
from audiomill.watch.progress import counted
from audiomill_jobs.options import JsonMapping, WithExamples, transcript_option

EXAMPLES = """\
Examples:
  audiomill export out/ --format srt --to subtitles/
  audiomill export out/ --format jsonl > transcripts.jsonl
  audiomill export units/ --format txt --to units.txt
  audiomill export units/ --format txt --units tagged --split train=0.98,dev=0.02 --to lm/
  audiomill export vectors/ --format webdataset --split train=0.9,dev=0.1 --split-by speaker --to shards/
"""
ONE_FILE_EACH = ("srt", "vtt", "txt", "json", "rttm", "ctm", "TextGrid")
CSV_COLUMNS = (
    "recording_id", "source", "member", "channel", "speaker", "start_s", "stop_s", "language", "confidence", "text",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
RECORDING_FIELDS = [name for name in schema.RECORDINGS.names if name not in ("envelope", "envelope_s")]
"""Columns of a recording that are text or numbers."""


UNIT_TEXT = "txt of codes"
TEXTS = (*(kind for kind in ONE_FILE_EACH if kind != "rttm"), "jsonl", "csv")
READ_BY: dict[str, tuple[str, ...]] = {
    "transcript": TEXTS,
    "where": (*TEXTS, *FORMATS),
    **dict.fromkeys(("as_units", "quantizer", "ids", "units", "durations"), (UNIT_TEXT,)),
    **dict.fromkeys(("split", "split_by", "seed"), (UNIT_TEXT, *FORMATS)),
    **dict.fromkeys(("shard_mb", "table", "only", "columns", "dtype"), tuple(FORMATS)),
}
"""Formats that read each option."""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--format",
    "kind",
    type=click.Choice((*ONE_FILE_EACH, "jsonl", "csv", *FORMATS)),
    required=True,
    help="What to write.",
)
@click.option(
    "--to",
    metavar="PLACE",
    help="Folder for srt, vtt, txt, json [default: OUTPUT/export]; file for jsonl, csv [default: standard output]; "
    "folder for training data.",
)
@transcript_option
@click.option(
    "--codes",
    "as_units",
    is_flag=True,
    help="txt: units of the codes table, one line a recording [default: where the output has no text].",
)
@click.option("--quantizer", metavar="TEXT", help="txt: whose codes, where there are several.")
@click.option("--ids", is_flag=True, help="txt: recording id and a tab before each line of units.")
@click.option("--units", type=click.Choice(("plain", "tagged")), default="plain", help="txt of codes: 12, or <u12>.")
@click.option("--durations", is_flag=True, help="txt of codes: a second file with the frames that each unit lasts.")
@click.option(
    "--split",
    metavar="TEXT",
    help="Shares of the audio by name, such as train=0.9,dev=0.1, for training data and units [default: train alone].",
)
@click.option(
    "--split-by",
    metavar="TEXT",
    default=BY_RECORDING,
    show_default=True,
    help="What must not be in two splits: recording, or a column such as speaker.",
)
@click.option("--seed", metavar="INT", type=int, default=0, show_default=True, help="Of the splits.")
@click.option(
    "--shard-mb",
    metavar="INT",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Megabytes of arrays a shard.",
)
@click.option("--table", type=click.Choice(("embeddings", "codes")), help="Training data: which, where there are both.")
@click.option("--only", metavar="NAME=VALUE", multiple=True, help="Training data: rows to take, such as layer=9.")
@click.option("--columns", metavar="TEXT", default="", help="Training data: columns beside the arrays, by comma.")
@click.option("--dtype", type=click.Choice(("float16", "float32")), help="Training data: of vectors.")
@click.option(
    "--where",
    metavar="TEXT",
    help="Segments to take, by conditions on columns of segments and quality, by comma: 'snr_db>=10,speaker=S1,tag:Music<0.3'.",
)
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def export(
    output: str,
    kind: str,
    to: str | None,
    transcript: int,
    as_units: bool,
    storage_options: dict[str, Any] | None,
    **other: Any,
) -> None:
    """Write transcripts, vectors or codes in other formats.

    srt, vtt, txt and json: one file a recording, named after it: fox.srt; fox.mp4.srt beside fox.webm.srt; a short id
    behind it where names are still equal. json: segments with words as WhisperX writes them. rttm: turns of speakers; ctm: words
    with times; TextGrid: turns and words for Praat. Where speakers are known (--speakers), all of them name them. jsonl: one
    line a recording with its segments. csv: one row a segment. txt of codes: one file, one line of units a recording, codebooks side by
    side as 12-45; with --split, a folder with train.txt, dev.txt, ...

    Training data, a sample a segment, in shards: datasets (Parquet, for datasets.load_dataset), webdataset (tar files), numpy
    (arrays that can be memory-mapped, with the offset of each sample).
    """
    place = Place(output, storage_options or {})
    is_of_units = kind == "txt" and (as_units or _has_only_codes(place))
    _check_read(UNIT_TEXT if is_of_units else kind, other["split"])
    conditions = conditions_of(other["where"])
    check_measured(place, conditions)
    check_met(place, conditions)
    if kind in FORMATS:
        _export_samples(place, kind, to, other)
        return
    if is_of_units:
        _export_units(place, Place(to, storage_options or {}) if to else None, other)
        return
    check_chosen(place, transcript)
    names = file_names(_with_text(place, kind))
    if kind in ONE_FILE_EACH:
        folder = Place(to, storage_options or {}) if to else place.join("export")
        check_has_columns(place, kind)
        for recording, segments, turns in _speaker_recordings(place, transcript, conditions, kind):
            name = names[recording["id"]]
            text = file_of(kind, recording, segments, "_".join(name.split()), turns)
            folder.join(f"{name}.{kind}").write(text.encode())
        click.echo(f"{counted(len(names), 'file')} in {folder.url}")
        return
    recordings = _speaker_recordings(place, transcript, conditions, kind)
    lines = _jsonl(recordings) if kind == "jsonl" else _csv(recordings)
    _write(lines, Place(to, storage_options or {}) if to else None)


def _check_read(kind: str, split: str | None) -> None:
    """Raises UsageError for an option that was given and that the format does not read."""
    context = click.get_current_context()
    given = [name for name in READ_BY if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    for name in given:
        option = "--" + {"as_units": "codes"}.get(name, name).replace("_", "-")
        if kind not in READ_BY[name]:
            raise UsageError(f"{option}: is not for --format {kind}; it is read by {', '.join(READ_BY[name])}")
        if name == "seed" and split is None:
            raise UsageError(f"{option}: says how to split; name the splits with --split train=0.9,dev=0.1")


def _write(texts: Iterable[str], to: Place | None) -> int:
    """One after the other, to standard output without a place; returns how many there were."""
    count = 0
    with to.open_for_writing() if to is not None else contextlib.nullcontext() as handle:
        for text in texts:
            count += 1
            if handle is None:
                click.echo(text, nl=False)
            else:
                handle.write(text.encode())
    return count


def _with_text(place: Place, kind: str) -> pa.Table:
    """What names the recordings of an output that has something to export.

    Raises:
        InputError: nothing is finished, or it holds no text.
    """
    recordings = ledger.tables(place, "recordings", ["id", "source", "member"])
    if not recordings.num_rows:
        raise InputError(f"{place.url}: no finished recordings; expected the --output of a transcribe run")
    if kind not in ("jsonl", "rttm", "TextGrid") and not any(
        texts.column("text").null_count < texts.num_rows for _, texts in ledger.each_part(place, "recordings", ["text"])
    ):
        raise InputError(f"{place.url}: holds no text; expected the --output of a transcribe run (codes: --format txt)")
    return recordings


Recording = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]
"""A recording, its segments, its turns."""


def _speaker_recordings(
    place: Place, transcript: int, conditions: Sequence[Condition], kind: str
) -> Iterator[Recording]:
    """Recordings with what is known of them, part by part: a corpus may be larger than memory. Speakers with a name have it."""
    voices = voices_of(place)
    tables = (
        transcript_parts(place, name, columns, transcript)
        for name, columns in (("recordings", RECORDING_FIELDS), ("segments", None))
    )
    for (_, recordings), (part, rows), turns in zip(*tables, each_turns(place, kind), strict=False):
        segments: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for segment in meeting(place, part, rows.to_pylist(), conditions):
            segments[segment["recording_id"]].append(with_names(segment, voices))
        for recording in recordings.to_pylist():
            yield recording, segments[recording["id"]], turns.get(recording["id"], [])


def _has_only_codes(place: Place) -> bool:
    if not place.join("codes").names():
        return False
    texts = ledger.tables(place, "recordings", ["text"]).column("text")
    return bool(texts.null_count == len(texts))


def _export_units(place: Place, to: Place | None, other: dict[str, Any]) -> None:
    units = Units(
        other["quantizer"], other["ids"], other["units"] == "tagged", other["durations"], other["split"], other["split_by"],
        other["seed"],
    )  # fmt: skip
    if to is not None:
        for url, count in write_units(place, to, units).items():
            click.echo(f"{counted(count, 'line')} in {url}")
        return
    if units.durations or units.split is not None:
        raise UsageError("--durations and --split write files: name where with --to")
    _write((format_line(line, line.units, units.ids) for line in code_lines(place, units)), None)


def _export_samples(place: Place, kind: str, to: str | None, other: dict[str, Any]) -> None:
    from audiomill.exports.samples import SampleOptions, export_samples, parsed_only  # torch takes seconds to import

    if to is None:
        raise UsageError(f"--format {kind}: writes several files; name a folder with --to")
    wanted = SampleOptions(
        kind=kind,
        split=other["split"],
        by=other["split_by"],
        seed=other["seed"],
        shard_mb=other["shard_mb"],
        table=other["table"],
        only=parsed_only(other["only"]),
        columns=[name.strip() for name in other["columns"].split(",") if name.strip()],
        dtype=other["dtype"],
        where=conditions_of(other["where"]),
    )
    counts = export_samples(place, Place(to, place.options), wanted)
    click.echo(", ".join(f"{name}: {counted(count, 'sample')}" for name, count in counts.items()) + f" in {to}")


def _jsonl(recordings: Iterable[Recording]) -> Iterator[str]:
    for recording, segments, _ in recordings:
        yield json.dumps({**recording, "segments": segments}, ensure_ascii=False) + "\n"


def _unless_formula(value: Any) -> Any:
    """A text that a spreadsheet would run, with a quote before it. Source: OWASP, "CSV Injection"."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _csv(recordings: Iterable[Recording]) -> Iterator[str]:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for recording, segments, _ in recordings:
        cells = [{**segment, "source": recording["source"], "member": recording["member"]} for segment in segments]
        writer.writerows({name: _unless_formula(value) for name, value in cell.items()} for cell in cells)
        yield sink.getvalue()
        sink.seek(0)
        sink.truncate()
