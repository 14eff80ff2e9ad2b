"""Streams beside the whole recordings: words, delays and revisions, by length of chunk; and fifty streams at once.

    python -m benchmarks.streams FOLDER --whisper WHISPER --ctc CHECKPOINT --digits FOLDER

FOLDER: real recordings beside references.tsv, for Whisper. CHECKPOINT: a CTC model of digits, heard on the test recordings of the
Free Spoken Digit Dataset, a dozen of one speaker joined with pauses. Computing counts as delay as if audio had been played.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.stages import ChunksConfig, ModelConfig
from audiomill.streams.listener import Listener
from audiomill.streams.simulated import Played, played, text_of_whole
from audiomill.text.wer import NO_ERRORS, score_pair
from benchmarks.real_speech import read_corpus
from benchmarks.record import save
from benchmarks.self_training import recordings
from benchmarks.speech import int16, pcm_of
from benchmarks.speech_llm import wave_of

CHUNKS_S = (1.0, 0.64, 0.32)
JOINED, GAP_S = 12, 0.3
STREAMS = 50


class Clip(NamedTuple):
    pcm_T: NDArray[np.int16]
    text: str


def real_clips(folder: Path, least_s: float, most_s: float) -> list[Clip]:
    """Recordings of some length, with their texts."""
    found = []
    for clip in read_corpus(folder, "en"):
        if least_s <= clip.seconds <= most_s:
            found.append(Clip(pcm_of(clip.path), clip.text))
    return found


def digit_clips(folder: Path) -> list[Clip]:
    """Test recordings (their index below 5) of each speaker, a dozen in a row."""
    by_speaker: dict[str, list[tuple[NDArray[np.float32], str]]] = {}
    every = recordings(folder)
    order = [sorted(every)[at] for at in np.random.default_rng(0).permutation(len(every))]
    for name in order:
        if int(name.split("_")[2]) < 5:
            by_speaker.setdefault(name.split("_")[1], []).append((wave_of(every[name][0]), every[name][1]))
    gap, found = np.zeros(int(GAP_S * MODEL_SAMPLE_RATE), np.float32), []
    for _, clips in sorted(by_speaker.items()):
        for at in range(0, len(clips), JOINED):
            some = clips[at : at + JOINED]
            wave = np.concatenate([part for each, _ in some for part in (each, gap)])
            found.append(Clip(int16(wave), " ".join(text for _, text in some)))
    return found


def word_errors(clips: Sequence[Clip], texts: Sequence[str], scored_as: str | None) -> float:
    """Word error rate. Digits are not scored as English, whose normaliser makes one number of a row of them."""
    errors = NO_ERRORS
    for clip, text in zip(clips, texts, strict=True):
        errors += score_pair(clip.text, text, scored_as)[0]
    return errors.rate


def streamed(
    model: str, chunk_s: float, clips: Sequence[Clip], language: str | None, scored_as: str | None
) -> dict[str, Any]:
    """Words and delays of clips, one stream after the other."""
    listener = Listener(model, language, ChunksConfig(chunk_seconds=chunk_s), ModelConfig(device="cpu"))
    played(listener.stream(), [clips[0].pcm_T[:32_000]], listener.chunk_s, False, lambda words: None)  # warm
    found: list[Played] = [
        played(listener.stream(), [clip.pcm_T], listener.chunk_s, False, lambda words: None) for clip in clips
    ]
    delays, waits = ([each for one in found for each in getattr(one, name)] for name in ("delays_s", "waits_s"))
    p50, p95 = np.percentile(delays, [50, 95])
    return {
        "chunk_s": listener.chunk_s,
        "wer": word_errors(clips, [each.text for each in found], scored_as),
        "p50_s": round(float(p50), 2),
        "p95_s": round(float(p95), 2),
        "p95_without_computing_s": round(float(np.percentile(waits, 95)), 2),
        "revisions_a_word": round(sum(each.revisions for each in found) / max(1, len(delays)), 2),
        "x_real_time": round(sum(each.seconds for each in found) / sum(each.computed_s for each in found), 1),
    }


def at_once(model: str, clips: Sequence[Clip], language: str | None) -> dict[str, Any]:
    """Fifty streams fed together: whether each says what it says alone, and how fast."""
    chosen = [clips[at % len(clips)].pcm_T[: 10 * MODEL_SAMPLE_RATE] for at in range(STREAMS)]
    listener = Listener(model, language, ChunksConfig(), ModelConfig(device="cpu"))
    size, started = int(listener.chunk_s * MODEL_SAMPLE_RATE), time.monotonic()
    streams = [listener.stream() for _ in chosen]
    words: list[list[str]] = [[] for _ in chosen]
    for at in range(0, max(map(len, chosen)), size):
        told = listener.insert([(s, pcm[at : at + size]) for s, pcm in zip(streams, chosen, strict=True)])
        words = [old + [w.text for w in new if w.is_final] for old, new in zip(words, told, strict=True)]
    words = [
        old + [w.text for w in new if w.is_final] for old, new in zip(words, listener.finish(streams), strict=True)
    ]
    seconds = time.monotonic() - started
    differ = 0
    for pcm, together in zip(chosen[: len(clips)], words, strict=False):
        alone = played(listener.stream(), [pcm], listener.chunk_s, False, lambda words: None)
        differ += [word.text for word in alone.words] != together
    audio_s = sum(map(len, chosen)) / MODEL_SAMPLE_RATE
    return {
        "streams": STREAMS,
        "x_real_time": round(audio_s / seconds, 1),
        "streams_that_differ_from_alone": differ,
        "compared": min(len(clips), STREAMS),
    }


def compared(
    name: str, model: str, clips: Sequence[Clip], language: str | None, scored_as: str | None
) -> dict[str, Any]:
    """Streams of each length of chunk beside the whole recordings."""
    segment = "vad" if scored_as == "en" else "none"
    whole = [text_of_whole(clip.pcm_T, ModelConfig(model=model, device="cpu"), language, segment) for clip in clips]
    result: dict[str, Any] = {
        "clips": len(clips),
        "seconds": round(sum(len(clip.pcm_T) for clip in clips) / MODEL_SAMPLE_RATE),
        "wer_of_the_whole": word_errors(clips, whole, scored_as),
    }
    print(f"{name}: {result}", flush=True)
    result["chunks"] = []
    for chunk_s in CHUNKS_S:
        result["chunks"].append(streamed(model, chunk_s, clips, language, scored_as))
        print(f"  {result['chunks'][-1]}", flush=True)
    result["at_once"] = at_once(model, clips, language)
    print(f"  {result['at_once']}", flush=True)
    return result


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--whisper", required=True)
    parser.add_argument("--language", default=None, help="of a multilingual Whisper")
    parser.add_argument("--ctc", required=True)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--least-seconds", type=float, default=4.0)
    parser.add_argument("--most-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    digits = digit_clips(arguments.digits)
    result = {"ctc": compared("ctc", arguments.ctc, digits, None, None)}
    clips = real_clips(arguments.folder, arguments.least_seconds, arguments.most_seconds)
    result["whisper"] = compared("whisper", arguments.whisper, clips, arguments.language, "en")
    save("streams", "python -m benchmarks.streams FOLDER --whisper WHISPER --ctc CHECKPOINT --digits FOLDER", result)


if __name__ == "__main__":
    main()
