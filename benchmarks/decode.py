"""How fast one core reads, decodes, resamples and segments, by format: x real time, median of several runs."""

from __future__ import annotations

import argparse
import io
import statistics
import time

import numpy as np
import soundfile
import soxr

from audiomill.audio.cutting.segmenter import spec_from_seconds
from audiomill.audio.recording import RecordingSpec, StageClock, cut_recording
from audiomill.config.defaults import SPEECH_SEGMENT_S
from audiomill.config.stages import SegmentConfig
from benchmarks.record import save
from benchmarks.speech import RATE, voices

SECONDS = 600
FORMATS = [
    ("FLAC 16 kHz", "FLAC", 16_000),
    ("WAV 16 kHz", "WAV", 16_000),
    ("MP3 16 kHz", "MP3", 16_000),
    ("Vorbis 16 kHz", "OGG", 16_000),
    ("FLAC 44.1 kHz", "FLAC", 44_100),
    ("MP3 44.1 kHz", "MP3", 44_100),
]


def main() -> None:
    """Prints and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    speech = np.concatenate([w for w, _ in voices()])
    speech = np.tile(speech, int(SECONDS * RATE / len(speech)) + 1)[: SECONDS * RATE]
    spec = RecordingSpec(channels="mix", start_s=None, duration_s=None, min_s=0.1, max_s=1e6)
    segments, rows = spec_from_seconds(SegmentConfig(), "vad", SPEECH_SEGMENT_S), []
    print(f"{'format':>14} {'decode+resample':>16} {'voice activity':>15} {'all':>7}   (x real time on one core)")
    for name, kind, rate in FORMATS:
        sink = io.BytesIO()
        with soundfile.SoundFile(sink, "w", rate, 1, format=kind) as file:
            for chunk in np.array_split(
                soxr.resample(speech, RATE, rate), SECONDS
            ):  # libsndfile's Vorbis writer overflows on large blocks
                file.write(chunk)
        runs = []
        for _ in range(args.repeat):
            clock, started = StageClock(), time.perf_counter()
            for _ in cut_recording(io.BytesIO(sink.getvalue()), spec, segments, clock):
                pass
            total = time.perf_counter() - started
            runs.append(
                [
                    SECONDS / (clock.seconds["decode"] + clock.seconds["resample"]),
                    SECONDS / clock.seconds["segment"],
                    SECONDS / total,
                ]
            )
        decode, segment, both = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name:>14} {decode:>16,.0f} {segment:>15,.0f} {both:>7,.0f}")
        rows.append(
            {
                "format": name,
                "decode_resample_x": round(decode),
                "voice_activity_x": round(segment),
                "all_x": round(both),
            }
        )
    save("decode", "python -m benchmarks.decode", rows)


if __name__ == "__main__":
    main()
