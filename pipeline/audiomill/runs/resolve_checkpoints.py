"""The models of a job with their checkpoints, found and looked at before anything is started; and their calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from audiomill.config.jobs import JobConfig, ModelTask
from audiomill.config.text import TranscriptConfig
from audiomill.errors import InputError, UsageError
from audiomill.models.checkpoint import Checkpoint, check_options, find_checkpoint, shape_of
from audiomill.models.task import Shape
from audiomill.runs.diarization_setup import check_diarizer, check_listener, diarizer_task, tagger_task
from audiomill.runs.second_pass_model import second_checkpoint
from audiomill.storage.fs import Place
from audiomill.tables.outputs import OUTPUTS
from audiomill.text.calibrate import Numbers, read


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
        if task.transcripts is not None:
            check_options(checkpoint, task.model.model, task.transcripts)
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
    for task in [task for task in tasks if task.transcripts is not None][1:]:
        text = task.transcripts
        if text is not None and (
            text.decoder.save_posteriors or text.decoder.consistency_samples or text.second_pass_threshold is not None
        ):
            raise UsageError(
                f"{task.model.model}: keep_posteriors, consistency_samples and redo_below are for the first model that transcribes; "
                "its texts stand in segments, this one's in transcripts"
            )
