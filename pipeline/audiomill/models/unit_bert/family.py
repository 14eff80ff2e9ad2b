"""Language models over codes, as `audiomill train-unit-lm` makes them."""

from __future__ import annotations

from pathlib import Path

from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.models.codes.unit_settings import KEY, unit_settings
from audiomill.models.family import CODES, VECTORS, Facts, Family, Late, always
from audiomill.models.task import Shape


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    return Shape(width=config.hidden_size, num_layers=config.num_hidden_layers, hop=unit_settings(path).hop)


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
    gives=always(VECTORS, CODES),
    shape=_shape,
    load=Late("audiomill.models.unit_bert.unit_model:load_unit_bert"),
    batch_seconds=FRAMES_BATCH_S,
    code_learner=Late("audiomill.models.unit_bert.unit_learner:load_unit_learner"),
)
