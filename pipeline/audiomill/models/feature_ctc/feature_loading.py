"""How a recogniser on features is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from safetensors import safe_open

from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError
from audiomill.models.base import MIXED, SpeechModel, VectorRequest
from audiomill.models.checkpoint import checkpoint_fingerprint, find_checkpoint
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.family import Loading
from audiomill.models.feature_ctc.feature_head import FeatureFeed, FeatureHead, HeadAlone
from audiomill.models.feature_ctc.feature_settings import ENCODER_FOLDER, FeatureSettings, feature_settings
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.frames.model import FrameModel
from audiomill.models.vectors.frozen_encoder import FrozenEncoder, loaded_encoder
from audiomill.models.vectors.kept_parts import check_same_part, place_of

HEAD_WEIGHTS = "model.safetensors"


def load_feature_ctc(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder.

    Raises:
        ModelError: a part is missing, was changed, or does not fit the others.
    """
    folder, task = loading.path, loading.task
    settings = feature_settings(folder)
    encoder = encoder_of(folder, settings, task.model, loading.storage_options)
    head = load_head(folder, settings).to(loading.device)
    vocabulary = ctc_vocabulary(ctc_tokenizer(folder, None, False), settings.vocab_size, 0)
    body = HeadAlone(head).eval()
    network = FrameNetwork(
        model=body,
        body=body,
        stack=body,
        feed=FeatureFeed(encoder, settings.hop, loading.device),
        parity=encoder.parity,
    )
    return FrameModel(
        network,
        vocabulary,
        task.requested,
        loading.quantizers,
        language=task.requested.text.language,
        storage_options=loading.storage_options,
    )


def encoder_of(
    folder: Path, settings: FeatureSettings, model: ModelConfig, storage_options: dict[str, object]
) -> FrozenEncoder:
    """The encoder of a folder, in floats.

    Raises:
        ModelError: it is not there, or another one is.
    """
    name = place_of(folder, settings.encoder, ENCODER_FOLDER)
    check_same_part(
        "encoder",
        name,
        checkpoint_fingerprint(find_checkpoint(ModelConfig(model=name), storage_options)),
        settings.encoder_fingerprint,
    )
    precision = model.precision if model.precision in ("fp32", "fp16", "bf16") else "fp32"
    return loaded_encoder(name, want_of(settings), dataclasses.replace(model, precision=precision), storage_options)


def want_of(settings: FeatureSettings) -> VectorRequest:
    """What is read of the encoder."""
    return VectorRequest(layer=MIXED if settings.mixture else settings.layer, weights=settings.mixture, dtype="fp32")


def load_head(folder: Path, settings: FeatureSettings) -> FeatureHead:
    """From the folder's own weights.

    Raises:
        ModelError: tensors are missing or of other shapes.
    """
    head, path = FeatureHead(settings.encoder_width, settings.hidden, settings.vocab_size), folder / HEAD_WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  (not a dict)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: not the head that config.json describes ({reason})") from error
    return head.eval()
