"""`--model fake://`: see `audiomill.models.fake.model`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import WINDOW_S, WINDOWS_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.fake.model import FAKE_SHAPE, FakeModel
from audiomill.models.family import CODES, TEXT, VECTORS, Family, Loading

_SCHEME = "fake://"


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((TEXT, VECTORS, CODES))


def _load(loading: Loading) -> SpeechModel:
    return FakeModel(loading.task.model.model.removeprefix(_SCHEME), loading.task.requested)


FAMILY = Family(
    name="fake",
    checkpoints="",
    recognises=lambda path, settings: False,
    gives=_provides,
    shape=lambda path: FAKE_SHAPE,
    load=_load,
    window_s=WINDOW_S,
    batch_seconds=WINDOWS_BATCH_S,
    quantizes_itself=True,
    scheme=_SCHEME,
)
