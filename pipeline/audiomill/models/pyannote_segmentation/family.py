"""pyannote segmentation 3.0: its pytorch_model.bin (read without unpickling objects), a .pt file or safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.models.family import Facts
from audiomill.models.restricted_unpickler import names_tensor
from audiomill.models.speakers.diarizer_family import frame_classifier

_ROOT = "sincnet.wav_norm1d.weight"
_HOP = 270


def _recognises(path: Path, settings: Mapping[str, Any]) -> bool:
    return names_tensor(path, _ROOT, "classifier.weight")


def _classifier(path: Path, device: str) -> Any:
    from audiomill.models.pyannote_segmentation.segmentation import load_segmentation

    return load_segmentation(path, device, _ROOT)


FAMILY = frame_classifier(
    "pyannote_segmentation",
    "pyannote segmentation 3.0",
    _recognises,
    _HOP,
    _classifier,
    Facts(
        examples=("pyannote-segmentation-3.0 (in audiomill[speakers])", "pyannote/segmentation-3.0"),
        offers="turns, for --speakers",
        exact="windows of one length go together; frames are those of the original network alone (a test compares)",
        licence="MIT",
    ),
)
