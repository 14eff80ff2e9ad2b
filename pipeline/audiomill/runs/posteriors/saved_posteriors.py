"""The posteriors that an output keeps, and how they are decoded again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from audiomill import schema
from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.config.text import SearchConfig
from audiomill.errors import InputError
from audiomill.models.base import Transcript
from audiomill.models.ctc.beam_search import BeamDecoder, Stretch
from audiomill.models.ctc.emissions import Emissions, dequantize_logprobs
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.storage.fs import Place
from audiomill.storage.part_files import in_schema, part_name, read_table


class KeptPosteriors:
    """An output with posteriors.

    Args:
        place: the output of `transcribe --save-posteriors`.

    Raises:
        InputError: it has none.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        run = place.join("run.json")
        self.record = json.loads(run.read()) if run.exists() else {}
        if "ctc_vocabulary" not in self.record:
            raise InputError(
                f"{place.url}: holds no posteriors; expected the --output of transcribe --save-posteriors 16 with a CTC model"
            )
        fields = self.record["ctc_vocabulary"]
        self.vocabulary = CtcVocabulary(**{**fields, "tokens": tuple(fields["tokens"])})

    def part(self, part: int) -> tuple[list[dict[str, Any]], list[Stretch], int]:
        """Segments of a part, the frames of each, and the samples from one frame to the next."""
        name = part_name(part) + ".parquet"
        segments = in_schema(read_table(self.place.join("segments", name)), schema.SEGMENTS).to_pylist()
        rows = {row["segment_id"]: row for row in read_table(self.place.join("posteriors", name)).to_pylist()}
        stretches = [_stretch(segment, rows[segment["id"]]) for segment in segments]
        hops = {round(MODEL_SAMPLE_RATE / row["frame_rate_hz"]) for row in rows.values()}
        return segments, stretches, hops.pop() if hops else 1


def _stretch(segment: dict[str, Any], row: dict[str, Any]) -> Stretch:
    shape = (row["num_frames"], row["num_tokens"])
    tokens_FC = np.frombuffer(row["tokens"], "<u2").reshape(shape).astype(np.int32)
    levels_FC = np.frombuffer(row["quantized_logprobs"], np.uint8).reshape(shape)
    first = samples_from_seconds(row["first_frame_s"])
    start = samples_from_seconds(segment["start_s"])
    return Stretch(start, first, row["continues_previous"], Emissions(tokens_FC, dequantize_logprobs(levels_FC)))


def texts_of(
    segments: Sequence[dict[str, Any]], stretches: Sequence[Stretch], hop: int, decoder: BeamDecoder
) -> list[Transcript]:
    """New transcripts, in the order of the segments; tracks of several channels are read one after the other."""
    order = sorted(
        range(len(segments)),
        key=lambda at: (segments[at]["recording_id"], segments[at]["channel"] or 0, stretches[at].start),
    )
    transcripts = decoder.transcripts([stretches[at] for at in order], hop, None)
    by_number = dict(zip(order, transcripts, strict=True))
    return [by_number[at] for at in range(len(segments))]


_decoders: dict[Any, BeamDecoder] = {}


def decoder_of(config: SearchConfig, source: KeptPosteriors) -> BeamDecoder:
    """A decoder of this process: language models are loaded once."""
    key = (config, source.place.url)
    if key not in _decoders:
        _decoders.clear()
        _decoders[key] = BeamDecoder(config, source.vocabulary, source.place.options)
    return _decoders[key]
