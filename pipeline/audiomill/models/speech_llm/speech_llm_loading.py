"""How a speech LLM of ours is loaded: projector from its folder, encoder and language model from where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel, VectorRequest
from audiomill.models.causal.language_model import LanguageModel, load_language_model
from audiomill.models.causal.speech_llm_model import SpeechLLM
from audiomill.models.checkpoint import checkpoint_fingerprint, find_checkpoint, weights_fingerprint
from audiomill.models.family import Loading
from audiomill.models.locate import local_path
from audiomill.models.precision import is_int8
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.models.speech_llm.adapter import with_adapter
from audiomill.models.speech_llm.projector import Projected, Projector
from audiomill.models.speech_llm.prompts import prompt_tokens
from audiomill.models.speech_llm.settings import ENCODER, LM, SpeechLlmSettings, settings_of_folder
from audiomill.models.vectors.frozen_encoder import FrozenEncoder, loaded_encoder
from audiomill.models.vectors.kept_parts import check_same_part, place_of

PROJECTOR_WEIGHTS = "model.safetensors"


def load_speech_llm(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder.

    Raises:
        ModelError: a part is missing, was changed, or does not fit the others.
    """
    wanted, model = loading.task.requested.transcripts, loading.task.model
    assert wanted is not None, "it gives text alone"
    parts = load_parts(loading.path, model, loading.device, loading.storage_options)
    tokenizer = parts.tokenizer
    listening = Projected(
        parts.encoder, parts.projector, parts.lm, prompt_tokens(tokenizer, parts.settings.prompt), parts.settings.rates
    )
    writer = DecoderAdapter(
        weights=parts.lm.weights(model.precision, frees=True),
        tokens=parts.lm.special_tokens(),
        decoded=lambda rows: tokenizer.batch_decode(rows, skip_special_tokens=True),
        language=lambda segment: wanted.language,
        prompt=lambda language: [],
    )
    return SpeechLLM(listening, writer, wanted, model.memory_fraction, parts.encoder.parity)


class Parts:
    """Of a speech LLM, each on its device."""

    def __init__(
        self,
        settings: SpeechLlmSettings,
        encoder: FrozenEncoder,
        projector: Projector,
        lm: LanguageModel,
        tokenizer: Any,
    ) -> None:
        self.settings, self.encoder, self.projector = settings, encoder, projector
        self.lm, self.tokenizer = lm, tokenizer


def load_parts(
    folder: Path, model: ModelConfig, device: torch.device, storage_options: dict[str, Any], keeps_adapter: bool = False
) -> Parts:
    """Projector, encoder and language model of a folder.

    Args:
        folder: of the checkpoint.
        model: number format, and what the encoder's loading needs.
        device: of projector and language model.
        storage_options: for parts that are URLs.
        keeps_adapter: LoRA weights stay apart from the language model's own, to learn on.

    Raises:
        ModelError: see `load_speech_llm`.
    """
    import dataclasses

    settings = settings_of_folder(folder)
    encoder_name, lm_name = place_of(folder, settings.encoder, ENCODER), place_of(folder, settings.lm, LM)
    checkpoint = find_checkpoint(ModelConfig(model=encoder_name), storage_options)
    check_same_part("encoder", encoder_name, checkpoint_fingerprint(checkpoint), settings.encoder_fingerprint)
    lm_folder = local_path(lm_name, storage_options)
    check_same_part("language model", lm_name, weights_fingerprint(lm_folder), settings.lm_fingerprint)
    lm, tokenizer = load_language_model(lm_folder, lm_name, device, model.precision)
    if settings.has_adapter:
        lm = with_adapter(lm, folder, keeps_adapter)
    if lm.width != settings.lm_width:
        raise ModelError(
            f"{folder}: the projector writes {settings.lm_width} values a step, the language model {lm_name} reads {lm.width}; "
            "expected the one that it was trained with"
        )
    finer = dataclasses.replace(model, precision="fp32") if is_int8(model.precision) else model
    encoder = loaded_encoder(encoder_name, VectorRequest(layer=settings.layer, dtype="fp32"), finer, storage_options)
    return Parts(settings, encoder, load_projector(folder, settings).to(device), lm, tokenizer)


def load_projector(folder: Path, settings: SpeechLlmSettings) -> Projector:
    """From the folder's own weights.

    Raises:
        ModelError: tensors are missing or of other shapes.
    """
    projector = Projector(settings.encoder_width, settings.stack, settings.hidden, settings.lm_width)
    path = folder / PROJECTOR_WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        projector.load_state_dict(tensors)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: not the projector that config.json describes ({reason})") from error
    return projector.eval()
