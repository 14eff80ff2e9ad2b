"""Runs the real stages on a sample of a corpus, on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from rich.console import Console

from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.config.forecast import ForecastConfig
from audiomill.config.jobs import JobConfig
from audiomill.config.stages import DecodeConfig
from audiomill.forecast.cascade import Cascade, cascade_of
from audiomill.forecast.rates import (
    BatchSize,
    Budget,
    Point,
    best,
    curve,
    piece_seconds,
    search_batch_size,
    seconds_for,
)
from audiomill.forecast.sizes import Growth, growth
from audiomill.forecast.strata import Drawn
from audiomill.models.device import device_name, usable_cores
from audiomill.models.load import load_tasks
from audiomill.runs.engine import open_engine
from audiomill.runs.job import run_job
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.sources.entry import Entries, Entry, Sidecar
from audiomill.sources.listing import Listing
from audiomill.stages.cut import cut_part
from audiomill.stages.sandbox import Decoder
from audiomill.stages.spec import RunSpec
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.outputs import table_names
from audiomill.watch.meter import BEFORE_INFER
from audiomill.watch.summary import Summary

_NUM_PARTS = 6
"""Of the sample run: decoding runs ahead of the models from the second one on, and it can end after any."""
MAX_CONTENTION = 1.5
UNSURE_S = 5.0
"""A comparison of less than this is mostly noise, and is believed less."""
NO_LIMIT = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the sample told. `rows`: of the sampled recordings, see `_outcomes`; `stage_s`: seconds of each stage before
    the models for a second of audio; `opening_s`: until a new decode process is at work; `fixed_s`: before the first part
    is decoded; `contention`: how much slower the
    models ran beside the decoders than alone; `growth`: of each table, see `audiomill.forecast.sizes`; `is_cut`: time was
    over before the sample was; `cascade`: of the second model."""

    device: str
    machine: str
    precision: str
    engine: str
    cores: int
    rows: list[dict[str, Any]]
    audio_s: float
    model_s: float
    stage_s: dict[str, float]
    opening_s: float
    fixed_s: float
    points: list[Point]
    contention: float
    tried: list[BatchSize]
    batch_seconds: float
    best_batch_seconds: float
    growth: dict[str, Growth]
    part_seconds: float
    is_cut: bool
    cascade: Cascade | None = None


class _Ran(NamedTuple):
    """What the run of the sample left: its summary, its tables and its ledger entries."""

    summary: Summary
    tables: dict[str, pa.Table]
    entries: list[dict[str, Any]]


class _Timed(NamedTuple):
    """What the stages did one after the other; `default`: seconds of the batch that a run would take."""

    spec: RunSpec
    stage_s: dict[str, float]
    opening_s: float
    model_s: float
    points: list[Point]
    tried: list[BatchSize]
    default: float


def measure(
    config: JobConfig, drawn: Sequence[Drawn], wanted: ForecastConfig, import_s: float, console: Console
) -> Measured:
    """Runs the sample through the engine once, then the stages alone on some of it: no longer than that again.

    Args:
        config: the job; its output is not touched.
        drawn: the sample.
        wanted: whether batch sizes are tried, and how long all may take.
        import_s: what a run in a fresh process spends on loading libraries, and this one no longer does.
        console: is told what goes on.
    """

    def log(text: str) -> None:
        if not config.output.quiet:
            console.print(text, highlight=False, soft_wrap=True)

    deadline = time.monotonic() + wanted.limit_seconds
    entries = [_entry(each) for each in drawn]
    ran = _through_the_engine(config, drawn, entries, log, lambda: time.monotonic() > deadline)
    measured_ids = {id for name in ("recordings", "rejections") for id in ran.tables[name].column("id").to_pylist()}
    is_cut = len(measured_ids) < len(entries)
    drawn = [each for each, entry in zip(drawn, entries, strict=True) if entry.id in measured_ids]
    entries = [entry for entry in entries if entry.id in measured_ids]
    if is_cut:
        log(f"--limit-seconds {wanted.limit_seconds:g} is over: forecasting from {len(entries)} recordings")
    budget = min(ran.summary["seconds"].get("infer", 0.0), max(0.0, deadline - time.monotonic()))
    alone = _alone(config, entries, Budget(budget), wanted.search, log)
    outcomes = _outcomes(drawn, entries, ran.tables, config.plan.storage_options)
    return _measured(config, ran, alone, outcomes, import_s, is_cut)


def _measured(
    config: JobConfig, ran: _Ran, alone: _Timed, outcomes: list[dict[str, Any]], import_s: float, is_cut: bool
) -> Measured:
    """What a run of the sample and its stages alone say together."""
    ids = ran.tables["recordings"].column("id").to_pylist()
    audio_s = max(ran.summary["duration_s"], 1e-9)
    return Measured(
        device=alone.spec.device,
        machine=device_name(alone.spec.device),
        precision=alone.spec.precisions[0],
        engine=config.engine.engine,
        cores=usable_cores(),
        rows=outcomes,
        audio_s=audio_s,
        model_s=alone.model_s,
        stage_s={**alone.stage_s, "write": ran.summary["seconds"].get("write", 0.0) / audio_s},
        opening_s=alone.opening_s,
        fixed_s=import_s + _fixed(ran.summary, ran.entries, alone.stage_s, alone.opening_s),
        points=alone.points,
        contention=_contention(ran.entries, alone.points, len(alone.spec.tasks)),
        tried=alone.tried,
        batch_seconds=alone.default,
        best_batch_seconds=best(alone.tried, alone.default),
        growth={name: growth(table, _key(name), ids) for name, table in ran.tables.items()},
        part_seconds=alone.spec.part_seconds,
        is_cut=is_cut,
        cascade=cascade_of(ran.tables, ran.summary),
    )


def _through_the_engine(
    config: JobConfig,
    drawn: Sequence[Drawn],
    entries: Sequence[Entry],
    log: Callable[[str], None],
    enough: Callable[[], bool],
) -> _Ran:
    """The job on the sample, in a folder that goes away."""
    total = sum(entry.span_duration_s or each.row["planned_s"] for entry, each in zip(entries, drawn, strict=True))
    log(f"running {len(entries)} recordings, about {total / 60:.1f} min, through the engine")
    with tempfile.TemporaryDirectory(prefix="audiomill-plan-") as folder, open(os.devnull, "w") as nowhere:
        output = Place(str(Path(folder) / "out"))
        sample = _for_sample(config, output.url, total)
        summary = run_job(sample, Console(file=nowhere), Listing(Entries(entries)), enough)
        names = [name for name in table_names() if output.join(name).names()]
        tables = {name: ledger.tables(output, name) for name in names}
        return _Ran(summary, tables, list(ledger.entries(output)))


def _alone(
    config: JobConfig, entries: Sequence[Entry], budget: Budget, do_search: bool, log: Callable[[str], None]
) -> _Timed:
    """Decoding, then the models, with nothing beside them."""
    engine = dataclasses.replace(config.engine, engine="local")
    with open_engine(dataclasses.replace(config, engine=engine)) as opened:
        spec, _ = resolve_run(config, resolve_tasks(config), opened.device, opened.features)
    log("loading the model")
    loaded = load_tasks(spec.tasks, config.plan.storage_options)
    piece, stage_s, opening_s = _decoded(entries, spec)
    has_audio = bool(piece.column("segments")[0].as_py())
    points = curve(piece, loaded, spec, budget, log) if has_audio else [Point(1.0, 0.0)]
    tried = search_batch_size(piece, loaded, spec, budget, log) if do_search and has_audio else []
    default = seconds_from_samples(spec.tasks[0].batch_samples)
    return _Timed(spec, stage_s, opening_s, piece_seconds(piece), points, tried, default)


def _for_sample(config: JobConfig, output: str, total_s: float) -> JobConfig:
    """The job on this machine, in a folder of its own, in a few parts."""
    return dataclasses.replace(
        config,
        plan=dataclasses.replace(config.plan, part_seconds=max(1.0, total_s / _NUM_PARTS)),
        engine=dataclasses.replace(config.engine, array_task=None, verify_segments=0),
        output=dataclasses.replace(
            config.output, output=output, quiet=True, strict=False, overwrite=False, retry_rejected=False
        ),
        watch=dataclasses.replace(config.watch, metrics=None, traces=None, report=False),
    )


def _entry(drawn: Drawn) -> Entry:
    row = drawn.row
    fields = {name: row[name] for name in Entry._fields if name in row and name != "sidecars"}
    sidecars = tuple(Sidecar(**each) for each in row["sidecars"] or ()) or None
    entry = Entry(**fields, sidecars=sidecars)
    if drawn.seconds is None:
        return entry
    return entry._replace(span_start_s=drawn.start_s, span_duration_s=drawn.seconds, reference=None)


def _decoded(entries: Sequence[Entry], spec: RunSpec) -> tuple[pa.Table, dict[str, float], float]:
    """The whole sample as one piece, seconds of each stage for a second of audio, and what opening a decoder costs."""
    rows = [{**entry._asdict(), "id": entry.id, "sidecars": None} for entry in entries]
    decoder = Decoder(spec.decode, spec.segments, spec.storage_options)
    try:
        before = time.perf_counter()
        cold = list(cut_part(0, rows[:1], decoder, NO_LIMIT))
        between = time.perf_counter()
        warm = list(cut_part(0, rows[:1], decoder, NO_LIMIT))
        opening_s = max(0.0, (between - before) - (time.perf_counter() - between))
        assert len(cold) == len(warm) == 1
        (piece,) = cut_part(0, rows, decoder, NO_LIMIT)
    finally:
        decoder.close()
    audio = sum(ending["num_samples"] for ending in piece.column("endings")[0].as_py())
    seconds = dict(piece.column("seconds")[0].as_py())
    audio_s = max(seconds_from_samples(audio), 1e-9)
    return piece, {stage: seconds.get(stage, 0.0) / audio_s for stage in BEFORE_INFER}, opening_s


def _outcomes(
    drawn: Sequence[Drawn], entries: Sequence[Entry], tables: dict[str, pa.Table], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """What became of each sampled recording: stratum, planned and true seconds, speech, language, or why rejected."""
    recordings = {row["id"]: row for row in tables["recordings"].to_pylist()}
    rejected = {row["id"]: row["reason"] for row in tables["rejections"].to_pylist()}
    with contextlib.closing(Decoder(DecodeConfig(), whole_spec(1.0), options)) as decoder:
        true = [
            _true_seconds(each, recordings.get(entry.id), entry, decoder)
            for each, entry in zip(drawn, entries, strict=True)
        ]
    outcomes = []
    for each, entry, true_s in zip(drawn, entries, true, strict=True):
        row = recordings.get(entry.id)
        outcomes.append(
            {
                "stratum": each.stratum,
                "planned_s": each.row["planned_s"],
                "true_s": true_s,
                "measured_s": 0.0 if row is None else row["duration_s"],
                "speech_s": 0.0 if row is None else row["speech_s"],
                "failed_s": 0.0 if row is None else row["failed_s"],
                "num_segments": 0 if row is None else row["num_segments"],
                "language": None if row is None else row["language"],
                "reason": rejected.get(entry.id),
            }
        )
    return outcomes


def _true_seconds(each: Drawn, row: dict[str, Any] | None, entry: Entry, decoder: Decoder) -> float:
    """How long the recording really is: decoded, where the whole of it was; else by its header."""
    if row is None:
        return 0.0
    if each.seconds is None:
        return float(row["duration_s"])
    known = each.row["span_duration_s"] or each.row["duration_s"]
    if known is not None:
        return float(known)
    (result,) = decoder.durations([entry._asdict()])
    return result or each.row["planned_s"]


def _fixed(summary: Summary, ran: Sequence[dict[str, Any]], stage_s: dict[str, float], opening_s: float) -> float:
    """Start-up of the run, less the decoding of the part that the models were given first."""
    first = min((entry for entry in ran if entry["began"]), key=lambda entry: entry["began"], default=None)
    decoding = sum(stage_s[stage] for stage in BEFORE_INFER)
    startup: float = summary["startup_s"]
    return max(0.0, startup - (decoding * first["duration_s"] + opening_s if first else 0.0))


def _contention(ran: Sequence[dict[str, Any]], points: Sequence[Point], num_models: int) -> float:
    """Infer seconds of the run against the same amounts of audio alone. The first part is left out: it pays for what
    happens once."""
    later = sorted((entry for entry in ran if entry["began"]), key=lambda entry: entry["began"])[1:]
    amounts = [entry["seconds"].get("infer_real_audio", 0.0) / num_models for entry in later]
    alone = sum(seconds_for(points, amount) for amount in amounts)
    together: float = sum(entry["seconds"].get("infer", 0.0) for entry in later)
    if not alone > 0:
        return 1.0
    trust = together / (together + UNSURE_S)
    return 1.0 + trust * min(MAX_CONTENTION - 1.0, max(0.0, together / alone - 1.0))


def _key(table: str) -> str:
    return "id" if table in ("recordings", "rejections") else "recording_id"
