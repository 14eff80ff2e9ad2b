"""The second model of a job: found, checked against the first, and settled as a task of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.audio.clock import samples_from_seconds
from audiomill.config.jobs import ModelTask
from audiomill.config.stages import ModelConfig
from audiomill.config.text import SearchConfig, TranscriptConfig
from audiomill.errors import UsageError
from audiomill.models.base import RequestedOutputs
from audiomill.models.checkpoint import Checkpoint, check_options, find_checkpoint
from audiomill.models.family import Family
from audiomill.models.load import plan_model
from audiomill.models.precision import settled_precision
from audiomill.models.task import TaskSpec
from audiomill.storage.urls import without_credentials

PRECISION, SECOND_PRECISION = "precision", "second-precision"
"""What a run settles and keeps, by its name in run.json."""


def model_kind(device: str) -> str:
    """cpu or cuda."""
    return "cuda" if device.startswith("cuda") else "cpu"


def precision_of(
    asked: str, family: Family, device: str, features: frozenset[str], only_text: bool, before: str | None
) -> str:
    """Number format of a model, settled by rule; see `audiomill.models.precision`."""
    if asked == "auto" and family.precisions[model_kind(device)] == ("fp32",):
        asked = "fp32"
    return settled_precision(
        asked,
        device,
        offers_int8="int8" in family.precisions[model_kind(device)],
        prefers_int8=family.prefers_int8 and only_text,
        features=features,
        before=before,
    )


def second_spec(
    second: Checkpoint,
    text: TranscriptConfig,
    model: ModelConfig,
    device: str,
    features: frozenset[str],
    before: Mapping[str, Any],
) -> TaskSpec:
    """The model that writes doubtful texts again: as the first one, but with the search of its own family."""
    family = second.family
    precision = precision_of(model.precision, family, device, features, True, before[SECOND_PRECISION])
    alone = dataclasses.replace(text, second_pass_model=None, second_pass_threshold=None, decoder=SearchConfig())
    return plan_model(
        second,
        dataclasses.replace(model, device=device, precision=precision),
        RequestedOutputs(transcripts=alone),
        samples_from_seconds(family.batch_seconds[model_kind(device)]),
        without_credentials(second.name),
    )


def second_checkpoint(task: ModelTask, first: Checkpoint, options: dict[str, Any]) -> Checkpoint | None:
    """The model that reads what the first cannot, if there is one.

    Raises:
        UsageError: it is no Whisper of the same vocabulary, or nothing would be handed to it.
    """
    text = task.transcripts
    if text is None or text.second_pass_model is None:
        return None
    second = find_checkpoint(dataclasses.replace(task.model, model=text.second_pass_model), options)
    if text.second_pass_threshold is not None:
        check_options(second, text.second_pass_model, dataclasses.replace(text, decoder=SearchConfig()))
        return second
    size_of = first.family.vocabulary_size
    if size_of is None or second.family is not first.family or not text.temperature_fallback:
        raise UsageError(
            f"--second-pass-model {text.second_pass_model}: expected a Whisper behind a Whisper, without --no-temperature-fallback; for any other "
            "two models say which texts it writes again: --second-pass-threshold 0.6"
        )
    sizes = [size_of(Path(each.path)) for each in (first, second)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"--second-pass-model {text.second_pass_model}: its vocabulary has {sizes[1]} tokens, that of the first model "
            f"{sizes[0]}; take one of the same kind (.en behind .en, multilingual behind multilingual)"
        )
    return second
