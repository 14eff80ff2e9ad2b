"""Manifests: NeMo JSON lines, Lhotse recordings, supervisions and cuts, CSV and TSV, Hugging Face metadata files.

Every row becomes an entry; a row that names no audio, holds a bad value or leaves its folder becomes an
entry with a reason, so that it ends as a rejection row and is not lost.
"""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from audiomill.errors import InputError
from audiomill.sources.entry import Entry
from audiomill.sources.kaldi import is_kaldi, kaldi_rows
from audiomill.storage.fs import Place, absolute, protocol, retried

MANIFEST_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz")
PATH_COLUMNS = (
    "audio_filepath",
    "audio_path",
    "audio",
    "path",
    "file_name",
    "filename",
    "file",
    "filepath",
    "url",
    "source",
    "wav",
)
ID_COLUMNS = ("id", "member")
"""Name a recording in a references file; a manifest of inputs needs a path."""
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "reference", "normalized_text")
START_COLUMNS = (
    "offset", "start", "start_s", "start_time", "begin_time", "begin", "start_seconds",
    "offset_ms", "start_ms", "start_time_ms", "begin_ms",
)  # fmt: skip
END_COLUMNS = ("end", "end_s", "end_time", "stop", "stop_s", "end_seconds", "end_ms", "end_time_ms", "stop_ms")
DURATION_COLUMNS = ("duration", "duration_s", "dur", "duration_seconds", "duration_ms")
"""Times in seconds, or h:mm:ss; those that end in _ms in milliseconds."""
LANGUAGE_COLUMNS = ("language", "lang", "source_lang", "locale")
CHANNEL_COLUMNS = ("channel", "channel_selector")
SIDES = {"a": 0, "left": 0, "b": 1, "right": 1}
"""Names of channels in telephone corpora and editors; numbers count from 0."""


class Supervision(NamedTuple):
    """What Lhotse says about a stretch of a recording."""

    recording_id: str
    start: float
    text: str


class BadRow(ValueError):
    """A manifest row that cannot be used; `reason` as in `schema.REASONS`."""

    def __init__(self, detail: str, reason: str = "bad_manifest_row") -> None:
        super().__init__(detail)
        self.reason = reason


def is_manifest(name: str) -> bool:
    return name.lower().endswith(MANIFEST_SUFFIXES) or is_kaldi(name)


def read_manifest(place: Place, audio_root: str | None) -> Iterator[Entry | Supervision]:
    """Rows of one manifest file.

    Args:
        place: the manifest.
        audio_root: folder that its paths are relative to and confined to; None: its own folder.
    """
    source = absolute(place.url)
    for number, row in read_rows(place):
        try:
            if isinstance(row, BadRow):
                raise row
            yield _from_row(row, source, place, audio_root)
        except BadRow as error:
            yield Entry(source, f"row {number}", reason=error.reason, detail=str(error))


def read_rows(place: Place) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Rows of a JSON-lines, JSON, CSV or TSV file (also gzipped) with their line numbers."""
    if is_kaldi(place.url):
        yield from ((number, BadRow(row) if isinstance(row, str) else row) for number, row in kaldi_rows(place))
        return
    with retried(lambda: place.fs.open(place.path, "rb", compression="infer")) as handle:
        head = handle.read(2)
        handle.seek(0)
        encoding = "utf-16" if head in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        lines = io.TextIOWrapper(handle, encoding=encoding, errors="replace", newline="")
        plain = place.url.lower().removesuffix(".gz")
        yield from (
            _delimited(lines, place, "\t" if plain.endswith(".tsv") else ",")
            if plain.endswith((".csv", ".tsv"))
            else _json(lines)
        )


def _json(lines: io.TextIOWrapper) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """JSON lines; an array of objects and objects over several lines are read as well."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == 1 and (line.lstrip().startswith("[") or line.strip() == "{"):
            yield from _values(line + lines.read())
            return
        yield number, _object(line)


def _values(text: str) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Objects one after the other, or in an array; numbered by the line they begin in."""
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            yield 1, BadRow(f"expected JSON lines or an array of objects, got: {error}")
            return
        for number, value in enumerate(values, 1):
            yield (
                number,
                value if isinstance(value, dict) else BadRow(f"expected an object, got {type(value).__name__}"),
            )
        return
    parser, at, number = json.JSONDecoder(), 0, 1
    while at < len(text):
        begun = at
        try:
            value, at = parser.raw_decode(text, at)
        except ValueError as error:
            yield number, BadRow(f"expected a JSON object, got: {error}")
            return
        yield number, value if isinstance(value, dict) else BadRow(f"expected an object, got {type(value).__name__}")
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        number += text.count("\n", begun, at)


def _object(line: str) -> dict[str, Any] | BadRow:
    try:
        value = json.loads(line)
    except ValueError as error:
        return BadRow(f"expected a JSON object, got {line.strip()[:80]!r}: {error}")
    return value if isinstance(value, dict) else BadRow(f"expected a JSON object, got {type(value).__name__}")


def _delimited(lines: io.TextIOWrapper, place: Place, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    first = lines.readline()
    if delimiter == "," and "," not in first and ";" in first:  # as spreadsheets write it where commas are decimal
        delimiter = ";"
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.DictReader(chain([first], lines), delimiter=delimiter, quoting=quoting)
    names = reader.fieldnames or []
    if len(names) == 1 and names[0].count("|") in (1, 2) and not any(name in names for name in PATH_COLUMNS):
        yield from _ljspeech([names[0], *lines])
        return
    if not any(name in names for name in (*PATH_COLUMNS, *ID_COLUMNS)):
        raise InputError(
            f"{place.url}: expected a column named one of {', '.join(PATH_COLUMNS)}; got {', '.join(names) or 'nothing'}"
        )
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, BadRow(f"expected {delimiter!r}-separated text, got: {error}")
            continue
        yield (
            reader.line_num,
            {name: value for name, value in row.items() if name is not None and value not in (None, "")},
        )


def _ljspeech(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """`id|text|normalised text` without a header, beside a folder wavs/. Source: keithito.com/LJ-Speech-Dataset."""
    for number, line in enumerate(lines, 1):
        name, *texts = line.rstrip("\r\n").split("|")
        if name:
            yield number, {"audio_filepath": f"wavs/{name}.wav", "text": texts[-1] if texts else ""}


def _from_row(row: dict[str, Any], source: str, manifest: Place, audio_root: str | None) -> Entry | Supervision:
    if isinstance(row.get("sources"), list):
        return _lhotse_recording(row, manifest, audio_root)
    if "recording" in row or str(row.get("type", "")).endswith("Cut"):
        return _lhotse_cut(row, manifest, audio_root)
    if "recording_id" in row and "start" in row and not any(name in row for name in PATH_COLUMNS):
        return Supervision(str(row["recording_id"]), _number(row, "start") or 0.0, str(row.get("text") or ""))
    path = _first(row, PATH_COLUMNS)
    if isinstance(path, dict):
        path = path.get("path")
    if not isinstance(path, str) or not path:
        raise BadRow(
            f"expected a path in one of {', '.join(PATH_COLUMNS)}; got columns {', '.join(map(str, row)) or 'none'}"
        )
    if "client_id" in row and "/" not in path:  # Common Voice keeps its clips in a folder of their own
        path = f"clips/{path}"
    start, duration = _span(row)
    text = _first(row, TEXT_COLUMNS)
    language = _first(row, LANGUAGE_COLUMNS)
    channel = _channel(_first(row, CHANNEL_COLUMNS))
    known = {*PATH_COLUMNS, *TEXT_COLUMNS, *START_COLUMNS, *END_COLUMNS, *LANGUAGE_COLUMNS, *DURATION_COLUMNS}
    known |= set(CHANNEL_COLUMNS) if channel is not None else set()
    extra = {name: value for name, value in row.items() if name not in known}
    return Entry(
        resolve(path, manifest, audio_root),
        duration_s=duration,
        span_start_s=start,
        span_duration_s=duration if start is not None else None,
        channel=channel,
        reference=str(text) if text is not None else None,
        language=str(language) if language else None,
        metadata=json.dumps(extra, ensure_ascii=False, default=str) if extra else None,
    )


def _channel(value: Any) -> int | None:
    """The one channel that is meant; None for all, and for a word that means something else."""
    if isinstance(value, str):
        value = int(value) if value.isdecimal() else SIDES.get(value.strip().lower())
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _span(row: dict[str, Any]) -> tuple[float | None, float | None]:
    """Start and length of what a row means, None where it says neither; an end counts, however the length is called."""
    start, end, duration = (_first_number(row, names) for names in (START_COLUMNS, END_COLUMNS, DURATION_COLUMNS))
    if end is None:
        return start, duration
    start = start or 0.0
    if end <= start:
        raise BadRow(f"expected an end behind the start, got {start:g} to {end:g} s")
    return start, round(end - start, 6)


def _first_number(row: dict[str, Any], names: tuple[str, ...]) -> float | None:
    name = next((name for name in names if row.get(name) is not None), None)
    value = None if name is None else _number(row, name)
    return value / 1000 if value is not None and name is not None and name.endswith("_ms") else value


def _lhotse_recording(row: dict[str, Any], manifest: Place, audio_root: str | None) -> Entry:
    return Entry(
        _lhotse_source(row, manifest, audio_root),
        duration_s=_number(row, "duration"),
        metadata=json.dumps({"recording_id": row.get("id")}),
        key=str(row.get("id")),
    )


def _lhotse_cut(row: dict[str, Any], manifest: Place, audio_root: str | None) -> Entry:
    row = _only_track(row)
    recording = row.get("recording")
    if not isinstance(recording, dict):
        raise BadRow(f"expected a cut with a recording, got type {row.get('type')!r}")
    start, duration = _number(row, "start"), _number(row, "duration")
    if start is None or duration is None:
        raise BadRow("expected a cut with start and duration")
    supervisions = [s for s in row.get("supervisions") or [] if isinstance(s, dict)]
    ordered = sorted(supervisions, key=lambda s: float(s.get("start") or 0))
    text = " ".join(str(s["text"]) for s in ordered if s.get("text"))
    languages = [s["language"] for s in ordered if s.get("language")]
    return Entry(
        _lhotse_source(recording, manifest, audio_root),
        duration_s=duration,
        span_start_s=start,
        span_duration_s=duration,
        channel=_channel(row.get("channel")) if _num_channels(recording) > 1 else None,
        reference=text or None,
        language=str(languages[0]) if languages else None,
        metadata=json.dumps({"cut_id": row.get("id"), "recording_id": recording.get("id")}),
    )


def _only_track(row: dict[str, Any]) -> dict[str, Any]:
    """The cut in a cut of several tracks, where the others are padding."""
    tracks = row.get("tracks")
    if not isinstance(tracks, list):
        return row
    cuts = [each.get("cut") if isinstance(each, dict) else None for each in tracks]
    heard = [cut for cut in cuts if not (isinstance(cut, dict) and cut.get("type") == "PaddingCut")]
    if len(heard) == 1 and isinstance(heard[0], dict):
        return heard[0]
    raise BadRow(f"expected a cut of one recording, got a mix of {len(heard)} tracks; save the mix as audio first")


def _num_channels(recording: dict[str, Any]) -> int:
    """By whichever field of Lhotse's tells it; a recording that tells nothing has one."""
    sources = recording.get("sources")
    named = [recording.get("channel_ids"), *(s.get("channels") for s in sources or () if isinstance(s, dict))]
    return max((len(each) for each in named if isinstance(each, list)), default=1)


def _lhotse_source(recording: dict[str, Any], manifest: Place, audio_root: str | None) -> str:
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        raise BadRow("expected a recording with exactly one source")
    source = sources[0]
    if source.get("type") not in ("file", "url") or not isinstance(source.get("source"), str):
        raise BadRow(f"expected a source of type file or url, got {source.get('type')!r} (commands are never run)")
    return resolve(source["source"], manifest, audio_root)


def resolve(path: str, manifest: Place, audio_root: str | None) -> str:
    """Absolute path or URL of the audio that a manifest row names.

    Relative paths are taken from `audio_root`, or else from the manifest's folder, and may not leave it.
    Absolute local paths are for local manifests only, and inside `audio_root` if that is given.

    Raises:
        BadRow: the path leads outside.
    """
    scheme = protocol(path)
    remote = scheme not in ("file", "local")
    if remote and audio_root is None:
        return path
    root = absolute(audio_root or posixpath.dirname(absolute(manifest.url)) or ".")
    local_path = path if remote else path.removeprefix("file://").removeprefix("local://")
    if remote or posixpath.isabs(local_path):
        if audio_root is None and manifest.is_local:
            return posixpath.normpath(local_path)
        found = local_path if remote else posixpath.normpath(local_path)
        if audio_root is not None and (found + "/").startswith(root.rstrip("/") + "/") and ".." not in found.split("/"):
            return found
        raise BadRow(f"expected a path inside {root}, got {path}; see --audio-root", "path_outside_root")
    normal = posixpath.normpath(local_path)
    if normal == ".." or normal.startswith("../"):
        raise BadRow(f"expected a path inside {root}, got {path}; see --audio-root", "path_outside_root")
    return f"{root.rstrip('/')}/{normal}"


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _clock(text: str) -> float:
    """`1:02:03.5` -> 3723.5."""
    total = 0.0
    for each in text.replace(",", ".").split(":"):
        total = 60 * total + float(each)
    return total


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        number = _clock(value) if isinstance(value, str) and ":" in value else float(value)
    except (TypeError, ValueError):
        raise BadRow(f"expected a number in {name}, got {value!r}") from None
    if not math.isfinite(number) or number < 0:
        raise BadRow(f"expected {name} to be 0 or more seconds, got {value!r}")
    return number
