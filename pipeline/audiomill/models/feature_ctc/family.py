"""Recognisers on frozen features: any encoder that gives frames, and a CTC head that was trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiomill.config.defaults import FRAMES_BATCH_S, WINDOW_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import ALIGNMENT, POSTERIORS, TEXT, Facts, Family, Loading
from audiomill.models.feature_ctc.feature_settings import FEATURE_CTC_TYPE, feature_settings
from audiomill.models.task import Shape
from audiomill.text.normalize import Text


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((TEXT, ALIGNMENT, POSTERIORS))


def _shape(path: Path) -> Shape:
    settings = feature_settings(path)
    return Shape(width=settings.encoder_width, num_layers=-1, hop=settings.hop, text_hop=settings.hop)


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.feature_ctc.feature_loading import load_feature_ctc

    return load_feature_ctc(loading)


def _learner(path: Path, config: Any, texts: Sequence[Text], device: Any) -> Any:
    from audiomill.models.feature_ctc.feature_learner import load_feature_learner

    return load_feature_learner(path, config, device)


def _joining(path: Path, config: Any, texts: Sequence[Text], device: Any) -> Any:
    from audiomill.models.feature_ctc.feature_learner import new_feature_learner

    return new_feature_learner(path, config, texts, device)


FAMILY = Family(
    name="feature_ctc",
    checkpoints="encoder and CTC head, as `audiomill finetune --features` makes them",
    facts=Facts(
        examples=("the checkpoint of `audiomill finetune --features`",),
        offers="text, word times, posteriors, beam search, hotwords, streams; can be trained",
        exact="features are those of `embed`, each row goes through the head alone (a test compares)",
        licence="that of its encoder",
    ),
    recognises=lambda path, settings: settings.get("model_type") == FEATURE_CTC_TYPE,
    gives=_provides,
    shape=_shape,
    load=_load,
    window_s=WINDOW_S,
    batch_seconds=FRAMES_BATCH_S,
    learners={"features": _learner},
    joins={"features": _joining},
)
