"""The infer stage: a piece -> its result. Arrow in, Arrow out; no engine, no globals."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from audiomill import schema
from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.fingerprint import fingerprint
from audiomill.models.base import Answer, SpeechModel, TimedText, Transcript, Utterance
from audiomill.models.task import LoadedTask
from audiomill.models.whisper.gates import compression_ratio
from audiomill.stages.agreement import with_agreement
from audiomill.stages.batching import Batched, run_batches
from audiomill.stages.canary import Difference, compare, largest
from audiomill.tables.frames import codes_table, embeddings_table, posteriors_table, segment_id
from audiomill.tables.result import Result, Tables, pack


def infer_piece(piece: pa.Table, tasks: Sequence[LoadedTask], wanted: Tables, canary: int) -> pa.Table:
    """Runs the models over one piece.

    Args:
        piece: one row of `schema.PIECE`.
        tasks: the models and what is wanted of each.
        wanted: the tables of the run.
        canary: segments to compute again alone, see `audiomill.stages.canary`.

    Returns:
        One packed row, see `audiomill.tables.result`; segments in plan order. A segment that one of the models failed on is
        lost for all.
    """
    began, before = time.time(), time.perf_counter()
    (row,) = piece.select(["part", "piece", "last", "cuts", "endings", "rejections", "seconds"]).to_pylist()
    cuts, utterances = row["cuts"], _utterances(piece, row["cuts"])
    batched = [run_model(utterances, task.model, task.spec.batch_samples) for task in tasks]
    good = [i for i in range(len(cuts)) if all(each.answers[i] is not None for each in batched)]
    answers = [[answer for i in good if (answer := each.answers[i]) is not None] for each in batched]
    heard = [utterances[i] for i in good]
    difference = _canary(
        tasks, [_compared(each, heard, own) for each, own in zip(batched, answers, strict=True)], canary, row["part"]
    )
    first, answers = answers, [_climbed(task, heard, each) for task, each in zip(tasks, answers, strict=True)]
    lost: defaultdict[str, int] = defaultdict(int)
    for index in sorted(set(range(len(cuts))) - set(good)):
        lost[cuts[index]["recording_id"]] += cuts[index]["stop"] - cuts[index]["start"]
    transcripts = _with_first_texts(tasks, heard, first, _transcripts(tasks, heard, answers))
    own = [number for number, i in enumerate(good) if not cuts[i]["halo"]]
    owned_cuts = [cuts[good[number]] for number in own]
    result = {
        **{name: row[name] for name in ("part", "piece", "last", "endings", "rejections")},
        "segments": [_segment_row(cut, transcripts[n], heard[n]) for cut, n in zip(owned_cuts, own, strict=True)],
        "lost": list(lost.items()),
        "seconds": list(_seconds(row["seconds"], before, batched).items()),
        "began": began,
        "canary": None if difference is None else json.dumps(difference._asdict()),
    }
    frames = {}
    readouts = [[each[number].readout for number in own] for each in answers]
    specs = [task.spec for task in tasks]
    if "embeddings" in wanted.frames:
        frames["embeddings"] = embeddings_table(owned_cuts, readouts, specs, wanted.frames["embeddings"])
    if "posteriors" in wanted.frames:
        number, task = next((n, task) for n, task in enumerate(tasks) if task.spec.wants.transcripts is not None)
        kept = task.spec.wants.transcripts.decoder.keep_posteriors if task.spec.wants.transcripts is not None else 0
        texts = [answers[number][at].text for at in own]
        frames["posteriors"] = posteriors_table(owned_cuts, texts, task.spec, task.spec.text_hop, kept)
    if "codes" in wanted.frames:
        frames["codes"] = codes_table(owned_cuts, readouts, specs)
    return pack(Result(result, frames))


def _canary(
    tasks: Sequence[LoadedTask],
    compared: Sequence[tuple[Sequence[Utterance], Sequence[Answer]]],
    count: int,
    seed: int,
) -> Difference | None:
    if count == 0 or not compared[0][0]:
        return None
    found = [compare(task.model, *each, count, seed) for task, each in zip(tasks, compared, strict=True)]
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
    return found._replace(answers=answers, windows=windows)


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
        failing = ladder.failing(utterances, found)
        if not failing:
            break
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


def _segment_row(cut: dict[str, Any], transcript: Transcript | None, utterance: Utterance) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schema.SEGMENTS.names)
    row |= {
        "id": segment_id(cut),
        "recording_id": cut["recording_id"],
        "channel": cut["channel"],
        "start_s": seconds_from_samples(cut["start"]),
        "stop_s": seconds_from_samples(cut["stop"]),
        "fingerprint": fingerprint(utterance.pcm_T[utterance.left : len(utterance.pcm_T) - utterance.right]),
    }
    if transcript is None:
        return row
    logprob, confidence = transcript.avg_logprob, transcript.confidence
    if confidence is None and logprob is not None:
        confidence = float(np.exp(min(0.0, logprob)))
    return row | {
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": _rounded(transcript.language_probability),
        "avg_logprob": _rounded(logprob),
        "no_speech_prob": _rounded(transcript.no_speech_prob),
        "compression_ratio": compression_ratio(transcript.text),
        "confidence": _rounded(confidence),
        "words": _timed(transcript.words, cut, "word"),
        "phrases": _timed(transcript.phrases, cut, "text"),
        "rung": transcript.rung,
        "gates": None if transcript.gates is None else list(transcript.gates),
        "first_text": transcript.first_text,
        "agreement": _rounded(transcript.agreement),
        "nbest": None if transcript.nbest is None else [each._asdict() for each in transcript.nbest],
    }


def _timed(texts: tuple[TimedText, ...] | None, cut: dict[str, Any], name: str) -> list[dict[str, Any]] | None:
    """Times from the segment's clock to the source's, kept inside the segment."""
    if texts is None:
        return None
    limit = cut["stop"]
    return [
        {
            name: each.text,
            "start_s": seconds_from_samples(min(cut["start"] + each.start, limit)),
            "stop_s": seconds_from_samples(min(cut["start"] + each.stop, limit)),
            **(_sureness(each) if name == "word" else {}),
        }
        for each in texts
    ]


def _sureness(word: TimedText) -> dict[str, float | None]:
    confidence = word.probability if word.confidence is None else word.confidence
    return {"probability": _rounded(word.probability), "confidence": _rounded(confidence)}


def _rounded(value: float | None) -> float | None:
    """Four decimals: what lies below is rounding noise of the hardware's sums, not information."""
    return None if value is None else round(value, 4)
