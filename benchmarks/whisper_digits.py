"""Whisper adapted to spoken digits by its own filtered labels, judged on speakers that it never heard.

    python -m benchmarks.whisper_digits --digits FOLDER --model WHISPER

FOLDER holds the Free Spoken Digit Dataset as one tar a speaker. Four speakers are unlabelled but for 40 clips that
calibrate; two others are the test set. No label trains: the loop starts from the model as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from audiomill.train.loop.self_training import round_config, run_self_training
from audiomill.train.loop.verdicts import best_of
from benchmarks.record import save
from benchmarks.self_training import recordings, told

TEST_SPEAKERS = ("george", "yweweler")
NUM_UNLABELLED, NUM_DEV, NUM_TEST = 200, 40, 100


def write_splits(found: dict[str, tuple[bytes, str]], root: Path) -> None:
    """unlabelled/, dev/ and test/ under `root`."""
    names = sorted(found)
    order = [names[at] for at in np.random.default_rng(0).permutation(len(names))]
    test = [name for name in order if name.split("_")[1] in TEST_SPEAKERS]
    rest = [name for name in order if name.split("_")[1] not in TEST_SPEAKERS]
    splits = {"test": test[:NUM_TEST], "dev": rest[:NUM_DEV], "unlabelled": rest[NUM_DEV : NUM_DEV + NUM_UNLABELLED]}
    for split, chosen in splits.items():
        (root / split).mkdir(parents=True, exist_ok=True)
        for name in chosen:
            audio, text = found[name]
            (root / split / f"{name}.wav").write_bytes(audio)
            (root / split / f"{name}.txt").write_text(text)


def loop_config(root: Path, model: str) -> Any:
    inputs = {name: (str(root / name),) for name in ("unlabelled", "dev", "test")}
    return round_config(
        {"output": str(root / "loop"), "quiet": True, "labelled": (), **inputs},
        {
            "loop": {"rounds": 1},
            "label": {
                "segment": "none",
                "consistency_samples": 0,
                "engine": "local",
                "word_times": False,
                "fallback": False,
                "max_new_tokens": 12,
                "language": "en",
                "precision": "fp32",
            },
            "select": {
                "max_expected_wer": 0.1,
                "vocabulary": "calibrate",
                "allow_failed_checks": True,
                "max_fallback_level": 5,
                "balance": "text",
            },
            "train": {
                "model": model,
                "epochs": 3.0,
                "batch_seconds": 16.0,
                "learning_rate": 3e-5,
                "freeze_encoder": True,
                "language": "en",
            },
        },
    )


def main() -> None:
    """Runs the loop and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", type=Path, default=Path("whisper-digits-benchmark"))
    arguments = parser.parse_args()
    write_splits(recordings(arguments.digits), arguments.work)
    rounds = run_self_training(loop_config(arguments.work, arguments.model), Console(stderr=True))
    before, after = next(each["wer"] for each in rounds if each["round"] == 0), best_of(rounds)["wer"]
    print(f"held-out speakers: {100 * before:.1f}% before, {100 * after:.1f}% after")
    save(
        "whisper_digits",
        "python -m benchmarks.whisper_digits --digits FOLDER --model WHISPER",
        {"before": before, "after": after, "rounds": told(rounds)},
    )


if __name__ == "__main__":
    main()
