"""The models of a job with their checkpoints, found and looked at before anything is started; and their calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiomill.audio.clock import samples_from_seconds
from audiomill.config.jobs import JobConfig, ModelTask
from audiomill.config.stages import ModelConfig
from audiomill.config.text import SearchConfig, TranscriptConfig
from audiomill.errors import InputError, UsageError
from audiomill.models.base import RequestedOutputs
from audiomill.models.checkpoint import Checkpoint, check_options, find_checkpoint, shape_of
from audiomill.models.family import Family
from audiomill.models.load import plan_model
from audiomill.models.precision import settled_precision
from audiomill.models.task import Shape, TaskSpec
from audiomill.runs.diarization_setup import check_diarizer, check_listener, diarizer_task, tagger_task
from audiomill.storage.fs import Place
from audiomill.storage.urls import without_credentials
from audiomill.tables.outputs import OUTPUTS
from audiomill.text.calibrate import Numbers, read

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
    if size_of is None or second.family is not first.family or not text.fallback:
        raise UsageError(
            f"--second-pass-model {text.second_pass_model}: expected a Whisper behind a Whisper, without --no-fallback; for any other "
            "two models say which texts it writes again: --second-pass-threshold 0.6"
        )
    sizes = [size_of(Path(each.path)) for each in (first, second)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"--second-pass-model {text.second_pass_model}: its vocabulary has {sizes[1]} tokens, that of the first model "
            f"{sizes[0]}; take one of the same kind (.en behind .en, multilingual behind multilingual)"
        )
    return second


def read_calibration(text: TranscriptConfig | None, options: dict[str, Any]) -> Numbers | None:
    """What the file says, if there is one.

    Raises:
        InputError: it is not there, or something else.
    """
    if text is None or text.calibration is None:
        return None
    try:
        return read(Place(text.calibration, options).read())
    except FileNotFoundError as error:
        raise InputError(
            f"--calibration {text.calibration}: no such file; `audiomill select --calibrate` writes it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--calibration {text.calibration}: expected calibration.json of `audiomill select --calibrate` ({error})"
        ) from error


@dataclasses.dataclass(frozen=True)
class ResolvedTask:
    """A model task with its checkpoint found and looked at; `second`: what reads the texts that it cannot."""

    config: ModelTask
    checkpoint: Checkpoint
    shape: Shape
    second: Checkpoint | None = None


def resolve_tasks(config: JobConfig) -> list[ResolvedTask]:
    """Finds every checkpoint, before anything is started.

    Raises:
        UsageError: one is not there, or cannot give what is wanted of it.
    """
    results = []
    tasks = [*config.tasks, *tagger_task(config), *diarizer_task(config)]
    for task in tasks:
        checkpoint = find_checkpoint(task.model, config.plan.storage_options)
        if task.has_text:
            check_options(checkpoint, task.model.model, task.text)
        if task.speaker_model is not None:
            check_diarizer(task, checkpoint, config.plan.storage_options)
        check_listener(task, checkpoint)
        second = second_checkpoint(task, checkpoint, config.plan.storage_options)
        results.append(ResolvedTask(task, checkpoint, shape_of(checkpoint), second))
    _check_beside(config.tasks)
    for output in OUTPUTS:
        output.check([each for task in config.tasks for each in task.tables.get(output.name, ())])
    return results


def _check_beside(tasks: Sequence[ModelTask]) -> None:
    """Raises UsageError for what only the first model that transcribes can be asked."""
    for task in [task for task in tasks if task.has_text][1:]:
        text = task.text
        if text.decoder.save_posteriors or text.decoder.consistency_samples or text.second_pass_threshold is not None:
            raise UsageError(
                f"{task.model.model}: keep_posteriors, consistency_samples and redo_below are for the first model that transcribes; "
                "its texts stand in segments, this one's in transcripts"
            )
