"""`--model fake://`: see `audiomill.models.fake.model`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import WINDOW_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import CODES, TEXT, VECTORS, Family, Loading
from audiomill.models.shape import Shape

SCHEME = "fake://"
FAKE_SHAPE = Shape(width=8, num_layers=2, hop=320, quantizer=(2, 16))


def _gives(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((TEXT, VECTORS, CODES))


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.fake.model import FakeModel

    return FakeModel(loading.task.model.model.removeprefix(SCHEME), loading.task.wants)


FAMILY = Family(
    name="fake",
    checkpoints="",
    recognises=lambda path, settings: False,
    gives=_gives,
    shape=lambda path: FAKE_SHAPE,
    load=_load,
    window_s=WINDOW_S,
    batch_seconds={"cpu": 1920.0, "cuda": 1920.0},
    quantizes_itself=True,
    scheme=SCHEME,
)
