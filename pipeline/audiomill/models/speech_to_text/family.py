"""Speech2Text (fairseq S2T): 80 log-mel bands, two convolutions, Transformer encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiomill.config.defaults import WINDOW_S, WINDOWS_BATCH_S
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel
from audiomill.models.family import BEAMS, CODES, TEXT, VECTORS, Facts, Family, Loading, check_plain
from audiomill.models.frames.frame_families import PRECISIONS
from audiomill.models.task import Shape
from audiomill.text.normalize import Text


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    from audiomill.models.speech_to_text.s2t_network import S2T_HOP

    config = AutoConfig.from_pretrained(path)
    return Shape(width=config.d_model, num_layers=config.encoder_layers, hop=S2T_HOP)


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((TEXT, VECTORS, CODES, BEAMS))


def _check(path: Path, model: str, text: TranscriptConfig) -> None:
    check_plain(model, text)
    if text.languages is not None:
        raise ModelError(f"--languages: {model} does not look for languages; say --language, which is told in the rows")


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.speech_to_text.s2t_network import load_speech_to_text

    return load_speech_to_text(loading)


def _learner(path: Path, config: Any, texts: Sequence[Text], device: Any) -> Any:
    from audiomill.models.speech_to_text.s2t_learner import load_seq2seq_learner

    return load_seq2seq_learner(path, config, texts, device)


FAMILY = Family(
    name="speech_to_text",
    checkpoints="Speech2Text, and what --objective seq2seq makes",
    facts=Facts(
        examples=("facebook/s2t-small-librispeech-asr", "facebook/s2t-large-librispeech-asr"),
        offers="text, retries, beam search with a language model, vectors, codes; can be trained",
        exact="tokens are those of `generate` alone (a test compares)",
        licence="MIT",
    ),
    recognises=lambda path, settings: settings.get("model_type") == "speech_to_text",
    gives=_provides,
    shape=_shape,
    check=_check,
    load=_load,
    window_s=WINDOW_S,
    reads_alone=True,
    batch_seconds=WINDOWS_BATCH_S,
    precisions=PRECISIONS,
    reads_log_mel=True,
    learners={"seq2seq": _learner},
)
