"""Recordings in memory -> their tables, by the steps of a job.

They are read and cut (`audiomill.stages.cut`), pieces go through the models (`audiomill.stages.infer`) and their results become
tables (`audiomill.tables.assemble`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from audiomill.audio.cutting.segment import Segment
from audiomill.inference.audio_inputs import MemoryInput
from audiomill.models.task import LoadedTask
from audiomill.runs.process_pool import infer_all
from audiomill.stages.cut import RecordingReader, cut_part
from audiomill.stages.infer import infer_piece
from audiomill.stages.plan import planned_table
from audiomill.stages.read import Finished
from audiomill.stages.sandbox import Decoder
from audiomill.stages.spec import RunSpec
from audiomill.storage.fs import Place
from audiomill.tables.assemble import Result, assemble, unpack


def plan_rows(group: Sequence[MemoryInput], part: int = 0) -> list[dict[str, Any]]:
    """Plan rows of some inputs, all of one part."""
    durations = [each.seconds for each in group]
    rows: list[dict[str, Any]] = planned_table(
        [each.entry for each in group], durations, first_part=part, part_seconds=1e12
    ).to_pylist()
    return [{**row, "part": part} for row in rows]


class _Reader:
    """See `audiomill.stages.cut.RecordingReader`. Files, URLs and foreign bytes are opened in the decode process alone.

    Args:
        decoder: of this run.
        places: where the contents of inputs without a file lie meanwhile, by source.
    """

    def __init__(self, decoder: Decoder, places: Mapping[str, str]) -> None:
        self._decoder, self._places = decoder, places

    def read(self, row: dict[str, Any]) -> Iterator[Segment | Finished]:
        return self._decoder.read({**row, "source": self._places.get(row["source"], row["source"])})


@contextlib.contextmanager
def _reader(spec: RunSpec, group: Sequence[MemoryInput]) -> Iterator[tuple[_Reader, Place]]:
    """Reads the recordings of a group; and a folder for notes. Arrays stay in memory, foreign bytes lie in files meanwhile."""
    decoder = Decoder(spec.decode, spec.segments, spec.storage_options)
    with tempfile.TemporaryDirectory(prefix="audiomill-") as folder, contextlib.closing(decoder):
        memory, places = Place(f"memory:/{folder}"), dict[str, str]()
        for number, each in enumerate(group):
            if each.content is not None:
                place = (memory if each.is_ours else Place(folder)).join(str(number))
                place.write(each.content)
                places[each.entry.source] = place.url
        try:
            yield _Reader(decoder, places), Place(folder).join("notes")
        finally:
            memory.remove(recursive=True)


def run_group(spec: RunSpec, tasks: Sequence[LoadedTask], group: Sequence[MemoryInput]) -> dict[str, pa.Table]:
    """Tables of some recordings, by models of this process."""
    with _reader(spec, group) as (reader, _):
        pieces = cut_part(0, plan_rows(group), reader, spec.piece_samples)
        return assemble([unpack(infer_piece(piece, tasks, spec.tables, 0)) for piece in pieces], spec.tables)


def run_isolated_group(spec: RunSpec, group: Sequence[MemoryInput]) -> dict[str, pa.Table]:
    """The same by the processes of the local engine. A recording on which they die has no rows; the others are computed again."""
    with _reader(spec, group) as (reader, notes):
        results = _inferred(spec, {0: plan_rows(group)}, reader, notes)
        if not results:
            results = _inferred(spec, {n: plan_rows([each], n) for n, each in enumerate(group)}, reader, notes)
        return assemble([result for number in sorted(results) for result in results[number]], spec.tables)


def _inferred(
    spec: RunSpec, parts: Mapping[int, list[dict[str, Any]]], reader: RecordingReader, notes: Place
) -> dict[int, list[Result]]:
    """Results by part, of the parts that are whole."""
    pieces = (piece for part, rows in parts.items() for piece in cut_part(part, rows, reader, spec.piece_samples))
    results: dict[int, list[Result]] = {}
    planned_s = sum(row["planned_s"] for rows in parts.values() for row in rows)
    for packed in infer_all(pieces, lambda: True, spec, notes, planned_s):
        result = unpack(packed)
        results.setdefault(result.row["part"], []).append(result)
    for several in results.values():
        several.sort(key=lambda result: result.row["piece"])
    return {
        part: several
        for part, several in results.items()
        if several[-1].row["last"] and len(several) == several[-1].row["piece"] + 1
    }
