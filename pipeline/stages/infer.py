"""The infer stage: a piece -> its result. Arrow in, Arrow out; no engine, no globals."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.fingerprint import fingerprint
from audiomill.errors import RunFailed
from audiomill.models.base import Answer, OnHeard, SpeechModel, Transcript, Utterance
from audiomill.models.task import LoadedTask
from audiomill.stages.agreement import with_agreement
from audiomill.stages.batching import Batched, run_batches
from audiomill.stages.canary import Difference, beside_transformers, compare, largest
from audiomill.tables.output import Answered
from audiomill.tables.outputs import OUTPUTS
from audiomill.tables.result import Result, Tables, pack
from audiomill.tables.rows import segment_row


def infer_piece(
    piece: pa.Table, tasks: Sequence[LoadedTask], wanted: Tables, canary: int, heard: OnHeard | None = None
) -> pa.Table:
    """Runs the models over one piece.

    Args:
        piece: one row of `schema.PIECE`.
        tasks: the models and what is wanted of each.
        wanted: the tables of the run.
        canary: segments to compute again alone, see `audiomill.stages.canary`.
        heard: told how many segments and samples the first model has answered, as it goes.

    Returns:
        One packed row, see `audiomill.tables.result`; segments in plan order. A segment that one of the models failed on
        is lost for all. An error costs the recording that it comes from and no other.

    Raises:
        RunFailed: several recordings that all failed in the same way, or values that are not finite: no fault of the audio.
    """
    began, before = time.time(), time.perf_counter()
    passed_on = ("part", "piece", "last", "endings", "rejections", "planned")
    (row,) = piece.select([*passed_on, "cuts", "seconds"]).to_pylist()
    cuts, utterances = row["cuts"], _utterances(piece, row["cuts"])
    for task in tasks:
        task.model.on_heard = None
    tasks[0].model.on_heard = heard
    try:
        found = _heard(cuts, utterances, tasks, wanted, canary, row["part"])
    except RunFailed:
        raise
    except Exception as error:
        found = _heard_apart(cuts, utterances, tasks, wanted, error)
    _check_some_work(cuts, found)
    result = {
        **{name: row[name] for name in passed_on},
        "segments": found.segments,
        "lost": list(found.lost.items()),
        "failures": [(name, told(error)) for name, error in found.errors.items()],
        "seconds": list(_seconds(row["seconds"], before, found.batched).items()),
        "began": began,
        "canary": None if found.difference is None else json.dumps(found.difference._asdict()),
    }
    return pack(Result(result, found.frames))


@dataclass
class _Heard:
    """What the models made of some segments. `lost`: samples by recording; `errors`: the first one of each."""

    segments: list[dict[str, Any]] = field(default_factory=list)
    frames: dict[str, pa.Table] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    errors: dict[str, Exception] = field(default_factory=dict)
    batched: list[Batched] = field(default_factory=list)
    difference: Difference | None = None


def _heard(
    cuts: Sequence[dict[str, Any]],
    utterances: Sequence[Utterance],
    tasks: Sequence[LoadedTask],
    wanted: Tables,
    canary: int,
    seed: int,
) -> _Heard:
    batched = [run_model(utterances, task.model, task.spec.batch_samples) for task in tasks]
    good = [i for i in range(len(cuts)) if all(each.answers[i] is not None for each in batched)]
    answers = [[answer for i in good if (answer := each.answers[i]) is not None] for each in batched]
    heard = [utterances[i] for i in good]
    tasks[0].model.on_heard = None  # what follows is heard again
    difference = _canary(
        tasks, [_compared(each, heard, own) for each, own in zip(batched, answers, strict=True)], canary, seed
    )
    first, answers = answers, [_climbed(task, heard, each) for task, each in zip(tasks, answers, strict=True)]
    transcripts = _with_first_texts(tasks, heard, first, _transcripts(tasks, heard, answers))
    own = [number for number, i in enumerate(good) if not cuts[i]["halo"]]
    given = Answered(
        [cuts[good[number]] for number in own],
        [task.spec for task in tasks],
        [[each[number] for number in own] for each in answers],
    )
    found = _Heard(batched=batched, difference=difference)
    found.segments = [
        segment_row(cut, transcripts[n], _fingerprint(heard[n])) for cut, n in zip(given.cuts, own, strict=True)
    ]
    found.frames = {
        output.name: output.rows(given, wanted.frames[output.name])
        for output in OUTPUTS
        if output.name in wanted.frames
    }
    for index in sorted(set(range(len(cuts))) - set(good)):
        name = cuts[index]["recording_id"]
        found.lost[name] += cuts[index]["stop"] - cuts[index]["start"]
        error = next((each.errors[index] for each in batched if index in each.errors), None)
        if error is not None:
            found.errors.setdefault(name, error)
    return found


def _heard_apart(
    cuts: Sequence[dict[str, Any]],
    utterances: Sequence[Utterance],
    tasks: Sequence[LoadedTask],
    wanted: Tables,
    error: Exception,
) -> _Heard:
    """Recording by recording, after something failed for all together: what fails again alone is lost."""
    found = _Heard(frames={name: kind.empty_table() for name, kind in wanted.frames.items()})
    names = list(dict.fromkeys(cut["recording_id"] for cut in cuts))
    for name in names:
        mine = [at for at, cut in enumerate(cuts) if cut["recording_id"] == name]
        try:
            if len(names) == 1:
                raise error
            each = _heard([cuts[at] for at in mine], [utterances[at] for at in mine], tasks, wanted, 0, 0)
        except Exception as alone:
            found.errors[name] = alone
            found.lost[name] = sum(cuts[at]["stop"] - cuts[at]["start"] for at in mine if not cuts[at]["halo"])
            continue
        found.segments += each.segments
        found.frames = {key: pa.concat_tables([table, each.frames[key]]) for key, table in found.frames.items()}
        found.lost.update(each.lost)
        found.errors |= each.errors
        found.batched += each.batched
    return found


def _check_some_work(cuts: Sequence[dict[str, Any]], found: _Heard) -> None:
    """Raises RunFailed where a model fails on everything in the same way."""
    names = {cut["recording_id"] for cut in cuts}
    kinds = {type(error) for error in found.errors.values()}
    if len(names) > 1 and not found.segments and found.errors.keys() == names and len(kinds) == 1:
        raise RunFailed(f"the models fail on every recording: {told(next(iter(found.errors.values())))}")


def told(error: BaseException) -> str:
    """An error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _fingerprint(utterance: Utterance) -> int:
    return fingerprint(utterance.pcm_T[utterance.left : len(utterance.pcm_T) - utterance.right])


def _canary(
    tasks: Sequence[LoadedTask],
    compared: Sequence[tuple[Sequence[Utterance], Sequence[Answer]]],
    count: int,
    seed: int,
) -> Difference | None:
    if count == 0 or not compared[0][0]:
        return None
    found = [compare(task.model, *each, count, seed) for task, each in zip(tasks, compared, strict=True)]
    for task, (utterances, _) in zip(tasks, compared, strict=True):
        task.parity = task.parity or beside_transformers(task.model, utterances)
        inputs, outputs, note = task.parity
        found.append(Difference(inputs_apart=inputs, outputs_apart=outputs, not_compared=note))
    return largest(found)._replace(num_segments=found[0].num_segments)


def _compared(
    batched: Batched, utterances: Sequence[Utterance], answers: Sequence[Answer]
) -> tuple[Sequence[Utterance], Sequence[Answer]]:
    """What the model was given and what it answered: whole windows where it packs."""
    if batched.windows is None:
        return utterances, answers
    pairs = [(given, answer) for given, answer in zip(*batched.windows, strict=True) if answer is not None]
    return [given for given, _ in pairs], [answer for _, answer in pairs]


def _transcripts(
    tasks: Sequence[LoadedTask], utterances: Sequence[Utterance], answers: Sequence[Sequence[Answer]]
) -> Sequence[Transcript | None]:
    """Of the one model that transcribes, if any."""
    for task, each in zip(tasks, answers, strict=True):
        if task.spec.wants.transcripts is not None:
            found = task.model.transcripts(utterances, [answer.text for answer in each])
            assert len(found) == len(utterances), "one transcript per utterance"
            aligned = _aligned(tasks, utterances, answers, found)
            again = task.spec.wants.transcripts.decoder.agreement
            return with_agreement(utterances, aligned, again, partial(_heard_first, task)) if again else aligned
    return [None] * len(utterances)


def _with_first_texts(
    tasks: Sequence[LoadedTask],
    utterances: Sequence[Utterance],
    first: Sequence[Sequence[Answer]],
    found: Sequence[Transcript | None],
) -> Sequence[Transcript | None]:
    """The transcripts, each with what the first attempt had written where another one's text, or none, was kept."""
    changed = [n for n, text in enumerate(found) if text is not None and (text.rung or text.gates)]
    task = next((number for number, task in enumerate(tasks) if task.spec.wants.transcripts is not None), None)
    if task is None or not changed:
        return found
    before = tasks[task].model.transcripts([utterances[n] for n in changed], [first[task][n].text for n in changed])
    settled = list(found)
    for number, text in zip(changed, before, strict=True):
        kept = found[number]
        if kept is not None and kept.text != text.text:
            settled[number] = kept._replace(first_text=text.text)
    return settled


def _heard_first(task: LoadedTask, utterances: Sequence[Utterance]) -> list[Transcript | None]:
    """First transcripts of utterances, None where the model fails."""
    answers = run_model(utterances, task.model, task.spec.batch_samples).answers
    good = [at for at, answer in enumerate(answers) if answer is not None]
    texts = [answer.text for answer in answers if answer is not None]
    found: list[Transcript | None] = [None] * len(utterances)
    for at, text in zip(good, task.model.transcripts([utterances[at] for at in good], texts), strict=True):
        found[at] = text
    return found


def _aligned(
    tasks: Sequence[LoadedTask],
    utterances: Sequence[Utterance],
    answers: Sequence[Sequence[Answer]],
    texts: list[Transcript],
) -> list[Transcript]:
    """The transcripts with the word times of the first model that aligns, where it can tell."""
    for task, each in zip(tasks, answers, strict=True):
        if task.model.aligner is not None:
            words = [[word.text for word in text.words or ()] for text in texts]
            edges = task.model.aligner.edges(utterances, [answer.text for answer in each], words)
            return [_retimed(text, found) for text, found in zip(texts, edges, strict=True)]
    return texts


def _retimed(text: Transcript, edges: list[tuple[int, int]] | None) -> Transcript:
    if edges is None or text.words is None:
        return text
    words = zip(text.words, edges, strict=True)
    return text._replace(words=tuple(word._replace(start=start, stop=stop) for word, (start, stop) in words))


def _seconds(before_infer: Sequence[tuple[str, float]], started: float, batched: Sequence[Batched]) -> dict[str, float]:
    seconds = dict(before_infer)
    seconds["infer"] = time.perf_counter() - started
    seconds["infer_real_audio"] = seconds_from_samples(sum(each.num_real for each in batched))
    seconds["infer_padded_audio"] = seconds_from_samples(sum(each.num_padded for each in batched))
    if any(each.num_halved for each in batched):
        seconds["infer_halved_batches"] = float(sum(each.num_halved for each in batched))
    return seconds


def run_model(utterances: Sequence[Utterance], model: SpeechModel, batch_samples: int) -> Batched:
    """First answers of a model to all utterances."""
    if model.packer is None:
        return _run_alone(utterances, model, batch_samples)
    packs = model.packer.packed(utterances)
    found = _run_alone([pack.utterance for pack in packs], model, batch_samples)
    answers: list[Answer | None] = []
    for each, answer in zip(packs, found.answers, strict=True):
        lost = [None] * len(each.members)
        answers += lost if answer is None else model.packer.unpacked(each, answer, utterances)
    windows = ([each.utterance for each in packs], found.answers)
    errors = {member: error for number, error in found.errors.items() for member in packs[number].members}
    return found._replace(answers=answers, windows=windows, errors=errors)


def _run_alone(utterances: Sequence[Utterance], model: SpeechModel, batch_samples: int) -> Batched:
    padded = [model.padded_length(len(u.pcm_T)) for u in utterances]
    return run_batches(utterances, padded, model.forward, batch_samples, model)


def _climbed(task: LoadedTask, utterances: Sequence[Utterance], answers: Sequence[Answer]) -> list[Answer]:
    """The answers, those that fail the model's own checks replaced by better ones from higher rungs of its ladder."""
    found, ladder = list(answers), task.model.ladder
    if ladder is None:
        return found
    utterances = ladder.told(utterances, found)
    retold = [i for i, (u, answer) in enumerate(zip(utterances, found, strict=True)) if ladder.is_retold(u, answer)]
    for i, answer in _heard_again(utterances, retold, task, 0):
        found[i] = ladder.replaced(found[i], answer)
    for rung in range(1, ladder.num_rungs + 1):
        failing = ladder.failing(utterances, found, rung)
        if not failing:  # a higher rung may still be for others
            continue
        pairs = _heard_again(utterances, failing, task, rung)
        chosen = [i for i, _ in pairs]
        kept = ladder.better([utterances[i] for i in chosen], [found[i] for i in chosen], [a for _, a in pairs])
        for i, answer in zip(chosen, kept, strict=True):
            found[i] = answer
    texts = ladder.settled(utterances, [answer.text for answer in found])
    return [answer._replace(text=text) for answer, text in zip(found, texts, strict=True)]


def _heard_again(
    utterances: Sequence[Utterance], chosen: Sequence[int], task: LoadedTask, rung: int
) -> list[tuple[int, Answer]]:
    """Answers of a rung to some of the utterances, where the model gives one; rung 0 is the first way."""
    again, model, ladder = [utterances[i] for i in chosen], task.model, task.model.ladder
    if rung == 0 or ladder is None:
        tried = _run_alone(again, model, task.spec.batch_samples).answers
    else:
        padded = [ladder.padded_length(len(u.pcm_T), rung) for u in again]
        tried = run_batches(again, padded, partial(ladder.forward, rung=rung), task.spec.batch_samples, model).answers
    return [(i, answer) for i, answer in zip(chosen, tried, strict=True) if answer is not None]


def _utterances(piece: pa.Table, cuts: list[dict[str, Any]]) -> list[Utterance]:
    """Zero-copy views of the piece's samples."""
    column = piece.column("pcm")
    chunk = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    first, last = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + 2]
    buffer = chunk.buffers()[2]
    pcm = np.frombuffer(buffer, np.int16)[first // 2 : last // 2] if buffer is not None else np.zeros(0, np.int16)
    found, at = [], 0
    for cut in cuts:
        length = cut["left"] + cut["stop"] - cut["start"] + cut["right"]
        track = (cut["recording_id"], cut["channel"])
        found.append(
            Utterance(
                pcm[at : at + length], cut["left"], cut["right"], track, cut["start"], cut["language"], cut["speech"]
            )
        )
        at += length
    assert at == len(pcm), "cuts cover the piece"
    return found
