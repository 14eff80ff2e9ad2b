"""Batches of a Ray Dataset through a model in memory: a table with a column of audio -> the same table with what the model answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from audiomill.errors import UsageError
from audiomill.inference.answers import Answer, Rejection
from audiomill.inference.speech_engine import SpeechEngine
from audiomill.tables.output import offsets

LOOKED_AT = ("audio", "bytes", "path", "file", "source", "audio_filepath")
"""Where audio is looked for, in this order, if no column is named."""
_REJECTION = pa.struct([("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


class _Transform:
    """One model. A row that cannot be used keeps its place: its `rejection` says why, and its other new columns are null.

    Args:
        model: hub id, local folder or URL.
        column: of the audio: paths, URLs, bytes, arrays, or structs as Hugging Face `Audio` columns hold; by default the first of
            `LOOKED_AT` that the table has.
        rate: of arrays, in samples a second.
        rate_column: where each row has a rate of its own.
        prefix: of the new columns' names.
        isolate: see `audiomill.load`.
        options: of the job: `language="en"`, `device="cuda"`.

    Raises:
        UsageError: the model or an option cannot be used; from a call: the batch has no such column, or has one of the new ones.
    """

    job: ClassVar[str]
    table: ClassVar[str]

    def __init__(
        self,
        model: str,
        *,
        column: str | None = None,
        rate: int | None = None,
        rate_column: str | None = None,
        prefix: str = "",
        isolate: bool = False,
        **options: Any,
    ) -> None:
        self._column, self._rate, self._rate_column, self._prefix = column, rate, rate_column, prefix
        self._engine = SpeechEngine(model, options, isolate)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with the new columns, rows in their order."""
        if not isinstance(batch, pa.Table):
            raise UsageError(f'a batch of {type(batch).__name__}: give map_batches batch_format="pyarrow"')
        answers = list(getattr(self._engine, self.job)(list(self._audio(batch)), rate=self._rate))
        for name, values in self._columns(answers).items():
            if self._prefix + name in batch.column_names:
                raise UsageError(
                    f"the dataset has a column {self._prefix + name}: rename it, or give prefix= for the new columns"
                )
            batch = batch.append_column(self._prefix + name, values)
        return batch

    def _audio(self, batch: pa.Table) -> Iterator[Any]:
        """What each row has for audio."""
        known = [self._column] if self._column is not None else LOOKED_AT
        name = next((each for each in known if each in batch.column_names), None)
        if name is None:
            raise UsageError(
                f"no column {' or '.join(known)}; the dataset has {', '.join(batch.column_names)}: name the one with audio: column="
            )
        rates: Sequence[Any] = [None] * batch.num_rows
        if self._rate_column is not None:
            if self._rate_column not in batch.column_names:
                raise UsageError(f"no column {self._rate_column}; the dataset has {', '.join(batch.column_names)}")
            rates = batch.column(self._rate_column).to_pylist()
        for value, rate in zip(batch.column(name).to_pylist(), rates, strict=True):
            sound = np.asarray(value) if isinstance(value, list) else value
            yield sound if rate is None else (sound, rate)

    def _columns(self, answers: Sequence[Answer | Rejection]) -> dict[str, pa.Array]:
        good = [each if isinstance(each, Answer) else None for each in answers]
        names = [each.name for each in _REJECTION]
        kind = self._engine.table_schema(self.job, self.table)
        rejections = [
            {name: getattr(each, name) for name in names} if isinstance(each, Rejection) else None for each in answers
        ]
        return {
            "duration_s": pa.array([each and each.duration_s for each in good], pa.float64()),
            self.table: _rows([each and each.to_arrow(self.table) for each in good], kind),
            "rejection": pa.array(rejections, _REJECTION),
        }


class Transcriber(_Transform):
    """Text: columns `text`, `language`, `duration_s`, `segments` (a list of rows of the segments table) and `rejection`."""

    job, table = "transcribe", "segments"

    def _columns(self, answers: Sequence[Answer | Rejection]) -> dict[str, pa.Array]:
        texts = {
            name: pa.array([getattr(each, name, None) for each in answers], pa.string())
            for name in ("text", "language")
        }
        return {**texts, **super()._columns(answers)}


class Embedder(_Transform):
    """Vectors: columns `duration_s`, `embeddings` (a list of rows of the embeddings table) and `rejection`."""

    job, table = "embed", "embeddings"


class Encoder(_Transform):
    """Discrete codes: columns `duration_s`, `codes` (a list of rows of the codes table) and `rejection`."""

    job, table = "encode", "codes"


def _rows(tables: Sequence[pa.Table | None], kind: pa.Schema) -> pa.Array:
    """The rows of each table as one value; null for None."""
    structs = pa.concat_tables(
        [kind.empty_table(), *(table for table in tables if table is not None)]
    ).to_struct_array()
    edges = pa.array(offsets([0 if table is None else table.num_rows for table in tables]), pa.int32())
    is_null = pa.array([table is None for table in tables], pa.bool_())
    return pa.ListArray.from_arrays(edges, structs.combine_chunks(), mask=is_null)
