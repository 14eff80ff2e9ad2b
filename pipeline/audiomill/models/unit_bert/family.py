"""Language models over codes, as `audiomill train-unit-lm` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.codes.unit_settings import KEY, unit_settings
from audiomill.models.family import CODES, VECTORS, Facts, Family, Loading
from audiomill.models.task import Shape


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((VECTORS, CODES))


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    return Shape(width=config.hidden_size, num_layers=config.num_hidden_layers, hop=unit_settings(path).hop)


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.unit_bert.unit_model import load_unit_bert

    return load_unit_bert(loading)


def _learner(folder: Path, config: Any, device: Any) -> Any:
    from audiomill.models.unit_bert.unit_learner import load_unit_learner

    return load_unit_learner(folder, config, device)


FAMILY = Family(
    name="unit_bert",
    checkpoints="masked language model over codes, as `audiomill train-unit-lm` makes them",
    facts=Facts(
        examples=("the checkpoint of `audiomill train-unit-lm`",),
        offers="vectors at the clock of its codes, codes by k-means",
        exact="codes are those of `encode`, each row goes through the language model alone (a test compares)",
        licence="that of the checkpoint that makes its codes",
    ),
    recognises=lambda path, settings: KEY in settings,
    gives=_provides,
    shape=_shape,
    load=_load,
    batch_seconds=FRAMES_BATCH_S,
    code_learner=_learner,
)
