"""What lies in a Whisper folder, Hugging Face's or CTranslate2's: weights, generation settings, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from audiomill.errors import ModelError
from audiomill.models.whisper import ctranslate2
from audiomill.models.whisper.network.dimensions import Dimensions
from audiomill.models.whisper.network.skeleton import TIED, Skeleton


def whisper_parts(folder: Path) -> tuple[Any, dict[str, Any]]:
    """What computes here, float32: a `Skeleton`, or transformers' own model where it alone understands the folder; and its
    suppressed tokens and alignment heads.

    Raises:
        ModelError: weights are missing.
    """
    if ctranslate2.is_ctranslate2(folder):
        sizes, weights = ctranslate2.sizes_and_weights(folder)
        return _skeleton(folder, sizes, weights), ctranslate2.generation_settings(folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    result = None if settings.get("quantization_config") else _safetensors(folder)
    if result is None:
        return transformers_parts(folder)
    generation_file = folder / "generation_config.json"  # older checkpoints have all in one file
    generation: dict[str, Any] = (
        json.loads(generation_file.read_text(encoding="utf-8")) if generation_file.exists() else settings
    )
    try:
        return Skeleton(Dimensions.of(settings), result), generation
    except KeyError:  # other names, which transformers may know
        return transformers_parts(folder)


def transformers_parts(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A float32 `WhisperForConditionalGeneration`, to compare with and to train; and the same settings.

    Raises:
        ModelError: weights are missing.
    """
    from transformers import WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    if ctranslate2.is_ctranslate2(folder):
        sizes, weights = ctranslate2.sizes_and_weights(folder)
        with torch.device("meta"):
            model = WhisperForConditionalGeneration(ctranslate2.ctranslate2_config(sizes))
        model.load_state_dict(_skeleton(folder, sizes, weights).state_dict(), assign=True)
        model.tie_weights()
        return model.requires_grad_(True).eval(), ctranslate2.generation_settings(folder)
    model, loading_info = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
    )
    if missing := sorted(set(loading_info["missing_keys"]) - TIED.keys()):
        raise ModelError(
            f"{folder}: the weights lack {len(missing)} tensors, the first is {missing[0]}; expected a whole checkpoint"
        )
    return model, model.generation_config.to_dict()


def _skeleton(folder: Path, sizes: Dimensions, weights: Mapping[str, torch.Tensor]) -> Skeleton:
    try:
        return Skeleton(sizes, weights)
    except KeyError as error:
        raise ModelError(
            f"{folder}: expected every Whisper weight, {error.args[0]} is missing or of another shape"
        ) from error


def _safetensors(folder: Path) -> dict[str, torch.Tensor] | None:
    """Weights as `save_pretrained` writes them, in one file or several, in float32; None where they are not so."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        index = folder / "model.safetensors.index.json"
        file_names = json.loads(index.read_text())["weight_map"].values() if index.exists() else ["model.safetensors"]
        files = [load_file(folder / Path(name).name) for name in sorted(set(file_names))]
    except (OSError, ValueError, KeyError, SafetensorError):
        return None
    return {name: weight.float() for file in files for name, weight in file.items()}
