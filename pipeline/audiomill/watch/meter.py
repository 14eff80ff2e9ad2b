"""What a run has done so far, as numbers: the one source of progress lines, metrics and logs."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audiomill import schema
from audiomill.audio.bucketing import padding_waste_pct

_FALLBACK_LEVELS = tuple("012345")
"""Values of `segments.fallback_level`."""
BEFORE_INFER = ("read", "decode", "resample", "segment")
STAGES = (*BEFORE_INFER, "infer", "write")


class Metric(NamedTuple):
    """One of our metrics. `kind`: counter or gauge; `label`: the one it has, if any."""

    name: str
    kind: str
    meaning: str
    label: str = ""


METRICS = (
    Metric("audiomill_audio_seconds_in_total", "counter", "audio decoded, in seconds"),
    Metric("audiomill_audio_seconds_out_total", "counter", "audio in segments that models answered, in seconds"),
    Metric("audiomill_x_real_time", "gauge", "audio seconds a second, since the first part began"),
    Metric("audiomill_parts", "gauge", "parts planned for this run, done, and failed for now", "state"),
    Metric("audiomill_recordings_total", "counter", "recordings finished, rejected ones not counted"),
    Metric("audiomill_segments_total", "counter", "segments finished"),
    Metric("audiomill_rejections_total", "counter", "recordings rejected", "reason"),
    Metric("audiomill_padding_waste_ratio", "gauge", "share of the seconds in batches that is padding"),
    Metric("audiomill_device_busy_ratio", "gauge", "share of their time that models compute"),
    Metric("audiomill_queue_depth", "gauge", "parts or pieces that wait for a stage", "stage"),
    Metric("audiomill_stage_seconds_total", "counter", "seconds spent in a stage, all workers together", "stage"),
    Metric(
        "audiomill_fallback_levels_total", "counter", "segments by the attempt that gave their text", "fallback_level"
    ),
    Metric("audiomill_bytes_in_total", "counter", "encoded audio read, where its size is known"),
    Metric("audiomill_bytes_out_total", "counter", "tables written", "table"),
    Metric("audiomill_eta_seconds", "gauge", "time left at the speed so far"),
)
"""Every metric of a run; Ray's exporter puts `ray_` before the names."""


class StageCounts:
    """How often something went into a stage and came out of it, told by workers anywhere.

    Args:
        num_parts: of the run.
    """

    def __init__(self, num_parts: int) -> None:
        self._num_parts = num_parts
        self._counts: Counter[tuple[str, str]] = Counter()

    def passed(self, stage: str, way: str) -> None:
        """`way`: in or out."""
        self._counts[stage, way] += 1

    def waiting(self) -> dict[str, int]:
        """Parts before the decoders, pieces before the models and before the writers."""
        counts = self._counts
        results = {
            "decode": self._num_parts - counts["decode", "in"],
            "infer": counts["decode", "out"] - counts["infer", "in"],
            "write": counts["infer", "out"] - counts["write", "in"],
        }
        return {stage: max(0, count) for stage, count in results.items()}


@dataclass
class Meter:
    """Sums over the parts that a run finished. `planned_s`: seconds of audio by part; `bytes_in`: encoded, by part."""

    planned_s: Mapping[int, float]
    bytes_in: Mapping[int, int] = field(default_factory=dict)
    actors: int = 1
    started: float = field(default_factory=time.time)
    first_began: float | None = None
    parts_done: int = 0
    parts_failed: int = 0
    planned_done_s: float = 0.0
    bytes_read: int = 0
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    rejections: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(schema.REASONS, 0)))
    fallback_levels: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_FALLBACK_LEVELS, 0)))
    bytes_out: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, int] = field(default_factory=lambda: {"decode": 0, "infer": 0, "write": 0})

    def part_done(self, entry: Mapping[str, Any]) -> None:
        """Counts a finished part by its ledger entry."""
        part = int(entry["part"])
        self.parts_done += 1
        self.planned_done_s += self.planned_s.get(part, 0.0)
        self.bytes_read += self.bytes_in.get(part, 0)
        for name, value in entry.items():
            if name.startswith("num_") or name.endswith("_s"):
                self.sums[name] += value
        for stage, value in entry["seconds"].items():
            self.seconds[stage] += value
        self.rejections.update(entry["rejections"])
        self.fallback_levels.update(entry["fallback_levels"])
        self.bytes_out.update(entry["bytes"])
        if entry["began"] is not None:
            self.first_began = min(self.first_began or entry["began"], entry["began"])

    @property
    def elapsed_s(self) -> float:
        """Since the models were given their first piece, or since the start."""
        return max(1e-9, time.time() - (self.first_began or self.started))

    @property
    def x_real_time(self) -> float:
        return self.sums["duration_s"] / self.elapsed_s if self.parts_done else 0.0

    @property
    def eta_s(self) -> float:
        """Of what is planned, at the speed so far; 0 before the first part."""
        left = max(0.0, sum(self.planned_s.values()) - self.planned_done_s)
        return self.elapsed_s * left / self.planned_done_s if self.planned_done_s else 0.0

    def values(self) -> Iterator[tuple[str, str, float]]:
        """Every metric of `METRICS`: name, value of its label, value."""
        sums, seconds = self.sums, self.seconds
        padded = seconds.get("infer_padded_audio", 0.0)
        yield "audiomill_audio_seconds_in_total", "", sums["duration_s"] - sums["failed_s"]
        yield "audiomill_audio_seconds_out_total", "", sums["speech_s"]
        yield "audiomill_x_real_time", "", self.x_real_time
        yield "audiomill_parts", "planned", len(self.planned_s)
        yield "audiomill_parts", "done", self.parts_done
        yield "audiomill_parts", "failed", self.parts_failed
        yield "audiomill_recordings_total", "", sums["num_recordings"]
        yield "audiomill_segments_total", "", sums["num_segments"]
        yield from (("audiomill_rejections_total", reason, count) for reason, count in self.rejections.items())
        yield (
            "audiomill_padding_waste_ratio",
            "",
            padding_waste_pct(seconds.get("infer_real_audio", 0.0), padded) / 100,
        )
        yield (
            "audiomill_device_busy_ratio",
            "",
            min(1.0, seconds.get("infer", 0.0) / (self.elapsed_s * self.actors)),
        )
        yield from (("audiomill_queue_depth", stage, count) for stage, count in self.waiting.items())
        yield from (("audiomill_stage_seconds_total", stage, seconds.get(stage, 0.0)) for stage in STAGES)
        yield from (
            ("audiomill_fallback_levels_total", fallback_level, count)
            for fallback_level, count in self.fallback_levels.items()
        )
        yield "audiomill_bytes_in_total", "", self.bytes_read
        yield from (("audiomill_bytes_out_total", table, count) for table, count in self.bytes_out.items())
        yield "audiomill_eta_seconds", "", self.eta_s
