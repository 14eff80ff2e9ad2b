"""Codes -> tokens of a vocabulary in which the codes of all codebooks at one frame are one token, `12-45`.

F frames, K codebooks, L tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import ModelError
from audiomill.models.codes.unit_settings import SPECIAL, UNKNOWN, VOCABULARY

Joint = NDArray[np.int64]


def joint_codes(codes_KF: NDArray[np.uint16], num_entries: int) -> Joint:
    """One number a frame: joint_F."""
    result = np.zeros(codes_KF.shape[1], np.int64)
    for codes_F in codes_KF:
        result = result * num_entries + codes_F
    return result


def deduplicate_codes(joint_F: Joint) -> tuple[Joint, NDArray[np.int64]]:
    """Runs of equal numbers once, and how many frames each lasts."""
    starts = np.flatnonzero(np.diff(joint_F, prepend=-1))
    return joint_F[starts], np.diff(starts, append=len(joint_F))


class UnitVocabulary:
    """Tokens of joint codes.

    Args:
        number_of: of each token by its name, special ones included.
        num_codebooks: K.
        num_entries: of each codebook.
    """

    def __init__(self, number_of: Mapping[str, int], num_codebooks: int, num_entries: int) -> None:
        self.number_of, self._codebooks, self._entries = dict(number_of), num_codebooks, num_entries
        pairs = sorted((_joint_of(name, num_entries), at) for name, at in number_of.items() if name not in SPECIAL)
        self._joint = np.array([joint for joint, _ in pairs], np.int64)
        self._numbers = np.array([at for _, at in pairs], np.int64)
        self._unknown = number_of[UNKNOWN]

    def tokens(self, joint_L: Joint) -> NDArray[np.int64]:
        """tokens_L; what the vocabulary lacks is unknown."""
        at = np.searchsorted(self._joint, joint_L).clip(max=len(self._joint) - 1)
        return np.where(self._joint[at] == joint_L, self._numbers[at], self._unknown)

    def __len__(self) -> int:
        return len(self.number_of)

    def save(self, folder: Path) -> None:
        """vocab.json."""
        (folder / VOCABULARY).write_text(json.dumps(self.number_of), encoding="utf-8")


def _joint_of(name: str, num_entries: int) -> int:
    joint = 0
    for code in name.split("-"):
        joint = joint * num_entries + int(code)
    return joint


class Counted(NamedTuple):
    """A vocabulary, and what it leaves out: frames, and kinds of joint codes."""

    vocabulary: UnitVocabulary
    unknown_frames: int
    unknown_kinds: int


def unit_vocabulary(
    counts: Counter[int], num_codebooks: int, num_entries: int, min_count: int, max_vocabulary: int
) -> Counted:
    """The most frequent joint codes, in the order of their numbers.

    Args:
        counts: frames of each joint code.
        num_codebooks, num_entries: of the quantizer.
        min_count: rarer ones are unknown.
        max_vocabulary: most tokens, special ones not counted.
    """
    often = sorted(counts, key=lambda joint: (-counts[joint], joint))
    frequent = sorted(joint for joint in often[:max_vocabulary] if counts[joint] >= min_count)
    names = [*SPECIAL, *(_name(joint, num_codebooks, num_entries) for joint in frequent)]
    vocabulary = UnitVocabulary({name: at for at, name in enumerate(names)}, num_codebooks, num_entries)
    left = sum(counts.values()) - sum(counts[joint] for joint in frequent)
    return Counted(vocabulary, left, len(counts) - len(frequent))


def _name(joint: int, num_codebooks: int, num_entries: int) -> str:
    codes = []
    for _ in range(num_codebooks):
        joint, code = divmod(joint, num_entries)
        codes.append(str(code))
    return "-".join(codes[::-1])


def read_vocabulary(folder: Path, num_codebooks: int, num_entries: int) -> UnitVocabulary:
    """From vocab.json.

    Raises:
        ModelError: it is not one of codes.
    """
    place = folder / VOCABULARY
    try:
        results = {str(name): int(at) for name, at in json.loads(place.read_text(encoding="utf-8")).items()}
        wrong = [name for name in SPECIAL if name not in results]
        beyond = [name for name in results if name not in SPECIAL and max(map(int, name.split("-"))) >= num_entries]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{place}: cannot be read ({error}); expected tokens such as 12-45 and their numbers"
        ) from error
    if wrong or beyond:
        message = f"lacks {wrong[0]}" if wrong else f"has {beyond[0]}, beyond the {num_entries} entries of a codebook"
        raise ModelError(f"{place}: {message}; expected the vocabulary that this checkpoint was trained with")
    return UnitVocabulary(results, num_codebooks, num_entries)
