"""Whisper on real recordings beside faster-whisper: same files, same weights, one run; speed, words and processor class.

Start-up is taken off: each system hears one copy of the corpus and N + 1 copies, and what N more copies take counts.
The systems take turns, so that a machine whose speed varies is fair to all; medians are printed. faster-whisper computes
in int8 with beam 1, sequentially without voice activity and in its batched pipeline (batches of 16).

pip install 'audiomill[bench]'
python -m benchmarks.real_speech FOLDER           # audio beside references.tsv: columns file, text (and language)
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import soundfile

from audiomill.models.device import usable_cores
from audiomill.models.precision import cpu_features
from audiomill.text.wer import NO_ERRORS, score_pair
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save
from benchmarks.whisper_cpu import System, faster_whisper, ours

CLIP_S = 17.0
"""Longer ones are recordings."""
COPIES = 3


class Clip(NamedTuple):
    path: Path
    text: str
    seconds: float


Heard = dict[str, str]
"""Texts by file name."""


def read_corpus(folder: Path, language: str) -> list[Clip]:
    """What the tables of a folder, and of those below it, name."""
    found = []
    for table in sorted(folder.rglob("references.tsv")):
        for row in csv.DictReader(table.open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE):
            path = table.parent / row["file"]
            if row.get("language", language) == language and path.exists():
                found.append(Clip(path, row["text"], soundfile.info(path).duration))
    return found


def copies_of(clips: list[Clip], count: int, folder: Path) -> list[Path]:
    """Each clip, copy by copy; links to one file would count once."""
    folder.mkdir(exist_ok=True)
    found = []
    for copy in range(count):
        for clip in clips:
            path = folder / f"{copy}-{clip.path.name}"
            if not path.exists():
                shutil.copyfile(clip.path, path)
            found.append(path)
    return found


def extra_seconds(system: System, clips: list[Clip], folder: Path) -> tuple[float, Heard]:
    """What COPIES more copies take, and the texts of the first."""
    took = []
    for count in (1, COPIES + 1):
        files = copies_of(clips, count, folder)
        began = time.perf_counter()
        _, heard = system(files)
        took.append(time.perf_counter() - began)
    return took[1] - took[0], heard


def word_errors(clips: list[Clip], heard: Heard, language: str) -> tuple[float, int]:
    """Share of wrong words, and the number of words."""
    total = NO_ERRORS
    for clip in clips:
        total += score_pair(clip.text, heard.get(f"0-{clip.path.name}", ""), language)[0]
    return total.rate, total.num_reference


def compare(clips: list[Clip], systems: dict[str, System], repeat: int, language: str, work: Path) -> dict[str, Any]:
    """Speed and words of each system on one corpus, taking turns."""
    seconds = sum(clip.seconds for clip in clips)
    took: dict[str, list[float]] = {name: [] for name in systems}
    texts: dict[str, Heard] = {}
    for _ in range(repeat):
        for name, system in systems.items():
            extra, texts[name] = extra_seconds(system, clips, work / "links")
            took[name].append(extra)
    rows = {}
    for name, runs in took.items():
        rate, num_words = word_errors(clips, texts[name], language)
        speeds = sorted(COPIES * seconds / each for each in runs)
        rows[name] = {
            "x_real_time": round(statistics.median(speeds), 1),
            "slowest": round(speeds[0], 1),
            "fastest": round(speeds[-1], 1),
            "wer_pct": round(100 * rate, 2),
        }
        print(f"  {name:<34} {rows[name]['x_real_time']:7.1f}x ({speeds[0]:.1f} to {speeds[-1]:.1f})   ", end="")
        print(f"WER {100 * rate:5.2f}% of {num_words} words in {seconds:.0f} s", flush=True)
    return rows


def main() -> None:
    """Prints and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=str(whisper_folder()), help="CTranslate2 Whisper folder")
    parser.add_argument("--language", default="en")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--engine", default="local", choices=("local", "ray"))
    parser.add_argument("--only", default="", help="systems whose name has this in it")
    args = parser.parse_args()
    features = sorted(cpu_features())
    print(f"processor: {', '.join(features) or 'AVX2 class'}; {usable_cores()} cores; load {os.getloadavg()[0]:.1f}")
    corpus = read_corpus(args.folder, args.language)
    corpora = {
        "clips": [clip for clip in corpus if clip.seconds <= CLIP_S],
        "recordings": [clip for clip in corpus if clip.seconds > CLIP_S],
    }
    result: dict[str, Any] = {"features": features, "cores": usable_cores(), "engine": args.engine}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        makes: dict[str, Callable[[], System]] = {
            "audiomill": lambda: ours(args.model, work, engine=args.engine),
            "faster-whisper int8, sequential": lambda: faster_whisper(
                args.model, "int8", False, vad_filter=False, condition_on_previous_text=False
            ),
            "faster-whisper int8, batched": lambda: faster_whisper(args.model, "int8", True, batch_size=16),
        }
        systems = {name: make() for name, make in makes.items() if args.only in name}
        for kind, clips in corpora.items():
            print(f"{kind}: {len(clips)}")
            rows = compare(clips, systems, args.repeat, args.language, work)
            peers = [row["x_real_time"] for name, row in rows.items() if name != "audiomill"]
            if "audiomill" in rows and peers:
                ratio = rows["audiomill"]["x_real_time"] / max(peers)
                print(f"  {ratio:.2f} times the best peer")
                rows["ratio"] = round(ratio, 2)
            result[kind] = rows
    if not args.only:
        save("real_speech", f"python -m benchmarks.real_speech FOLDER --engine {args.engine}", result)


if __name__ == "__main__":
    main()
