"""The wav2vec line from its first step to its last, on digits, by the commands that anybody would use.

    python -m benchmarks.wav2vec_line --digits FOLDER [--seeds 0,1,2] [--scale 1.0]

FOLDER holds the Free Spoken Digit Dataset as one tar a speaker. Five speakers are the
unlabelled audio, a fifth of it is labelled, the sixth speaker is the test set. Two lines: wav2vec, vq-wav2vec, its codes, a BERT over
them, each read by a CTC head on frozen features; wav2vec 2.0, fine-tuned, which labels the rest for a sequence-to-sequence student.
Each step stands beside a control that lacks it and is the same otherwise. Word error rates by seed, and their mean; seconds and memory
of every command. `--scale` changes how long everything is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from audiomill.train.loop.verdicts import scored
from benchmarks.record import save
from benchmarks.self_training import recordings
from benchmarks.speech_llm import RATE, TEST_SPEAKER, wave_of

LABELLED, DEV_SHARE = 0.2, 0.15
LOCAL = (
    "--engine",
    "local",
    "--segment",
    "none",
    "--verify-segments",
    "0",
    "--no-report",
    "--quiet",
    "--device",
    "cpu",
)
TRAIN = ("--quiet", "--device", "cpu")
HEAD = ("--features", "--head-width", "48", "--batch-seconds", "8", "--mask-time-prob", "0")
UPDATES = {
    "wav2vec": 400, "vq-wav2vec": 350, "units": 800, "head": 1000, "pretrain": 500, "ctc": 700, "seq2seq": 700,
}  # fmt: skip


class Cost(NamedTuple):
    """Of one command."""

    seconds: float
    megabytes: float


class Step(NamedTuple):
    """What is compared. `without`: the control that lacks what this step adds."""

    name: str
    without: str | None


STEPS = (
    Step("log-mel, head", None),
    Step("wav2vec untrained, head", None),
    Step("wav2vec, head", "wav2vec untrained, head"),
    Step("vq-wav2vec, head", "wav2vec untrained, head"),
    Step("BERT over codes, untrained, head", None),
    Step("BERT over codes, head", "BERT over codes, untrained, head"),
    Step("wav2vec 2.0 from nothing, CTC", None),
    Step("wav2vec 2.0 pre-trained, CTC", "wav2vec 2.0 from nothing, CTC"),
    Step("seq2seq on labels alone", None),
    Step("seq2seq on labels and pseudo-labels", "seq2seq on labels alone"),
)


def write_splits(found: dict[str, tuple[bytes, str]], root: Path, seed: int) -> dict[str, int]:
    """unlabelled/, labelled/, dev/ and test/."""
    random = np.random.default_rng(seed)
    names = [str(name) for name in random.permutation(sorted(found))]
    test = [name for name in names if name.split("_")[1] == TEST_SPEAKER]
    order = [name for name in names if name.split("_")[1] != TEST_SPEAKER]
    count = round(LABELLED * len(order))
    num_dev = round(DEV_SHARE * count)
    splits = {"dev": order[:num_dev], "labelled": order[num_dev:count], "unlabelled": order, "test": test}
    for split, clips in splits.items():
        (root / split).mkdir(parents=True, exist_ok=True)
        for name in clips:
            soundfile.write(root / split / f"{name}.wav", wave_of(found[name][0]), RATE)
            if split != "unlabelled":
                (root / split / f"{name}.txt").write_text(found[name][1])
    return {split: len(clips) for split, clips in splits.items()}


class Line:
    """One seed of the line, in a folder.

    Args:
        root: holds the splits.
        seed: of every training.
        scale: of the numbers of updates.
    """

    def __init__(self, root: Path, seed: int, scale: float) -> None:
        self._root, self._seed, self._scale = root, seed, scale
        self.costs: dict[str, Cost] = {}
        self.wer: dict[str, float] = {}

    def walk(self) -> None:
        """Every step."""
        self._older_line()
        self._newer_line()

    def _older_line(self) -> None:
        wav2vec = self._pretrained("wav2vec", "new://wav2vec-small", "wav2vec")
        nothing = self._pretrained("wav2vec-untrained", "new://wav2vec-small", "wav2vec", updates=1, rate="1e-12")
        vq = self._pretrained("vq-wav2vec", "new://vq-wav2vec-gumbel-small", "vq-wav2vec")
        self._run("encode", "unlabelled", *LOCAL, "--model", vq, output="codes")
        bert = self._units("units", UPDATES["units"], "5e-4")
        untrained = self._units("units-untrained", 1, "1e-12")
        for name, model in (
            ("log-mel, head", "log-mel://"),
            ("wav2vec untrained, head", nothing),
            ("wav2vec, head", wav2vec),
            ("vq-wav2vec, head", vq),
            ("BERT over codes, untrained, head", untrained),
            ("BERT over codes, head", bert),
        ):
            self._finetuned(name, "--model", model, *HEAD, updates=UPDATES["head"], rate="3e-3")

    def _newer_line(self) -> None:
        start = self._pretrained("wav2vec2", "new://wav2vec2-small", "pretrain", rate="5e-4")
        ctc = ("--batch-seconds", "8", "--mask-time-prob", "0", "--vocabulary", "labels")
        self._finetuned(
            "wav2vec 2.0 from nothing, CTC", "--model", "new://wav2vec2-small", "--objective", "ctc", *ctc,
            updates=UPDATES["ctc"], rate="5e-4",
        )  # fmt: skip
        teacher = self._finetuned(
            "wav2vec 2.0 pre-trained, CTC", "--model", start, "--no-freeze-feature-encoder", *ctc,
            updates=UPDATES["ctc"], rate="5e-4",
        )  # fmt: skip
        self._run("transcribe", "dev", *LOCAL, "--consistency_samples", "2", "--model", teacher, output="dev-texts")
        self._run("transcribe", "unlabelled", *LOCAL, "--consistency_samples", "2", "--model", teacher, output="texts")
        self._run(
            "select", "texts", "--calibrate", str(self._root / "dev-texts"), "--max-expected-wer", "0.15",
            "--held-out", str(self._root / "dev"), output="selected",
        )  # fmt: skip
        student = (
            "--model", "new://seq2seq-small", "--objective", "seq2seq", "--vocab-size", "40", "--batch-seconds", "15",
            "--mask-time-prob", "0",
        )  # fmt: skip
        self._finetuned("seq2seq on labels alone", *student, updates=UPDATES["seq2seq"], rate="1e-3")
        self._finetuned(
            "seq2seq on labels and pseudo-labels", *student, "--pseudo", str(self._root / "selected"),
            updates=UPDATES["seq2seq"], rate="1e-3",
        )  # fmt: skip

    def _pretrained(
        self, output: str, model: str, objective: str, updates: int | None = None, rate: str = "1e-3",
    ) -> str:  # fmt: skip
        self._run(
            "finetune", "unlabelled", *TRAIN, "--model", model, "--objective", objective, "--learning-rate", rate, "--batch-seconds",
            "15", "--max-updates", self._updates(updates or UPDATES[objective]), "--seed", str(self._seed), output=output,
        )  # fmt: skip
        return str(self._root / output / "checkpoint")

    def _units(self, output: str, updates: int, rate: str) -> str:
        self._run(
            "train-unit-lm", "codes", *TRAIN, "--width", "128", "--depth", "4", "--heads", "4", "--max-updates", self._updates(updates),
            "--learning-rate", rate, "--batch-seconds", "30", "--seed", str(self._seed), output=output,
        )  # fmt: skip
        return str(self._root / output / "checkpoint")

    def _finetuned(self, name: str, *options: str, updates: int, rate: str) -> str:
        """A recogniser, scored on the test speaker."""
        folder = name.replace(",", "").replace(" ", "-")
        self._run(
            "finetune", "labelled", *TRAIN, *options, "--dev", str(self._root / "dev"), "--max-updates", self._updates(updates),
            "--learning-rate", rate, "--evaluate-every", self._updates(updates / 6), "--seed", str(self._seed), output=folder,
        )  # fmt: skip
        checkpoint = str(self._root / folder / "checkpoint")
        self._run("transcribe", "test", *LOCAL, "--model", checkpoint, output=f"{folder}-test")
        errors = scored(self._root / f"{folder}-test", {}).values()
        wrong = sum(each.num_errors for each in errors)
        self.wer[name] = wrong / sum(each.num_reference for each in errors)
        print(f"  {name:<38} {100 * self.wer[name]:5.1f}%", flush=True)
        return checkpoint

    def _updates(self, count: float) -> str:
        return str(max(1, round(count * (self._scale if count > 1 else 1))))

    def _run(self, job: str, source: str, *options: str, output: str) -> None:
        """One command, with its cost."""
        started = time.monotonic()
        command = [sys.executable, "-m", "audiomill", job, str(self._root / source), *options, "--output", str(self._root / output)]  # fmt: skip
        with (self._root / f"{output}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {process.returncode}, see {self._root / output}.log")
        self.costs[f"{job} {output}"] = Cost(round(time.monotonic() - started, 1), round(usage.ru_maxrss / 1024))


def table(seeds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Word error rates of all steps, each beside its control."""
    found = []
    for step in STEPS:
        rates = [100 * seed["wer"][step.name] for seed in seeds]
        row: dict[str, Any] = {"step": step.name, "wer": [round(each, 1) for each in rates], "mean": round(float(np.mean(rates)), 1)}  # fmt: skip
        if step.without is not None:
            before = [100 * seed["wer"][step.without] for seed in seeds]
            wins = sum(own < other for own, other in zip(rates, before, strict=True))
            row |= {
                "control": step.without,
                "control_mean": round(float(np.mean(before)), 1),
                "better_in": f"{wins} of {len(rates)}",
            }
        found.append(row)
    return found


def lines_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table for people, with a verdict for each step."""
    lines = []
    for row in rows:
        rates = " ".join(f"{each:5.1f}" for each in row["wer"])
        verdict = ""
        if "control" in row:
            is_better = row["mean"] < row["control_mean"]
            verdict = f"{'better' if is_better else 'NOT better'} than {row['control']} ({row['control_mean']:.1f}), in {row['better_in']} seeds"  # fmt: skip
        lines.append(f"{row['step']:<38} {rates}   mean {row['mean']:5.1f}   {verdict}")
    return lines


def main() -> None:
    """Walks the line with every seed and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("wav2vec-line"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    found, seeds = recordings(arguments.digits), []
    for seed in map(int, arguments.seeds.split(",")):
        root, started = arguments.work / f"seed-{seed}", time.monotonic()
        done = arguments.work / f"seed-{seed}.json"
        if done.exists():
            seeds.append(json.loads(done.read_text()))
            continue
        sizes = write_splits(found, root, seed)
        print(f"seed {seed}: {sizes}", flush=True)
        line = Line(root, seed, arguments.scale)
        line.walk()
        seeds.append(
            {
                "seed": seed,
                "minutes": round((time.monotonic() - started) / 60, 1),
                "wer": line.wer,
                "seconds": {name: cost.seconds for name, cost in line.costs.items()},
                "most_megabytes": max(cost.megabytes for cost in line.costs.values()),
            }
        )
        done.write_text(json.dumps(seeds[-1], indent=1))
    rows = table(seeds)
    print("\n".join(lines_of(rows)))
    save("wav2vec_line", "python -m benchmarks.wav2vec_line --digits FOLDER", {"table": rows, "seeds": seeds})


if __name__ == "__main__":
    main()
