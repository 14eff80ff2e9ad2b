"""Whisper on CPU beside its peers: same files, same tiny.en weights, one run; speed and WER of each.

faster-whisper (sequential and its batched pipeline, int8 and float32, beam 1) and the transformers pipeline have
their model loaded before the clock starts; of audiomill the start-up (processes, model load) is left out as well. Its
rows are whole runs, from files to Parquet with voice activity, gates and retries.

pip install 'audiomill[bench]'
python -m benchmarks.whisper_cpu --speech FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from rich.console import Console

from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.runs.job import run_job
from audiomill.stages.model_processes import end_waiting
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.wer import NO_ERRORS, score_pair
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save
from benchmarks.speech import RATE, write_clips, write_corpus

System = Callable[[list[Path]], tuple[float, dict[str, str]]]
"""Files -> seconds that it took, and texts by file name."""
PRECISIONS = ("fp32", "bf16", "int8")
TINY_GFLOP_PER_SECOND = 1.89
"""Of audio in packed windows: encoder, keys and values, 3.2 tokens a second."""


def ours(model: str, work: Path, **options: Any) -> System:
    """Through the whole pipeline, in this process; every run starts as if it were the first, or start-up would not cancel out."""

    def run(files: list[Path]) -> tuple[float, dict[str, str]]:
        folder = work / "inputs"
        folder.mkdir()
        for path in files:
            (folder / path.name).symlink_to(path)
        values = {"inputs": (str(folder),), "output": str(work / "out"), "model": model, "engine": "local"}
        end_waiting()
        began = time.perf_counter()
        summary = run_job(build(TranscribeConfig, {**values, "quiet": True, **options}).job(), Console(quiet=True))
        took = time.perf_counter() - began - summary["startup_s"]
        rows = ledger.tables(Place(str(work / "out")), "recordings").to_pylist()
        shutil.rmtree(folder)
        shutil.rmtree(work / "out")
        return took, {Path(row["source"]).name: row["text"] for row in rows}

    return run


def faster_whisper(model: str, precision: str, batched: bool, **asked: Any) -> System:
    """Sequential with its voice activity filter, or its batched pipeline; `asked`: options of its own."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    loaded: Any = WhisperModel(model, device="cpu", compute_type=precision, cpu_threads=torch.get_num_threads())
    options: dict[str, Any] = {"beam_size": 1, "vad_filter": True}
    if batched:
        loaded, options = BatchedInferencePipeline(loaded), {"beam_size": 1, "batch_size": 8}
    options |= asked

    def one(path: Path) -> str:
        return " ".join(segment.text for segment in loaded.transcribe(str(path), **options)[0])

    return _timed(lambda files: {path.name: one(path) for path in files})


def transformers_pipeline(model: str) -> System:
    """`automatic-speech-recognition` in chunks of 30 s, batches of 8, float32."""
    from transformers import WhisperFeatureExtractor, WhisperTokenizerFast, pipeline

    from audiomill.models.whisper.parts import transformers_parts

    tokenizer = WhisperTokenizerFast(tokenizer_file=str(Path(model) / "tokenizer.json"), pad_token="<|endoftext|>")
    loaded = pipeline(
        "automatic-speech-recognition",
        model=transformers_parts(Path(model))[0],
        tokenizer=tokenizer,
        feature_extractor=WhisperFeatureExtractor(),
        chunk_length_s=30,
        batch_size=8,
    )

    def run(files: list[Path]) -> dict[str, str]:
        waveforms = ({"raw": soundfile.read(path, dtype="float32")[0], "sampling_rate": RATE} for path in files)
        return {path.name: found["text"] for path, found in zip(files, loaded(waveforms), strict=True)}

    return _timed(run)


def _timed(run: Callable[[list[Path]], dict[str, str]]) -> System:
    def timed(files: list[Path]) -> tuple[float, dict[str, str]]:
        began = time.perf_counter()
        texts = run(files)
        return time.perf_counter() - began, texts

    return timed


def matrix_rate(precision: str) -> float:
    """GFLOP/s of this machine on the largest matrix product of Whisper tiny's encoder."""
    a, b = torch.randn(1500, 384), torch.randn(1536, 384)
    product: Callable[[], Any] = lambda: a @ b.T  # noqa: E731
    if precision == "int8":
        c, d = a.mul(30).to(torch.int8), b.mul(30).to(torch.int8)
        product = lambda: torch._int_mm(c, d.T)  # noqa: E731
    elif precision == "bf16":
        e, f = a.bfloat16(), b.bfloat16()
        product = lambda: e @ f.T  # noqa: E731
    times = []
    for _ in range(50):
        began = time.perf_counter()
        product()
        times.append(time.perf_counter() - began)
    return 2e-9 * 1500 * 384 * 1536 / statistics.median(times)


def measured(name: str, system: System, files: list[Path], texts: Mapping[str, str], repeat: int) -> dict[str, Any]:
    """Median speed of some runs behind a warm-up, and WER."""
    seconds = sum(soundfile.info(path).duration for path in files)
    system(files[:2])
    runs = [system(files) for _ in range(repeat)]
    took, found = statistics.median(each for each, _ in runs), runs[-1][1]
    errors = sum((score_pair(texts[path.name], found.get(path.name, ""), "en")[0] for path in files), NO_ERRORS)
    row = {
        "system": name,
        "audio_s": round(seconds, 1),
        "wer_pct": round(100 * errors.rate, 2),
        "x_real_time": round(seconds / took, 1),
    }
    print(
        f"  {name:<42} {row['x_real_time']:7.1f}x real time   WER {row['wer_pct']:5.2f}% of {errors.num_reference} words"
        f" in {seconds:.0f} s",
        flush=True,
    )
    return row


def main() -> None:
    """Prints and saves the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="folder of real recordings, see benchmarks/speech.py")
    parser.add_argument("--minutes", type=float, default=5, help="audio of the corpus of clips")
    parser.add_argument("--recording-minutes", type=float, default=15, help="audio of the corpus of recordings")
    parser.add_argument("--slow-minutes", type=float, default=1, help="of which the transformers pipeline does so much")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--model", default=str(whisper_folder()), help="CTranslate2 Whisper folder")
    parser.add_argument("--only", default="", help="systems whose name has this in it")
    args = parser.parse_args()
    rates = {precision: round(matrix_rate(precision)) for precision in PRECISIONS}
    print(f"matrix products, GFLOP/s: {rates}")
    result: dict[str, Any] = {"matrix_gflops": rates}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpora = {
            "clips": write_clips(work / "clips", args.minutes * 60, args.speech),
            "recordings": write_corpus(work / "recordings", args.recording_minutes * 60, args.speech),
        }
        systems: dict[str, Callable[[], System]] = {
            "audiomill": lambda: ours(args.model, work),
            "audiomill, no word times": lambda: ours(args.model, work, word_times=False),
            **{f"audiomill, {each}": partial(ours, args.model, work, precision=each) for each in ("fp32", "bf16")},
            "faster-whisper int8, sequential": lambda: faster_whisper(args.model, "int8", False),
            "faster-whisper int8, batched": lambda: faster_whisper(args.model, "int8", True),
            "faster-whisper float32, sequential": lambda: faster_whisper(args.model, "float32", False),
            "faster-whisper float32, batched": lambda: faster_whisper(args.model, "float32", True),
            "transformers pipeline": lambda: transformers_pipeline(args.model),
        }
        for corpus, texts in corpora.items():
            print(corpus)
            files = sorted((work / corpus).iterdir())
            rows = []
            for name, make in systems.items():
                if args.only not in name:
                    continue
                is_slow = name.startswith("transformers")
                lengths = np.cumsum([soundfile.info(path).duration for path in files])
                chosen = files[: max(2, int((lengths < args.slow_minutes * 60).sum()))] if is_slow else files
                rows.append(measured(name, make(), chosen, texts, 1 if is_slow else args.repeat))
            result[corpus] = rows
            _conclude(rows, rates)
    command = f"python -m benchmarks.whisper_cpu --speech FOLDER --minutes {args.minutes:g} --recording-minutes {args.recording_minutes:g}"
    if not args.only:
        save("whisper_cpu", command, result)


def _conclude(rows: list[dict[str, Any]], rates: Mapping[str, float]) -> None:
    mine = next((row for row in rows if row["system"] == "audiomill"), None)
    peers = [row for row in rows if not row["system"].startswith("audiomill")]
    if mine is None or not peers:
        return
    fastest = max(peers, key=lambda row: row["x_real_time"])
    ratio, wer = mine["x_real_time"] / fastest["x_real_time"], mine["wer_pct"] - min(row["wer_pct"] for row in peers)
    share = mine["x_real_time"] * TINY_GFLOP_PER_SECOND / rates["int8"]
    print(f"  {ratio:.1f} times the fastest peer ({fastest['system']}); WER {wer:+.2f} points beside the best peer's")
    print(
        f"  share of the packed roofline in int8 on this machine ({rates['int8'] / TINY_GFLOP_PER_SECOND:.0f}x): {share:.2f}"
    )


if __name__ == "__main__":
    main()
