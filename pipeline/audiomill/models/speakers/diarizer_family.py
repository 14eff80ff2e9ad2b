"""Models that tell local speakers frame by frame, as families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.config.stages import ModelConfig
from audiomill.models.base import SpeechModel
from audiomill.models.family import TURNS, VOICES, Facts, Family, Loading, always
from audiomill.models.speakers.vector_family import LONGEST_S
from audiomill.models.task import Shape


def frame_classifier(
    name: str,
    checkpoints: str,
    recognises: Callable[[Path, Mapping[str, Any]], bool],
    hop: int,
    classifier: Callable[[Path, str], Any],
    facts: Facts,
) -> Family:
    """A family of such models.

    Args:
        name: of the family.
        checkpoints: for people.
        recognises: see `Family`.
        hop: samples from one frame to the next.
        classifier: loads one, see `audiomill.models.speakers.diarizer.FrameClassifier`.
        facts: for people.
    """

    def load(loading: Loading) -> SpeechModel:
        from audiomill.models.speakers.diarizer import Diarizer

        assert loading.task.requested.turns is not None, "a diarizer is asked for turns"
        device = str(loading.device)
        embedder = embedder_of(loading.task.requested.turns.voices, device, loading.storage_options)
        return Diarizer(classifier(loading.path, device), embedder)

    return Family(
        name=name,
        checkpoints=checkpoints,
        facts=facts,
        recognises=recognises,
        gives=always(TURNS),
        shape=lambda path: Shape(width=0, num_layers=-1, hop=hop),
        load=load,
        whole_s=lambda settings: LONGEST_S,
        batch_seconds=FRAMES_BATCH_S,
        precisions={"cpu": ("fp32",), "cuda": ("fp32",)},
    )


def embedder_of(name: str, device: str, storage_options: dict[str, Any]) -> Any:
    """The model of voices that a name stands for.

    Raises:
        ModelError: it is none.
    """
    from audiomill.models.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(ModelConfig(model=name), storage_options)
    checkpoint.require(
        VOICES, f"--speaker-model {name}: makes no vectors of voices; use campplus, resemblyzer or a folder of one"
    )
    assert checkpoint.family.embedder is not None, "it makes them"
    return checkpoint.family.embedder(Path(checkpoint.path), device)
