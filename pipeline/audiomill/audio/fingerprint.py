"""64 bits that tell whether two segments are the same sound, also after another encoding or at another level.

Method: Haitsma and Kalker 2002, "A Highly Robust Audio Fingerprinting System": signs of differences of band energies,
here over a fixed grid of bands and stretches of the segment. T samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE

FRAME = 512
NUM_BANDS, NUM_STRETCHES = 8, 9
LOWEST_HZ, HIGHEST_HZ = 200.0, 3400.0
"""What telephones and old codecs keep."""
MAX_DIFFERING_BITS, MAX_DIFFERING_SHORT, SHORT_S = 4, 2, 2.0
"""Of 64, for the same sound; fewer in short segments: two people's "no" are nearly alike. Measured on digits: Vorbis
changes at most 4 bits in 90% of them; of pairs of other recordings of a length 0.1% are within 4."""
MAX_LENGTH_RATIO = 1.02
_BLOCK_FRAMES = 1 << 12
"""At a time: an hour would take a gigabyte."""


def sound_fingerprint(pcm_T: NDArray[np.int16]) -> int:
    """Signed 64-bit number of a segment at 16 kHz; 0 where there is nothing to tell apart."""
    if len(pcm_T) < FRAME * 2 or not pcm_T.any():
        return 0
    num_frames = max(NUM_STRETCHES, len(pcm_T) // FRAME)
    hop = (len(pcm_T) - FRAME) / (num_frames - 1)
    starts = np.rint(hop * np.arange(num_frames)).astype(np.int64)
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, NUM_BANDS + 1) / MODEL_SAMPLE_RATE * FRAME
    bins = np.unique(np.rint(edges).astype(np.int64))
    blocks = [_bands(pcm_T, starts[at : at + _BLOCK_FRAMES], bins) for at in range(0, num_frames, _BLOCK_FRAMES)]
    bands = np.concatenate(blocks)
    stretches = np.array_split(np.arange(num_frames), NUM_STRETCHES)
    energy = np.log(np.stack([bands[rows].mean(0) for rows in stretches]) + 1.0)
    bits = (np.diff(energy, axis=0) > 0).reshape(-1)
    packed = np.packbits(np.resize(bits, 64)).view(">i8")
    return int(packed[0])


def _bands(pcm_T: NDArray[np.int16], starts: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Power in each band of the frames that begin there."""
    frames = np.lib.stride_tricks.sliding_window_view(pcm_T, FRAME)[starts].astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(FRAME).astype(np.float32), axis=1)))
    bands: NDArray[np.floating[Any]] = np.add.reduceat(power[:, : bins[-1]], bins[:-1], axis=1)
    return bands


BYTE_PAIRS = ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (6, 7))
"""Two prints within four bits share at least four of eight bytes, and any four bytes hold one of these pairs: they fall
into three groups, whose pairs these are."""
SLACK_S = 1e-3
"""More than floats lose of a length that stands behind a large number."""
_AT_ONCE = 4_000_000
"""Pairs of segments that are compared in one step of the arrays."""


def same_sound(
    file_hashes: NDArray[np.int64],
    lengths: NDArray[np.float64],
    others: NDArray[np.int64],
    other_lengths: NDArray[np.float64],
) -> NDArray[np.int64]:
    """For each segment the first of the others that sounds the same, or -1.

    Only those are compared that share a pair of bytes and are about as long; equal ones of equal length count once. So
    time and memory grow with the number of segments, not with its square.

    Args:
        file_hashes: fingerprints.
        lengths: seconds.
        others: fingerprints to look among.
        other_lengths: seconds.
    """
    none = np.iinfo(np.int64).max
    distinct, _, which = _distinct(file_hashes, lengths)
    among, number, _ = _distinct(others, other_lengths)
    result = np.full(len(distinct), none, np.int64)
    for high, low in BYTE_PAIRS:
        places, spots = _places(among, high, low), _places(distinct, high, low)
        order = np.argsort(places, kind="stable")
        places = places[order]
        start = np.searchsorted(places, spots - distinct["length"] * (1 - 1 / MAX_LENGTH_RATIO) - SLACK_S)
        counts = np.searchsorted(places, spots + distinct["length"] * (MAX_LENGTH_RATIO - 1) + SLACK_S) - start
        for rows in _chunks(counts):
            mine = np.repeat(rows, counts[rows])
            within = np.arange(len(mine)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
            theirs = order[np.repeat(start[rows], counts[rows]) + within]
            is_same = _sound_alike(distinct[mine], among[theirs])
            np.minimum.at(result, mine[is_same], number[theirs[is_same]])
    return np.where(result == none, -1, result)[which]


def _distinct(
    file_hashes: NDArray[np.int64], lengths: NDArray[np.float64]
) -> tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.int64]]:
    """Each print and length once, the number of its first segment, and which of them each segment has."""
    both = np.empty(len(file_hashes), [("print", np.uint64), ("length", np.float64)])
    both["print"], both["length"] = file_hashes.view(np.uint64), lengths
    result, first, which = np.unique(both, return_index=True, return_inverse=True)
    return result, first, which


def _places(each: NDArray[np.void], high: int, low: int) -> NDArray[np.float64]:
    """Numbers that lie near each other where two bytes are equal and lengths are alike."""
    pair = (each["print"] >> np.uint64(8 * high) & np.uint64(255)) << np.uint64(8) | (
        each["print"] >> np.uint64(8 * low) & np.uint64(255)
    )
    places: NDArray[np.float64] = pair.astype(np.float64) * 1e7 + each["length"]
    return places


def _chunks(counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows that have about `_AT_ONCE` pairs together."""
    total = np.cumsum(counts)
    most = int(total[-1]) if len(total) else 0
    edges = np.searchsorted(total, np.arange(_AT_ONCE, most, _AT_ONCE), "right").tolist()
    for begin, end in pairwise([0, *edges, len(counts)]):
        if end > begin:
            yield np.arange(begin, end)


def _sound_alike(mine: NDArray[np.void], theirs: NDArray[np.void]) -> NDArray[np.bool_]:
    differing = np.bitwise_count(mine["print"] ^ theirs["print"])
    allowed = np.where(mine["length"] >= SHORT_S, MAX_DIFFERING_BITS, MAX_DIFFERING_SHORT)
    near = (theirs["length"] <= mine["length"] * MAX_LENGTH_RATIO) & (
        mine["length"] <= theirs["length"] * MAX_LENGTH_RATIO
    )
    result: NDArray[np.bool_] = near & (differing <= allowed) & (mine["print"] != 0) & (theirs["print"] != 0)
    return result
