"""How Moonshine is loaded."""

from __future__ import annotations

from typing import Any

from audiomill.models.base import SpeechModel
from audiomill.models.family import Loading
from audiomill.models.moonshine.moonshine_network import MOONSHINE_ENCODER, moonshine_decoder
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.models.seq2seq.hf_decoder_layers import special_tokens, tokenizer_in
from audiomill.models.seq2seq.model import load_encoder_decoder


def load_moonshine(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder. Its group norm looks at whole rows, so each is encoded alone."""

    def writer(model: Any, precision: str) -> DecoderAdapter:
        text, start = loading.task.requested.transcripts, model.config.decoder_start_token_id
        tokenizer = tokenizer_in(loading.path)
        return DecoderAdapter(
            weights=moonshine_decoder(model, loading.path, precision),
            tokens=special_tokens(model, start, model.config.vocab_size),
            decoded=lambda rows: tokenizer.batch_decode(rows, skip_special_tokens=True),
            language=lambda utterance: None if text is None else text.language,
            prompt=lambda language: [start],
        )

    return load_encoder_decoder(loading, MOONSHINE_ENCODER, writer)
