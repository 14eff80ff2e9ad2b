"""Bytes of the output tables, extrapolated from a sample column by column: times and scores grow with the audio, words
repeat themselves and grow more slowly, and a file costs something even when it is empty."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audiomill.audio.clock import MODEL_SAMPLE_RATE, Form
from audiomill.runs.resolve_config import PLAIN_BYTES, sound_bytes
from audiomill.stages.spec import RunSpec
from audiomill.storage.part_files import to_bytes
from audiomill.watch.progress import size_text

_SHARES = (4, 2, 1)
"""The sample is written whole, in halves and in quarters."""
MIN_GROWTH = 0.3
"""A column never stops growing: a power of the audio below this is noise of a small sample."""

USUAL_GROWTH = 0.85
"""Where two sizes are all there is."""

Leaves = dict[str, float]
Growth = dict[str, tuple[float, float, float, float]]


def leaf_bytes(table: pa.Table) -> Leaves:
    """Compressed bytes of every leaf column of the file that the table makes; `rest`: footer and the like."""
    content = to_bytes(table)
    metadata = pq.ParquetFile(pa.BufferReader(content)).metadata
    results: defaultdict[str, float] = defaultdict(float)
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            results[chunk.path_in_schema] += chunk.total_compressed_size
    results["rest"] = len(content) - sum(results.values())
    return dict(results)


def _split(table: pa.Table, key: str, ids: Sequence[str], pieces: int) -> list[pa.Table]:
    """The rows of so many shares of the recordings."""
    return [
        table.filter(pc.is_in(table.column(key), value_set=pa.array(list(ids[number::pieces]), pa.string())))
        for number in range(pieces)
    ]


def growth(table: pa.Table, key: str, ids: Sequence[str]) -> Growth:
    """For each leaf: bytes of an empty file, of the sample, of what grows in it, and the power with which that grows.

    Sizes at a quarter, a half and the whole of the sample determine a curve `a + b x^p`.
    """
    empty = leaf_bytes(table.slice(0, 0))
    shares = [pieces for pieces in _SHARES if pieces <= max(1, len(ids))]
    means: list[Leaves] = []
    for pieces in shares:
        sizes = [leaf_bytes(each) for each in _split(table, key, ids, pieces)]
        means.append({name: sum(size.get(name, 0.0) for size in sizes) / pieces for name in empty | sizes[0]})
    return {name: (empty.get(name, 0.0), *_fitted([mean[name] for mean in means])) for name in means[-1]}


def _fitted(sizes: Sequence[float]) -> tuple[float, float, float]:
    """Size of the whole, how much of it grows, and with which power."""
    whole = sizes[-1]
    if len(sizes) < 2:
        return whole, whole, 1.0
    half, quarter = sizes[-2], sizes[-3] if len(sizes) > 2 else None
    last = whole - half
    if last <= 0:
        return whole, 0.0, 1.0
    power = USUAL_GROWTH
    if quarter is not None:
        power = math.log2(last / (half - quarter)) if half > quarter else 1.0
    power = min(1.0, max(MIN_GROWTH, power))
    return whole, last / (1 - 2**-power), power


def bytes_of_file(result: Growth, times: float) -> float:
    """One file that holds so many times the sample."""
    if times <= 0:
        return sum(empty for empty, _, _, _ in result.values())
    sizes = [
        max(empty, whole + growing * (float(times) ** power - 1)) for empty, whole, growing, power in result.values()
    ]
    return float(sum(sizes))


def forms_note(spec: RunSpec) -> str:
    """What it takes to carry sound in the models' own forms."""
    forms = [Form(*each) for each in spec.segments.forms]
    names = ", ".join(f"{form.rate / 1000:g} kHz" + " stereo" * (form.num_channels > 1) for form in forms)
    second = sound_bytes(spec.segments)
    piece = second * spec.piece_samples // MODEL_SAMPLE_RATE
    return (
        f"models hear {names}: a second of audio takes {size_text(second)} between the stages (others: {size_text(PLAIN_BYTES)}), "
        f"and a piece of many recordings up to {size_text(piece)}"
    )
