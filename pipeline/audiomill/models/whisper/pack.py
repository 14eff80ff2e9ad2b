"""Short segments laid side by side in one window, and their words given back to them by when they were said.

Offered beside short context: a window costs as much for one word as for many. A packed segment is read with its
neighbours (those before and behind it in the plan, never those that it happens to be batched with).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.models.base import Prediction, Utterance
from audiomill.models.seq2seq.decode_slots import DecodedTokens
from audiomill.models.seq2seq.hypothesis import DecodedChunk, Hypothesis, TimedToken
from audiomill.models.whisper.words import word_groups

PACK_S, GAP_S = 14.0, 1.0
"""Longest window, as of segments that voice activity finds; silence between two segments."""


TOKENS_FREE, TOKENS_PER_SECOND = 8, 6.0
"""Of a fast speaker."""


class Pack(NamedTuple):
    """`members`: numbers of the utterances; `starts`: their first samples in the window."""

    utterance: Utterance
    members: list[int]
    starts: list[int]


class WindowPacker:
    """See `audiomill.models.base.Packer`.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def packed(self, utterances: Sequence[Utterance]) -> list[Pack]:
        """Neighbours of one language together, while they fit."""
        gap, most = samples_from_seconds(GAP_S), samples_from_seconds(PACK_S)
        packs: list[list[int]] = []
        length = 0
        for index, utterance in enumerate(utterances):
            joined = length + gap + len(utterance.pcm_T)
            if packs and joined <= most and utterances[packs[-1][0]].language == utterance.language:
                packs[-1].append(index)
                length = joined
            else:
                packs.append([index])
                length = len(utterance.pcm_T)
        return [_pack([utterances[i] for i in members], members, gap) for members in packs]

    def unpacked(self, pack: Pack, answer: Prediction, utterances: Sequence[Utterance]) -> list[Prediction]:
        """An answer for each member."""
        if len(pack.members) == 1:
            return [answer]
        hypothesis: Hypothesis = answer.text
        timed = [token for stretch in hypothesis.chunks for token in stretch.timed or ()]
        # A word belongs to the member whose share of the window (half of the gaps with it) its middle lies in.
        ends = [start + len(utterances[i].pcm_T) for start, i in zip(pack.starts, pack.members, strict=True)]
        edges = [(end + start) // 2 for end, start in zip(ends[:-1], pack.starts[1:], strict=True)]
        by_member: list[list[TimedToken]] = [[] for _ in pack.members]
        for _, members in word_groups(timed, self._tokenizer, hypothesis.language):
            middle = (members[0].start + members[-1].stop) // 2
            by_member[int(np.searchsorted(edges, middle, side="right"))] += members
        lengths = [end - start for start, end in zip(pack.starts, ends, strict=True)]
        return [
            Prediction(_part(hypothesis, tokens, start, length))
            for tokens, start, length in zip(by_member, pack.starts, lengths, strict=True)
        ]


def _pack(utterances: Sequence[Utterance], members: list[int], gap: int) -> Pack:
    if len(utterances) == 1:
        return Pack(utterances[0], members, [0])
    starts, at, silence = [], 0, np.zeros(gap, np.int16)
    for utterance in utterances:
        starts.append(at)
        at += len(utterance.pcm_T) + gap
    pieces = [piece for utterance in utterances for piece in (utterance.pcm_T, silence)][:-1]
    return Pack(utterances[0]._replace(pcm_T=np.concatenate(pieces), speech=None), members, starts)


def _most_tokens(num_samples: int) -> float:
    return TOKENS_FREE + TOKENS_PER_SECOND * num_samples / MODEL_SAMPLE_RATE


def _part(hypothesis: Hypothesis, timed: Sequence[TimedToken], start: int, length: int) -> Hypothesis:
    """What was heard between two samples, on the clock of its own. With more words than anybody says in that time some are
    others' or invented: it counts as not finished, and is heard again alone."""
    logprobs = [float(np.log(token.probability)) for token in timed]
    whole = [stretch.decoded for stretch in hypothesis.chunks]
    decoded = DecodedTokens(
        tokens=[token.token for token in timed],
        logprobs=logprobs,
        sum_logprob=sum(logprobs),
        num_chosen=len(timed),
        no_speech_prob=whole[0].no_speech_prob,
        is_finished=len(timed) <= _most_tokens(length) and all(each.is_finished for each in whole),
    )
    shifted = [
        token._replace(start=min(max(token.start - start, 0), length), stop=min(max(token.stop - start, 0), length))
        for token in timed
    ]
    return hypothesis._replace(chunks=(DecodedChunk(0, decoded, tuple(shifted)),))
