"""Recognisers on frozen features: any encoder that gives frames, and a CTC head that was trained here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from audiomill.config.defaults import FRAMES_BATCH_S, WINDOW_S
from audiomill.models.family import ALIGNMENT, POSTERIORS, TEXT, Facts, Family, Late, Objective, always, of_type
from audiomill.models.feature_ctc.feature_settings import FEATURE_CTC_TYPE, feature_settings
from audiomill.models.task import Shape


def _shape(path: Path) -> Shape:
    settings = feature_settings(path)
    return Shape(width=settings.encoder_width, num_layers=-1, hop=settings.hop, text_hop=settings.hop)


_FEATURES = Objective(
    load=Late("audiomill.models.feature_ctc.feature_learner:load_feature_learner"),
    is_flag=True,
    options=("head_width", "layer_weights", "encoder_layer", "vocab_size"),
    new_options=("head_width", "layer_weights", "encoder_layer", "tokenizer", "dropout"),
    defaults={"learning_rate": 1e-3, "weight_decay": 0.0},
    refuses={"from_scratch": "what is trained by --features is new, its encoder is not"},
)
FAMILY = Family(
    name="feature_ctc",
    checkpoints="encoder and CTC head, as `audiomill finetune --features` makes them",
    facts=Facts(
        examples=("the checkpoint of `audiomill finetune --features`",),
        offers="text, word times, posteriors, beam search, hotwords, streams; can be trained",
        exact="features are those of `embed`, each row goes through the head alone (a test compares)",
        licence="that of its encoder",
    ),
    recognises=of_type(FEATURE_CTC_TYPE),
    gives=always(TEXT, ALIGNMENT, POSTERIORS),
    shape=_shape,
    load=Late("audiomill.models.feature_ctc.feature_loading:load_feature_ctc"),
    window_s=WINDOW_S,
    batch_seconds=FRAMES_BATCH_S,
    learners={"features": _FEATURES},
    joins={
        "features": replace(_FEATURES, load=Late("audiomill.models.feature_ctc.feature_learner:new_feature_learner"))
    },
)
