"""Diarization by agglomerative clustering: vectors of local speakers -> speakers of a recording. N vectors, D width, K speakers.

Average linkage on cosine distances, in which two who speak at once are never joined; what was heard too shortly
to tell is given to the nearest speaker afterwards. A recording of any length takes bounded memory: blocks of it are
clustered first, then their clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import samples_from_seconds
from audiomill.errors import UsageError

CENTRE_SHARE = 0.34 / 0.48
"""Of the distance, for the means of much speech. Chosen with the distance and the next two on conversations of two to nine voices, in
the wide band, through telephones and from afar; see docs/measured.md."""
SHORT_SHARE = 0.56 / 0.48
"""Of the distance, where one of two clusters has little speech: its mean lies as far from its speaker's as a single vector."""
SHORT_S = 3.0
"""Seconds of little speech."""
BLOCK = 1500
"""Vectors that are clustered at once."""
TIGHT = 0.6
"""Of the distance below which speakers are one, inside a block: blocks join what is the same for sure."""
ENOUGH = 0.9
"""Of the vectors: where a round of blocks leaves more, the next one is less tight."""
MOST_NOISE = 20
"""Clusters of noise beside a known number of speakers."""
APART = 2.0
"""Cosine distance of what shall not be joined."""


class VoiceSpan(NamedTuple):
    """Where a voice was heard: samples."""

    channel: int
    start: int
    stop: int


LEAST_SHARE = 0.1
"""Of all speech, in a short recording: a few seconds may be half of it."""
NOWHERE = VoiceSpan(0, 0, 0)
FARTHEST = samples_from_seconds(10.0)
"""Samples from the start of one to that of another that may overlap it."""


@dataclass(frozen=True)
class Rule:
    """What makes two voices one.

    Attributes:
        distance: mean cosine distance below which they are.
        sure_s: seconds of a voice that may found a speaker of its own.
        least_s: a speaker with less in all is given to others, unless that is all there is.
    """

    distance: float
    sure_s: float = 1.0
    least_s: float = 2.0

    @property
    def centre_distance(self) -> float:
        """Cosine distance of their means below which they are: means lie nearer to each other than single vectors."""
        return CENTRE_SHARE * self.distance

    @property
    def short_distance(self) -> float:
        """The same, where one of the two has little speech."""
        return SHORT_SHARE * self.distance


def clustered(
    vectors_ND: NDArray[np.float32],
    seconds_N: NDArray[np.float64],
    places: Sequence[VoiceSpan],
    rule: Rule,
    num_speakers: int | None = None,
    max_speakers: int | None = None,
) -> NDArray[np.int64]:
    """The speaker of each vector, numbered as they come.

    Args:
        vectors_ND: of local speakers, in the order of time.
        seconds_N: that each was made of.
        places: where each was heard; those that overlap are different speakers.
        rule: see above.
        num_speakers: how many there are, if that is known.
        max_speakers: how many there may be.
    """
    if not len(vectors_ND):
        return np.zeros(0, np.int64)
    unit_ND = unit(vectors_ND)
    sure = np.flatnonzero(seconds_N >= rule.sure_s)
    if len(sure) < (num_speakers or 1):
        sure = np.arange(len(unit_ND))
    result = np.full(len(unit_ND), -1)
    near = [places[at] for at in sure.tolist()]
    result[sure] = _in_blocks(unit_ND[sure], seconds_N[sure], near, rule, num_speakers, TIGHT)
    if num_speakers is None:
        result = _without_small(unit_ND, seconds_N, _joined_by_centre(unit_ND, seconds_N, places, result, rule), rule)
    most = num_speakers or max_speakers
    result = _given_to_nearest(
        unit_ND, seconds_N, places, result if most is None else _at_most(unit_ND, seconds_N, result, most)
    )
    _, first, numbers = np.unique(result, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    named: NDArray[np.int64] = order[numbers]
    return named


def unit(vectors_ND: NDArray[Any]) -> NDArray[np.float64]:
    """Vectors of length 1."""
    values = vectors_ND.astype(np.float64)
    result: NDArray[np.float64] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return result


def _in_blocks(
    unit_ND: NDArray[np.float64],
    seconds_N: NDArray[np.float64],
    places: Sequence[VoiceSpan],
    rule: Rule,
    num_speakers: int | None,
    tight: float,
) -> NDArray[np.int64]:
    """Clusters of any number of vectors: blocks are clustered tightly, then what is left of them."""
    if len(unit_ND) <= BLOCK:
        return _linked(unit_ND, seconds_N, places, rule, num_speakers)
    parts: list[NDArray[np.int64]] = []
    for first in range(0, len(unit_ND), BLOCK):
        last = first + BLOCK
        inner = _cut(_tree(unit_ND[first:last], places[first:last]), tight * rule.distance)
        parts.append(inner + (int(parts[-1].max()) + 1 if parts else 0))
    inner_N = np.concatenate(parts)
    if inner_N.max() + 1 > ENOUGH * len(unit_ND):  # noise keeps everything apart
        if tight < 1.0:
            return _in_blocks(unit_ND, seconds_N, places, rule, num_speakers, tight + 0.2)
        return _by_a_sample(unit_ND, seconds_N, places, rule, num_speakers)
    centres = _centres(unit_ND, seconds_N, inner_N)
    sizes = np.bincount(inner_N, seconds_N).astype(np.float64)
    outer = _in_blocks(centres, sizes, [NOWHERE] * len(centres), rule, num_speakers, tight)
    result: NDArray[np.int64] = outer[inner_N]
    return result


def _by_a_sample(
    unit_ND: NDArray[np.float64],
    seconds_N: NDArray[np.float64],
    places: Sequence[VoiceSpan],
    rule: Rule,
    num_speakers: int | None,
) -> NDArray[np.int64]:
    """A block of vectors, evenly spread, is clustered, and the others are given to the nearest cluster."""
    chosen = np.linspace(0, len(unit_ND) - 1, BLOCK).astype(np.int64)
    some = _linked(unit_ND[chosen], seconds_N[chosen], [places[at] for at in chosen.tolist()], rule, num_speakers)
    result: NDArray[np.int64] = (unit_ND @ _centres(unit_ND[chosen], seconds_N[chosen], some).T).argmax(1)
    return result


def _linked(
    unit_ND: NDArray[np.float64],
    seconds_N: NDArray[np.float64],
    places: Sequence[VoiceSpan],
    rule: Rule,
    num_speakers: int | None,
) -> NDArray[np.int64]:
    """Clusters of a dendrogram; where a number of speakers is known, so many or more: noise may be a cluster of its own, so the
    cut goes down until that many have something to say."""
    tree = _tree(unit_ND, places)
    if num_speakers is None:
        return _cut(tree, rule.distance)
    least = min(rule.least_s, LEAST_SHARE * float(seconds_N.sum()))
    for count in range(num_speakers, min(len(unit_ND), num_speakers + MOST_NOISE) + 1):
        cut = _cut(tree, count, "maxclust")
        if (np.bincount(cut, seconds_N) >= least).sum() >= num_speakers:
            return cut
    return _cut(tree, num_speakers, "maxclust")


def _tree(unit_ND: NDArray[np.float64], places: Sequence[VoiceSpan]) -> NDArray[np.float64]:
    """Average linkage; empty for a single vector."""
    if len(unit_ND) == 1:
        return np.zeros((0, 4))
    try:
        from scipy.cluster.hierarchy import linkage
    except ImportError as error:
        raise UsageError("--speakers auto needs scipy: pip install 'audiomill[speakers]'") from error
    distances = np.clip(1.0 - unit_ND @ unit_ND.T, 0.0, APART)
    distances[_at_once(places)] = APART
    result: NDArray[np.float64] = linkage(distances[np.triu_indices(len(unit_ND), 1)], "average")
    return result


def _cut(tree: NDArray[np.float64], at: float, criterion: str = "distance") -> NDArray[np.int64]:
    if not len(tree):
        return np.zeros(1, np.int64)
    from scipy.cluster.hierarchy import fcluster

    return np.asarray(fcluster(tree, at, criterion), np.int64) - 1


def _at_most(
    unit_ND: NDArray[np.float64], seconds_N: NDArray[np.float64], result: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """The speakers who say most; what the others said is theirs afterwards."""
    sizes = np.bincount(result[result >= 0], seconds_N[result >= 0])
    if (sizes > 0).sum() <= most:
        return result
    largest = np.argsort(-sizes, kind="stable")[:most]
    return np.where(np.isin(result, largest), result, -1)


def _at_once(places: Sequence[VoiceSpan]) -> NDArray[np.bool_]:
    """is_NN: who speaks while another does."""
    channel, start, stop = np.array(places, np.int64).T
    result: NDArray[np.bool_] = (channel[:, None] == channel) & (start[:, None] < stop) & (start < stop[:, None])
    np.fill_diagonal(result, False)
    return result


def _centres(
    unit_ND: NDArray[np.float64], seconds_N: NDArray[np.float64], result: NDArray[np.int64]
) -> NDArray[np.float64]:
    """centre_KD of each cluster, of length 1, weighted by seconds; -1 belongs to none."""
    sums = np.zeros((int(result.max()) + 1, unit_ND.shape[1]))
    is_assigned = result >= 0
    np.add.at(sums, result[is_assigned], unit_ND[is_assigned] * seconds_N[is_assigned, None])
    return unit(sums)


def _joined_by_centre(
    unit_ND: NDArray[np.float64],
    seconds_N: NDArray[np.float64],
    places: Sequence[VoiceSpan],
    result: NDArray[np.int64],
    rule: Rule,
) -> NDArray[np.int64]:
    """Speakers whose means are near are one, unless they speak at once: noise drives single vectors apart, and their means less, the
    less the more speech they are of."""
    result = result.copy()
    pairs = [(at, other) for at in range(len(places)) for other in _overlapping(places, at) if at < other]
    while True:
        names = np.unique(result[result >= 0])
        if len(names) < 2:
            return result
        centres = _centres(unit_ND, seconds_N, result)[names]
        is_short = np.bincount(result[result >= 0], seconds_N[result >= 0])[names] < SHORT_S
        most_KK = np.where(is_short[:, None] | is_short, rule.short_distance, rule.centre_distance)
        near_KK = np.triu(centres @ centres.T + most_KK, 1)
        for pair in pairs:
            ends = np.searchsorted(names, np.sort(result[list(pair)]))
            if (result[list(pair)] >= 0).all():
                near_KK[ends[0], ends[1]] = 0.0
        one, other = np.unravel_index(int(near_KK.argmax()), near_KK.shape)
        if near_KK[one, other] <= 1.0:
            return result
        result[result == names[other]] = names[one]


def _without_small(
    unit_ND: NDArray[np.float64], seconds_N: NDArray[np.float64], result: NDArray[np.int64], rule: Rule
) -> NDArray[np.int64]:
    """Speakers with too little to be one are dissolved, unless no larger one is there."""
    is_assigned = result >= 0
    sizes = np.bincount(result[is_assigned], seconds_N[is_assigned])
    large = np.flatnonzero(sizes >= min(rule.least_s, LEAST_SHARE * float(seconds_N.sum())))
    if not len(large):
        return np.where(is_assigned, result, -1)
    return np.where(np.isin(result, large), result, -1)


def _given_to_nearest(
    unit_ND: NDArray[np.float64],
    seconds_N: NDArray[np.float64],
    places: Sequence[VoiceSpan],
    result: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Who belongs to nobody yet is the nearest speaker who is not somebody else in the same window, longest first."""
    speakers = np.unique(result[result >= 0])
    near_NK = unit_ND @ _centres(unit_ND, np.maximum(seconds_N, 1e-3), result).T
    settled = result.copy()
    for at in sorted(np.flatnonzero(result < 0).tolist(), key=lambda at: (-seconds_N[at], at)):
        there = {int(settled[other]) for other in _overlapping(places, at)}
        free = [each for each in speakers.tolist() if each not in there] or speakers.tolist()
        settled[at] = max(free, key=lambda each: near_NK[at, each])
    return settled


def _overlapping(places: Sequence[VoiceSpan], at: int) -> list[int]:
    """Those that overlap one: places are in the order of their starts."""
    mine, result = places[at], []
    for step in (-1, 1):
        other = at + step
        while 0 <= other < len(places) and abs(places[other].start - mine.start) <= FARTHEST:
            each = places[other]
            if each.channel == mine.channel and each.start < mine.stop and mine.start < each.stop:
                result.append(other)
            other += step
    return result


def speaker_posterior(
    vectors_ND: NDArray[Any], seconds_N: NDArray[np.float64], result: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How sure it is that each vector is its speaker's and not the next one's: 0.5 between the two, towards 1 beside its own."""
    if not len(result):
        return np.zeros(0)
    unit_ND = unit(vectors_ND)
    near_NK = unit_ND @ _centres(unit_ND, np.maximum(seconds_N, 1e-3), result).T
    if near_NK.shape[1] == 1:
        return np.ones(len(result))
    own_similarity = near_NK[np.arange(len(result)), result]
    near_NK[np.arange(len(result)), result] = -np.inf
    found_N: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(own_similarity - near_NK.max(1)) / _MARGIN))
    return found_N


_MARGIN = 0.08
"""Difference of cosines that makes a speaker e times as likely as the next one."""
