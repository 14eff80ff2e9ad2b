"""CAM++ speaker vectors (3D-Speaker): .pt files of the original, or a folder with the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from audiomill.models.family import Facts
from audiomill.models.speakers.vector_family import speaker_vectors

if TYPE_CHECKING:
    from audiomill.models.speakers.embedder import SpeakerEmbedder

_ROOT = "head.conv1.weight"


def _embedder(path: Path, device: str) -> SpeakerEmbedder:
    from audiomill.models.campplus.campplus_network import load_campplus

    return load_campplus(path, device, _ROOT)


FAMILY = speaker_vectors(
    "campplus",
    "CAM++ speaker vectors",
    (_ROOT, "xvector.tdnn.linear.weight"),
    192,
    _embedder,
    Facts(
        examples=("campplus (in audiomill[speakers])", "iic/speech_campplus_sv_zh_en_16k-common_advanced"),
        offers="one vector of the voice: a segment, a turn, a recording",
        exact="rows of one length go together; vectors are those of the original network alone (a test compares)",
        licence="Apache-2.0",
    ),
)
