"""Real voices in conversation: neural voices of seven people, with who speaks when."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audiomill_jobs.install.demo import english_clips

RATE = 16_000
PEOPLE = ("en", "es", "fr", "hi", "it", "ja", "zh")
"""Languages of the package whose voices are different people."""


class Said(NamedTuple):
    """Seconds."""

    start_s: float
    stop_s: float
    who: str


def clips_of(who: str) -> list[NDArray[np.int16]]:
    """What one person says, at 16 kHz, the longest first, without silence around it."""
    folder = Path(english_clips()[0][0]).parent.parent / who
    found = []
    for path in sorted(folder.glob("*.wav")):
        wave, rate = soundfile.read(path, dtype="float32")
        pcm = np.rint(np.clip(soxr.resample(wave, rate, RATE), -1, 1) * 32767).astype(np.int16)
        loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 0.02 * np.abs(pcm.astype(np.int32)).max())
        found.append(pcm[loud[0] : loud[-1] + 1])
    return sorted(found, key=len, reverse=True)


def conversation(
    order: str, pause_s: float = 0.5, overlap_s: float = 0.0, noise_db: float | None = None
) -> tuple[NDArray[np.int16], list[Said]]:
    """People who speak in turn.

    Args:
        order: blanks between names, such as "en fr en".
        pause_s: between two turns.
        overlap_s: in which the next one begins before the one before has ended.
        noise_db: of white noise below speech.
    """
    at, said, parts, next_clip = RATE // 2, [], [], dict.fromkeys(PEOPLE, 0)
    for number, who in enumerate(order.split()):
        clips = clips_of(who)[:2]
        clip = clips[next_clip[who] % len(clips)]
        next_clip[who] += 1
        if number:
            at += round((pause_s - overlap_s) * RATE) if overlap_s else round(pause_s * RATE)
        parts.append((at, clip))
        said.append(Said(at / RATE, (at + len(clip)) / RATE, who))
        at += len(clip)
    wave = np.zeros(max(start + len(clip) for start, clip in parts) + RATE // 2, np.float64)
    for start, clip in parts:
        wave[start : start + len(clip)] += clip
    if noise_db is not None:
        level = float(np.sqrt(np.square(wave).mean())) * 10 ** (-noise_db / 20)
        wave = wave + np.random.default_rng(0).normal(0, level, len(wave))
    return np.rint(np.clip(wave, -32768, 32767)).astype(np.int16), said


def errors(said: list[Said], turns: list[dict[str, object]]) -> tuple[float, int]:
    """Diarization error rate in steps of 10 ms with the best naming of speakers, and how many speakers were found."""
    from scipy.optimize import linear_sum_assignment

    end = max([each.stop_s for each in said] + [float(turn["stop_s"]) for turn in turns])  # type: ignore[arg-type]
    names, found = sorted({each.who for each in said}), sorted({str(turn["speaker"]) for turn in turns})
    truth, told = np.zeros((len(names), int(end * 100) + 1), bool), np.zeros((len(found), int(end * 100) + 1), bool)
    for each in said:
        truth[names.index(each.who), int(each.start_s * 100) : int(each.stop_s * 100)] = True
    for turn in turns:
        first, last = int(float(turn["start_s"]) * 100), int(float(turn["stop_s"]) * 100)  # type: ignore[arg-type]
        told[found.index(str(turn["speaker"])), first:last] = True
    both = truth.astype(int) @ told.astype(int).T
    rows, columns = linear_sum_assignment(-both)
    right = int(both[rows, columns].sum())
    wrong = np.maximum(truth.sum(0), told.sum(0)).sum() - right
    return float(wrong / truth.sum()), len(found)
