"""Conversations of known speakers, made of recordings of one speaker each: two to six voices, pauses, overlap, noise, telephone band."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE = 16_000
LEVEL = 0.06
PREFIXES = {
    "cmgan-p232": "p232", "cmgan-p257": "p257", "lj-": "lj", "sb-LJ": "lj", "sb-spk1": "spk1", "sb-spk2": "spk2",
    "pra-cmu_arctic_us_aew": "aew", "pra-cmu_arctic_us_axb": "axb", "ks2t-1089": "1089", "fairseq": "6313", "tfasr": "2033",
    "wenet-libri": "1995", "ort-1272-141231": "1272", "ps-sense": "sense",
}  # fmt: skip
"""Beginning of a file's name -> who speaks in it."""
LEAST_S = 6.0
"""Of somebody who takes part."""
CONDITIONS: dict[str, dict[str, Any]] = {
    "clean": {}, "overlap": {"overlap": 0.2}, "noise": {"noise_db": 15.0}, "telephone": {"telephone": True},
}  # fmt: skip


class Said(NamedTuple):
    """Seconds."""

    start_s: float
    stop_s: float
    who: str
    text: str


def voices_of(folder: Path) -> dict[str, list[tuple[NDArray[np.float32], str]]]:
    """Recordings with their texts by speaker, at 16 kHz, one level, without silence at their ends."""
    found: dict[str, list[tuple[NDArray[np.float32], str]]] = {}
    for row in csv.DictReader((folder / "references.tsv").open(), delimiter="\t", quoting=csv.QUOTE_NONE):
        who = next((name for prefix, name in PREFIXES.items() if row["file"].startswith(prefix)), None)
        if who is None or row["language"] != "en":
            continue
        wave, rate = soundfile.read(folder / row["file"], dtype="float32", always_2d=True)
        mono = soxr.resample(wave.mean(1), rate, RATE)
        loud = np.flatnonzero(np.abs(mono) > 10 ** (-35 / 20) * np.abs(mono).max())
        mono = mono[loud[0] : loud[-1] + 1]
        found.setdefault(who, []).append((LEVEL * mono / np.sqrt(np.square(mono).mean()), row["text"]))
    return {who: clips for who, clips in found.items() if sum(len(clip) for clip, _ in clips) > LEAST_S * RATE}


def mixed(
    voices: dict[str, list[tuple[NDArray[np.float32], str]]],
    people: int,
    seed: int,
    seconds: float,
    overlap: float = 0.0,
    noise_db: float | None = None,
    telephone: bool = False,
) -> tuple[NDArray[np.float32], list[Said]]:
    """A conversation.

    Args:
        voices: see `voices_of`.
        people: that take part.
        seed: of everything that is drawn.
        seconds: about how long.
        overlap: share of a turn that the next one begins before its end, in six of ten turns.
        noise_db: of white noise below speech.
        telephone: through 8 kHz.
    """
    random = np.random.default_rng(seed)
    names = [str(name) for name in random.choice(sorted(voices), people, replace=False)]
    wave = np.zeros(round((seconds + 60) * RATE), np.float32)
    pool: dict[str, list[int]] = {name: [] for name in names}
    at, before, said = RATE // 2, "", list[Said]()
    while at < seconds * RATE:
        who = str(random.choice([name for name in names if name != before] or names))
        pool[who] = pool[who] or random.permutation(len(voices[who])).tolist()
        clip, text = voices[who][pool[who].pop()]
        if overlap and said and random.random() < 0.6:
            shorter = min(len(clip) / RATE, said[-1].stop_s - said[-1].start_s)
            at = max(0, at - round((shorter * overlap * random.uniform(0.5, 1.5) + 0.3) * RATE))
        wave[at : at + len(clip)] += clip
        said.append(Said(at / RATE, (at + len(clip)) / RATE, who, text))
        at, before = at + len(clip) + round(random.uniform(0.1, 0.8) * RATE), who
    wave = wave[: round(max(each.stop_s for each in said) * RATE) + RATE // 2]
    if telephone:
        wave = soxr.resample(soxr.resample(wave, RATE, RATE // 2), RATE // 2, RATE)
    if noise_db is not None:
        wave = wave + random.normal(0, LEVEL * 10 ** (-noise_db / 20), len(wave)).astype(np.float32)
    return np.clip(wave, -1, 1), said


def write_mixes(folder: Path, voices: dict[str, Any], most_people: int = 6) -> dict[str, list[Said]]:
    """Conversations of one to six people in every condition; returns what is said, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for people in range(1, most_people + 1):
        for condition, more in CONDITIONS.items():
            if people == 1 and condition == "overlap":
                continue
            name = f"{people}-{condition}"
            wave, found[name] = mixed(voices, people, 100 + len(found), 150 if people > 3 else 100, **more)
            soundfile.write(folder / f"{name}.wav", wave, RATE, subtype="PCM_16")
    return found
