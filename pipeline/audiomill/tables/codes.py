"""The codes table: discrete units, a row a segment and codebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audiomill.config.jobs import JobConfig
from audiomill.config.representations import CodesConfig
from audiomill.errors import InputError
from audiomill.models.batch import Batch
from audiomill.models.checkpoint import Checkpoint
from audiomill.models.task import Shape
from audiomill.models.vectors.requested_outputs import settled_codes
from audiomill.schema import column
from audiomill.tables.output import (
    CLOCK,
    NAMED,
    ModelRequest,
    Output,
    OutputRun,
    Reading,
    frame_row,
    lists,
    plain_columns,
)

BYTES_PER_CODE = 2

_SCHEMA = pa.schema(
    [
        *NAMED,
        column("quantizer", pa.string(), "what made the codes: quantizer (the checkpoint's own) or a codebook's name"),
        column("codebook", pa.int16(), "from 0; a row for each codebook of the quantizer"),
        column("num_entries", pa.int32(), "entries of the codebook: codes are below it"),
        *CLOCK,
        column("codes", pa.list_(pa.uint16()), "one a frame; runs joined with --deduplicate"),
        column("durations", pa.list_(pa.uint16()), "frames each code lasts; null unless --deduplicate", nullable=True),
        column(
            "scales",
            pa.list_(pa.float32()),
            "loudness that EnCodec of 48 kHz takes out of each chunk (0.99 s); else null",
            nullable=True,
        ),
    ]
)


def _settle(
    configs: Sequence[CodesConfig], checkpoint: Checkpoint, shape: Shape, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    requested, file_hashes = settled_codes(configs, checkpoint, shape, options)
    return {"codes": tuple(requested)}, {"codebook": file_hashes} if file_hashes else {}


def _resolve_run(job: JobConfig, asked: Sequence[ModelRequest]) -> OutputRun | None:
    return OutputRun(_SCHEMA) if any(each.spec.requested.codes for each in asked) else None


def _rows(batch: Batch, run: OutputRun) -> pa.Table:
    """By segment, then by want, then by codebook."""
    rows: list[dict[str, Any]] = []
    codes: list[NDArray[np.uint16] | None] = []
    durations: list[NDArray[np.uint16] | None] = []
    scales: list[NDArray[np.float32] | None] = []
    for each in batch.stored:
        for number, prediction in each.predictions.items():
            spec, result = batch.specs[number], prediction.readout.scales
            for want, codes_KF in zip(spec.requested.codes, prediction.readout.codes, strict=True):
                for codebook, codes_F in enumerate(codes_KF[: want.num_kept]):
                    named = {"quantizer": want.name, "codebook": codebook, "num_entries": want.num_entries}
                    rows.append({**frame_row(each.segment, spec, want.layer, 1), **named})
                    kept_value, lasting = run_lengths(codes_F) if want.deduplicate else (codes_F, None)
                    codes.append(kept_value)
                    durations.append(lasting)
                    scales.append(np.array(result, np.float32) if result else None)
    columns = plain_columns(rows, run.schema, ("codes", "durations", "scales"))
    columns["scales"] = lists(scales, np.float32)
    columns["codes"], columns["durations"] = lists(codes, np.uint16), lists(durations, np.uint16)
    return pa.table([columns[name] for name in run.schema.names], schema=run.schema)


def run_lengths(codes_F: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Codes without immediate repeats, and how many frames each lasts."""
    starts = np.flatnonzero(np.diff(codes_F.astype(np.int32), prepend=-1))
    return codes_F[starts], np.diff(starts, append=len(codes_F)).astype(np.uint16)


def code_counts(codes: pa.Table) -> list[dict[str, Any]]:
    """How many frames each entry of each codebook has, for the ledger."""
    results = []
    keys = ["model", "quantizer", "codebook", "num_entries"]
    for key in codes.group_by(keys, use_threads=False).aggregate([]).to_pylist():
        mask = np.logical_and.reduce([pc.equal(codes.column(name), key[name]).to_numpy() for name in keys])
        mine = codes.filter(pa.array(mask))
        entries = mine.column("codes").combine_chunks().flatten().to_numpy()
        lasting = mine.column("durations").combine_chunks().flatten().to_numpy()
        weights = lasting if len(lasting) else None
        results.append({**key, "counts": np.bincount(entries, weights, key["num_entries"]).astype(int).tolist()})
    return results


def usage(entries: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums over the ledger: for each codebook the share of entries in use, perplexity and bits a frame.

    Perplexity is `exp` of the entropy of the entries' frequencies: as many equally frequent entries would tell as much.
    """
    sums: dict[tuple[str, str, int], NDArray[np.int64]] = {}
    for entry in entries:
        for each in entry.get("codes_usage") or ():
            key = (each["model"], each["quantizer"], each["codebook"])
            counts = np.asarray(each["counts"], np.int64)
            sums[key] = sums[key] + counts if key in sums else counts
    results = []
    for (model, quantizer, codebook), counts in sorted(sums.items()):
        share = counts[counts > 0] / max(1, counts.sum())
        entropy = float(-(share * np.log(share)).sum())
        results.append(
            {
                "model": model,
                "quantizer": quantizer,
                "codebook": codebook,
                "num_entries": len(counts),
                "num_used": int((counts > 0).sum()),
                "num_frames": int(counts.sum()),
                "perplexity": round(float(np.exp(entropy)), 3),
                "bits_a_frame": round(entropy / float(np.log(2)), 3),
            }
        )
    return results


def _bytes_per_second(asked: ModelRequest) -> float:
    return BYTES_PER_CODE * sum(
        want.num_kept * asked.spec.frame_rate(want.layer) for want in asked.spec.requested.codes
    )


def _read(rows: pa.Table, row: int, chosen: Mapping[str, Any]) -> NDArray[Any]:
    """codes_F of one codebook, or codes_KF of all that follow each other.

    Raises:
        InputError: they differ in length.
    """
    if "codebook" in chosen:
        return np.array(rows.column("codes")[row].values)
    names = [rows.column(name) for name in ("segment_id", "quantizer", "model")]
    stop, first = row, [column[row] for column in names]
    while stop < rows.num_rows and [column[stop] for column in names] == first:
        stop += 1
    results = [np.array(rows.column("codes")[i].values) for i in range(row, stop)]
    if len({len(codes) for codes in results}) > 1:
        raise InputError(
            "the codes were de-duplicated, so a segment's codebooks differ in length; choose one with codebook="
        )
    return results[0] if len(results) == 1 else np.stack(results)


CODES = Output(
    name="codes",
    documented={"codes": _SCHEMA},
    config=CodesConfig,
    shorthand="codebook",
    resolve=_settle,
    row_keys=lambda spec: [(want.name,) for want in spec.requested.codes],
    resolve_run=_resolve_run,
    rows=_rows,
    bytes_per_second=_bytes_per_second,
    counted=lambda table: {"codes_usage": code_counts(table)},
    reading=Reading(
        choose_by={"model": str, "quantizer": str, "codebook": int},
        one_kind=("model", "quantizer"),
        columns=("segment_id", "model", "quantizer", "codes"),
        values=_read,
        time_axis=-1,
        joins_rows=True,
    ),
)
