"""int8 of models of frames: its speed on the shape of wav2vec2-base, and what it costs in words and codes of a trained model.

    python -m benchmarks.frames_int8 shared/data/real --digits shared/data/digits [--repeat 3] [--updates 3000]

Speed: random weights, real clips up to 17 s, layer 9; transformers one by one beside ours in fp32 and int8, alternating runs.
Words and codes: a student trained from nothing on the training recordings of the digits, and 100 clusters of its layer 3.
Needs torch and transformers, no Ray.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import audiomill
from audiomill.models.base import RequestedOutputs, VectorRequest
from audiomill.models.precision import cpu_features, settled_precision
from benchmarks.encoders import clips_of
from benchmarks.record import save
from benchmarks.representations import LAYER, RATE, error, hugging_face, ours, save_checkpoints, seconds_of
from benchmarks.self_training import SHAPE, recordings, write_splits

LONGEST_S, BUDGET_S, CLUSTERS, STUDENT_LAYER, LABELLED = 17.0, 10.0, 100, 3, 0.9


def speeds(model: Path, pcms: Any, repeat: int, int8: str) -> dict[str, Any]:
    """Times real time, and the error of a layer against transformers alone."""
    requested = RequestedOutputs(vectors=(VectorRequest(layer=LAYER),))
    runs = {
        "transformers, one by one": hugging_face(model, "cpu", torch.float32, 1),
        "audiomill, fp32": ours(model, "cpu", "fp32", BUDGET_S, requested),
        f"audiomill, {int8}": ours(model, "cpu", int8, BUDGET_S, requested),
    }
    expected, *others = (run(pcms[:12]) for run in runs.values())
    found = dict(
        zip(runs, [expected, *([a.readout.vectors[0].values_ND for a in each] for each in others)], strict=True)
    )
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            times[name].append(seconds_of(run, pcms, "cpu")[0])
    base = times["transformers, one by one"]
    return {
        name: {
            "x_real_time": round(sum(map(len, pcms)) / RATE / statistics.median(taken), 1),
            "ratio_to_one_by_one": round(statistics.median(a / b for a, b in zip(base, taken, strict=True)), 2),
            "relative_l2": float(f"{error(found[name], expected)['relative_l2']:.1e}"),
        }
        for name, taken in times.items()
    }


def command(*words: Any) -> None:
    subprocess.run([sys.executable, "-m", "audiomill", *map(str, words)], check=True)


def student_of(digits: Path, work: Path, updates: int) -> Path:
    """Trained once for each folder of work."""
    write_splits(recordings(digits), work, LABELLED, seed=0)
    (work / "shape").mkdir(exist_ok=True)
    (work / "shape" / "config.json").write_text(json.dumps(SHAPE))
    how = ("--model", work / "shape", "--from-scratch", "--max-updates", updates, "--evaluate-every", 500)
    more = ("--batch-seconds", 8, "--learning-rate", 1e-3, "--mask-time-prob", 0.01)
    command("finetune", work / "labelled", *how, *more, "--dev", work / "dev", "--output", work / "training")
    return work / "training" / "checkpoint"


def words_and_codes(student: Path, work: Path, int8: str) -> dict[str, Any]:
    """Errors of both number formats on the test recordings, and how many codes are not those of fp32."""
    clusters = work / "km.safetensors"
    where = ("--model", student, "--layer", STUDENT_LAYER, "--clusters", CLUSTERS)
    command("kmeans", work / "labelled", *where, "--output", clusters)
    found: dict[str, Any] = {}
    codes: dict[str, dict[str, Any]] = {}
    for precision in ("fp32", "int8"):
        output = work / f"test-{precision}"
        options = {"model": str(student), "precision": precision, "segment": "none", "engine": "local"}
        audiomill.run("transcribe", str(work / "test"), output=f"{output}-words", **options)
        command("score", f"{output}-words")
        found[precision] = json.loads(Path(f"{output}-words", "scores.json").read_text())["wer"]
        audiomill.run("encode", str(work / "test"), output=f"{output}-codes", codebook=str(clusters), **options)
        codes[precision] = dict(audiomill.open_output(f"{output}-codes"))  # type: ignore[arg-type]
    pairs = [(codes["int8"][name], codes["fp32"][name]) for name in codes["fp32"]]
    changed = sum(int((np.asarray(a) != np.asarray(b)).sum()) for a, b in pairs)
    return {
        "wer": found,
        "codes": sum(len(b) for _, b in pairs),
        "codes_changed_pct": 100 * changed / sum(len(b) for _, b in pairs),
        "int8": int8,
    }


def main() -> None:
    """Prints and saves what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="real recordings")
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("frames-int8-benchmark"))
    parser.add_argument("--total", type=float, default=120.0, help="seconds of audio to time")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--updates", type=int, default=3000)
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    args.work.mkdir(parents=True, exist_ok=True)
    int8 = settled_precision("int8", "cpu", offers_int8=True, prefers_int8=False, features=cpu_features())
    ctc, _ = save_checkpoints(args.work, tiny=False)
    result = {
        "cpu": sorted(cpu_features()),
        "ways": speeds(ctc, clips_of(args.folder, LONGEST_S, args.total), args.repeat, int8),
    }
    print(json.dumps(result, indent=1), flush=True)
    result |= words_and_codes(student_of(args.digits, args.work, args.updates), args.work, int8)
    print(json.dumps(result, indent=1))
    save("frames_int8", shlex.join(["python", "-m", "benchmarks.frames_int8", *sys.argv[1:]]), result)


if __name__ == "__main__":
    main()
