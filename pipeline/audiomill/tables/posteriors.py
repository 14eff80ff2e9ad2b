"""The posteriors table: what a CTC model thought of each frame, for other texts later (`audiomill redecode`)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from audiomill.audio.clock import MODEL_SAMPLE_RATE, seconds_from_samples
from audiomill.config.jobs import JobConfig
from audiomill.models.base import RequestedOutputs
from audiomill.models.batch import Batch
from audiomill.models.ctc.emissions import Emissions, narrowed, quantize_logprobs
from audiomill.schema import column
from audiomill.tables.output import CLOCK, NAMED, ModelRequest, Output, OutputRun, frame_row

BYTES_PER_CANDIDATE = 3

_SCHEMA = pa.schema(
    [
        *NAMED,
        column("num_frames", pa.int32(), "frames in the row"),
        *CLOCK,
        column("continues_previous", pa.bool_(), "frames go on from the row before: both are read as one"),
        column("num_tokens", pa.int16(), "candidates a frame: the blank first, then from the most probable on"),
        column("tokens", pa.binary(), "uint16, frame by frame"),
        column("quantized_logprobs", pa.binary(), "uint8, frame by frame: log-probability is -20 (level / 255)^2"),
    ]
)


def _num_kept(requested: RequestedOutputs) -> int:
    """Tokens beside the blank."""
    return requested.text.decoder.save_posteriors if requested.has_text else 0


def _resolve_run(job: JobConfig, asked: Sequence[ModelRequest]) -> OutputRun | None:
    return OutputRun(_SCHEMA) if any(_num_kept(each.spec.requested) for each in asked) else None


def _rows(batch: Batch, run: OutputRun) -> pa.Table:
    """A row a segment: the most probable tokens of its own frames."""
    number, spec = next((n, spec) for n, spec in enumerate(batch.specs) if _num_kept(spec.requested))
    hop, rows = spec.text_hop, []
    for each in batch.stored:
        segment, text = each.segment, each.predictions[number].text
        first = -(-segment.left // hop)
        stop = len(text.labels_F) if segment.right == 0 else -(-(segment.left + segment.num_samples) // hop)
        emissions = Emissions(text.top.tokens_FC[first:stop], text.top.logprobs_FC[first:stop])
        top = narrowed(emissions, _num_kept(spec.requested))
        rows.append(
            {
                **frame_row(segment, spec, None, 1),
                "frame_rate_hz": MODEL_SAMPLE_RATE / hop,
                "first_frame_s": seconds_from_samples(segment.start - segment.left + first * hop),
                "num_frames": len(top.tokens_FC),
                "continues_previous": segment.left > 0,
                "num_tokens": top.tokens_FC.shape[1],
                "tokens": top.tokens_FC.astype("<u2").tobytes(),
                "quantized_logprobs": quantize_logprobs(top.logprobs_FC).tobytes(),
            }
        )
    return pa.Table.from_pylist(rows, schema=run.schema)


def _bytes_per_second(asked: ModelRequest) -> float:
    num_tokens = _num_kept(asked.spec.requested)
    return (
        MODEL_SAMPLE_RATE / max(1, asked.spec.text_hop) * BYTES_PER_CANDIDATE * (num_tokens + 1) if num_tokens else 0.0
    )


POSTERIORS = Output(
    name="posteriors",
    documented={"posteriors": _SCHEMA},
    resolve_run=_resolve_run,
    rows=_rows,
    bytes_per_second=_bytes_per_second,
)
