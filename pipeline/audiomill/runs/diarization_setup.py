"""What `--speakers` adds to a run: a task for the diarizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from audiomill.audio.cutting.segmenter import SegmentSpec
from audiomill.config.jobs import JobConfig, ModelTask
from audiomill.config.speakers import AUTO, CHANNEL
from audiomill.config.stages import ModelConfig
from audiomill.errors import UsageError
from audiomill.models.checkpoint import Checkpoint, checkpoint_fingerprint, find_checkpoint
from audiomill.models.family import TAGS, TURNS, VOICES
from audiomill.models.locate import installed_path
from audiomill.models.task import TaskSpec


def diarizer_task(config: JobConfig) -> Iterator[ModelTask]:
    """The task of the diarizer, where voices tell who speaks.

    Raises:
        UsageError: channels shall be speakers and are not kept apart.
    """
    wanted = config.speakers
    if wanted.speakers == CHANNEL and config.decode.channels != "split":
        raise UsageError("--speakers channel: every channel is a speaker: add --channels split")
    if wanted.speakers == AUTO:
        first = config.tasks[0].model
        model = ModelConfig(model=wanted.diarizer, device=first.device, precision="fp32")
        yield ModelTask(model=model, speaker_model=wanted.speaker_model)


def tagger_task(config: JobConfig) -> Iterator[ModelTask]:
    """The task of the tagger, where there is one.

    Raises:
        UsageError: a tagger without a table for its tags.
        ModelError: weights that judge how segments sound are not installed.
    """
    wanted = config.quality
    if wanted.tagger is not None and not wanted.quality:
        raise UsageError("--tagger: its tags stand in the table `quality`: add --quality")
    if not wanted.quality:
        return
    if find_spec("pyloudnorm") is None:
        raise UsageError("--quality: pip install 'audiomill[quality]'")
    if wanted.dnsmos:
        installed_path("dnsmos-p835")
    if wanted.tagger is not None:
        first = config.tasks[0].model
        yield ModelTask(
            model=ModelConfig(model=wanted.tagger, device=first.device, precision="fp32"), num_tags=wanted.num_tags
        )


def check_diarizer(task: ModelTask, checkpoint: Checkpoint, options: dict[str, Any]) -> None:
    """Tells models that cannot do it, before anything is started.

    Raises:
        ModelError: a model that tells no speakers, or one that makes no vectors of voices.
    """
    checkpoint.require(
        TURNS,
        f"--diarizer {task.model.model}: finds no speakers ({checkpoint.family.checkpoints}); use pyannote segmentation 3.0 "
        "or Nemotron 3 Diarization",
    )
    assert task.speaker_model is not None, "the task has one"
    result = find_checkpoint(ModelConfig(model=task.speaker_model), options)
    result.require(
        VOICES,
        f"--speaker-model {task.speaker_model}: makes no vectors of voices ({result.family.checkpoints}); use campplus, resemblyzer "
        "or a folder of one",
    )


def check_listener(task: ModelTask, checkpoint: Checkpoint) -> None:
    """Tells models that are asked for what they do not give.

    Raises:
        UsageError: a diarizer or a tagger in the place of another model, or the other way round.
    """
    if task.num_tags:
        checkpoint.require(
            TAGS, f"--tagger {task.model.model}: tags no sound ({checkpoint.family.checkpoints}); use an AST checkpoint"
        )
    for what, gives, option in ((task.speaker_model, TURNS, "--diarizer"), (task.num_tags, TAGS, "--tagger")):
        if not what and checkpoint.gives == {gives}:
            raise UsageError(f"{task.model.model}: gives {gives} and nothing else: name it with {option}")


def voice_print(model: str, options: dict[str, Any]) -> str:
    """Fingerprint of the model of voices."""
    return checkpoint_fingerprint(find_checkpoint(ModelConfig(model=model), options))


def with_splits(spec: TaskSpec, segments: SegmentSpec) -> TaskSpec:
    """A diarizer with the knowledge whether segments may be cut at its turns: what voice activity found may."""
    if spec.requested.turns is None:
        return spec
    turns = dataclasses.replace(spec.requested.turns, splits=segments.kind == "vad")
    return dataclasses.replace(spec, requested=dataclasses.replace(spec.requested, turns=turns))
