"""What each mechanism of a Whisper run is worth: words and computing, with it and without it, on the same recordings.

Every variant transcribes every recording once. The difference of its word error rate from that of the default has a 95%
interval by a paired bootstrap over recordings; its cost is the processor time of all its processes, start-up included, as a
ratio to the default's. Costs compare on a quiet machine only: what runs beside takes caches, and so makes processor time longer.
Recordings are split into two halves by speaker: what is chosen on one must hold on the other.

python -m benchmarks.words FOLDER... [--variants NAME...] [--conditions clean noise telephone fast quiet]
FOLDER holds audio beside references.tsv: columns file, text, language, and speaker or condition.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.console import Console

from audiomill.audio.decode import open_audio
from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.models.precision import cpu_features
from audiomill.runs.job import run_job
from audiomill.stages.model_processes import end_waiting
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.wer import score_pair
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save

DEFAULT = "default"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "no deletions filled": {"fill_deletions": False},
    "beam size 5": {"beam_size": 5},
    "no retries": {"fallback": False, "encoder_context": "short"},
    "no retries, whole window": {"fallback": False, "encoder_context": "window"},
    "whole window": {"encoder_context": "window"},
    "fixed windows": {"segment": "fixed"},
    "voice activity from 0.5": {"vad_threshold": 0.5},
    "voice activity by WebRTC": {"vad": "webrtc"},
    "segments up to 20 s": {"max_segment_seconds": 20.0},
    "segments up to 29 s": {"max_segment_seconds": 29.0},
    "gaps up to 0.5 s": {"max_gap_seconds": 0.5},
    "gaps up to 5 s": {"max_gap_seconds": 5.0},
    "pads of 0.1 s": {"speech_pad_seconds": 0.1},
    "pads of 0.4 s": {"speech_pad_seconds": 0.4},
    "fp32": {"precision": "fp32"},
}
RATE = 16_000
NUM_SAMPLES = 10_000


class Clip(NamedTuple):
    """`half`: 0 or 1, by its speaker."""

    path: Path
    text: str
    half: int


class Result(NamedTuple):
    """Of a variant: word errors of each recording, and seconds of processor time."""

    errors: NDArray[np.int64]
    words: NDArray[np.int64]
    seconds: float


def read_clips(folders: Sequence[Path], language: str) -> list[Clip]:
    """What the tables of folders name and is there."""
    clips = []
    for table in sorted(each for folder in folders for each in folder.rglob("references.tsv")):
        for row in csv.DictReader(table.open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE):
            path = table.parent.absolute() / row["file"]
            if row.get("language", language) == language and path.exists() and path.stat().st_size:
                group = row.get("speaker") or path.name.split("-")[0]
                clips.append(Clip(path, row["text"], hashlib.sha256(group.encode()).digest()[0] % 2))
    return clips


def noisy(wave_T: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """White noise 10 dB below the recording."""
    level = np.sqrt(np.mean(np.square(wave_T))) * 10 ** (-10 / 20)
    return wave_T + np.random.default_rng(seed).normal(0.0, level, len(wave_T))


def telephone(wave_T: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """8 kHz and back, without what lies below 300 Hz."""
    narrow_T = np.asarray(soxr.resample(soxr.resample(wave_T, RATE, 8_000), 8_000, RATE))
    spectrum = np.fft.rfft(narrow_T)
    spectrum[np.fft.rfftfreq(len(narrow_T), 1 / RATE) < 300.0] = 0.0
    return np.fft.irfft(spectrum, len(narrow_T))


CONDITIONS: dict[str, Callable[[NDArray[np.float64], int], NDArray[np.float64]]] = {
    "clean": lambda wave_T, seed: wave_T,
    "noise": noisy,
    "telephone": telephone,
    "fast": lambda wave_T, seed: np.asarray(soxr.resample(wave_T, RATE * 1.3, RATE)),
    "quiet": lambda wave_T, seed: wave_T * 10 ** (-30 / 20),
}


def write_condition(clips: Sequence[Clip], condition: str, folder: Path) -> list[Clip]:
    """The clips as they sound in a condition; those that are clean stay the files that they are."""
    if condition == "clean":
        return list(clips)
    folder.mkdir()
    results = []
    for number, clip in enumerate(clips):
        with clip.path.open("rb") as handle, open_audio(handle) as audio:
            wave_TK, rate = np.concatenate(list(audio.blocks_TK)), audio.sample_rate
        wave_T = np.asarray(soxr.resample(wave_TK.mean(axis=1).astype(np.float64), rate, RATE))
        path = folder / f"{number:05d}.flac"
        soundfile.write(path, CONDITIONS[condition](wave_T, number).clip(-1.0, 1.0), RATE)
        results.append(clip._replace(path=path))
    return results


def transcribe(clips: Sequence[Clip], model: str, language: str, options: dict[str, Any], work: Path) -> Result:
    """One run over all clips."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        values = {"inputs": tuple(str(clip.path) for clip in clips), "output": f"{folder}/out", "model": model}
        fixed = {"engine": "local", "quiet": True, "report": False, "verify_segments": 0}
        end_waiting()
        config = build(TranscribeConfig, {**values, **fixed, **options})
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_job(config.job(), Console(quiet=True))
        end_waiting()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rows = ledger.tables(Place(f"{folder}/out"), "recordings", ["source", "text"]).to_pylist()
    texts = {row["source"]: row["text"] for row in rows}
    scores = [score_pair(clip.text, texts.get(str(clip.path), ""), language)[0] for clip in clips]
    errors = np.array([each.num_errors for each in scores])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Result(errors, np.array([each.num_reference for each in scores]), seconds)


def difference(result: Result, default: Result, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Word error rate in percent, its difference from the default's with its interval, and the cost."""
    errors, words, before = result.errors[chosen], result.words[chosen], default.errors[chosen]
    random = np.random.default_rng(0)
    counts = random.multinomial(len(words), np.full(len(words), 1 / len(words)), size=NUM_SAMPLES)
    differences = 100 * (counts @ (errors - before)) / np.maximum(1, counts @ words)
    low, high = np.percentile(differences, (2.5, 97.5))
    return {
        "recordings": len(words),
        "words": int(words.sum()),
        "wer_pct": round(100 * float(errors.sum() / words.sum()), 2),
        "difference": round(100 * float((errors - before).sum() / words.sum()), 2),
        "interval": [round(float(low), 2), round(float(high), 2)],
        "cost": round(result.seconds / default.seconds, 3),
    }


def main() -> None:
    """Prints and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--model", default=str(whisper_folder()), help="CTranslate2 Whisper folder")
    parser.add_argument("--language", default="en")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--conditions", nargs="*", default=["clean"], choices=CONDITIONS)
    parser.add_argument("--name", default="words", help="of the result file")
    asked = parser.parse_args()
    clips = read_clips(asked.folders, asked.language)
    half = np.array([clip.half for clip in clips])
    rows: dict[str, dict[str, Any]] = {}
    command = "python -m benchmarks.words " + " ".join(folder.name for folder in asked.folders)
    figures = {"processor": sorted(cpu_features()), "model": Path(asked.model).name, "rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        for condition in asked.conditions:
            sounding = write_condition(clips, condition, Path(folder) / condition)
            default = transcribe(sounding, asked.model, asked.language, {}, Path(folder))
            for name in dict.fromkeys([DEFAULT, *asked.variants]):
                result = default
                if name != DEFAULT:
                    result = transcribe(sounding, asked.model, asked.language, VARIANTS[name], Path(folder))
                parts = {"all": half >= 0, "first half": half == 0, "second half": half == 1}
                found = {part: difference(result, default, chosen) for part, chosen in parts.items()}
                rows[f"{condition}: {name}"] = found
                each = [f"{v['wer_pct']:6.2f}% {v['difference']:+5.2f} {v['interval']}" for v in found.values()]
                save(asked.name, command, figures)
                print(f"{condition:<10} {name:<38} cost {found['all']['cost']:5.2f}  " + "  ".join(each), flush=True)


if __name__ == "__main__":
    main()
