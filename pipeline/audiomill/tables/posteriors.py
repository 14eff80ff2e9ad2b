"""The posteriors table: what a CTC model thought of each frame, for other texts later (`audiomill redecode`)."""

from __future__ import annotations

import pyarrow as pa

from audiomill.audio.clock import MODEL_SAMPLE_RATE, seconds_from_samples
from audiomill.models.base import RequestedOutputs
from audiomill.models.ctc.emissions import Emissions, narrowed, quantize_logprobs
from audiomill.schema import column
from audiomill.tables.output import CLOCK, NAMED, ModelRequest, Output, Predictions, frame_row

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
    return 0 if requested.transcripts is None else requested.transcripts.decoder.save_posteriors


def _rows(answered: Predictions, kind: pa.Schema) -> pa.Table:
    """A row a segment: the most probable tokens of its own frames."""
    number, task = next((n, task) for n, task in enumerate(answered.tasks) if _num_kept(task.requested))
    hop, rows = task.text_hop, []
    for cut, answer in zip(answered.cuts, answered.answers[number], strict=True):
        text = answer.text
        first = -(-cut["left"] // hop)
        stop = len(text.labels_F) if cut["right"] == 0 else -(-(cut["left"] + cut["stop"] - cut["start"]) // hop)
        emissions = Emissions(text.top.tokens_FC[first:stop], text.top.logprobs_FC[first:stop])
        top = narrowed(emissions, _num_kept(task.requested))
        rows.append(
            {
                **frame_row(cut, task, None, 1),
                "frame_rate_hz": MODEL_SAMPLE_RATE / hop,
                "first_frame_s": seconds_from_samples(cut["start"] - cut["left"] + first * hop),
                "num_frames": len(top.tokens_FC),
                "continues_previous": cut["left"] > 0,
                "num_tokens": top.tokens_FC.shape[1],
                "tokens": top.tokens_FC.astype("<u2").tobytes(),
                "quantized_logprobs": quantize_logprobs(top.logprobs_FC).tobytes(),
            }
        )
    return pa.Table.from_pylist(rows, schema=kind)


def _bytes_per_second(asked: ModelRequest) -> float:
    num_tokens = _num_kept(asked.spec.requested)
    return (
        MODEL_SAMPLE_RATE / max(1, asked.spec.text_hop) * BYTES_PER_CANDIDATE * (num_tokens + 1) if num_tokens else 0.0
    )


POSTERIORS = Output(
    name="posteriors",
    documented=_SCHEMA,
    is_wanted=lambda requested: _num_kept(requested) > 0,
    schema=lambda asked: _SCHEMA,
    rows=_rows,
    bytes_per_second=_bytes_per_second,
)
