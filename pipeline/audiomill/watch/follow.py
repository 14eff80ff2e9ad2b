"""How far a job is, from its ledger alone: from any machine that can read the output."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from audiomill.errors import InputError
from audiomill.stages.failures import SUFFIX
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.ledger import split_by_part


class Inside(NamedTuple):
    """Of the parts that are not in the ledger yet: segments, and seconds of audio that models have heard."""

    segments: int = 0
    segments_done: int = 0
    audio_done_s: float = 0.0


def inside(output: Place) -> Inside:
    """What the workers of a run have written down; nothing where all pieces are quick."""
    result = Inside()
    for name in output.join("_pieces").names():
        if name.endswith(SUFFIX) and not name.startswith("."):
            try:
                values = json.loads(output.join("_pieces", name).read())
            except (FileNotFoundError, ValueError):  # written and gone while we look
                continue
            result = Inside(
                result.segments + values["segments"],
                result.segments_done + values["segments_done"],
                result.audio_done_s + values["audio_done_s"],
            )
    return result


RECENT_S = 900.0
PARTS_LONG = 3
"""Speed is that of the parts finished in the last quarter of an hour, or in the time that three parts take."""


class Done(NamedTuple):
    """A finished part; times in seconds since 1970."""

    finished: float
    began: float
    duration_s: float
    rejections: dict[str, int]


def expected_left_s(planned_s: float, done_s: float, done_planned_s: float) -> float:
    """Seconds of audio of parts that are left, by what the finished ones were planned with and had."""
    return planned_s * done_s / done_planned_s if done_s > 0 and done_planned_s > 0 else planned_s


@dataclass
class Follower:
    """Reads only the ledger entries that are new since the last look."""

    output: Place
    planned_s: dict[int, float] = field(default_factory=dict)
    entries: dict[int, Done] = field(default_factory=dict)
    plan_names: list[str] = field(default_factory=list)

    def look(self, now: float) -> dict[str, Any]:
        """What is done and what is left; times in seconds since 1970."""
        self._read_plan()
        done = ledger.done_parts(self.output)
        self.entries = {part: entry for part, entry in self.entries.items() if part in done}  # one may be withdrawn
        fresh = sorted(done - self.entries.keys())
        with ThreadPoolExecutor(16) as pool:
            result = zip(fresh, pool.map(self._entry, fresh), strict=True)
            self.entries |= {part: entry for part, entry in result if entry is not None}
        rejections = sum((Counter(each.rejections) for each in self.entries.values()), Counter[str]())
        audio_s = sum(each.duration_s for each in self.entries.values())
        planned_s, done_s = sum(self.planned_s.values()), sum(self.planned_s.get(part, 0.0) for part in self.entries)
        speed, last = self._speed()
        within = inside(self.output)
        return {
            "parts": len(self.planned_s),
            "parts_done": len(self.entries),
            "planned_hours": planned_s / 3600,
            "done_hours": (audio_s + within.audio_done_s) / 3600,
            "inside": within._asdict(),
            "x_real_time": speed,
            "eta_s": expected_left_s(planned_s - done_s, audio_s, done_s) / speed
            if speed and planned_s > done_s
            else None,
            "rejections": dict(rejections.most_common()),
            "last_part_s_ago": None if last is None else max(0.0, now - last),
            "is_complete": self.output.join("_SUCCESS").exists(),
        }

    def _entry(self, part: int) -> Done | None:
        """What the ledger says of a part; None if that was withdrawn since it was listed."""
        try:
            (entry,) = ledger.entries(self.output, [part])
        except FileNotFoundError:
            return None
        at = datetime.datetime.fromisoformat(entry["finished"]).timestamp()
        return Done(at, entry["began"] or at, entry["duration_s"], entry["rejections"])

    def _read_plan(self) -> None:
        names = ledger.plan_files(self.output)
        if names == self.plan_names:
            return
        plan = ledger.load_plan(self.output, names)
        if plan is None:  # somebody starts anew
            self.planned_s, self.plan_names = {}, []
            return
        parts = split_by_part(plan)
        self.planned_s = {part: sum(rows.column("planned_s").to_pylist()) for part, rows in parts.items()}
        self.plan_names = names

    def _speed(self) -> tuple[float, float | None]:
        """Audio seconds a second lately, and when the last part was finished."""
        if not self.entries:
            return 0.0, None
        done = list(self.entries.values())
        last = max(each.finished for each in done)
        window = max(RECENT_S, PARTS_LONG * median(each.finished - each.began for each in done))
        since = max(last - window, min(each.began for each in done))
        audio_s = sum(each.duration_s for each in done if each.finished > since)
        return audio_s / max(1.0, last - since), last


def check_planned(output: Place) -> None:
    """Raises InputError for a folder that no run has planned."""
    if not ledger.plan_files(output):
        raise InputError(f"{output.url}: no plan.parquet; expected the --output of a run that has started")
