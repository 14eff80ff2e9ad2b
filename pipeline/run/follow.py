"""How far a job is, from its ledger alone: from any machine that can read the output."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError
from pipeline.plan import split_by_part
from pipeline.storage import ledger
from pipeline.storage.fs import Place

RECENT_S = 900.0
"""Speed is that of the parts finished this long before the latest one."""


@dataclass
class Follower:
    """Reads only the ledger entries that are new since the last look.

    Raises:
        InputError: nobody planned anything there (yet).
    """

    output: Place
    planned_s: dict[int, float] = field(default_factory=dict)
    finished: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    rejections: Counter[str] = field(default_factory=Counter)
    plan_names: list[str] = field(default_factory=list)

    def look(self, now: float) -> dict[str, Any]:
        """What is done and what is left; times in seconds since 1970."""
        self._read_plan()
        done = ledger.done_parts(self.output)
        for entry in ledger.entries(self.output, sorted(done - self.finished.keys())):
            at = datetime.datetime.fromisoformat(entry["finished"]).timestamp()
            self.finished[entry["part"]] = (at, entry["duration_s"], entry["began"] or at)
            self.rejections.update(entry["rejections"])
        audio_s = sum(seconds for _, seconds, _ in self.finished.values())
        planned_s, done_s = sum(self.planned_s.values()), sum(self.planned_s.get(part, 0.0) for part in self.finished)
        speed, last = self._speed()
        return {
            "parts": len(self.planned_s),
            "parts_done": len(self.finished),
            "planned_hours": planned_s / 3600,
            "done_hours": audio_s / 3600,
            "x_real_time": speed,
            "eta_s": (planned_s - done_s) / speed if speed and planned_s > done_s else None,
            "rejections": dict(self.rejections.most_common()),
            "last_part_s_ago": None if last is None else max(0.0, now - last),
            "is_complete": self.output.join("_SUCCESS").exists(),
        }

    def _read_plan(self) -> None:
        names = ledger.plan_files(self.output)
        if names == self.plan_names:
            return
        plan = ledger.load_plan(self.output, names)
        assert plan is not None
        parts = split_by_part(plan)
        self.planned_s = {part: sum(rows.column("planned_s").to_pylist()) for part, rows in parts.items()}
        self.plan_names = names

    def _speed(self) -> tuple[float, float | None]:
        """Audio seconds a second lately, and when the last part was finished."""
        if not self.finished:
            return 0.0, None
        last = max(at for at, _, _ in self.finished.values())
        recent = [each for each in self.finished.values() if last - each[0] <= RECENT_S]
        first = min(began for _, _, began in recent)
        return sum(seconds for _, seconds, _ in recent) / max(1.0, last - first), last


def check_planned(output: Place) -> None:
    """Raises InputError for a folder that no run has planned."""
    if not ledger.plan_files(output):
        raise InputError(f"{output.url}: no plan.parquet; expected the --output of a run that has started")
