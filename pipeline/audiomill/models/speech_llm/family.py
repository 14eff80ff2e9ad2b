"""Speech LLMs of our own making: any encoder that gives frames, a projector that was trained here, a causal language model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from audiomill.config.defaults import WINDOW_S, WINDOWS_BATCH_S
from audiomill.config.text import TranscriptConfig
from audiomill.models.family import TEXT, Facts, Family, Late, Objective, always, check_one_language, of_type
from audiomill.models.frames.frame_families import PRECISIONS
from audiomill.models.speech_llm.settings import SPEECH_LLM_TYPE, settings_of_folder
from audiomill.models.task import Shape


def _shape(path: Path) -> Shape:
    settings = settings_of_folder(path)
    return Shape(width=settings.lm_width, num_layers=-1, hop=settings.hop)


def _check(path: Path, model: str, text: TranscriptConfig) -> None:
    check_one_language(path, model, text)
    settings_of_folder(path)


_NEW = ("lm", "lm_prompt", "encoder_layer", "frame_stacking", "projector_width", "lora_rank")
_PROJECTOR = Objective(
    load=Late("audiomill.models.speech_llm.learner:load_projector_learner"),
    is_flag=True,
    options=(*_NEW, "frame_dropout", "no_speech_augment_prob"),
    new_options=_NEW,
    defaults={"learning_rate": 1e-3, "weight_decay": 0.0, "max_warmup_updates": 500},
    refuses={
        "from_scratch": "what is trained by --projector is new, its encoder is not",
        "gradient_checkpointing": "--projector trains no language model; take smaller --batch-seconds",
    },
)
FAMILY = Family(
    name="speech_llm",
    checkpoints="encoder, projector and language model, as `audiomill finetune --projector` makes them",
    facts=Facts(
        examples=("the checkpoint of `audiomill finetune --projector`",),
        offers="text, retries; word times with a CTC model beside it; can be trained",
        exact="tokens are those of the language model's own `generate` alone (a test compares)",
        licence="those of its encoder and its language model",
    ),
    recognises=of_type(SPEECH_LLM_TYPE),
    gives=always(TEXT),
    shape=_shape,
    check=_check,
    load=Late("audiomill.models.speech_llm.speech_llm_loading:load_speech_llm"),
    window_s=WINDOW_S,
    reads_alone=True,
    batch_seconds=WINDOWS_BATCH_S,
    precisions=PRECISIONS,
    shows_activations=True,
    learners={"projector": _PROJECTOR},
    joins={"projector": replace(_PROJECTOR, load=Late("audiomill.models.speech_llm.learner:new_projector_learner"))},
)
