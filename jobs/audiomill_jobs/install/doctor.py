"""audiomill doctor: versions, devices, codecs and object stores, as an issue wants them."""

from __future__ import annotations

import importlib
import io
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

import audiomill
from audiomill.errors import AudiomillError
from audiomill.models.device import available_memory, usable_cores
from audiomill.models.precision import cpu_features, settled_precision
from audiomill.runs.record import RECORDED_PACKAGES
from audiomill.storage.urls import without_credentials
from audiomill.watch.journal import redacted
from audiomill_jobs.options import JsonMapping, WithExamples

DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
CODECS = ("flac", "mp3", "vorbis", "opus", "aac", "pcm_s16le", "amrnb", "wmav2")
SHARED_MEMORY = Path("/dev") / "shm"
EXIT_FAILED = 1

Line = tuple[str, str, bool]
"""What was looked at, what was found, and whether it is fit for use."""


EXAMPLES = """\
Examples:
  audiomill doctor                          for a bug report
  audiomill doctor s3://corpus/ gs://other  can they be reached from here?
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("urls", nargs=-1, metavar="[URL...]")
@click.option("--check", is_flag=True, help="Print only what is wrong; exit with 1 if anything is. For health checks.")
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def doctor(urls: tuple[str, ...], check: bool, storage_options: dict[str, Any] | None) -> int:
    """Look at this installation: versions, devices, codecs, whether URLs (s3://bucket/) can be reached.

    Paste what it prints into a bug report; it holds no credentials.
    """
    lines = [*_versions(), *_machine(), *_devices(), *_codecs()]
    lines += [_reached(url, storage_options or {}) for url in urls]
    for name, result, is_fit in lines:
        if not is_fit or not check:
            click.echo(f"{name}: {result}{'' if is_fit else '  <- a problem'}")
    wrong = sum(not is_fit for _, _, is_fit in lines)
    if wrong and not check:
        click.echo(f"{wrong} {'problem' if wrong == 1 else 'problems'}")
    return EXIT_FAILED if wrong else 0


def _versions() -> Iterator[Line]:
    yield "audiomill", audiomill.__version__, True
    yield "python", f"{platform.python_version()} ({sys.executable})", True
    for package in (*RECORDED_PACKAGES, *DRIVERS.values(), "kenlm", "opentelemetry-sdk"):
        try:
            yield package, version(package), True
        except PackageNotFoundError:
            is_optional = package in ("kenlm", "opentelemetry-sdk", "ray", *DRIVERS.values())
            yield package, "not installed", is_optional


def _machine() -> Iterator[Line]:
    import psutil

    memory = psutil.virtual_memory()
    yield "system", platform.platform(), True
    yield "cores", f"{usable_cores()} of {os.cpu_count()}", True
    yield "memory", f"{available_memory() / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free", True
    if SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(SHARED_MEMORY)
        is_enough = shared.total > 64 * 2**20 + 1
        yield (
            "shared memory",
            f"{shared.total / 2**30:.1f} GiB{'' if is_enough else ': give docker --shm-size'}",
            is_enough,
        )


def _devices() -> Iterator[Line]:
    def look() -> str:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            return f"none; torch {torch.__version__} computes on the CPU"
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        return f"{', '.join(names)} (CUDA {torch.version.cuda})"

    def number_formats() -> str:
        features = cpu_features()
        text = settled_precision("auto", "cpu", offers_int8=True, prefers_int8=True, features=features)
        return f"{text} for Whisper's text, fp32 else; this processor offers {', '.join(sorted(features)) or 'neither avx2 nor vnni nor bf16'}"

    yield _tried("GPU", look)
    yield _tried("precision on CPU", number_formats)


def _codecs() -> Iterator[Line]:
    def sound() -> str:
        import numpy as np
        import soundfile

        sink = io.BytesIO()
        soundfile.write(sink, np.zeros(1600, np.int16), 16_000, format="FLAC")
        sink.seek(0)
        assert soundfile.read(sink)[0].shape == (1600,)
        return f"{soundfile.__libsndfile_version__}; {', '.join(sorted(soundfile.available_formats()))}"

    def ffmpeg() -> str:
        import av

        there = [name for name in CODECS if name in av.codecs_available]
        return f"{'.'.join(map(str, av.library_versions['libavcodec']))}; {', '.join(there)}"

    def speech() -> str:
        import numpy as np

        from audiomill.audio.vad import speech_samples

        return f"works ({speech_samples(np.zeros(16_000, np.int16), 0.5)} samples of speech in silence)"

    yield _tried("libsndfile", sound)
    yield _tried("FFmpeg's libavcodec", ffmpeg)
    yield _tried("voice activity", speech)


def _reached(url: str, options: dict[str, Any]) -> Line:
    """Lists a URL."""
    from audiomill.storage.fs import Place
    from audiomill.storage.urls import protocol

    def look() -> str:
        place = Place(url, options)
        result = place.fs.ls(place.path, detail=False)
        return f"reached, {len(result)} entries ({DRIVERS.get(protocol(url), 'fsspec')})"

    return _tried(without_credentials(url), look)


def _tried(name: str, look: Callable[[], str]) -> Line:
    try:
        return name, look(), True
    except AudiomillError as error:
        return name, redacted(" ".join(str(error).split())), False
    except Exception as error:
        return name, redacted(" ".join(f"{type(error).__name__}: {error}".split()))[:300], False
