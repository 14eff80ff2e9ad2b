"""`audiomill plan` against what comes: time and bytes of a whole run, forecast from a twentieth of the corpus. Real weights."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save
from benchmarks.speech import write_corpus


def command(job: str, corpus: Path, output: Path, engine: str, *more: str) -> None:
    """Runs a job of the command line."""
    options = ["--model", str(whisper_folder()), "--engine", engine, "--output", str(output), "--quiet", *more]
    program = [sys.executable, "-m", "audiomill", job, str(corpus), *options]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run(program, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def outcome(corpus: Path, output: Path, engine: str) -> dict[str, Any]:
    """Wall seconds and bytes of a real run."""
    command("transcribe", corpus, output, engine, "--no-report")
    (name,) = [path for path in (output / "ledger").iterdir() if path.name.startswith("run-")]
    return dict(json.loads(name.read_text()))


def main() -> None:
    """Prints and saves forecasts beside outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=36)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--speech", type=Path, default=None, help="folder of recordings with known text")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_corpus(corpus, args.minutes * 60, args.speech)
        for engine in ("local", "ray"):
            runs = [outcome(corpus, Path(folder) / f"{engine}{n}", engine) for n in range(args.seeds)]
            wall = median(run["wall_s"] for run in runs)
            size = sum(runs[0]["bytes"].values())
            for seed in range(args.seeds):
                output = Path(folder) / f"forecast-{engine}{seed}"
                minutes = str(args.share * args.minutes)
                command("plan", corpus, output, engine, "--sample-minutes", minutes, "--seed", str(seed))
                found = json.loads((output / "forecast.json").read_text())
                rows.append(
                    {
                        "engine": engine,
                        "seed": seed,
                        "sample_minutes": round(found["sample"]["minutes"], 2),
                        "wall_ratio": round(found["wall_s_here"] / wall, 3),
                        "bytes_ratio": round(sum(found["bytes"].values()) / size, 3),
                        "hours_ratio": round(3600 * found["hours"] / runs[0]["duration_s"], 4),
                        "runs_wall_s": [round(run["wall_s"], 1) for run in runs],
                    }
                )
                print(rows[-1], flush=True)
    save(
        "forecast",
        f"python -m benchmarks.forecast --minutes {args.minutes:g} --share {args.share:g} --seeds {args.seeds}",
        rows,
    )


if __name__ == "__main__":
    main()
