"""The infer stage: a piece -> its result. Arrow in, Arrow out; no engine, no globals."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.fingerprint import sound_fingerprint
from audiomill.errors import RunError
from audiomill.models.base import OnProgress, no_progress
from audiomill.models.batch import Batch, InferenceStep, SegmentResult, largest, run_steps
from audiomill.models.task import LoadedTask, wave_forms
from audiomill.stages.cut import segments_of
from audiomill.stages.steps.calibration import calibrate
from audiomill.stages.steps.diarize import cut_at_speakers
from audiomill.stages.steps.fallback import fallback
from audiomill.stages.steps.forward import forward
from audiomill.stages.steps.language_changes import cut_at_languages
from audiomill.stages.steps.second_pass import second_pass
from audiomill.stages.steps.self_consistency import self_consistency
from audiomill.stages.steps.transcribe import keep_first_pass, transcribe
from audiomill.stages.steps.verify import verify
from audiomill.stages.steps.word_alignment import align
from audiomill.tables.assemble import Result, Tables, pack
from audiomill.tables.outputs import OUTPUTS
from audiomill.tables.rows import segment_row


def infer_piece(
    piece: pa.Table,
    tasks: Sequence[LoadedTask],
    wanted: Tables,
    verify_segments: int,
    on_progress: OnProgress = no_progress,
) -> pa.Table:
    """Runs the models over one piece.

    Args:
        piece: one row of `schema.PIECE`.
        tasks: the models and what is wanted of each.
        wanted: the tables of the run.
        verify_segments: segments to compute again alone, see `audiomill.stages.steps.verify`.
        on_progress: takes how many segments and samples the first model has answered, as it goes.

    Returns:
        One packed row, see `audiomill.tables.assemble`; segments in plan order. A segment that one of the models failed on
        is lost for all. An error costs the recording that it comes from and no other.

    Raises:
        RunError: several recordings that all failed in the same way, or values that are not finite: no fault of the audio.
    """
    began, before = time.time(), time.perf_counter()
    passed_on = ("part", "piece", "last", "endings", "rejections", "planned")
    (row,) = piece.select([*passed_on, "seconds"]).to_pylist()
    steps_for = partial(inference_steps, tasks, row["part"], on_progress)
    batch = run_steps(_batch_of(piece, tasks), steps_for, verify_segments)
    _check_some_work(batch)
    tables = _tables(batch, wanted, row["part"])
    result = {
        **{name: row[name] for name in passed_on},
        "segments": _segment_rows(batch, row["part"]),
        "lost": list(_lost_samples(batch).items()),
        "failures": [(name, describe_error(error)) for name, error in _first_errors(batch).items()],
        "seconds": list(_seconds(row["seconds"], before, batch).items()),
        "began": began,
        "verification": _verification(batch),
    }
    return pack(Result(result, tables))


def inference_steps(
    tasks: Sequence[LoadedTask], seed: int, on_progress: OnProgress, verify_segments: int
) -> list[InferenceStep]:
    """What happens to the segments of a piece, in order."""
    steps: list[InferenceStep] = []
    numbered = list(enumerate(tasks))
    for number, task in numbered:
        if task.spec.requested.turns is not None:
            steps += [partial(forward, number=number, task=task)]
            steps += [partial(verify, number=number, task=task, count=verify_segments, seed=seed)]
            steps += [partial(cut_at_speakers, number=number)] if task.spec.requested.turns.splits else []
    others = [(number, task) for number, task in numbered if task.spec.requested.turns is None]
    for number, task in others:
        steps.append(partial(forward, number=number, task=task, on_progress=no_progress if number else on_progress))
    again = [partial(forward, number=number, task=task) for number, task in others]  # parts were reported as a whole
    for number, task in others:
        if task.spec.requested.is_main:
            steps.append(partial(cut_at_languages, number=number, task=task, forward_steps=again))
    for number, task in others:
        steps.append(partial(verify, number=number, task=task, count=verify_segments, seed=seed))
        steps.append(partial(fallback, number=number, task=task))
    for number, task in others:
        if task.spec.requested.has_text:
            steps += _text_steps(number, task, others)
    return steps


def _text_steps(number: int, task: LoadedTask, others: Sequence[tuple[int, LoadedTask]]) -> list[InferenceStep]:
    """Of a model that transcribes. What is not the main text is calibrated and no more."""
    requested = task.spec.requested
    steps: list[InferenceStep] = [partial(transcribe, number=number, task=task)]
    if requested.is_main:
        aligners = [(at, each) for at, each in others if each.model.aligner is not None]
        steps += [partial(align, main=number, number=at, task=each) for at, each in aligners[:1]]
        if times := requested.text.decoder.consistency_samples:
            steps.append(partial(self_consistency, number=number, task=task, times=times))
        steps.append(partial(keep_first_pass, number=number, task=task))
    steps.append(partial(calibrate, number=number, task=task))
    return [*steps, partial(second_pass, number=number, task=task)] if requested.is_main else steps


def _batch_of(piece: pa.Table, tasks: Sequence[LoadedTask]) -> Batch:
    specs = tuple(task.spec for task in tasks)
    segments = segments_of(piece, [form.num_channels for form in wave_forms(specs)])
    return Batch(specs, tuple(SegmentResult(segment) for segment in segments))


def _segment_rows(batch: Batch, part: int) -> list[dict[str, Any]]:
    main = batch.main
    with _faults_are_ours("segments", part):
        return [
            segment_row(
                each.segment,
                None if main is None else each.transcripts[main],
                sound_fingerprint(each.segment.core.pcm_T),
            )
            for each in batch.stored
        ]


def _tables(batch: Batch, wanted: Tables, part: int) -> dict[str, pa.Table]:
    """The rows of every other table."""
    tables = {}
    for output in OUTPUTS:
        if output.name in wanted.outputs:
            with _faults_are_ours(output.name, part):
                tables[output.name] = output.rows(batch, wanted.outputs[output.name])
    return tables


@contextlib.contextmanager
def _faults_are_ours(table: str, part: int) -> Iterator[None]:
    """What goes wrong where no model computes is no recording's fault: it ends the run, with its place.

    Raises:
        RunError: in place of whatever is raised inside.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise RunError(
            f"part {part}: the rows of {table} could not be made ({describe_error(error)}, {where.filename.rsplit('/', 1)[-1]}:{where.lineno}); "
            "this is a fault of audiomill and not of the audio: please report it"
        ) from error


def _lost_samples(batch: Batch) -> Counter[str]:
    """By recording, of the segments that a model failed on."""
    lost: Counter[str] = Counter()
    for each in batch.results:
        if each.failure is not None and not each.segment.is_overlap_copy:
            lost[each.segment.recording_id] += each.segment.num_samples
    return lost


def _first_errors(batch: Batch) -> dict[str, Exception]:
    """By recording."""
    errors: dict[str, Exception] = {}
    for each in batch.results:
        if each.failure is not None:
            errors.setdefault(each.segment.recording_id, each.failure)
    return errors


def _check_some_work(batch: Batch) -> None:
    """Raises RunError where a model fails on everything in the same way."""
    names, errors = {each.segment.recording_id for each in batch.results}, _first_errors(batch)
    kinds = {type(error) for error in errors.values()}
    if len(names) > 1 and not batch.stored and errors.keys() == names and len(kinds) == 1:
        raise RunError(f"the models fail on every recording: {describe_error(next(iter(errors.values())))}")


def describe_error(error: BaseException) -> str:
    """An error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _verification(batch: Batch) -> str | None:
    """JSON of the largest differences; as many segments count as one model was compared on."""
    if not batch.differences:
        return None
    return json.dumps(largest(batch.differences.values())._replace(num_segments=batch.num_verified)._asdict())


def _seconds(before_infer: Sequence[tuple[str, float]], started: float, batch: Batch) -> dict[str, float]:
    seconds = dict(before_infer)
    seconds["infer"] = time.perf_counter() - started
    seconds["infer_real_audio"] = seconds_from_samples(sum(cost.num_real for cost in batch.costs))
    seconds["infer_padded_audio"] = seconds_from_samples(sum(cost.num_padded for cost in batch.costs))
    if num_halved := sum(cost.num_halved for cost in batch.costs):
        seconds["infer_halved_batches"] = float(num_halved)
    if batch.second_pass_s:
        seconds["infer_second_model"] = batch.second_pass_s
    return seconds
