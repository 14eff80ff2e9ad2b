"""Who speaks, beside senko: same conversations, one run; error rates, speakers, words by speaker, speed, and people across files.

Conversations of one to six known speakers are made of FOLDER/references.tsv (see `benchmarks.talk_mixes`). Both programs hear the
same files on the same cores, in turn; senko's start-up is not counted, ours is, less that of a run of one file.
DER by pyannote.metrics without collar, in the recording's whole time; cpWER by meeteval.

pip install 'audiomill[bench,speakers]' pyannote.metrics meeteval
python -m benchmarks.speakers FOLDER
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
from rich.console import Console

from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.models.device import usable_cores
from audiomill.models.precision import cpu_features
from audiomill.runs.job import run_job
from audiomill.speakers.clustering import unit
from audiomill.storage.fs import Place
from audiomill.text.normalize import units_of
from audiomill.voices.speaker_linking import updated
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save
from benchmarks.talk_mixes import Said, voices_of, write_mixes

Turns = dict[str, list[tuple[float, float, str]]]


def ours(files: Sequence[Path], output: Path, model: str = "fake://") -> float:
    """Seconds of a run."""
    values = {
        "inputs": tuple(map(str, files)),
        "output": str(output),
        "model": model,
        "speakers": "auto",
        "save_speaker_embeddings": True,
    }
    values |= {"engine": "local", "overwrite": True, "report": False, "quiet": True, "verify_segments": 0}
    began = time.perf_counter()
    run_job(build(TranscribeConfig, values).job(), Console(quiet=True))
    return time.perf_counter() - began


def our_turns(output: Path) -> Turns:
    names = {row["id"]: Path(row["source"]).stem for row in pq.read_table(output / "recordings").to_pylist()}
    found: Turns = {name: [] for name in names.values()}
    for row in pq.read_table(output / "turns").to_pylist():
        found[names[row["recording_id"]]].append((row["start_s"], row["stop_s"], row["speaker"]))
    return found


def senko_diarizer() -> Any:
    from senko import Diarizer

    return Diarizer(device="cpu", warmup=False, quiet=True)


def senko_turns(diarizer: Any, files: Sequence[Path]) -> tuple[float, Turns]:
    began, found = time.perf_counter(), Turns()
    for file in files:
        result = diarizer.diarize(str(file)) or {"merged_segments": []}
        found[file.stem] = [(each["start"], each["end"], each["speaker"]) for each in result["merged_segments"]]
    return time.perf_counter() - began, found


def errors_of(turns: Turns, said: Mapping[str, Sequence[Said]]) -> dict[str, dict[str, float]]:
    """Shares of speech by condition: missed, false alarm, confusion and their sum; mean error of the number of speakers."""
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    sums: defaultdict[str, Any] = defaultdict(lambda: np.zeros(6))
    for name, truth in said.items():
        reference, hypothesis = Annotation(), Annotation()
        for number, each in enumerate(truth):
            reference[Segment(each.start_s, each.stop_s), number] = each.who
        for number, (start, stop, speaker) in enumerate(turns.get(name, [])):
            hypothesis[Segment(start, stop), number] = speaker
        whole = Timeline([Segment(0, max(each.stop_s for each in truth) + 0.5)])
        found = DiarizationErrorRate()(reference, hypothesis, uem=whole, detailed=True)
        counted = abs(len({each.who for each in truth}) - len({speaker for *_, speaker in turns.get(name, [])}))
        row = [found["missed detection"], found["false alarm"], found["confusion"], found["total"], counted, 1]
        for key in ("all", name.split("-")[1]):
            sums[key] += row
    return {
        key: {
            "der_pct": round(100 * float(row[:3].sum() / row[3]), 2),
            "missed_pct": round(100 * float(row[0] / row[3]), 2),
            "false_alarm_pct": round(100 * float(row[1] / row[3]), 2),
            "confusion_pct": round(100 * float(row[2] / row[3]), 2),
            "count_error": round(float(row[4] / row[5]), 2),
        }
        for key, row in sums.items()
    }


def words_by_speaker(output: Path, said: Mapping[str, Sequence[Said]], turns: Turns | None = None) -> float:
    """cpWER of an output's words, its own speakers', or those of other turns by the middle of each word."""
    import meeteval

    names = {row["id"]: Path(row["source"]).stem for row in pq.read_table(output / "recordings").to_pylist()}
    told: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(pq.read_table(output / "segments").to_pylist(), key=lambda row: row["start_s"]):
        name = names[row["recording_id"]]
        for word in row["words"] or ():
            speaker = (
                word["speaker"] if turns is None else _speaker_at(turns[name], (word["start_s"] + word["stop_s"]) / 2)
            )
            told[name][speaker or "nobody"].append(word["word"])
    wrong = total = 0
    for name, truth in said.items():
        texts: defaultdict[str, list[str]] = defaultdict(list)
        for each in truth:
            texts[each.who].append(each.text)
        reference = {who: " ".join(units_of(" ".join(some), "en")) for who, some in texts.items()}
        hypothesis = {
            who: " ".join(units_of("".join(f" {w.strip()}" for w in some), "en")) for who, some in told[name].items()
        }
        found = meeteval.wer.wer.cp.cp_word_error_rate(reference, hypothesis)
        wrong, total = wrong + found.errors, total + found.length
    return round(100 * wrong / total, 2)


def _speaker_at(turns: Sequence[tuple[float, float, str]], at: float) -> str | None:
    """Whose turn a moment is in, or is nearest to."""
    gaps = [(max(start - at, at - stop, 0.0), speaker) for start, stop, speaker in turns]
    return min(gaps)[1] if gaps else None


def across_files(output: Path, said: Mapping[str, Sequence[Said]]) -> dict[str, float]:
    """Speakers of different files: equal error rate of their vectors, and how pure and how whole voices are, by speaker."""
    names = {row["id"]: Path(row["source"]).stem for row in pq.read_table(output / "recordings").to_pylist()}
    turns = our_turns(output)
    rows = [row for row in pq.read_table(output / "speakers").to_pylist() if row["vector"] is not None]
    truth = [_who(turns[names[row["recording_id"]]], row["speaker"], said[names[row["recording_id"]]]) for row in rows]
    near = (lambda unit_ND: unit_ND @ unit_ND.T)(unit(np.array([row["vector"] for row in rows])))
    pairs = [
        (float(near[i, j]), truth[i] == truth[j])
        for i, j in itertools.combinations(range(len(rows)), 2)
        if rows[i]["recording_id"] != rows[j]["recording_id"]
    ]
    same, other = (np.array([value for value, is_same in pairs if is_same is kind]) for kind in (True, False))
    steps = [(float((same < t).mean()), float((other >= t).mean()), t) for t in np.linspace(-0.2, 1, 601)]
    missed, accepted, threshold = min(steps, key=lambda step: abs(step[0] - step[1]))
    voice_of = {(link.recording_id, link.speaker): link.voice for link in updated(Place(str(output))).links}
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for row, who in zip(rows, truth, strict=True):
        seconds[voice_of[row["recording_id"], row["speaker"]], who] += row["speech_s"]
    purity, wholeness = (_largest_share(seconds, at) for at in (0, 1))
    return {
        "eer_pct": round(50 * (missed + accepted), 2),
        "threshold_distance": round(1 - float(threshold), 2),
        "purity_pct": purity,
        "wholeness_pct": wholeness,
        "num_people": len(set(truth)),
        "num_voices": len({voice for voice, _ in seconds}),
    }


def _who(turns: Sequence[tuple[float, float, str]], speaker: str, said: Sequence[Said]) -> str:
    """The person that a speaker of the output mostly is."""
    shares: defaultdict[str, float] = defaultdict(float)
    for start, stop, name in turns:
        for each in said:
            shares[each.who] += max(0.0, min(stop, each.stop_s) - max(start, each.start_s)) * (name == speaker)
    return max(shares, key=lambda who: shares[who])


def _largest_share(seconds: Mapping[tuple[str, str], float], at: int) -> float:
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for key, value in seconds.items():
        groups[key[at]].append(value)
    return round(100 * sum(max(each) for each in groups.values()) / sum(seconds.values()), 2)


def calibration(output: Path, said: Mapping[str, Sequence[Said]]) -> list[dict[str, float]]:
    """Confidence of turns beside the share of their time that is the speaker's, in order of confidence."""
    names = {row["id"]: Path(row["source"]).stem for row in pq.read_table(output / "recordings").to_pylist()}
    turns, found = our_turns(output), []
    for row in pq.read_table(output / "turns").to_pylist():
        name = names[row["recording_id"]]
        who = _who(turns[name], row["speaker"], said[name])
        length = row["stop_s"] - row["start_s"]
        right = sum(
            max(0.0, min(row["stop_s"], s.stop_s) - max(row["start_s"], s.start_s)) for s in said[name] if s.who == who
        )
        found.append((row["confidence"], min(1.0, right / length), length))
    found.sort()
    groups = np.array_split(np.array(found), 5)
    return [
        {name: round(float(np.average(g[:, at], weights=g[:, 2])), 3) for at, name in enumerate(("said", "right"))}
        for g in groups
    ]


def main() -> None:
    """Prints and saves the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    features = sorted(cpu_features())
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        said = write_mixes(work / "in", voices_of(args.folder))
        files = sorted((work / "in").glob("*.wav"))
        seconds = sum(soundfile.info(file).duration for file in files)
        print(
            f"processor: {', '.join(features) or 'AVX2 class'}; {usable_cores()} cores; {len(files)} conversations, {seconds / 60:.1f} min"
        )
        diarizer = senko_diarizer()
        took: dict[str, list[float]] = {"audiomill": [], "senko": []}
        for _ in range(args.repeat):
            start_up = ours(files[:1], work / "one") - 0.0
            took["audiomill"].append(ours(files, work / "out") - start_up * (1 - 1 / len(files)))
            their_s, theirs = senko_turns(diarizer, files)
            took["senko"].append(their_s)
        result: dict[str, Any] = {"features": features, "cores": usable_cores(), "minutes": round(seconds / 60, 1)}
        for system, turns in (("audiomill", our_turns(work / "out")), ("senko", theirs)):
            speeds = sorted(seconds / each for each in took[system])
            errors = errors_of(turns, said)
            result[system] = {"x_real_time": round(statistics.median(speeds), 1), "errors": errors}
            print(f"{system}: {statistics.median(speeds):.1f}x ({speeds[0]:.1f} to {speeds[-1]:.1f})")
            for condition, row in errors.items():
                print(f"  {condition:<10}" + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        result["speed_ratio"] = round(result["audiomill"]["x_real_time"] / result["senko"]["x_real_time"], 2)
        result["across_files"] = across_files(work / "out", said)
        result["calibration"] = calibration(work / "out", said)
        ours(files, work / "words", str(whisper_folder()))
        result["cpwer_pct"] = {
            "audiomill": words_by_speaker(work / "words", said),
            "the same words, senko's turns": words_by_speaker(work / "words", said, theirs),
        }
        for key in ("speed_ratio", "across_files", "calibration", "cpwer_pct"):
            print(f"{key}: {result[key]}")
    save("speakers", "python -m benchmarks.speakers FOLDER", result)


if __name__ == "__main__":
    main()
