"""Preprocessing files beside the weights of a checkpoint, which change what comes out: read as transformers reads it, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.errors import ModelError
from audiomill.models.base import Parity
from audiomill.storage.content_cache import once_per_content

if TYPE_CHECKING:
    from torch import Tensor

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_FILES = (
    "config.json", PREPROCESSOR, PROCESSOR, "tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt",
    "added_tokens.json", "special_tokens_map.json", "generation_config.json", "normalizer.json", "vocabulary.json", "vocabulary.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
SAYS_NOTHING = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
"""In these files, but changes nothing here."""
MAX_COMPARED_PARAMETERS = 500_000_000
"""A larger model beside the one that runs would take its memory, and minutes."""


@once_per_content
def file_hashes(folder: Path) -> Mapping[str, str]:
    """Hash of each file by name; of JSON, of what it says, however it is written down."""
    return {name: _print(folder / name) for name in _FILES if (folder / name).is_file()}


def _print(path: Path) -> str:
    content = path.read_bytes()
    try:
        value = json.loads(content) if path.suffix == ".json" else None
    except ValueError:
        value = None
    if isinstance(value, dict):
        settings = {name: each for name, each in value.items() if name not in SAYS_NOTHING}
        content = json.dumps(settings, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def feature_extractor(folder: Path, expected_rate: int = MODEL_SAMPLE_RATE) -> Any | None:
    """transformers' own, by whichever file says what it does; None where none does.

    Raises:
        ModelError: a file cannot be read, or wants another sample rate than the model gets here.
    """
    from transformers import AutoFeatureExtractor

    has_settings = (folder / PREPROCESSOR).exists() or "feature_extractor" in _settings(folder / PROCESSOR)
    if not has_settings:
        return None
    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: {PREPROCESSOR} or {PROCESSOR} cannot be read ({reason})") from error
    rate = getattr(extractor, "sampling_rate", expected_rate)
    if rate != expected_rate:
        raise ModelError(f"{folder}: hears {rate} Hz; expected a model of {expected_rate} Hz")
    return extractor


def extractor_settings(folder: Path) -> dict[str, Any]:
    """What the feature extractor's file says; for checkpoints whose extractor needs libraries that are not here.

    Raises:
        ModelError: no file says it, or it cannot be read.
    """
    result = _settings(folder / PROCESSOR).get("feature_extractor") or _settings(folder / PREPROCESSOR)
    if not result:
        raise ModelError(
            f"{folder}: nothing says how audio becomes features; expected {PREPROCESSOR} or {PROCESSOR} beside the weights"
        )
    return dict(result)


def _settings(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ModelError(f"{path}: expected JSON, got: {error}; take the checkpoint's own file") from error
    return result if isinstance(result, dict) else {}


def compared(
    model: Any, inputs: tuple[Tensor, Tensor], outputs: Callable[[], tuple[Tensor, Tensor]], note: str = ""
) -> Parity:
    """A model here with transformers' own.

    Args:
        model: too large a one is not loaded twice: what comes out is not compared then.
        inputs: what the model is given here and there.
        outputs: computes what comes out here and there.
        note: see `audiomill.models.base.Parity`.
    """
    apart = relative(*inputs)
    if sum(parameter.numel() for parameter in model.parameters()) > MAX_COMPARED_PARAMETERS:
        return Parity(apart, note=f"forward pass: more than {MAX_COMPARED_PARAMETERS // 1_000_000} M parameters")
    return Parity(apart, relative(*outputs()), note)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Distance (L2) in the length of theirs; infinite for other shapes."""
    import torch

    one, other = ours.detach().double().cpu(), theirs.detach().double().cpu()
    if one.shape != other.shape:
        return float("inf")
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other).clamp_min(1e-12))
