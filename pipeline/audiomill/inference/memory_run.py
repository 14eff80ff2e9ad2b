"""Recordings in memory -> their tables, by the steps of a job.

They are read and cut (`audiomill.stages.cut`), pieces go through the models (`audiomill.stages.infer`) and their results become
tables (`audiomill.tables.assemble`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from audiomill.audio.cutting.segment import Segment
from audiomill.inference.audio_inputs import MemoryInput
from audiomill.models.task import LoadedTask
from audiomill.runs.poison_isolation import result_of_lost
from audiomill.runs.process_pool import infer_all
from audiomill.stages.cut import RecordingReader, cut_part
from audiomill.stages.infer import infer_piece
from audiomill.stages.plan import planned_table
from audiomill.stages.read import Finished
from audiomill.stages.sandbox import Decoder
from audiomill.stages.spec import RunSpec
from audiomill.stages.write import whole_parts
from audiomill.storage.fs import Place
from audiomill.storage.ledger import split_by_part
from audiomill.tables.assemble import Result, assemble, unpack

_PART_SECONDS = 240.0
"""Of audio that goes through the models together: the next part is decoded meanwhile, or computed by another process."""


def planned_seconds_of(given: MemoryInput) -> float:
    """Its length, or a guess by its size."""
    return float(_plan([given]).column("planned_s")[0].as_py())


def _plan(group: Sequence[MemoryInput]) -> pa.Table:
    durations = [each.seconds for each in group]
    return planned_table([each.entry for each in group], durations, first_part=0, part_seconds=_PART_SECONDS)


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
    parts = split_by_part(_plan(group))
    with _reader(spec, group) as (reader, _), ThreadPoolExecutor(1) as ahead:
        pieces = _pieces(parts, reader, spec)
        results, coming = list[Result](), ahead.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = ahead.submit(next, pieces, None)
            results.append(unpack(infer_piece(piece, tasks, spec.tables, 0)))
        return assemble(results, spec.tables)


def run_isolated_group(spec: RunSpec, group: Sequence[MemoryInput]) -> dict[str, pa.Table]:
    """The same by the processes of the local engine. A recording on which they die or hang is rejected; what shared a part with it is
    computed again."""
    plan = _plan(group)
    with _reader(spec, group) as (reader, notes):
        results = _inferred(spec, split_by_part(plan), reader, notes)
        alone = {
            number: plan.slice(number, 1)
            for number, part in enumerate(plan.column("part").to_pylist())
            if part not in results
        }
        parts = {part + len(group): several for part, several in results.items()}
        parts |= _inferred(spec, alone, reader, notes) if alone else {}
        for number in alone.keys() - parts.keys():
            parts[number] = [result_of_lost(alone[number].to_pylist()[0], notes, number)]
        return assemble([result for number in sorted(parts) for result in parts[number]], spec.tables)


def _pieces(parts: Mapping[int, pa.Table], reader: RecordingReader, spec: RunSpec) -> Iterator[pa.Table]:
    for part, rows in parts.items():
        yield from cut_part(part, rows.to_pylist(), reader, spec.piece_samples)


def _inferred(
    spec: RunSpec, parts: Mapping[int, pa.Table], reader: RecordingReader, notes: Place
) -> dict[int, list[Result]]:
    """Results by part, of the parts that are whole."""
    planned_s = sum(sum(rows.column("planned_s").to_pylist()) for rows in parts.values())
    results: defaultdict[int, list[Result]] = defaultdict(list)
    for packed in infer_all(_pieces(parts, reader, spec), lambda: True, spec, notes, planned_s):
        result = unpack(packed)
        results[result.row["part"]].append(result)
    return whole_parts(results)
