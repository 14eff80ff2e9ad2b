"""Speech2Text (fairseq S2T): 80 log-mel bands, two convolutions, Transformer encoder and decoder."""

from __future__ import annotations

from pathlib import Path

from audiomill.config.defaults import WINDOW_S, WINDOWS_BATCH_S
from audiomill.models.family import (
    BEAMS,
    CODES,
    FUSION,
    TEXT,
    VECTORS,
    Facts,
    Family,
    Late,
    Objective,
    always,
    check_one_language,
    of_type,
)
from audiomill.models.frames.frame_families import PRECISIONS
from audiomill.models.task import Shape


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    from audiomill.models.speech_to_text.s2t_network import S2T_HOP

    config = AutoConfig.from_pretrained(path)
    return Shape(width=config.d_model, num_layers=config.encoder_layers, hop=S2T_HOP)


FAMILY = Family(
    name="speech_to_text",
    checkpoints="Speech2Text, and what --objective seq2seq makes",
    facts=Facts(
        examples=("facebook/s2t-small-librispeech-asr", "facebook/s2t-large-librispeech-asr"),
        offers="text, retries, beam search with a language model, vectors, codes; can be trained",
        exact="tokens are those of `generate` alone (a test compares)",
        licence="MIT",
    ),
    recognises=of_type("speech_to_text"),
    gives=always(TEXT, VECTORS, CODES, BEAMS, FUSION),
    shape=_shape,
    check=check_one_language,
    load=Late("audiomill.models.speech_to_text.s2t_network:load_speech_to_text"),
    window_s=WINDOW_S,
    reads_alone=True,
    batch_seconds=WINDOWS_BATCH_S,
    precisions=PRECISIONS,
    reads_log_mel=True,
    learners={
        "seq2seq": Objective(
            load=Late("audiomill.models.speech_to_text.s2t_learner:load_seq2seq_learner"),
            options=("label_smoothing", "vocab_size"),
            defaults={"learning_rate": 1e-3},
        )
    },
)
