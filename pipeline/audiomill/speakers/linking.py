"""Speakers of recordings -> voices of a corpus, in one pass in the order of the plan. V voices, D width.

A voice is the sum of the vectors that were linked to it; a speaker belongs to the nearest voice, or founds a new one. What was linked
stays, so a pass that goes on behind new recordings gives what one pass over all would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.speakers.clustering import unit

LINK_DISTANCE = 0.45
"""Cosine distance to a voice below which a speaker is linked to it; measured by benchmarks/speakers.py."""
MOST_SECONDS = 60.0
"""Of one speaker that count: an hour of somebody shall not outweigh what others say of the same voice."""


class RecordingSpeaker(NamedTuple):
    """A speaker of a recording."""

    recording_id: str
    speaker: str
    seconds: float
    vector_D: NDArray[np.float32]


class Link(NamedTuple):
    """Which voice a speaker is; `similarity`: cosine to the voice as it was then, 1 for who founded it."""

    recording_id: str
    speaker: str
    voice: str
    similarity: float


class Voices:
    """All voices: `ids` in the order in which they were found; `last`: the number of the latest one, which is never given again.

    Args:
        sums: of the vectors that were linked to each voice, by id.
        last: see there.
    """

    def __init__(self, sums: Mapping[str, NDArray[np.float64]], last: int = 0) -> None:
        self.ids, self.last = list(sums), last
        self._at = {voice: number for number, voice in enumerate(self.ids)}
        self._sums_VD = np.stack(list(sums.values())) if sums else np.zeros((0, 0))
        self._unit_VD = unit(self._sums_VD) if sums else np.zeros((0, 0))

    @property
    def sums(self) -> dict[str, NDArray[np.float64]]:
        """By id."""
        return {voice: self._sums_VD[at] for at, voice in enumerate(self.ids)}

    def nearest(self, vector_D: NDArray[np.float32], but: set[str]) -> tuple[str | None, float]:
        """The voice nearest to a vector and its cosine, among those not in `but`; None: there is none."""
        if not self.ids:
            return None, -1.0
        near_V = self._unit_VD[: len(self.ids)] @ unit(vector_D[None])[0]
        for voice in but:
            near_V[self._at[voice]] = -2.0
        at = int(near_V.argmax())
        return (self.ids[at], float(near_V[at])) if near_V[at] > -2.0 else (None, -1.0)

    def add(self, voice: str, speaker: RecordingSpeaker) -> None:
        """Counts a speaker for a voice."""
        self._add(voice, min(max(speaker.seconds, 0.1), MOST_SECONDS) * unit(speaker.vector_D[None])[0])

    def join(self, voice: str, other: str) -> None:
        """Makes another voice a part of this one."""
        self._add(voice, self._sums_VD[self._at[other]])
        self.drop(other)

    def drop(self, voice: str) -> None:
        """Takes one out."""
        at, count = self._at[voice], len(self.ids)
        for values_VD in (self._sums_VD, self._unit_VD):
            values_VD[at : count - 1] = values_VD[at + 1 : count]
        del self.ids[at]
        self._at = {voice: number for number, voice in enumerate(self.ids)}

    def new_id(self) -> str:
        """One that no voice has had."""
        self.last += 1
        return f"v{self.last:06d}"

    def _add(self, voice: str, sum_D: NDArray[np.float64]) -> None:
        if voice not in self._at:
            if len(self.ids) == len(self._sums_VD):  # room for as many again
                room = np.zeros((max(16, len(self.ids)), len(sum_D)))
                tables = self._sums_VD.reshape(-1, len(sum_D)), self._unit_VD.reshape(-1, len(sum_D))
                self._sums_VD, self._unit_VD = (np.concatenate([table, room]) for table in tables)
            self._at[voice] = len(self.ids)
            self.ids.append(voice)
            self._sums_VD[len(self.ids) - 1] = 0.0
        at = self._at[voice]
        self._sums_VD[at] = self._sums_VD[at] + sum_D
        self._unit_VD[at] = unit(self._sums_VD[at][None])[0]


def linked(voices: Voices, speakers: Sequence[RecordingSpeaker], distance: float) -> list[Link]:
    """Links speakers, recording by recording; two of one recording are never the same voice.

    Args:
        voices: takes what is found.
        speakers: not linked before, those of a recording one after the other.
        distance: see `LINK_DISTANCE`.
    """
    links: list[Link] = []
    taken: dict[str, set[str]] = {}
    for speaker in speakers:
        there = taken.setdefault(speaker.recording_id, set())
        voice, near = voices.nearest(speaker.vector_D, there)
        if voice is None or 1.0 - near > distance:
            voice, near = voices.new_id(), 1.0
        voices.add(voice, speaker)
        there.add(voice)
        links.append(Link(speaker.recording_id, speaker.speaker, voice, round(near, 4)))
    return links


def halves(vectors_ND: NDArray[np.float32]) -> NDArray[np.bool_]:
    """is_second_N: the two groups of vectors that are farthest apart; the first one is in the first group."""
    from scipy.cluster.hierarchy import fcluster, linkage

    unit_ND = unit(vectors_ND)
    distances = np.clip(1.0 - unit_ND @ unit_ND.T, 0.0, 2.0)[np.triu_indices(len(unit_ND), 1)]
    groups = fcluster(linkage(distances, "average"), 2, "maxclust")
    result: NDArray[np.bool_] = groups != groups[0]
    return result
