"""Sums over the ledger of an output, and the times of one run."""

from __future__ import annotations

import datetime
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiomill.audio.bucketing import padding_waste_pct
from audiomill.config.defaults import SECOND_PASS_LEVEL
from audiomill.models.batch import Difference, largest
from audiomill.models.checkpoint import find_checkpoint
from audiomill.stages.spec import RunSpec
from audiomill.storage import ledger
from audiomill.tables.codes import usage

Summary = dict[str, Any]
MEASURABLE_S = 1.0
"""Shorter work has no speed worth telling: a silent corpus would be a hundred thousand times real time."""
DOUBTFUL_SHARE = 0.2
"""Of the segments: with more there is something wrong with the choice of the model."""
COUNTED = ("num_recordings", "num_segments", "num_rejections", "duration_s", "speech_s", "non_speech_s", "failed_s")


def _only_language(spec: RunSpec) -> str | None:
    """The one language that the models of a run know, if they know one alone."""
    results = [find_checkpoint(task.model, spec.storage_options) for task in spec.tasks if task.requested.transcripts]
    return next((one for result in results if (one := result.family.only_language(Path(result.path)))), None)


def _totals(entries: Sequence[dict[str, Any]], spec: RunSpec) -> dict[str, Any]:
    """Counts over all finished parts of the output."""
    sums = ledger.totals(entries)
    numbers = {name: sums.numbers[name] for name in (*COUNTED, "num_doubtful", "num_special")}
    is_doubtful = numbers["num_doubtful"] > DOUBTFUL_SHARE * numbers["num_segments"]
    return {
        **{name: int(value) if name.startswith("num_") else float(value) for name, value in numbers.items()},
        "only_language": _only_language(spec) if is_doubtful else None,
        "rejections": dict(sums.rejections),
        "bytes": dict(sums.num_bytes),
        "codes_usage": usage(iter(entries)),
        "verification": largest(Difference(**e["verification"]) for e in entries if e["verification"])._asdict(),
    }


def _of_second_model(entries: Sequence[dict[str, Any]], seconds: dict[str, float]) -> dict[str, Any]:
    """What the second model did; takes its seconds out: they are a share of those of the models."""
    num_redone = ledger.totals(entries).fallback_levels[str(SECOND_PASS_LEVEL)]
    return {"second_model_s": round(seconds.pop("infer_second_model", 0.0), 3), "num_redone": num_redone}


def summarise(
    entries: Sequence[dict[str, Any]],
    worked: Mapping[int, float],
    started: float,
    spec: RunSpec,
) -> Summary:
    """Counts of the whole output; times of this run only. Start-up ends when the model is given its first piece.

    Args:
        entries: of the ledger.
        worked: parts that this run worked, and the seconds of audio that each gained by it.
        started: seconds since 1970.
        spec: the run.
    """
    wall_s = time.time() - started
    here = [entry for entry in entries if entry["part"] in worked]
    audio_s = sum(worked.values())
    startup_s = min([wall_s, *(max(0.0, (entry["began"] or started + wall_s) - started) for entry in here)])
    seconds: dict[str, float] = defaultdict(float, ledger.totals(here).seconds)
    num_halved = int(seconds.pop("infer_halved_batches", 0.0))
    real, padded = seconds.pop("infer_real_audio", 0.0), seconds.pop("infer_padded_audio", 0.0)
    busy_of = max(wall_s - startup_s, MEASURABLE_S)
    return {
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **_totals(entries, spec),
        **_of_second_model(entries, seconds),
        "num_parts_this_run": len(worked),
        "audio_s_this_run": audio_s,
        "wall_s": wall_s,
        "startup_s": startup_s,
        "x_real_time": audio_s / busy_of,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "num_halved_batches": num_halved,
        "padding_waste_pct": padding_waste_pct(real, padded),
        "device_busy_pct": min(100.0, 100.0 * seconds["infer"] / (busy_of * spec.engine.num_actors)),
        "device": spec.device,
        "precision": spec.precisions[0],
        "engine": spec.engine.engine,
    }
