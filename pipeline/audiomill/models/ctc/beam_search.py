"""Beam search as a run uses it: settings -> decoder; stretches of frames -> transcripts with times, scores and n-best.

F frames, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import SearchConfig
from audiomill.errors import UsageError
from audiomill.models.base import Candidate, TimedText, Transcript
from audiomill.models.ctc.align import WordSpan, token_spans
from audiomill.models.ctc.beam import ScoredText, prefix_beam_search
from audiomill.models.ctc.context import Context, FusionWeights
from audiomill.models.ctc.emissions import Emissions, concatenate, dense, narrowed
from audiomill.models.ctc.greedy_decoding import CtcVocabulary, core_frames
from audiomill.models.ctc.ngram import NgramModel, file_fingerprint, local_file
from audiomill.models.ctc.rescore import Rescorer
from audiomill.models.ctc.spelling import TokenTrie, phrases, pieces_of, spelled, words_of_lexicon
from audiomill.storage.fs import Place


class Stretch(NamedTuple):
    """Frames of one segment, context left out. `start`: sample of the segment's start, `first`: of its first frame, on
    the recording's clock; `is_continued`: its frames go on from the stretch before."""

    start: int
    first: int
    is_continued: bool
    top: Emissions


def stretch_of(segment: Segment, top: Emissions | None, hop: int, is_continued: bool) -> Stretch:
    """The frames of a segment itself, its context left out."""
    assert top is not None, "the most probable tokens were kept"
    at, core = core_frames(segment, len(top.tokens_FC), hop)
    first = int(at[core][0]) if core.any() else segment.start
    return Stretch(segment.start, first, is_continued, Emissions(top.tokens_FC[core], top.logprobs_FC[core]))


class BeamDecoder:
    """Texts of stretches by beam search.

    Args:
        config: the settings.
        vocabulary: of the model.
        options: for fsspec.
        device: of the rescoring model.

    Raises:
        UsageError: a language model, lexicon or hotword cannot be used.
    """

    def __init__(
        self, config: SearchConfig, vocabulary: CtcVocabulary, options: dict[str, Any], device: str = "cpu"
    ) -> None:
        self._config, self._vocabulary = config, vocabulary
        lm = NgramModel(local_file(Place(config.lm, options), "--lm")) if config.lm else None
        lexicon = None
        if config.lexicon:
            words = words_of_lexicon(local_file(Place(config.lexicon, options), "--lexicon"), vocabulary)
            lexicon = TokenTrie(words, len(vocabulary.tokens), pieces_of(vocabulary))
        hotwords = None
        if config.hotwords:
            spellings = [spelled(phrase, vocabulary, "--hotwords") for phrase in phrases(config.hotwords, options)]
            hotwords = TokenTrie(spellings, len(vocabulary.tokens), pieces_of(vocabulary))
        # Without a language model words need no balance to it.
        for_words = (config.word_insertion_score, config.unk_score) if lm is not None else (0.0, 0.0)
        weights = FusionWeights(config.lm_weight, *for_words, config.hotword_score)
        self._context = Context(vocabulary, weights, lm, lexicon, hotwords)
        self._rescorer = Rescorer(config.rescore_model, options, device) if config.rescore_model else None

    def transcripts(self, stretches: Sequence[Stretch], hop: int, language: str | None) -> list[Transcript]:
        """One transcript per stretch. Stretches that are continued are read as one; a word belongs to where it starts.

        Args:
            stretches: in time order per track.
            hop: samples from one frame to the next.
            language: reported as given.
        """
        runs = list(_runs(stretches))
        tops = [narrowed(concatenate([stretches[at].top for at in run]), self._config.beam_size_token) for run in runs]
        best = self._rescored(prefix_beam_search(tops, self._context, self._config.beam_size, self._num_searched()))
        results: dict[int, Transcript] = {}
        for run, top, candidates in zip(runs, tops, best, strict=True):
            for at, text in self._split(run, stretches, top, candidates, hop, language):
                results[at] = text
        return [results[at] for at in range(len(stretches))]

    def _num_searched(self) -> int:
        return self._config.beam_size if self._rescorer is not None else self._config.num_best

    def _rescored(self, best: list[list[ScoredText]]) -> list[list[tuple[ScoredText, Candidate]]]:
        """Candidates of each run, best first, weighed by the causal language model where there is one."""
        listed = [[(each, self._candidate(each, None)) for each in candidates] for candidates in best]
        if self._rescorer is not None:
            texts = sorted({candidate.text for candidates in listed for _, candidate in candidates})
            scores = dict(zip(texts, self._rescorer.score(texts), strict=True))
            listed = [
                sorted(
                    ((each, self._candidate(each, scores[candidate.text])) for each, candidate in candidates),
                    key=lambda pair: (-pair[1].score, pair[1].text),
                )
                for candidates in listed
            ]
        return [candidates[: self._config.num_best] for candidates in listed]

    def _candidate(self, scored_text: ScoredText, rescored: float | None) -> Candidate:
        prefix = scored_text.prefix
        return Candidate(
            text=" ".join(self.words(prefix.tokens())),
            acoustic=scored_text.acoustic,
            lm=prefix.lm,
            num_words=prefix.num_words,
            hotwords=prefix.hotwords,
            rescored=rescored,
            score=scored_text.score + self._config.rescore_weight * (rescored or 0.0),
        )

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Words that tokens write."""
        owners, names = self._owners(tokens), [self._vocabulary.tokens[token] for token in tokens]
        words = [""] * (max(owners, default=-1) + 1)
        for owner, name in zip(owners, names, strict=True):
            if owner >= 0:
                words[owner] += name
        return [self._vocabulary.written(word) for word in words]

    def _owners(self, tokens: Sequence[int]) -> list[int]:
        """The word that each token is a part of, by its number in `words`; -1 for what writes none."""
        if self._vocabulary.spaced:
            return list(range(len(tokens)))
        owners: list[int] = []
        word, goes_on = -1, False
        for token in tokens:
            name = self._vocabulary.tokens[token]
            is_part = name not in (self._vocabulary.delimiter, self._vocabulary.mark) and bool(name.strip())
            goes_on &= not self._vocabulary.begins_word(name)
            word += is_part and not goes_on
            owners.append(word if is_part else -1)
            goes_on = is_part
        return owners

    def _split(
        self,
        run: Sequence[int],
        stretches: Sequence[Stretch],
        top: Emissions,
        candidates: Sequence[tuple[ScoredText, Candidate]],
        hop: int,
        language: str | None,
    ) -> Iterator[tuple[int, Transcript]]:
        """The best text of a run, given to the stretches that its words start in."""
        chosen = candidates[0][0] if candidates else None
        tokens = chosen.prefix.tokens() if chosen is not None else ()
        words = self.words(tokens)
        logprobs_FV = dense(top, len(self._vocabulary.tokens))
        spans = token_spans(tokens, self._owners(tokens), logprobs_FV, self._vocabulary.blank) if words else []
        starts = np.concatenate([stretches[at].first + hop * np.arange(len(stretches[at].top.tokens_FC)) for at in run])
        per_token = chosen.acoustic / max(1, len(tokens)) if chosen is not None else None
        edges = [stretches[at].start for at in run[1:]]
        for number, at in enumerate(run):
            mine = [
                (word, span)
                for word, span in zip(words, spans, strict=True)
                if np.searchsorted(edges, starts[span.first], side="right") == number
            ]
            timed = tuple(_timed(word, span, starts, hop, stretches[at].start) for word, span in mine)
            nbest = tuple(candidate for _, candidate in candidates) if len(run) == 1 else None
            yield at, _transcript(timed, per_token, nbest, language)


def _timed(word: str, span: WordSpan, starts: NDArray[np.int64], hop: int, origin: int) -> TimedText:
    start, stop = int(starts[span.first]), int(starts[span.stop - 1]) + hop
    return TimedText(word, start - origin, stop - origin, math.exp(span.logprob))


def _transcript(
    words: tuple[TimedText, ...], per_token: float | None, nbest: tuple[Candidate, ...] | None, language: str | None
) -> Transcript:
    logprobs = [math.log(max(word.probability, 1e-12)) for word in words]
    return Transcript(
        text=" ".join(word.text for word in words),
        language=language,
        language_probability=None,
        avg_logprob=float(np.mean(logprobs)) if logprobs else None,
        no_speech_prob=None,
        words=words,
        phrases=None,
        confidence=None if per_token is None else math.exp(min(0.0, per_token)),
        nbest=nbest,
    )


def _runs(stretches: Sequence[Stretch]) -> Iterator[list[int]]:
    """Numbers of stretches that are read as one."""
    run: list[int] = []
    for at, stretch in enumerate(stretches):
        if run and not stretch.is_continued:
            yield run
            run = []
        run.append(at)
    if run:
        yield run


def decoder_prints(config: SearchConfig, options: dict[str, Any]) -> dict[str, str]:
    """Fingerprints of the files that a decoder reads, by flag name: other content gives other texts.

    Raises:
        UsageError: one is not there.
    """
    results = {
        name: file_fingerprint(local_file(Place(path, options), f"--{name}"))
        for name, path in (("lm", config.lm), ("lexicon", config.lexicon))
        if path is not None
    }
    if config.hotwords and config.hotwords.startswith("@"):
        results["hotwords"] = file_fingerprint(local_file(Place(config.hotwords[1:], options), "--hotwords"))
    if config.rescore_model:
        from audiomill.models.locate import local_path

        folder = local_path(config.rescore_model, options)
        weights = sorted(Path(folder).glob("*.safetensors"))
        if not weights:
            raise UsageError(f"--rescore-model {config.rescore_model}: expected a folder with *.safetensors")
        results["rescore-model"] = "-".join(file_fingerprint(path) for path in weights)
    return results
