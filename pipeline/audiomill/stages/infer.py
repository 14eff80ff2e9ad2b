"""The infer stage: a piece -> its result. Arrow in, Arrow out; no engine, no globals."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.fingerprint import sound_fingerprint
from audiomill.errors import RunError
from audiomill.models.base import OnProgress, Prediction, Utterance
from audiomill.models.task import LoadedTask
from audiomill.stages.answers.batching import Batched
from audiomill.stages.answers.diarize import Diarized, diarize
from audiomill.stages.answers.fallback import decode_with_fallback, run_model
from audiomill.stages.answers.parity_check import Difference, compare, largest, parity_with_transformers
from audiomill.stages.answers.texts import transcribe_segments
from audiomill.tables.assemble import Result, Tables, pack
from audiomill.tables.output import Predictions
from audiomill.tables.outputs import OUTPUTS
from audiomill.tables.quality_table import quality_rows
from audiomill.tables.rows import segment_row
from audiomill.tables.speaker_tables import OBSERVED_SPEAKERS


def infer_piece(
    piece: pa.Table,
    tasks: Sequence[LoadedTask],
    wanted: Tables,
    verify_segments: int,
    on_progress: OnProgress | None = None,
) -> pa.Table:
    """Runs the models over one piece.

    Args:
        piece: one row of `schema.PIECE`; tasks: the models and what is wanted of each.
        wanted: the tables of the run.
        verify_segments: segments to compute again alone, see `audiomill.stages.answers.parity_check`.
        on_progress: told how many segments and samples the first model has answered, as it goes.

    Returns:
        One packed row, see `audiomill.tables.assemble`; segments in plan order. A segment that one of the models failed on
        is lost for all. An error costs the recording that it comes from and no other.

    Raises:
        RunError: several recordings that all failed in the same way, or values that are not finite: no fault of the audio.
    """
    began, before = time.time(), time.perf_counter()
    passed_on = ("part", "piece", "last", "endings", "rejections", "planned")
    (row,) = piece.select([*passed_on, "cuts", "seconds"]).to_pylist()
    cuts, utterances = row["cuts"], _utterances(piece, row["cuts"])
    for task in tasks:
        task.model.on_progress = None
    tasks[0].model.on_progress = on_progress
    by_task = [_in_form(piece, cuts, utterances, tasks, task) for task in tasks]
    try:
        results = _infer_segments(cuts, by_task, tasks, wanted, verify_segments, row["part"])
    except RunError:
        raise
    except Exception as error:
        results = _infer_by_recording(cuts, by_task, tasks, wanted, error, verify_segments, row["part"])
    _check_some_work(cuts, results)
    result = {
        **{name: row[name] for name in passed_on},
        "segments": results.segments,
        "lost": list(results.lost.items()),
        "failures": [(name, describe_error(error)) for name, error in results.errors.items()],
        "seconds": list(_seconds(row["seconds"], before, results).items()),
        "began": began,
        "verification": None if results.difference is None else json.dumps(results.difference._asdict()),
    }
    return pack(Result(result, results.frames))


_QUALITY = "quality"


@dataclass
class _Inferred:
    """What the models made of some segments. `lost`: samples by recording; `errors`: the first one of each; `second_s`:
    seconds of the second model."""

    segments: list[dict[str, Any]] = field(default_factory=list)
    frames: dict[str, pa.Table] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    errors: dict[str, Exception] = field(default_factory=dict)
    batched: list[Batched] = field(default_factory=list)
    difference: Difference | None = None
    second_s: float = 0.0


def _infer_segments(
    cuts: Sequence[dict[str, Any]],
    utterances: Sequence[Sequence[Utterance]],
    tasks: Sequence[LoadedTask],
    wanted: Tables,
    verify_segments: int,
    seed: int,
) -> _Inferred:
    """What each task makes of its own `utterances`."""
    everyone, (who, tasks, at) = tasks, _diarize(cuts, utterances, tasks)
    before, cuts, utterances = cuts, who.cuts, who.utterances
    batched = [run_model(u, task.model, task.spec.batch_samples) for u, task in zip(utterances, tasks, strict=True)]
    good = [i for i in range(len(cuts)) if all(each.answers[i] is not None for each in batched)]
    answers = [[answer for i in good if (answer := each.answers[i]) is not None] for each in batched]
    good_utterances = [[of_task[i] for i in good] for of_task in utterances]
    tasks[0].model.on_progress = None  # what follows is heard again
    compared: list[tuple[Sequence[Utterance], Sequence[Prediction]]]
    compared = list(zip(good_utterances, answers, strict=True))
    if at is not None:
        compared.insert(at, who.diarizer_pairs)
    difference = _verify(everyone, compared, verify_segments, seed)
    first, answers = answers, list(map(decode_with_fallback, tasks, good_utterances, answers))
    texts = transcribe_segments(tasks, good_utterances[0], first, answers)
    transcripts = texts.main(tasks)
    core_numbers = [number for number, i in enumerate(good) if not cuts[i]["is_overlap_copy"]]
    given = Predictions(
        [cuts[good[number]] for number in core_numbers],
        [task.spec for task in tasks],
        [[each[number] for number in core_numbers] for each in answers],
        [[each[number] for number in core_numbers] for each in texts.by_task],
    )
    result = _Inferred(batched=batched, difference=difference, second_s=texts.second_s)
    prints = [_fingerprint(good_utterances[0][n]) for n in core_numbers]
    with _faults_are_ours("segments", seed):
        pairs = zip(given.cuts, core_numbers, prints, strict=True)
        result.segments = [segment_row(cut, transcripts[n], sound) for cut, n, sound in pairs]
    for output in OUTPUTS:
        if output.name in wanted.frames:
            with _faults_are_ours(output.name, seed):
                result.frames[output.name] = output.rows(given, wanted.frames[output.name])
    if who.rows is not None and who.batched is not None:
        result.frames[OBSERVED_SPEAKERS] = who.rows
        result.batched = [*batched, who.batched]
    if _QUALITY in wanted.frames:
        result.frames[_QUALITY] = _quality(given, tasks, [good_utterances[0][n] for n in core_numbers], wanted)
    failures = [(before[index], error) for index, error in sorted(who.lost.items())]
    for index in sorted(set(range(len(cuts))) - set(good)):
        failures.append((cuts[index], next((each.errors[index] for each in batched if index in each.errors), None)))
    _add_failures(result, failures)
    return result


def _add_failures(result: _Inferred, failures: Sequence[tuple[dict[str, Any], Exception | None]]) -> None:
    """Counts the segments that a model failed on; of each recording the first error is kept."""
    for cut, error in failures:
        result.lost[cut["recording_id"]] += cut["stop"] - cut["start"]
        if error is not None:
            result.errors.setdefault(cut["recording_id"], error)


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


def _diarize(
    cuts: Sequence[dict[str, Any]], utterances: Sequence[Sequence[Utterance]], tasks: Sequence[LoadedTask]
) -> tuple[Diarized, Sequence[LoadedTask], int | None]:
    """What the diarizer heard, the tasks without it, and which one it is, where there is one."""
    at = next((n for n, task in enumerate(tasks) if task.spec.requested.turns is not None), None)
    if at is None:
        return Diarized(cuts, utterances), tasks, None
    others = [number for number in range(len(tasks)) if number != at]
    who = diarize(cuts, utterances[at], [utterances[number] for number in others], tasks[at])
    return who, [tasks[number] for number in others], at


def _quality(
    given: Predictions, tasks: Sequence[LoadedTask], utterances: Sequence[Utterance], wanted: Tables
) -> pa.Table:
    """How the segments sound, with the answers of the tagger, where there is one."""
    tagger = next((n for n, task in enumerate(tasks) if task.spec.requested.tags), None)
    tags = None if tagger is None else given.answers[tagger]
    return quality_rows(given.cuts, utterances, tags, wanted.has_dnsmos)


def _infer_by_recording(
    cuts: Sequence[dict[str, Any]],
    utterances: Sequence[Sequence[Utterance]],
    tasks: Sequence[LoadedTask],
    wanted: Tables,
    error: Exception,
    verify_segments: int,
    seed: int,
) -> _Inferred:
    """Recording by recording, after something failed for all together: what fails again alone is lost. The exactness check
    takes its segments from the first ones that do not."""
    result = _Inferred(frames={name: kind.empty_table() for name, kind in wanted.frames.items()})
    names = list(dict.fromkeys(cut["recording_id"] for cut in cuts))
    for name in names:
        mine = [at for at, cut in enumerate(cuts) if cut["recording_id"] == name]
        try:
            if len(names) == 1:
                raise error
            each = _infer_segments(
                [cuts[at] for at in mine],
                [[task_utterances[at] for at in mine] for task_utterances in utterances],
                tasks,
                wanted,
                verify_segments,
                seed,
            )
        except RunError:
            raise
        except Exception as alone:
            result.errors[name] = alone
            result.lost[name] = sum(
                cuts[at]["stop"] - cuts[at]["start"] for at in mine if not cuts[at]["is_overlap_copy"]
            )
            continue
        if each.difference is not None:
            verify_segments = max(0, verify_segments - each.difference.num_segments)
            result.difference = largest([*([result.difference] if result.difference else []), each.difference])
        result.segments += each.segments
        result.frames = {
            key: pa.concat_tables([*([result.frames[key]] if key in result.frames else []), table])
            for key, table in each.frames.items()
        }
        result.lost.update(each.lost)
        result.errors |= each.errors
        result.batched += each.batched
        result.second_s += each.second_s
    return result


def _check_some_work(cuts: Sequence[dict[str, Any]], inferred: _Inferred) -> None:
    """Raises RunFailed where a model fails on everything in the same way."""
    names = {cut["recording_id"] for cut in cuts}
    kinds = {type(error) for error in inferred.errors.values()}
    if len(names) > 1 and not inferred.segments and inferred.errors.keys() == names and len(kinds) == 1:
        raise RunError(f"the models fail on every recording: {describe_error(next(iter(inferred.errors.values())))}")


def describe_error(error: BaseException) -> str:
    """An error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _fingerprint(utterance: Utterance) -> int:
    return sound_fingerprint(utterance.pcm_T[utterance.left : len(utterance.pcm_T) - utterance.right])


def _verify(
    tasks: Sequence[LoadedTask],
    compared: Sequence[tuple[Sequence[Utterance], Sequence[Prediction]]],
    count: int,
    seed: int,
) -> Difference | None:
    if count == 0 or not compared[0][0]:
        return None
    results = [compare(task.model, *each, count, seed) for task, each in zip(tasks, compared, strict=True)]
    for task, (utterances, _) in zip(tasks, compared, strict=True):
        task.parity = task.parity or parity_with_transformers(task.model, utterances)
        inputs, outputs, note = task.parity
        results.append(Difference(inputs_apart=inputs, outputs_apart=outputs, not_compared=note))
    return largest(results)._replace(num_segments=results[0].num_segments)


def _seconds(before_infer: Sequence[tuple[str, float]], started: float, inferred: _Inferred) -> dict[str, float]:
    seconds, batched = dict(before_infer), inferred.batched
    seconds["infer"] = time.perf_counter() - started
    seconds["infer_real_audio"] = seconds_from_samples(sum(each.num_real for each in batched))
    seconds["infer_padded_audio"] = seconds_from_samples(sum(each.num_padded for each in batched))
    if any(each.num_halved for each in batched):
        seconds["infer_halved_batches"] = float(sum(each.num_halved for each in batched))
    if inferred.second_s:
        seconds["infer_second_model"] = inferred.second_s
    return seconds


def _utterances(piece: pa.Table, cuts: list[dict[str, Any]]) -> list[Utterance]:
    """Zero-copy views of the piece's samples."""
    column = piece.column("pcm")
    chunk = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    first, last = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + 2]
    buffer = chunk.buffers()[2]
    pcm = np.frombuffer(buffer, np.int16)[first // 2 : last // 2] if buffer is not None else np.zeros(0, np.int16)
    utterances, at = [], 0
    for cut in cuts:
        length = cut["left"] + cut["stop"] - cut["start"] + cut["right"]
        track = (cut["recording_id"], cut["channel"])
        utterances.append(
            Utterance(
                pcm[at : at + length],
                cut["left"],
                cut["right"],
                track,
                cut["start"],
                cut["language"],
                cut["speech"],
                vad_mask=cut["vad_mask"],
            )
        )
        at += length
    assert at == len(pcm), "cuts cover the piece"
    return utterances


def _in_form(
    piece: pa.Table,
    cuts: Sequence[dict[str, Any]],
    utterances: Sequence[Utterance],
    tasks: Sequence[LoadedTask],
    task: LoadedTask,
) -> Sequence[Utterance]:
    """The utterances as one of the tasks hears them: with zero-copy views of its own form, if it has one."""
    form = task.spec.form
    if form is None or not utterances:
        return utterances
    number = sorted({each.spec.form for each in tasks if each.spec.form is not None}).index(form)
    values = piece.column("forms").combine_chunks().flatten()[number].as_buffer()
    wave_TK = np.frombuffer(values, np.float32).reshape(-1, form.num_channels)
    edges = np.cumsum([0, *(cut["forms"][number] for cut in cuts)])
    return [
        utterance._replace(wave_TK=wave_TK[first:last])
        for utterance, first, last in zip(utterances, edges, edges[1:], strict=False)
    ]
