"""Audio for benchmarks: the demo's voices, and a folder of real recordings where one is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audiomill_jobs.install.demo import english_clips

RATE = 16_000
REFERENCES = {
    "jfk": "And so my fellow Americans ask not what your country can do for you ask what you can do for your country",
    "2412-153948-0000": "If the reader will excuse me I will say nothing of my antecedents nor of the circumstances which led me to "
    "leave my native country The narrative would be tedious to him and painful to myself",
    "sonnet001": "One From fairest creatures we desire increase that thereby beauty's rose might never die but as the riper should by "
    "time decease his tender heir might bear his memory But thou contracted to thine own bright eyes feed'st thy light's flame with "
    "self-substantial fuel making a famine where abundance lies thyself thy foe to thy sweet self too cruel Thou that art now the "
    "world's fresh ornament and only herald to the gaudy spring within thine own bud buriest thy content and tender churl makest "
    "waste in niggarding Pity the world or else this glutton be to eat the world's due by the grave and thee",
    "OSR_us_000_0034_8k": "A gold ring will please most any girl The long journey home took a year She saw a cat in the neighbor's house "
    "A pink shell was found on the sandy beach Small children came to see him The grass and bushes were wet with dew The blind man "
    "counted his old coins A severe storm tore down the barn She called his name many times When you hear the bell come quickly",
}
"""Texts of public recordings: Kennedy 1961, LibriSpeech, Shakespeare (LibriVox), Harvard sentences (OSR)."""


def voices() -> list[tuple[NDArray[np.float32], str]]:
    """The demo's clips at 16 kHz with their text."""
    found = []
    for path, text in english_clips():
        waveform, rate = soundfile.read(path, dtype="float32")
        found.append((soxr.resample(waveform, rate, RATE), text))
    return found


def clips(folder: Path | None) -> list[tuple[NDArray[np.float32], str]]:
    """Voices, and recordings of `folder` whose text is known, at 16 kHz mono."""
    found = voices()
    for path in sorted(folder.iterdir()) if folder is not None else []:
        if path.stem in REFERENCES:
            waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
            found.append((soxr.resample(waveform.mean(1), rate, RATE), REFERENCES[path.stem]))
    return found


def int16(wave_T: NDArray[Any]) -> NDArray[np.int16]:
    """Samples from -1 to 1 as whole numbers."""
    return np.asarray(np.rint(np.clip(wave_T, -1, 1) * 32767), np.int16)


def pcm_of(path: Path) -> NDArray[np.int16]:
    """A recording at 16 kHz mono."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return int16(soxr.resample(wave.mean(1), rate, RATE))


def write_corpus(folder: Path, seconds: float, source: Path | None, seed: int = 0) -> dict[str, str]:
    """FLAC recordings of 20 to 90 s made of the clips with pauses; returns the text of each by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    random_, pool, texts, total = np.random.default_rng(seed), clips(source), {}, 0.0
    while total < seconds:
        target, parts, words = random_.uniform(20, 90), [], []
        while sum(map(len, parts)) < target * RATE:
            waveform, text = pool[int(random_.integers(len(pool)))]
            parts += [waveform, np.zeros(int(random_.uniform(0.4, 3) * RATE), np.float32)]
            words.append(text)
        name = f"r{len(texts):05d}.flac"
        soundfile.write(folder / name, np.concatenate(parts), RATE)
        texts[name] = " ".join(words)
        total += sum(map(len, parts)) / RATE
    return texts


SENTENCE_CUTS_S = (4.26, 7.27, 10.37, 14.54, 17.37, 20.78, 24.6, 28.78, 31.88)
"""Pauses between the ten Harvard sentences of OSR_us_000_0034_8k."""
SENTENCES = (
    "A gold ring will please most any girl",
    "The long journey home took a year",
    "She saw a cat in the neighbor's house",
    "A pink shell was found on the sandy beach",
    "Small children came to see him",
    "The grass and bushes were wet with dew",
    "The blind man counted his old coins",
    "A severe storm tore down the barn",
    "She called his name many times",
    "When you hear the bell come quickly",
)
MAX_CLIP_S = 17.0


def short_clips(source: Path | None) -> list[tuple[NDArray[np.float32], str]]:
    """Voices and recordings of up to 17 s, and the sentences of a longer one."""
    found = []
    for waveform, text in clips(source):
        if text == REFERENCES["OSR_us_000_0034_8k"]:
            pieces = np.split(waveform, [int(cut * RATE) for cut in SENTENCE_CUTS_S])
            found += list(zip(pieces, SENTENCES, strict=True))
        elif len(waveform) <= MAX_CLIP_S * RATE:
            found.append((waveform, text))
    return found


def write_clips(folder: Path, seconds: float, source: Path | None, seed: int = 0) -> dict[str, str]:
    """FLAC files of up to 17 s at speeds of 0.9 to 1.1; returns the text of each by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    random_, pool, texts, total = np.random.default_rng(seed), short_clips(source), {}, 0.0
    while total < seconds:
        waveform, text = pool[len(texts) % len(pool)]
        waveform = soxr.resample(waveform, RATE * random_.uniform(0.9, 1.1), RATE)[: int(MAX_CLIP_S * RATE)]
        name = f"c{len(texts):05d}.flac"
        soundfile.write(folder / name, waveform, RATE)
        texts[name] = text
        total += len(waveform) / RATE
    return texts
