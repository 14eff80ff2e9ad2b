"""The resynthesize job: codes of a codec -> sound, and a row of quality for each segment. Finished parts are not made again."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from numpy.typing import NDArray
from rich.console import Console

from audiomill.config.output_jobs import COPIES_FOLDER, ResynthesizeConfig
from audiomill.config.stages import ModelConfig
from audiomill.errors import InputError, ModelError, RecordingRejected, UsageError
from audiomill.models.checkpoint import Checkpoint, checkpoint_fingerprint, find_checkpoint
from audiomill.models.device import resolve_device
from audiomill.models.family import Resynthesizer
from audiomill.resynthesis.originals import Originals
from audiomill.resynthesis.quality import Recogniser, mel_distance_db, recogniser_of, si_sdr_db
from audiomill.schema import column
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import part_name, read_table, write_table
from audiomill.storage.urls import absolute
from audiomill.watch.map_parts import map_parts

_QUALITY = pa.schema(
    [
        column("segment_id", pa.string(), "joins segments.id"),
        column("recording_id", pa.string(), "joins recordings.id"),
        column("model", pa.string(), "codec as it was named"),
        column("codebooks", pa.int16(), "that the copy was made of"),
        column("audio", pa.string(), "file of the copy, in this folder"),
        column("duration_s", pa.float64(), "of the copy", "s"),
        column("si_sdr_db", pa.float32(), "signal to distortion, whatever the scale; null: silence", "dB", True),
        column(
            "mel_distance_db", pa.float32(), "mean difference of log-mel spectrograms; null: no original", "dB", True
        ),
        column("text", pa.string(), "what the recogniser hears in the original; null: none", nullable=True),
        column("copy_text", pa.string(), "what it hears in the copy", nullable=True),
        column("wer", pa.float32(), "words of the copy's text against the original's", "", True),
        column("error", pa.string(), "why there is no comparison; null: there is one", nullable=True),
    ]
)
OWN = "quantizer"
FOLDERS = ("audio", "quality")


class _Source(NamedTuple):
    """An output with codes of a codec, and how many codebooks it kept."""

    place: Place
    record: Mapping[str, Any]
    label: str
    checkpoint: Checkpoint
    num_codebooks: int


def resynthesize_output(config: ResynthesizeConfig, console: Console) -> dict[str, Any]:
    """Makes the copies that are not there yet.

    Returns:
        Number of copies, and means of their quality.

    Raises:
        UsageError, InputError: no codes of a codec, or another checkpoint than the one that made them.
    """
    asked, options = config.copies, config.copies.storage_options
    source = _source(Place(absolute(config.only_input()), options), asked.codec, options)
    to = (
        source.place.join(COPIES_FOLDER)
        if config.output.output is None
        else Place(absolute(config.output.output), options)
    )
    if asked.codebooks is not None and asked.codebooks > source.num_codebooks:
        num_codebooks = source.num_codebooks
        raise UsageError(
            f"--codebooks {asked.codebooks}: the output kept {num_codebooks}; ask for 1 to {num_codebooks}"
        )
    device = resolve_device(asked.device)
    assert source.checkpoint.family.resynthesizer is not None
    decoder = source.checkpoint.family.resynthesizer(Path(source.checkpoint.path), device)
    recogniser = recogniser_of(asked.recogniser, source.record, device, options)
    settings = {"codec": checkpoint_fingerprint(source.checkpoint), "codebooks": asked.codebooks, "most": asked.most,
                "recogniser": recogniser.name if recogniser else None, "channels": _channels(source)}  # fmt: skip
    if config.output.overwrite:
        ledger.clear_output(to, FOLDERS)
    ledger.guard(to, settings, {"job": "resynthesize", "model_name": source.label, "inputs": [source.place.url]})
    copier = _Copier(source, to, decoder, recogniser, asked.codebooks, options)
    try:
        chosen = _chosen(source, asked.most)
        done = set(to.join("quality").names())
        left = {part: seconds for part, seconds in chosen.seconds.items() if f"{part_name(part)}.parquet" not in done}
        map_parts(partial(copier.part, chosen.segments), left, 0, console, config.output.quiet)
    finally:
        copier.close()
    return summary_of(to)


def quality_of(to: Place) -> pa.Table:
    """All rows of finished parts."""
    names = sorted(to.join("quality").names())
    results = [_read(to.join("quality", name)) for name in names if name.endswith(".parquet")]
    return pa.concat_tables(results) if results else _QUALITY.empty_table()


def copy_file(to: Place, segment_id: str) -> Place:
    """The copy of a segment. Ids of foreign outputs may hold anything: they lead nowhere else."""
    return to.join("audio", re.sub(r"[^\w.-]", "_", segment_id) + ".flac")


def summary_of(to: Place) -> dict[str, Any]:
    """What all copies are like together."""
    rows = quality_of(to)
    means = {name: pc.mean(rows.column(name)).as_py() for name in ("si_sdr_db", "mel_distance_db", "wer")}
    return {
        "folder": to.url,
        "copies": rows.num_rows,
        "without": rows.num_rows - rows.column("error").null_count,
    } | means


def _read(place: Place) -> pa.Table:
    return read_table(place).cast(_QUALITY)


def _source(place: Place, wanted: str | None, options: dict[str, Any]) -> _Source:
    run = place.join("run.json")
    if not run.exists() or not place.join("codes").names():
        raise InputError(f"{place.url}: no codes; expected the --output of an encode run with a codec")
    record = json.loads(run.read())
    results: dict[str, int] = {}
    for _, rows in ledger.each_part(place, "codes", ["model", "quantizer", "codebook"]):
        counts = rows.filter(pc.equal(rows.column("quantizer"), OWN)).group_by("model").aggregate([("codebook", "max")])
        results |= {row["model"]: row["codebook_max"] + 1 for row in counts.to_pylist()}
    codecs = {name: checkpoint for name in sorted(results) if (checkpoint := _codec(name, options)) is not None}
    known = ", ".join(codecs) or "none"
    if wanted is None and len(codecs) != 1:
        hint = "name one with --codec" if codecs else "codes of k-means and of wav2vec 2.0 have no way back to sound"
        raise UsageError(f"{place.url}: codecs whose codes are there: {known}; {hint}")
    label = wanted or next(iter(codecs))
    if label not in codecs:
        raise UsageError(f"--codec {label}: {place.url} has codes of {known}")
    made_by = [value for name, value in record["results"].items() if name.rsplit(".", 1)[-1] == "model"]
    if checkpoint_fingerprint(codecs[label]) not in made_by:
        raise UsageError(
            f"{label}: other weights than those that made the codes; encode again, or put the old ones back"
        )
    return _Source(place, record, label, codecs[label], results[label])


def _codec(name: str, options: dict[str, Any]) -> Checkpoint | None:
    try:
        checkpoint = find_checkpoint(ModelConfig(model=name), options)
    except ModelError as error:
        raise UsageError(f"{error} (its codes need its decoder)") from error
    return checkpoint if checkpoint.family.resynthesizer is not None else None


def _channels(source: _Source) -> str:
    return str(source.record["results"].get("channels", "mix"))


class _Chosen(NamedTuple):
    """Segments to make (None: all), and seconds by part."""

    segments: frozenset[str] | None
    seconds: dict[int, float]


def _chosen(source: _Source, most: int | None) -> _Chosen:
    seconds, names = {}, list[str]()
    for part, rows in ledger.each_part(source.place, "segments", ["id", "start_s", "stop_s"]):
        seconds[part] = float(pc.sum(pc.subtract(rows.column("stop_s"), rows.column("start_s"))).as_py() or 0.0)
        names += rows.column("id").to_pylist()
    if most is None or most >= len(names):
        return _Chosen(None, seconds)
    return _Chosen(frozenset(names[len(names) * number // most] for number in range(most)), seconds)


class _Copier:
    """Makes the copies of a part."""

    def __init__(
        self,
        source: _Source,
        to: Place,
        decoder: Resynthesizer,
        recogniser: Recogniser | None,
        codebooks: int | None,
        options: dict[str, Any],
    ) -> None:
        self._source, self._to, self._codec, self._recogniser = source, to, decoder, recogniser
        self._codebooks, self._rate = codebooks, decoder.form.rate
        self._originals = Originals(source.place, decoder.form, options)

    def close(self) -> None:
        self._originals.close()

    def part(self, chosen: frozenset[str] | None, part: int) -> int:
        """Writes sound, then quality: a part whose quality is there is whole. Nothing is rejected."""
        name = part_name(part) + ".parquet"
        codes = read_table(self._source.place.join("codes", name))
        segments = {row["id"]: row for row in _rows_of(self._source.place.join("segments", name))}
        rows = []
        for segment_id, codes_KF, scales in self._codes(codes):
            if chosen is None or segment_id in chosen:
                rows.append(self._copied(segments[segment_id], codes_KF, scales))
        write_table(self._to.join("quality", name), pa.Table.from_pylist(rows, _QUALITY), _QUALITY)
        return 0

    def _codes(self, codes: pa.Table) -> Iterator[tuple[str, NDArray[np.int64], tuple[float, ...]]]:
        mask = pc.and_(pc.equal(codes.column("model"), self._source.label), pc.equal(codes.column("quantizer"), OWN))
        by_segment: dict[str, list[dict[str, Any]]] = {}
        for row in codes.filter(mask).to_pylist():
            by_segment.setdefault(row["segment_id"], []).append(row)
        for segment_id, rows in by_segment.items():
            each = [
                row["codes"] if row["durations"] is None else np.repeat(row["codes"], row["durations"])
                for row in sorted(rows, key=lambda row: int(row["codebook"]))[: self._codebooks]
            ]
            yield segment_id, np.array(each, np.int64), tuple(rows[0]["scales"] or ())

    def _copied(
        self, segment: dict[str, Any], codes_KF: NDArray[np.int64], scales: tuple[float, ...]
    ) -> dict[str, Any]:
        seconds = segment["stop_s"] - segment["start_s"]
        copy_TK = self._codec.sound(codes_KF, scales)[: round(seconds * self._rate)]
        place = copy_file(self._to, segment["id"])
        place.write(flac(copy_TK, self._rate))
        row = {
            "segment_id": segment["id"], "recording_id": segment["recording_id"], "model": self._source.label,
            "codebooks": len(codes_KF), "audio": "audio/" + place.url.rsplit("/", 1)[-1], "duration_s": len(copy_TK) / self._rate,
        }  # fmt: skip
        try:
            original_TK = self._originals.sound(segment)
        except RecordingRejected as rejected:
            return {**row, "error": f"{rejected.reason}: {rejected.detail}"}
        size = min(len(original_TK), len(copy_TK))
        first, second = original_TK[:size].mean(axis=1), copy_TK[:size].mean(axis=1)
        row |= {"si_sdr_db": si_sdr_db(first, second), "mel_distance_db": mel_distance_db(first, second, self._rate)}
        if self._recogniser is not None:
            row |= self._recogniser.compared(segment, first, second, self._rate)
        return row


def _rows_of(place: Place) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(place).to_pylist()
    return rows


def flac(wave_TK: NDArray[np.float32], rate: int) -> bytes:
    """A file of 16 bits."""
    sink = io.BytesIO()
    soundfile.write(sink, wave_TK.clip(-1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
