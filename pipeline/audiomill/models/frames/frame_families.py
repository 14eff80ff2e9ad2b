"""Models of frames as families, whatever they are fed. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import ALIGNMENT, CODES, POSTERIORS, TEXT, VECTORS, Facts, Family, Loading, of_type
from audiomill.models.task import Shape

ALONE = "labels, hidden states and codes are those of transformers alone, batch size 1 (a test compares)"
OFFERS = "text, word times, posteriors, beam search, hotwords, vectors, codes"
PRECISIONS = {"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp16", "bf16", "fp32")}


def frame_family(
    name: str,
    checkpoints: str,
    model_types: tuple[str, ...],
    shape: Callable[[Path], Shape],
    load: Callable[[Loading], SpeechModel],
    facts: Facts,
    batch_seconds: Mapping[str, float] = FRAMES_BATCH_S,
    **more: Any,
) -> Family:
    """A family whose checkpoints give frames, and text where they have a CTC head.

    Args:
        name: of the family.
        checkpoints: for people.
        model_types: as config.json names them.
        shape: of a checkpoint.
        load, facts, batch_seconds: see `audiomill.models.family.Family`.
        more: other attributes of the family.
    """
    return Family(
        name=name,
        checkpoints=checkpoints,
        recognises=of_type(*model_types),
        gives=_provides,
        shape=shape,
        load=load,
        facts=facts,
        batch_seconds=batch_seconds,
        precisions=PRECISIONS,
        **more,
    )


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    """Text, alignment and posteriors with a CTC head only."""
    has_head = any(str(each).endswith("ForCTC") for each in settings.get("architectures") or ())
    return frozenset((VECTORS, CODES, *((TEXT, ALIGNMENT, POSTERIORS) if has_head else ())))
