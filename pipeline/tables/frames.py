"""What models read off their hidden states -> rows of the embeddings and codes tables. Arrow buffers, no Python lists.

N vectors, D width, K codebooks, F frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audiomill import schema
from audiomill.audio.clock import MODEL_SAMPLE_RATE, seconds_from_samples
from audiomill.models.base import Readout, VectorWant
from audiomill.models.ctc.posteriors import TopTokens, narrowed, quantized
from audiomill.models.task import TaskSpec

Cuts = Sequence[Mapping[str, Any]]
VALUE_TYPES = {"fp16": pa.float16(), "fp32": pa.float32(), "int8": pa.int8()}


def segment_id(cut: Mapping[str, Any]) -> str:
    """Recording id, channel and start sample."""
    channel = "" if cut["channel"] is None else f"-c{cut['channel']}"
    return f"{cut['recording_id']}{channel}-{cut['start']:010d}"


def values_type(wants: Sequence[tuple[int, VectorWant]]) -> pa.DataType:
    """Type of `embeddings.values` for a run.

    A vector has a fixed size unless the run mixes widths; a row is one vector where everything is pooled, else a
    list of vectors.

    Args:
        wants: of the run, each with the width of its hidden state; all have one dtype.
    """
    sizes = {width * (2 if want.pool == "mean+std" else 1) for width, want in wants}
    value = VALUE_TYPES[wants[0][1].dtype]
    vector = pa.list_(value, sizes.pop()) if len(sizes) == 1 else pa.list_(value)
    return vector if all(want.pool != "none" for _, want in wants) else pa.list_(vector)


def embeddings_table(
    cuts: Cuts, answers: Sequence[Sequence[Readout]], tasks: Sequence[TaskSpec], kind: pa.Schema
) -> pa.Table:
    """Rows by segment, then by want.

    Args:
        cuts: the segments, see `schema.CUT`.
        answers: one sequence a task, one readout a segment.
        tasks: what was asked.
        kind: see `schema.embeddings`.
    """
    rows: list[dict[str, Any]] = []
    vectors: list[NDArray[Any]] = []
    scales: list[NDArray[np.float32] | None] = []
    for number, cut in enumerate(cuts):
        for task, readouts in zip(tasks, answers, strict=True):
            for want, found in zip(task.wants.vectors, readouts[number].vectors, strict=True):
                rows.append(
                    {
                        **_row(cut, task, want.stride),
                        "layer": want.layer,
                        "pool": want.pool,
                        "num_frames": found.num_frames,
                    }
                )
                vectors.append(found.values_ND)
                scales.append(found.scale_N)
    columns = _plain_columns(rows, kind, ("values", "scale"))
    columns["values"] = _values(vectors, kind.field("values").type)
    columns["scale"] = _lists(scales, np.float32)
    return pa.table([columns[name] for name in kind.names], schema=kind)


def codes_table(cuts: Cuts, answers: Sequence[Sequence[Readout]], tasks: Sequence[TaskSpec]) -> pa.Table:
    """Rows by segment, then by want, then by codebook. Arguments as for `embeddings_table`."""
    rows: list[dict[str, Any]] = []
    codes: list[NDArray[np.uint16] | None] = []
    durations: list[NDArray[np.uint16] | None] = []
    for number, cut in enumerate(cuts):
        for task, readouts in zip(tasks, answers, strict=True):
            for want, codes_KF in zip(task.wants.codes, readouts[number].codes, strict=True):
                for codebook, codes_F in enumerate(codes_KF):
                    named = {"quantizer": want.name, "codebook": codebook, "num_entries": want.num_entries}
                    rows.append({**_row(cut, task, 1), **named})
                    kept, lasting = run_lengths(codes_F) if want.deduplicate else (codes_F, None)
                    codes.append(kept)
                    durations.append(lasting)
    columns = _plain_columns(rows, schema.CODES, ("codes", "durations"))
    columns["codes"], columns["durations"] = _lists(codes, np.uint16), _lists(durations, np.uint16)
    return pa.table([columns[name] for name in schema.CODES.names], schema=schema.CODES)


def posteriors_table(cuts: Cuts, texts: Sequence[Any], task: TaskSpec, hop: int, kept: int) -> pa.Table:
    """A row a segment: the most probable tokens of its own frames.

    Args:
        cuts: the segments, see `schema.CUT`.
        texts: `FrameLabels` with `top`.
        task: the model.
        hop: samples from one frame to the next.
        kept: tokens beside the blank.
    """
    rows = []
    for cut, text in zip(cuts, texts, strict=True):
        first = -(-cut["left"] // hop)
        stop = len(text.labels_F) if cut["right"] == 0 else -(-(cut["left"] + cut["stop"] - cut["start"]) // hop)
        top = narrowed(TopTokens(text.top.tokens_FC[first:stop], text.top.logprobs_FC[first:stop]), kept)
        rows.append(
            {
                **_row(cut, task, 1),
                "frame_rate_hz": MODEL_SAMPLE_RATE / hop,
                "first_frame_s": seconds_from_samples(cut["start"] - cut["left"] + first * hop),
                "num_frames": len(top.tokens_FC),
                "is_continued": cut["left"] > 0,
                "num_tokens": top.tokens_FC.shape[1],
                "tokens": top.tokens_FC.astype("<u2").tobytes(),
                "levels": quantized(top.logprobs_FC).tobytes(),
            }
        )
    return pa.Table.from_pylist(rows, schema=schema.POSTERIORS)


def run_lengths(codes_F: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Codes without immediate repeats, and how many frames each lasts."""
    starts = np.flatnonzero(np.diff(codes_F.astype(np.int32), prepend=-1))
    return codes_F[starts], np.diff(starts, append=len(codes_F)).astype(np.uint16)


def code_counts(codes: pa.Table) -> list[dict[str, Any]]:
    """How many frames each entry of each codebook has, for the ledger."""
    found = []
    keys = ["model", "quantizer", "codebook", "num_entries"]
    for key in codes.group_by(keys, use_threads=False).aggregate([]).to_pylist():
        mask = np.logical_and.reduce([pc.equal(codes.column(name), key[name]).to_numpy() for name in keys])
        mine = codes.filter(pa.array(mask))
        entries = mine.column("codes").combine_chunks().flatten().to_numpy()
        lasting = mine.column("durations").combine_chunks().flatten().to_numpy()
        weights = lasting if len(lasting) else None
        found.append({**key, "counts": np.bincount(entries, weights, key["num_entries"]).astype(int).tolist()})
    return found


def _row(cut: Mapping[str, Any], task: TaskSpec, stride: int) -> dict[str, Any]:
    first = cut["start"] + (-cut["left"]) % task.hop
    return {
        "segment_id": segment_id(cut),
        "recording_id": cut["recording_id"],
        "model": task.label,
        "frame_rate_hz": MODEL_SAMPLE_RATE / (task.hop * stride),
        "first_frame_s": seconds_from_samples(first),
    }


def _plain_columns(rows: Sequence[Mapping[str, Any]], kind: pa.Schema, but: Sequence[str]) -> dict[str, pa.Array]:
    return {
        field.name: pa.array([row[field.name] for row in rows], field.type) for field in kind if field.name not in but
    }


def _values(vectors: Sequence[NDArray[Any]], kind: pa.DataType) -> pa.Array:
    """The values column from one array values_ND a row."""
    is_rows = pa.types.is_list(kind) and (pa.types.is_nested(kind.value_type))
    vector = kind.value_type if is_rows else kind
    flat = pa.array(np.concatenate([v.reshape(-1) for v in vectors]) if vectors else [], vector.value_type)
    if pa.types.is_fixed_size_list(vector):
        columns: pa.Array = pa.FixedSizeListArray.from_arrays(flat, vector.list_size)
    else:
        sizes = [v.shape[1] for v in vectors for _ in range(len(v))]
        columns = pa.ListArray.from_arrays(pa.array(_offsets(sizes)), flat)
    if not is_rows:
        return columns.cast(kind)
    return pa.ListArray.from_arrays(pa.array(_offsets([len(v) for v in vectors])), columns).cast(kind)


def _lists(arrays: Sequence[NDArray[Any] | None], dtype: type[np.generic]) -> pa.Array:
    """A list column; None gives null."""
    present = [a for a in arrays if a is not None]
    flat = pa.array(np.concatenate(present) if present else np.zeros(0, dtype))
    offsets = _offsets([0 if a is None else len(a) for a in arrays])
    mask = pa.array([a is None for a in arrays], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=mask)


def _offsets(sizes: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


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
    found = []
    for (model, quantizer, codebook), counts in sorted(sums.items()):
        share = counts[counts > 0] / max(1, counts.sum())
        entropy = float(-(share * np.log(share)).sum())
        found.append(
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
    return found
