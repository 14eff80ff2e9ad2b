"""WER and speed beside faster-whisper: same files, same tiny.en weights, fp32, beam 1, one run.

pip install 'audiomill[bench]'
python -m benchmarks.accuracy --speech FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
import torch
from rich.console import Console

from benchmarks.record import save
from benchmarks.speech import RATE, clips, write_corpus
from jobs.demo import whisper_folder
from pipeline.fields import build
from pipeline.job_config import TranscribeConfig
from pipeline.run.job import run_job
from pipeline.storage import ledger
from pipeline.storage.fs import Place
from pipeline.text.wer import NO_ERRORS, score_pair


def ours(corpus: Path, model: str, work: Path) -> dict[str, str]:
    """Texts by file name, through the whole pipeline in this process."""
    values = {"inputs": (str(corpus),), "output": str(work / "out"), "model": model, "engine": "local", "quiet": True}
    run_job(build(TranscribeConfig, values).job(), Console(quiet=True))
    return {
        Path(row["source"]).name: row["text"]
        for row in ledger.tables(Place(str(work / "out")), "recordings").to_pylist()
    }


def theirs(corpus: Path, model: str, batched: bool) -> Callable[[], dict[str, str]]:
    """faster-whisper, loaded; sequential with its voice activity filter, or its batched pipeline."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    loaded: Any = WhisperModel(model, device="cpu", compute_type="float32", cpu_threads=torch.get_num_threads())
    options: dict[str, Any] = {"beam_size": 1, "vad_filter": True}
    if batched:
        loaded, options = BatchedInferencePipeline(loaded), {"beam_size": 1, "batch_size": 8}

    def run() -> dict[str, str]:
        return {
            path.name: " ".join(s.text for s in loaded.transcribe(str(path), **options)[0])
            for path in sorted(corpus.iterdir())
        }

    return run


def main() -> None:
    """Prints and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="folder of real recordings, see benchmarks/speech.py")
    parser.add_argument("--minutes", type=float, default=10, help="audio of the corpus of recordings")
    parser.add_argument("--model", default=str(whisper_folder()), help="CTranslate2 Whisper folder")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        recordings = Path(folder) / "recordings"
        texts = {"recordings": write_corpus(recordings, args.minutes * 60, args.speech)}
        single = Path(folder) / "clips"
        single.mkdir()
        for number, (waveform, _) in enumerate(clips(args.speech)):
            soundfile.write(single / f"c{number:03d}.flac", waveform, RATE)
        texts["clips"] = {f"c{number:03d}.flac": text for number, (_, text) in enumerate(clips(args.speech))}
        for name, corpus in (("clips", single), ("recordings", recordings)):
            seconds = sum(soundfile.info(path).duration for path in corpus.iterdir())
            work = Path(folder) / f"work-{name}"
            systems = {
                "audiomill (files to Parquet)": lambda corpus=corpus, work=work: ours(corpus, args.model, work),
                "faster-whisper sequential": theirs(corpus, args.model, False),
                "faster-whisper batched": theirs(corpus, args.model, True),
            }
            for system, run in systems.items():
                began = time.perf_counter()
                found = run()
                took = time.perf_counter() - began
                errors = sum(
                    (score_pair(text, found.get(file, ""), "en")[0] for file, text in texts[name].items()), NO_ERRORS
                )
                rows.append(
                    {
                        "corpus": name,
                        "system": system,
                        "wer_pct": round(100 * errors.rate, 2),
                        "x_real_time": round(seconds / took, 1),
                    }
                )
                print(
                    f"{name:>10}  {system:<30} WER {100 * errors.rate:5.2f}% of {errors.num_reference} words   {seconds / took:5.1f}x real time",
                    flush=True,
                )
    save("accuracy", f"python -m benchmarks.accuracy --speech FOLDER --minutes {args.minutes:g}", rows)


if __name__ == "__main__":
    main()
