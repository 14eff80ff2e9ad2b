"""How Speech2Text is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiomill.config.text import TranscriptConfig
from audiomill.models.base import SpeechModel
from audiomill.models.family import Loading
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.models.seq2seq.hf_decoder_layers import special_tokens, tokenizer_in
from audiomill.models.seq2seq.model import load_encoder_decoder
from audiomill.models.speech_to_text.s2t_network import S2T_ENCODER, s2t_decoder


def load_speech_to_text(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder. Its features are normalised over whole rows, so each is encoded alone."""

    def writer(model: Any, precision: str) -> DecoderAdapter:
        tokenizer = tokenizer_in(loading.path)
        return writer_of(model, loading.path, tokenizer, precision, loading.task.requested.transcripts)

    return load_encoder_decoder(loading, S2T_ENCODER, writer)


def writer_of(
    model: Any, folder: Path, tokenizer: Any, precision: str, text: TranscriptConfig | None
) -> DecoderAdapter:
    """The decoder's side of a model."""
    start = model.config.decoder_start_token_id
    return DecoderAdapter(
        weights=s2t_decoder(model, folder, precision),
        tokens=special_tokens(model, start, model.config.vocab_size),
        decoded=lambda rows: [str(each) for each in tokenizer.batch_decode(rows, skip_special_tokens=True)],
        language=lambda utterance: None if text is None else text.language,
        prompt=lambda language: [start],
        pieces=tokenizer.convert_ids_to_tokens(list(range(model.config.vocab_size))),
    )
