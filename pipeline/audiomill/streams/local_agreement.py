"""Streams of models that see what they are given as a whole, such as Whisper: all that is not final is looked at again with
every chunk, and what two looks agree on is final.

T samples. Source: local agreement of two hypotheses, Liu et al. 2020 (arXiv:2005.11185), as Macháček et al. 2023
(arXiv:2307.14743) use it with Whisper; and what voice activity calls a pause ends all that was said before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.vad import FRAME_SAMPLES, SpeechProbabilities
from audiomill.models.base import Transcript
from audiomill.streams.stream_words import StreamLook

PAUSE, SILENCE = int(0.6 * MODEL_SAMPLE_RATE), 2 * MODEL_SAMPLE_RATE
"""So much without speech ends what was said; after so much of it the model begins afresh."""
_MARGIN = int(0.2 * MODEL_SAMPLE_RATE)
"""Kept before speech, as in segments."""
TRIMMED, LONGEST = 14 * MODEL_SAMPLE_RATE, 25 * MODEL_SAMPLE_RATE
"""More is cut behind a final word, where a sentence ends if one does; at the longest all that is heard becomes final."""
MOST_CHUNK_S = 5.0
"""With the longest that is not final a window of 30 s."""
_THRESHOLD = 0.5
LEAST_WORD, MIN_UNSAID = int(0.04 * MODEL_SAMPLE_RATE), 3
"""Samples of a word; so many words in less time were not said."""
_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")
Timed = tuple[str, int, int]


class LocalAgreement:
    """See `audiomill.streams.stream_words.StreamingPolicy`.

    Args:
        name: of the stream.
        language: code; None: the model finds out.
        transcripts: the model's, with times of words.
    """

    def __init__(
        self,
        name: str,
        language: str | None,
        transcripts: Callable[[Sequence[Segment], Sequence[Any]], list[Transcript]],
    ) -> None:
        self._name, self._language, self._transcripts = name, language, transcripts
        self._voice = SpeechProbabilities(block_frames=1)
        self._pcm_T = np.zeros(0, np.int16)
        self._from = 0  # first sample of `pcm_T` on the stream's clock
        self._voiced: list[bool] = []  # a frame of voice activity each, from the stream's start on
        self._before: list[Timed] = []  # the last look's words behind the final ones
        self._final: list[Timed] = []  # final words that begin in `pcm_T`
        self._told = 0  # audio before this is done with

    def due(self, chunk_T: NDArray[np.int16], is_last: bool) -> Segment | None:
        self._pcm_T = np.concatenate([self._pcm_T, chunk_T])
        probabilities = self._voice.push(chunk_T)
        if is_last:
            probabilities = np.concatenate([probabilities, self._voice.finish()])
        self._voiced += (probabilities >= _THRESHOLD).tolist()
        end = self._from + len(self._pcm_T)
        if not len(chunk_T):
            return None
        first = self._first_speech(max(self._from, self._told))
        if first is None and self._before:  # which a pause makes final
            return self._look()
        if first is None:
            if end - self._told > SILENCE:
                self._drop(end - _MARGIN)
            return None
        if not self._final:
            self._drop(first - _MARGIN)
        return self._look()

    def rest(self) -> Segment | None:
        return None

    def _look(self) -> Segment:
        speech = sum(self._voiced[self._from // FRAME_SAMPLES :]) * FRAME_SAMPLES
        return Segment(self._pcm_T.copy(), 0, 0, (self._name, None), self._from, self._language, speech=speech)

    def accept(self, segment: Segment, text: Any) -> StreamLook:
        (transcript,) = self._transcripts([segment], [text])
        at = segment.start
        every = drop_timeless_repeats([(word.text, at + word.start, at + word.stop) for word in transcript.words or ()])
        words = every[already(self._final, every, self._told) :]
        end = self._from + len(self._pcm_T)
        is_over = self._is_pause(end) or len(self._pcm_T) > LONGEST
        count = len(words) if is_over else agreed(self._before, words)
        final, self._before = words[:count], words[count:]
        self._final += final
        if is_over:
            self._told = end
        elif final:
            self._told = max(self._told, final[-1][2])
        if len(self._pcm_T) > TRIMMED:
            self._drop(self._where_to_cut())
        return StreamLook(tuple(final), tuple(self._before))

    def _where_to_cut(self) -> int:
        """Behind the last final word, or the last sentence where one ends in the second half."""
        ends = [stop for text, _, stop in self._final if text.rstrip("\"'")[-1:] in _SENTENCE_ENDS]
        late = [stop for stop in ends if stop > self._from + len(self._pcm_T) // 2]
        return late[-1] if late else self._told

    def finish(self) -> StreamLook:
        final, self._before = tuple(self._before), []
        return StreamLook(final)

    def _is_pause(self, end: int) -> bool:
        """Whether nobody has spoken for a while before `end`."""
        frames = self._voiced[max(self._from, end - PAUSE) // FRAME_SAMPLES :]
        return len(frames) * FRAME_SAMPLES >= PAUSE - 2 * FRAME_SAMPLES and not any(frames)

    def _first_speech(self, start: int) -> int | None:
        """First sample of voice activity from `start` on."""
        at = start // FRAME_SAMPLES
        for frame in range(at, len(self._voiced)):
            if self._voiced[frame]:
                return max(start, frame * FRAME_SAMPLES)
        return None

    def _drop(self, before: int) -> None:
        """Forgets audio before a sample, but for what is left of it."""
        count = min(max(0, before - self._from), len(self._pcm_T))
        self._pcm_T, self._from = self._pcm_T[count:], self._from + count
        self._final = [word for word in self._final if word[2] > self._from]


def drop_timeless_repeats(words: Sequence[Timed]) -> list[Timed]:
    """Without runs of words that take no time: the decoder went on repeating itself where the sound had ended."""
    remaining, run = list[Timed](), list[Timed]()
    for word in words:
        if run and word[2] - run[0][1] >= LEAST_WORD * (len(run) + 1):
            remaining += run if len(run) < MIN_UNSAID else []
            run = []
        run.append(word)
    if run and (len(run) < MIN_UNSAID or run[-1][2] - run[0][1] >= LEAST_WORD * len(run)):
        remaining += run
    return remaining


def already(final: Sequence[Timed], now: Sequence[Timed], num_emitted: int) -> int:
    """How many words of a look are those that are final already: as many as differ from them in fewest places, and of several
    such numbers the one whose next word begins nearest to what is told. Times alone would not do: they move by a tenth of
    a second from look to look."""
    costs = [*range(len(now) + 1)]  # of making the final words so far of the first n
    for number, old in enumerate(final, 1):
        before, costs = costs, [number]
        for at, new in enumerate(now, 1):
            change = before[at - 1] + (_bare(old[0]) != _bare(new[0]))
            costs.append(min(change, before[at] + 1, costs[at - 1] + 1))
    starts = [*(start for _, start, _ in now), num_emitted]
    return min(range(len(now) + 1), key=lambda count: (costs[count], abs(starts[count] - num_emitted)))


def agreed(before: Sequence[Timed], now: Sequence[Timed]) -> int:
    """How many words two looks begin with alike, whatever their case and punctuation."""
    count = 0
    for old, new in zip(before, now, strict=False):
        if _bare(old[0]) != _bare(new[0]):
            break
        count += 1
    return count


def _bare(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())
