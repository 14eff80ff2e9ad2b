"""Models that make a vector of a voice, as families: known by the names of their tensors, whatever file holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import VECTORS, VOICES, Facts, Family, Loading, always
from audiomill.models.restricted_unpickler import names_tensor
from audiomill.models.task import Shape

LONGEST_S = 10_800.0
"""A recording this long is one row: its vector is the mean of those of its stretches."""
_HOP = 160


def speaker_vectors(
    name: str,
    checkpoints: str,
    tensors: tuple[str, ...],
    width: int,
    embedder: Callable[[Path, str], Any],
    facts: Facts,
) -> Family:
    """A family of such models.

    Args:
        name: of the family.
        checkpoints: for people.
        tensors: names by which a checkpoint is known.
        width: of its vectors.
        embedder: loads one, see `audiomill.models.speakers.embedder.SpeakerEmbedder`.
        facts: for people.
    """

    def load(loading: Loading) -> SpeechModel:
        from audiomill.models.speakers.embedder import VectorModel

        return VectorModel(embedder(loading.path, str(loading.device)), loading.task.requested)

    def recognises(path: Path, settings: Mapping[str, Any]) -> bool:
        return names_tensor(path, *tensors)

    return Family(
        name=name,
        checkpoints=checkpoints,
        facts=facts,
        recognises=recognises,
        gives=always(VECTORS, VOICES),
        shape=lambda path: Shape(width=width, num_layers=0, hop=_HOP, is_pooled=True),
        load=load,
        whole_s=lambda settings: LONGEST_S,
        batch_seconds=FRAMES_BATCH_S,
        precisions={"cpu": ("fp32",), "cuda": ("fp32",)},
        embedder=embedder,
    )
