"""Word times of a model that writes words without them, by a CTC model of the same job."""

from __future__ import annotations

import math

from audiomill.models.base import TimedText, Transcript
from audiomill.models.batch import Batch
from audiomill.models.task import LoadedTask


def align(batch: Batch, main: int, number: int, task: LoadedTask) -> Batch:
    """The transcripts of the main model with the times of another one.

    Args:
        batch: with transcripts.
        main: the model whose words have no times, or less exact ones.
        number: of the model that aligns.
        task: that model.
    """
    assert task.model.aligner is not None, "it aligns"
    transcripts = [_with_words(each.transcripts[main]) for each in batch.good]
    words = [[word.text for word in transcript.words or ()] for transcript in transcripts]
    edges = task.model.aligner.edges(batch.segments_for(number), batch.hypotheses(number), words)
    return batch.with_transcripts(main, [_timed(*pair) for pair in zip(transcripts, edges, strict=True)])


def _with_words(transcript: Transcript) -> Transcript:
    """With the words of a model that gives none; their times are still to come."""
    if transcript.words is not None:
        return transcript
    probability = math.exp(transcript.avg_logprob or 0.0)
    return transcript._replace(words=tuple(TimedText(word, 0, 0, probability) for word in transcript.text.split()))


def _timed(transcript: Transcript, edges: list[tuple[int, int]] | None) -> Transcript:
    if edges is None:  # words that nobody has a time for are no words with times
        has_times = any(word.stop for word in transcript.words or ())
        return transcript if has_times else transcript._replace(words=None)
    pairs = zip(transcript.words or (), edges, strict=True)
    return transcript._replace(words=tuple(word._replace(start=start, stop=stop) for word, (start, stop) in pairs))
