"""Thousands of damaged files through a run: every one is a recording or a named rejection, and no process is left over.

Mutations are drawn by seed: flipped and inserted bytes, cut ends, extreme numbers in the first kilobytes, joined files.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import soundfile

import audiomill
from audiomill.stages import sandbox
from benchmarks.record import save

RATE = 16_000
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 2_048


def sources() -> dict[str, bytes]:
    """One good file of each kind."""
    waveform = (0.3 * np.sin(np.arange(2 * RATE) / 7)).astype(np.float32)
    found = {}
    for suffix, kind, subtype in (
        ("wav", "WAV", "PCM_16"), ("wav", "WAV", "ULAW"), ("wav", "RF64", "PCM_24"), ("aiff", "AIFF", "PCM_16"), ("flac", "FLAC", None),
        ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS"), ("mp3", "MP3", None), ("w64", "W64", "PCM_16"), ("caf", "CAF", "PCM_16"),
    ):  # fmt: skip
        sink = io.BytesIO()
        soundfile.write(sink, waveform, RATE, format=kind, subtype=subtype)
        found[f"{kind}-{subtype}.{suffix}"] = sink.getvalue()
    for suffix, container, codec in (("m4a", "mp4", "aac"), ("mkv", "matroska", "pcm_s16le"), ("ts", "mpegts", "aac")):
        found[f"{container}-{codec}.{suffix}"] = contained(waveform, container, codec)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as shard:
        for number in range(3):
            member = tarfile.TarInfo(f"m{number}.wav")
            member.size = len(found["WAV-PCM_16.wav"])
            shard.addfile(member, io.BytesIO(found["WAV-PCM_16.wav"]))
    return {**found, "shard.tar": sink.getvalue()}


def contained(waveform: np.ndarray, container: str, codec: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        fit = av.AudioResampler(format=stream.format, layout="mono", rate=RATE, frame_size=stream.frame_size or 1024)
        for each in [*fit.resample(frame), *fit.resample(None)]:
            out.mux(stream.encode(each))
        out.mux(stream.encode(None))
    return sink.getvalue()


def flipped(content: bytearray, random: np.random.Generator) -> bytearray:
    for at in random.integers(0, min(len(content), HEADER_BYTES), random.integers(1, 20)):
        content[at] ^= 1 << int(random.integers(8))
    return content


def extreme(content: bytearray, random: np.random.Generator) -> bytearray:
    at, value = int(random.integers(0, min(len(content) - 4, 256))), EXTREMES[int(random.integers(len(EXTREMES)))]
    content[at : at + 4] = value.to_bytes(4, "little" if random.integers(2) else "big")
    return content


def cut(content: bytearray, random: np.random.Generator) -> bytearray:
    return content[: int(random.integers(0, len(content)))]


def inserted(content: bytearray, random: np.random.Generator) -> bytearray:
    at = int(random.integers(0, len(content)))
    return content[:at] + bytearray(random.bytes(int(random.integers(1, 400)))) + content[at:]


def joined(content: bytearray, random: np.random.Generator) -> bytearray:
    return content + content[int(random.integers(0, 64)) :]


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (flipped, extreme, cut, inserted, joined)


def main() -> None:
    """Prints and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random, good = np.random.default_rng(args.seed), list(sources().items())
    with tempfile.TemporaryDirectory() as folder:
        inputs, output = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        for number in range(args.files):
            name, content = good[number % len(good)]
            mutate = MUTATIONS[int(random.integers(len(MUTATIONS)))]
            (inputs / f"{number:05d}-{mutate.__name__}-{name}").write_bytes(bytes(mutate(bytearray(content), random)))
        before = time.perf_counter()
        audiomill.run(
            "transcribe",
            str(inputs),
            output=str(output),
            model="fake://",
            segment="none",
            quiet=True,
            decode_timeout=5.0,
        )
        seconds = time.perf_counter() - before
        told = [
            row
            for table in ("recordings", "rejections")
            for path in sorted((output / table).glob("*.parquet"))
            for row in pq.read_table(path).to_pylist()
        ]
        named = {Path(row["source"]).name for row in told}
        missing = sorted(path.name for path in inputs.iterdir() if path.name not in named)
        unbalanced = [
            row["source"]
            for row in told
            if "duration_s" in row
            and abs(row["speech_s"] + row["non_speech_s"] + row["failed_s"] - row["duration_s"]) > 1e-6
        ]
        reasons = Counter(row.get("reason", "recording") for row in told)
    sandbox.idle.end_all()  # those that wait for the next run are ended with the program
    left = [each for each in psutil.Process().children(recursive=True) if "decode_worker" in " ".join(each.cmdline())]
    result = {
        "files": args.files,
        "seconds": round(seconds, 1),
        "missing": missing,
        "unbalanced": unbalanced,
        "workers_left": len(left),
        "rows": dict(reasons.most_common()),
    }
    for name, value in result.items():
        print(f"{name:>14}: {value}")
    save("fuzz", f"python -m benchmarks.fuzz --files {args.files} --seed {args.seed}", result)


if __name__ == "__main__":
    main()
