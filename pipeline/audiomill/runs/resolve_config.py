"""A job's configuration -> what its run does: automatic choices made, paths made absolute, sizes known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiomill.audio.clock import MODEL_SAMPLE_RATE, Form, samples_from_seconds
from audiomill.audio.cutting.segmenter import FRAME_GRID, SegmentSpec, spec_from_seconds
from audiomill.audio.cutting.stream_chunks import STREAM, in_steps
from audiomill.config.defaults import MOST_PART_S, WINDOW_S
from audiomill.config.fields import digest, result_fields
from audiomill.config.jobs import JobConfig, ModelTask
from audiomill.config.speakers import NONE
from audiomill.config.stages import ChunksConfig, SegmentConfig
from audiomill.errors import UsageError
from audiomill.models.base import DiarizationRequest, RequestedOutputs
from audiomill.models.checkpoint import checkpoint_fingerprint
from audiomill.models.ctc.beam_search import decoder_prints
from audiomill.models.family import ALIGNMENT
from audiomill.models.load import plan_model
from audiomill.models.preprocessing_files import file_hashes
from audiomill.models.task import TaskSpec
from audiomill.runs.diarization_setup import (
    voice_print,
    with_splits,
)
from audiomill.runs.resolve_checkpoints import (
    PRECISION,
    SECOND_PRECISION,
    ResolvedTask,
    model_kind,
    precision_of,
    read_calibration,
    second_spec,
)
from audiomill.stages.spec import RunSpec
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute, without_credentials
from audiomill.tables.assemble import resolve_tables
from audiomill.tables.output import ModelRequest
from audiomill.tables.outputs import OUTPUTS
from audiomill.tables.speaker_tables import full_name

WHOLE_RECORDING_FACTOR = 4
"""`--segment none`: models without a fixed window take recordings up to this many segments long whole."""
MAX_PART_BYTES = 512_000_000
PLAIN_BYTES = 2 * MODEL_SAMPLE_RATE
"""Of a second of audio at 16 kHz; a piece with other forms beside it holds fewer seconds."""
MIN_PART_SECONDS = 120.0


def resolve_run(
    config: JobConfig,
    tasks: Sequence[ResolvedTask],
    device: str,
    features: frozenset[str],
    before: Mapping[str, Any] | None = None,
) -> tuple[RunSpec, dict[str, Any]]:
    """Fills in what was left to us.

    Args:
        config: the job; tasks: its models.
        device: cpu or cuda, already resolved.
        features: of every processor that will compute, see `audiomill.models.precision`.
        before: what was settled for this output by an earlier run: an automatic precision stays as it was.

    Returns:
        The run, and what changes its results by flag name (`ledger.guard` compares it).
    """
    options = config.plan.storage_options
    specs, fields = _task_specs(config, tasks, device, features, before)
    _check_row_keys(specs)
    segments = _segments(config, tasks)
    specs = [with_splits(spec, segments) for spec in specs]
    fields |= {"segment": segments.kind, "max_segment_seconds": segments.max_length / MODEL_SAMPLE_RATE}
    asked = [ModelRequest(spec, task.shape) for spec, task in zip(specs, tasks, strict=True)]
    run = RunSpec(
        output=Place(absolute(config.output.output), options),
        digest=digest(fields),
        decode=config.decode,
        segments=segments,
        tasks=tuple(specs),
        tables=resolve_tables(config, asked),
        engine=config.engine,
        storage_options=options,
        part_seconds=0.0,
        piece_samples=0,
        bytes_per_second=bytes_per_second(asked),
        verbose=config.output.verbose,
        is_watched=config.watch.metrics is not None or config.engine.ray_address not in (None, "local"),
    )
    return with_part_size(run, config.plan.part_seconds), fields


def with_part_size(run: RunSpec, seconds: float | None) -> RunSpec:
    """The run with parts of so many seconds, fewer where a part's files would not fit memory."""
    part_seconds = _part_seconds(seconds or MOST_PART_S, sum(run.bytes_per_second.values()))
    piece_samples = samples_from_seconds(part_seconds * PLAIN_BYTES / sound_bytes(run.segments))
    return dataclasses.replace(run, part_seconds=part_seconds, piece_samples=piece_samples)


def _task_specs(
    config: JobConfig,
    tasks: Sequence[ResolvedTask],
    device: str,
    features: frozenset[str],
    before: Mapping[str, Any] | None,
) -> tuple[list[TaskSpec], dict[str, Any]]:
    """The models of a run, and what changes its results; see `resolve_run`."""
    options = config.plan.storage_options
    aligner = _aligner(tasks)
    specs: list[TaskSpec] = []
    fields = _stage_fields(config)
    for number, task in enumerate(tasks):
        prefix = "" if len(tasks) == 1 else f"models.{number}."
        settled = {name: (before or {}).get(f"{prefix}{name}") for name in (PRECISION, SECOND_PRECISION)}
        spec, others = _task_spec(task, device, features, options, settled, task is aligner)
        writers = sum(each.requested.has_text for each in specs)
        if writers and spec.requested.has_text:
            spec = dataclasses.replace(spec, requested=dataclasses.replace(spec.requested, beside=writers + 1))
        specs.append(spec)
        result = _model_fields(task, spec, others, task is aligner, options)
        fields |= {f"{prefix}{name}": value for name, value in result.items()}
    return specs, fields


def _model_fields(
    task: ResolvedTask, spec: TaskSpec, others: Mapping[str, Any], is_aligner: bool, options: dict[str, Any]
) -> dict[str, Any]:
    """What changes the results of one model."""
    results = {
        **_task_fields(task.config),
        "model": checkpoint_fingerprint(task.checkpoint),
        "model-files": file_hashes(Path(task.checkpoint.path)),
        PRECISION: spec.model.precision,
        **others,
        **({"align": True} if is_aligner else {}),
        **_decoder_fields(task.config, options),
    }
    if task.config.speaker_model is not None:
        results["voice-model"] = voice_print(task.config.speaker_model, options)
    if task.second is not None:
        results |= {
            "second-model": checkpoint_fingerprint(task.second),
            "second-model-files": file_hashes(Path(task.second.path)),
        }
    if spec.calibration is not None:
        results["calibration"] = digest({"numbers": spec.calibration})
    if spec.second is not None:
        results[SECOND_PRECISION] = spec.second.model.precision
    return results


def _check_row_keys(specs: Sequence[TaskSpec]) -> None:
    """Raises UsageError for rows that nothing in the tables would tell apart."""
    rows = [(output.name, spec.label, *each) for output in OUTPUTS for spec in specs for each in output.row_keys(spec)]
    for row in rows:
        if rows.count(row) > 1:
            raise UsageError(f"{row[0]} of {row[1]} are asked for twice in the same form ({row[2]}); leave one out")


def _task_spec(
    task: ResolvedTask,
    device: str,
    features: frozenset[str],
    options: dict[str, Any],
    before: Mapping[str, Any],
    aligns: bool,
) -> tuple[TaskSpec, dict[str, Any]]:
    """The task, and what files beside its checkpoint say, by option."""
    config = task.config
    model = config.model
    only_text = not any(config.tables.values())
    family, kind = task.checkpoint.family, model_kind(device)
    precision = precision_of(model.precision, family, device, features, only_text, before[PRECISION])
    results: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for output in OUTPUTS:
        fields, more = output.resolve(config.tables.get(output.name, ()), task.checkpoint, task.shape, options)
        results |= fields
        others |= more
    text, second = config.transcripts, None
    if text is not None and task.second is not None:
        is_last_rung = text.second_pass_threshold is None
        second = None if is_last_rung else second_spec(task.second, text, model, device, features, before)
        text = dataclasses.replace(
            text, second_pass_model=task.second.name if is_last_rung else None, second_pass_threshold=None
        )
    turns = None if config.speaker_model is None else DiarizationRequest(voices=full_name(config.speaker_model))
    requested = RequestedOutputs(transcripts=text, aligns=aligns, turns=turns, tags=config.num_tags, **results)
    spec = plan_model(
        task.checkpoint,
        dataclasses.replace(model, device=device, precision=precision),
        requested,
        samples_from_seconds(model.batch_seconds or family.batch_seconds[kind]),
        without_credentials(model.model),
    )
    spec = dataclasses.replace(
        spec,
        second=second,
        calibration=read_calibration(config.transcripts, options),
        second_pass_threshold=config.text.second_pass_threshold,
    )
    return spec, others


def _aligner(tasks: Sequence[ResolvedTask]) -> ResolvedTask | None:
    """The CTC model that tells when Whisper's words were said: one is in the job, beside Whisper with word times.

    Raises:
        UsageError: `align` was asked of a model that cannot, or there is nothing to align.
    """
    texts = [t.config.transcripts for t in tasks if not t.checkpoint.offers(ALIGNMENT)]
    has_words = any(text.word_times for text in texts if text is not None)
    able = [task for task in tasks if task.checkpoint.offers(ALIGNMENT)]
    for task in tasks:
        if task.config.aligns and (task not in able or not has_words):
            raise UsageError(
                f"align: {task.config.model.model} has no CTC head, or no Whisper of this job writes words with times; "
                "put `align: true` beside a ...ForCTC checkpoint and `transcripts` beside a Whisper"
            )
    free = [task for task in able if not task.config.has_text and task.config.aligns is not False]
    return free[0] if free and has_words else None


def _decoder_fields(config: ModelTask, options: dict[str, Any]) -> dict[str, str]:
    return decoder_prints(config.text.decoder, options) if config.has_text else {}


def _task_fields(config: ModelTask) -> dict[str, Any]:
    task_fields: dict[str, Any] = result_fields(config.text) if config.has_text else {}
    for name, several in config.tables.items():
        for number, each in enumerate(several):
            before = "" if len(several) == 1 else f"{name}.{number}."
            task_fields |= {f"{before}{field}": value for field, value in result_fields(each).items()}
    return task_fields


def _stage_fields(config: JobConfig) -> dict[str, Any]:
    """What changes results beside the models; what is heard beside them only where it is wanted."""
    asked = {
        config.speakers: config.speakers.speakers != NONE,
        config.quality: config.quality.quality,
        config.chunks: config.segment.segment == STREAM,
    }
    left_out = {name for each, is_wanted in asked.items() if not is_wanted for name in result_fields(each)}
    return {name: value for name, value in result_fields(config).items() if name != "segment" and name not in left_out}


def _segments(config: JobConfig, tasks: Sequence[ResolvedTask]) -> SegmentSpec:
    result = segment_spec(config.segment, tasks, config.quality.quality)
    return stream_spec(result, config.chunks, tasks) if config.segment.segment == STREAM else result


def stream_spec(spec: SegmentSpec, chunks: ChunksConfig, tasks: Sequence[ResolvedTask]) -> SegmentSpec:
    """The same rules with chunks in place of windows.

    Raises:
        UsageError: a model that reads windows as a whole; frames in groups.
    """
    for task in tasks:
        if task.checkpoint.family.reads_alone:
            raise UsageError(
                f"--segment stream: {task.config.model.model} has no frames that a chunk could keep; "
                "`audiomill listen` streams Whisper, jobs cut it at pauses (--segment vad)"
            )
    step = math.lcm(*(int(task.shape.text_hop or task.shape.step) for task in tasks)) * (spec.grid // FRAME_GRID)
    return dataclasses.replace(
        spec,
        chunk=in_steps(chunks.chunk_seconds, step),
        context=in_steps(chunks.left_context_seconds, step),
        right=samples_from_seconds(chunks.look_ahead_seconds),
        at_quiet_moments=False,
        measures_speech=False,
    )


def segment_spec(config: SegmentConfig, tasks: Sequence[ResolvedTask], marks_speech: bool = False) -> SegmentSpec:
    """Cutting rules for the models of a run, which share segments.

    Where text comes from a model that reads each window alone, windows are cut at quiet moments; models with frames
    take context beside windows, and the frames of the context are dropped.
    """
    writers = [task.checkpoint.family for task in tasks if task.config.has_text]
    seconds = [task.second.family for task in tasks if task.second is not None]
    reads_alone = any(family.reads_alone for family in writers)
    has_frames = any(any(t.config.tables.values()) or t.checkpoint.offers(ALIGNMENT) for t in tasks)
    kind = config.segment if config.segment != "auto" else ("vad" if writers else "none")
    speech_lengths = [f.speech_segment_s for f in (*writers, *seconds) if f.speech_segment_s is not None]
    shorter = speech_lengths if kind == "vad" else []
    everyone = [*(task.checkpoint.family for task in tasks), *seconds]
    windows = [family.window_s for family in everyone if family.window_s is not None]
    window = min([config.max_segment_seconds or min(shorter, default=WINDOW_S), *windows])
    has_windows = any(_needs_windows(task) for task in tasks) or any(each.window_s is not None for each in seconds)
    is_whole = kind == "none" and not has_windows
    tables = [each for task in tasks for some in task.config.tables.values() for each in some]
    spec = spec_from_seconds(
        config,
        kind,
        window,
        config.chunk_overlap_seconds if has_frames and kind != "vad" else 0.0,
        _longest_whole(tasks, window) if is_whole else window,
        max((getattr(each, "frame_stride", 1) for each in tables), default=1),
    )
    return dataclasses.replace(
        spec,
        at_quiet_moments=reads_alone,
        measures_speech=reads_alone and kind != "vad",
        marks_speech=marks_speech or any(getattr(each, "pool_speech", False) for each in tables),
        forms=tuple(sorted({task.shape.form for task in tasks if task.shape.form is not None})),
    )


def _longest_whole(tasks: Sequence[ResolvedTask], window_s: float) -> float:
    """Seconds of a recording that all models take as one."""
    return min(task.checkpoint.whole_s or WHOLE_RECORDING_FACTOR * window_s for task in tasks)


def _needs_windows(task: ResolvedTask) -> bool:
    """Whether recordings longer than the model's window must be cut to it."""
    family = task.checkpoint.family
    has_frames = any(task.config.tables.values())
    return family.window_s is not None and (family.reads_alone or not has_frames)


def sound_bytes(segments: SegmentSpec) -> int:
    """Of a second of audio as it travels between the stages: plain, and in each form beside it."""
    return PLAIN_BYTES + sum(Form(*form).bytes_per_second for form in segments.forms)


def bytes_per_second(asked: Sequence[ModelRequest]) -> dict[str, float]:
    """Bytes of each table of frames for a second of audio that is kept."""
    sizes = {output.name: sum(output.bytes_per_second(each) for each in asked) for output in OUTPUTS}
    return {name: size for name, size in sizes.items() if size}


def _part_seconds(wanted: float, bytes_a_second: float) -> float:
    """A part is written as one file a table, so it must fit memory."""
    return min(wanted, max(MIN_PART_SECONDS, MAX_PART_BYTES / bytes_a_second)) if bytes_a_second else wanted
