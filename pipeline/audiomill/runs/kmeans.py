"""The kmeans job: features stream from the models, a bounded sample of them is kept, a codebook is fitted to it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from audiomill.config.jobs import JobConfig, KmeansJobConfig
from audiomill.config.representations import KmeansConfig
from audiomill.errors import RunError, UsageError
from audiomill.models.checkpoint import checkpoint_fingerprint
from audiomill.models.vectors.requested_outputs import layer_numbers
from audiomill.runs.engine import check_places, open_engine, with_engine
from audiomill.runs.open_run import listing_of
from audiomill.runs.resolve_checkpoints import ResolvedTask, resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.sources.entry import Entries
from audiomill.stages.failures import failure_of
from audiomill.stages.plan import header_durations, planned_table
from audiomill.stages.sample import Reservoir, sample_of
from audiomill.stages.spec import RunSpec
from audiomill.storage.fs import Place
from audiomill.storage.ledger import split_by_part
from audiomill.storage.urls import absolute, without_credentials
from audiomill.watch.progress import RunProgress

SURPLUS = 1.3
"""More frames than wanted are drawn, because planned durations are estimates at times; the surplus is dropped."""
TELL_EVERY_S = 10.0
_Report = dict[str, Any]


def _check_output(place: Place, job: JobConfig) -> None:
    if not place.url.endswith(".safetensors"):
        raise UsageError(f"--output {job.output.output}: expected a file name that ends with .safetensors")
    if place.exists() and not job.output.overwrite:
        raise UsageError(f"--output {job.output.output}: exists; choose another name or --overwrite it")


def _too_few(num_frames: int, clusters: int, audio_report: _Report) -> UsageError:
    rejected = ", ".join(f"{count} {reason}" for reason, count in audio_report["rejections"].items())
    return UsageError(
        f"--clusters {clusters}: expected at least {2 * clusters} frames to fit on, got {num_frames}"
        f"{f' (rejected: {rejected})' if rejected else ''}; give more audio or fewer clusters"
    )


def fit_codebook(config: KmeansJobConfig, console: Console) -> _Report:
    """Fits a codebook and writes it, with a report beside it (`.json`).

    Args:
        config: the job; `output` names the codebook file.
        console: for progress.

    Returns:
        The report.

    Raises:
        UsageError: an input, the model, an option or the output cannot be used, or there are too few frames.
        RunError: parts could not be read.
    """
    job, kmeans = with_engine(config.job()), config.kmeans
    check_places(job)
    place = Place(absolute(job.output.output), job.plan.storage_options)
    _check_output(place, job)
    entries = _picked(listing_of(job).entries, kmeans)
    (task,) = resolve_tasks(job)
    layer_numbers(str(kmeans.layer), task.shape, "--layer")
    with open_engine(job) as opened:
        engine = opened.module
        spec, _ = resolve_run(job, [task], opened.device, opened.features)
        spec = dataclasses.replace(spec, output=Place(place.url + ".work", job.plan.storage_options))
        durations = header_durations(entries, job.plan.storage_options)
        plan = planned_table(entries, durations, first_part=0, part_seconds=spec.part_seconds)
        if kmeans.audio_hours is not None:
            plan = _first_hours(plan, kmeans.audio_hours)
        try:
            frames, audio_report = _drawn(
                plan,
                spec,
                engine,
                kmeans,
                task.shape.width_of(spec.tasks[0].requested.vectors[0].layer),
                console,
                job.output.quiet,
            )
        finally:
            spec.output.remove(recursive=True)
    if len(frames) < 2 * kmeans.clusters:
        raise _too_few(len(frames), kmeans.clusters, audio_report)
    return _fit(
        frames, audio_report, task, spec, kmeans, place, console if not job.output.quiet else Console(quiet=True)
    )


def _picked(entries: Entries, kmeans: KmeansConfig) -> Entries:
    """In random order where only some hours are wanted."""
    if kmeans.audio_hours is None:
        return entries
    return entries.take(pa.array(np.random.default_rng(kmeans.seed).permutation(len(entries))))


def _first_hours(plan: pa.Table, hours: float) -> pa.Table:
    before = np.cumsum(plan.column("planned_s").to_numpy()) - plan.column("planned_s").to_numpy()
    return plan.filter(pa.array(before < hours * 3600))


def _drawn(
    plan: pa.Table,
    spec: RunSpec,
    engine: ModuleType,
    kmeans: KmeansConfig,
    width: int,
    console: Console,
    quiet: bool,
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], _Report]:
    """The sample of frames, and what it was drawn from."""
    parts = split_by_part(plan)
    planned_s = {part: sum(rows.column("planned_s").to_pylist()) for part, rows in parts.items()}
    expected = max(1.0, sum(planned_s.values()) * spec.tasks[0].frame_rate(spec.tasks[0].requested.vectors[0].layer))
    below = min(1.0, SURPLUS * kmeans.max_frames / expected)
    reservoir, reasons, audio_s = Reservoir(kmeans.max_frames, width), Counter[str](), 0.0
    missing = set(parts)
    with RunProgress(console, sum(planned_s.values()), len(parts), quiet) as progress:
        for sample in engine.run_parts(list(parts.items()), spec, lambda result: sample_of(result, kmeans.seed, below)):
            for number in range(sample.num_rows):
                row = sample.slice(number, 1)
                reservoir.add(row)
                part, seconds = row.column("part")[0].as_py(), row.column("audio_s")[0].as_py()
                values = json.loads(row.column("rejections")[0].as_py())
                reasons.update(values)
                audio_s += seconds
                if row.column("is_last")[0].as_py():
                    missing.discard(part)
                    progress.part_done(seconds, planned_s[part], sum(values.values()))
    if missing:
        why = failure_of(spec.output, min(missing)) or "its workers died"
        raise RunError(
            f"part {min(missing)} failed: {why}; take its recordings out, or see `audiomill embed` for which it is"
        )
    return reservoir.frames(), {"audio_s": audio_s, "rejections": dict(reasons)}


def _fit(
    frames: np.ndarray[Any, np.dtype[np.float32]],
    audio_report: _Report,
    task: ResolvedTask,
    spec: RunSpec,
    kmeans: KmeansConfig,
    place: Place,
    console: Console,
) -> _Report:
    from audiomill.models.codes.codebooks import Codebook, write_codebook
    from audiomill.models.codes.lloyd import best_fit

    reported_at = time.monotonic()

    def on_step(number: int, step: int, inertia: float) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at > TELL_EVERY_S:
            reported_at = time.monotonic()
            console.print(
                f"fit {number + 1}/{kmeans.num_seeds}: step {step} of at most {kmeans.max_iterations}, inertia {inertia:.4f}",
                highlight=False,
                soft_wrap=True,
            )

    seeds = range(kmeans.seed, kmeans.seed + kmeans.num_seeds)
    fit, result = best_fit(frames, kmeans.clusters, seeds, kmeans.max_iterations, spec.device, on_step)
    layer = spec.tasks[0].requested.vectors[0].layer
    codebook = Codebook(
        centroids_VD=fit.centroids_KD,
        layer=layer,
        model=without_credentials(task.config.model.model),
        fingerprint=checkpoint_fingerprint(task.checkpoint),
    )
    write_codebook(place, codebook)
    report = {
        "model": codebook.model,
        "fingerprint": codebook.fingerprint,
        "layer": layer,
        "num_clusters": kmeans.clusters,
        "width": frames.shape[1],
        "num_frames": len(frames),
        "seeds": list(seeds),
        **audio_report,
        **result,
    }
    Place(place.url.removesuffix(".safetensors") + ".json", place.options).write(json.dumps(report, indent=1).encode())
    return report


def kmeans_lines(report: _Report, output: str) -> list[str]:
    """The end of a fit, for people."""
    lines = [
        f"{output}: {report['num_clusters']} clusters of layer {report['layer']} of {report['model']}",
        f"fitted on {report['num_frames']} frames drawn from {report['audio_s'] / 3600:.2f} h of audio",
        f"inertia {report['inertia']:.4f} a frame, {100 * report['inertia'] / max(report['variance'], 1e-30):.1f}% of the variance "
        f"({report['num_steps']} steps{'' if report['has_converged'] else ', not converged: raise --max-iterations'})",
        f"usage: perplexity {report['perplexity']:.1f} of {report['num_clusters']}, {report['num_empty']} empty, "
        f"{report['num_tiny']} tiny clusters",
    ]
    if report["adjusted_rand"] is not None:
        lines.append(
            f"stability over {len(report['seeds'])} seeds: adjusted Rand index {report['adjusted_rand']:.3f} (1: the same clusters)"
        )
    if report["rejections"]:
        lines.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in report["rejections"].items()))
    return lines
