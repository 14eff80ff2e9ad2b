"""Resemblyzer's speaker vectors (GE2E): its pretrained.pt, or a folder with the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from audiomill.models.family import Facts
from audiomill.models.speakers.vector_family import speaker_vectors

if TYPE_CHECKING:
    from audiomill.models.speakers.embedder import SpeakerEmbedder

_ROOT = "lstm.weight_ih_l0"


def _embedder(path: Path, device: str) -> SpeakerEmbedder:
    from audiomill.models.dvector.dvector_network import load_dvector

    return load_dvector(path, device, _ROOT)


FAMILY = speaker_vectors(
    "dvector",
    "Resemblyzer speaker vectors",
    (_ROOT, "similarity_weight", "linear.weight"),
    256,
    _embedder,
    Facts(
        examples=("resemblyzer (of the package of that name)",),
        offers="one vector of the voice: a segment, a turn, a recording",
        exact="rows of one length go together; vectors are those of the original network alone (a test compares)",
        licence="Apache-2.0",
    ),
)
