"""Running jobs in tests: configurations, and what an output holds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console

from audiomill import schema
from audiomill.config.fields import build
from audiomill.config.jobs import EmbedConfig, EncodeConfig, JobConfig, TranscribeConfig
from audiomill.config.run import EngineConfig, OutputConfig
from audiomill.config.stages import DecodeConfig, ModelConfig, PlanConfig, SegmentConfig
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import RequestedOutputs
from audiomill.models.load import load_speech_model
from audiomill.runs.job import run_job
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.outputs import table_names

__all__ = ["DecodeConfig", "EngineConfig", "ModelConfig", "OutputConfig", "PlanConfig", "SegmentConfig"]


KINDS = {"transcribe": TranscribeConfig, "embed": EmbedConfig, "encode": EncodeConfig}


def job(inputs: Any, output: Any, kind: str = "transcribe", **options: Any) -> JobConfig:
    """A job's configuration by flat option names; quiet, local engine, fake model and no verification (two seconds a run with
    real weights) by default."""
    values = {
        "engine": "local",
        "model": "fake://",
        "quiet": True,
        "verify_segments": 0,
        "output": str(output),
    } | options
    values = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    names = (str(inputs),) if isinstance(inputs, (str, Path)) else tuple(map(str, inputs))
    config: Any = build(KINDS[kind], {"inputs": names, **values})
    found: JobConfig = config.job()
    return found


def run(inputs: Any, output: Any, kind: str = "transcribe", **options: Any) -> dict[str, Any]:
    """Runs `job` in this process."""
    return run_job(job(inputs, output, kind, **options), Console(quiet=True))


def loaded(model: Any, precision: str = "fp32", **requested: Any) -> Any:
    """A model on CPU, asked for `requested` (transcripts by default)."""
    config = ModelConfig(model=str(model), device="cpu", precision=precision)
    wanted = RequestedOutputs(**(requested or {"transcripts": TranscriptConfig()}))
    return load_speech_model(config, wanted)


def rows(output: Any, table: str, **options: Any) -> list[dict[str, Any]]:
    """All rows of an output table."""
    found: list[dict[str, Any]] = ledger.tables(Place(str(output), options), table).to_pylist()
    return found


def part_files(output: Path) -> dict[str, str]:
    """Hash of every part file and of the plan, by name."""
    files = [path for name in table_names() for path in (output / name).glob("*.parquet")] + list(
        output.glob("plan*.parquet")
    )
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_accounts(output: Any, **options: Any) -> None:
    """Law 1: every planned recording is in exactly one of two tables, every second in one of three columns."""
    plan = ledger.load_plan(Place(str(output), options))
    assert plan is not None
    recordings, rejections = rows(output, "recordings", **options), rows(output, "rejections", **options)
    kept, dropped = [r["id"] for r in recordings], [r["id"] for r in rejections]
    assert sorted(kept + dropped) == sorted(plan.column("id").to_pylist())
    for row in recordings:
        assert abs(row["speech_s"] + row["non_speech_s"] + row["failed_s"] - row["duration_s"]) < 1e-9
        assert min(row["speech_s"], row["non_speech_s"], row["failed_s"]) >= 0
    assert {s["recording_id"] for s in rows(output, "segments", **options)} <= set(kept)
    assert all(r["reason"] in schema.REASONS and r["stage"] in ("plan", "read", "decode", "infer") for r in rejections)
