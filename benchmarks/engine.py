"""The Ray run beside the bare model loop: same segments, same weights, same machine, alternating runs.

The loop holds decoded segments in memory and does nothing but run the model, part by part and with retries as the run does. The Ray run
starts from FLAC files and ends with Parquet. What a run costs however short it is (session, model load, the comparison with transformers) is
taken off: each hears a quarter of the corpus and all of it, and the difference counts.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from audiomill.audio.cutting.segment import Segment
from audiomill.config.fields import build
from audiomill.config.jobs import JobConfig, TranscribeConfig
from audiomill.models.load import load_tasks
from audiomill.models.precision import cpu_features
from audiomill.runs.job import run_job
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.sources.listing import list_inputs
from audiomill.stages.model_processes import end_waiting
from audiomill.stages.plan import planned_table
from audiomill.stages.sandbox import Decoder
from audiomill.stages.steps.transcribe import transcripts_of
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save
from benchmarks.speech import write_corpus

LITTLE = 0.25
"""Share of the corpus that is taken off."""


def config_for(corpus: Path, output: Path, model: str, engine: str) -> JobConfig:
    """The job with its defaults."""
    return build(
        TranscribeConfig,
        {
            "inputs": (str(corpus),),
            "output": str(output),
            "model": model,
            "engine": engine,
            "part_seconds": 300.0,
            "quiet": True,
        },
    ).job()


def loop_seconds(config: JobConfig) -> float:
    """Seconds of the bare model loop over all segments."""
    spec, _ = resolve_run(config, resolve_tasks(config), "cpu", cpu_features())
    (task,) = load_tasks(spec.tasks, {})
    entries = list_inputs(config.inputs, {}, None, "/none").entries
    plan = planned_table(entries, [None] * len(entries), first_part=0, part_seconds=300)
    decoder, parts = Decoder(spec.decode, spec.segments, {}), dict[int, list[Segment]]()
    for row in plan.to_pylist():
        for event in decoder.read(row):
            if isinstance(event, Segment):
                parts.setdefault(row["part"], []).append(event)
    decoder.close()
    started = time.perf_counter()
    for segments in parts.values():
        transcripts_of(segments, task, falls_back=True)
    return time.perf_counter() - started


def run_seconds(corpus: Path, output: Path, model: str, engine: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a run as if it were the first, and its summary."""
    began = time.perf_counter()
    end_waiting()
    summary = run_job(config_for(corpus, output, model, engine), Console(quiet=True))
    took = time.perf_counter() - began
    shutil.rmtree(output)
    return took, summary


def main() -> None:
    """Prints and saves the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--speech", type=Path, help="folder of real recordings, see benchmarks/speech.py")
    parser.add_argument("--model", default=str(whisper_folder()))
    args = parser.parse_args()
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        corpora = [Path(folder) / name for name in ("little", "much")]
        for corpus, share in zip(corpora, (LITTLE, 1.0), strict=True):
            write_corpus(corpus, share * args.minutes * 60, args.speech)
        for _ in range(args.repeat):
            output = Path(folder) / "out"
            loops = [loop_seconds(config_for(corpus, output, args.model, "local")) for corpus in corpora]
            row: dict[str, float] = {"loop_s": loops[1] - loops[0]}
            for engine in ("ray", "local"):
                (little, before), (much, summary) = (run_seconds(each, output, args.model, engine) for each in corpora)
                row["audio_s"] = summary["duration_s"] - before["duration_s"]
                row |= {f"{engine}_s": much - little, f"{engine}_startup_s": summary["startup_s"]}
                row[f"{engine}_ratio"] = row["loop_s"] / row[f"{engine}_s"]
            rows.append(row)
            print({name: round(value, 2) for name, value in row.items()}, flush=True)
    medians = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
    print(f"\n{medians['audio_s'] / 60:.1f} min more of audio, {args.repeat} runs, medians")
    print(f"model loop            {medians['audio_s'] / medians['loop_s']:6.1f}x real time")
    for engine in ("ray", "local"):
        speed, ratio = medians["audio_s"] / medians[f"{engine}_s"], medians[f"{engine}_ratio"]
        startup = medians[f"{engine}_startup_s"]
        print(f"{engine:<6} files to tables {speed:6.1f}x = {ratio:.2f} of the loop; start-up {startup:.1f} s")
    save(
        "engine",
        f"python -m benchmarks.engine --minutes {args.minutes:g} --repeat {args.repeat} --speech FOLDER",
        medians,
    )


if __name__ == "__main__":
    main()
