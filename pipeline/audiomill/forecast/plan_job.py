"""`audiomill plan`: list, sample, measure, forecast; saved as forecast.json and forecast.html in the output."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

import audiomill
from audiomill.config.forecast import ForecastConfig
from audiomill.config.jobs import JobConfig
from audiomill.errors import InputError
from audiomill.forecast.estimate import Forecast, forecast
from audiomill.forecast.measure import measure
from audiomill.forecast.page import forecast_page
from audiomill.forecast.sizes import forms_note
from audiomill.forecast.strata import Drawn, draw, strata_of
from audiomill.models.device import num_devices, resolve_device
from audiomill.models.precision import cpu_features
from audiomill.runs.engine import check_places, with_engine
from audiomill.runs.open_run import listing_of, with_access
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.stages.plan import header_durations, part_seconds_for, planned_table
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute, without_credentials

SHARE, LEAST_S, MOST_S = 0.001, 300.0, 3600.0
"""Of the sample, when nothing is said."""
FOR_STRATA = ["id", "source", "member", "kind", "planned_s", "duration_s", "span_start_s", "span_duration_s", "reason"]
FORECAST_FILE, PAGE_FILE = "forecast.json", "forecast.html"


def plan_job(config: JobConfig, wanted: ForecastConfig, console: Console) -> Forecast:
    """Forecasts a job.

    Args:
        config: the job; only forecast.json and forecast.html are written to its output.
        wanted: sample, machines and prices.
        console: for what goes on.

    Raises:
        UsageError: as for the run.
        InputError: nothing in the inputs can be read.
    """
    config = with_engine(config)
    check_places(config)
    output = Place(absolute(config.output.output), config.plan.storage_options)
    listing = listing_of(config)
    times = []
    for _ in range(2):  # the first time loads libraries
        before = time.perf_counter()
        spec, _ = resolve_run(
            config, resolve_tasks(config), resolve_device(config.tasks[0].model.device), cpu_features()
        )
        times.append(time.perf_counter() - before)
    config = with_access(config, listing)
    durations = header_durations(listing.entries, config.plan.storage_options)
    part_seconds = config.plan.part_seconds or part_seconds_for(listing.entries, durations, spec.device)
    plan = planned_table(listing.entries, durations, first_part=0, part_seconds=min(part_seconds, spec.part_seconds))
    strata = strata_of(plan.select(FOR_STRATA).to_pylist())
    total = sum(row["planned_s"] for rows in strata.values() for row in rows)
    if not total:
        raise InputError(f"{', '.join(config.inputs)}: nothing to measure: every recording is refused by its listing")
    seconds = wanted.sample_minutes * 60 if wanted.sample_minutes else min(max(SHARE * total, LEAST_S), MOST_S)
    if not config.output.quiet:
        size = f"{plan.num_rows} recordings, about {total / 3600:.2f} h, {len(strata)} strata"
        console.print(f"{size}; sampling {min(seconds, total) / 60:.1f} min", highlight=False, soft_wrap=True)
    config = _for_this_machine(config)
    drawn = _with_whole_rows(draw(strata, seconds, wanted.seed), plan)
    measured = measure(config, drawn, wanted, max(0.0, times[0] - times[1]), console)
    if not measured.audio_s > 1e-6 or not measured.model_s:
        warning = "warning: the sample holds nothing for the models; try --sample-minutes with more"
        console.print(warning, highlight=False)
    result = forecast(plan, strata, measured, wanted, config.engine.num_actors)
    if measured.is_cut:
        minutes = f"{measured.audio_s / 60:.1f} min"
        result["notes"].append(
            f"--limit-seconds {wanted.limit_seconds:g} was over before the sample was: made from {minutes} of it"
        )
    if spec.segments.forms:
        result["notes"].append(forms_note(spec))
    return _save(result, config, output)


def _save(result: Forecast, config: JobConfig, output: Place) -> Forecast:
    """Writes a forecast with the job that it is of, as JSON and as a page."""
    result["job"] = config.name
    result["models"] = [without_credentials(task.model.model) for task in config.tasks]
    result["inputs"] = [without_credentials(url) for url in config.inputs]
    result["audiomill"] = audiomill.__version__
    output.join(FORECAST_FILE).write(json.dumps(result, indent=1).encode())
    output.join(PAGE_FILE).write(forecast_page(result).encode())
    return result


def _with_whole_rows(drawn: Sequence[Drawn], plan: pa.Table) -> list[Drawn]:
    """The sample with all columns of the plan: of a few rows, not of millions."""
    ids = pa.array([each.row["id"] for each in drawn], pa.string())
    rows = {row["id"]: row for row in plan.filter(pc.is_in(plan.column("id"), value_set=ids)).to_pylist()}
    return [each._replace(row=rows[each.row["id"]]) for each in drawn]


def _for_this_machine(config: JobConfig) -> JobConfig:
    """A session of its own, and no more model workers than there are devices."""
    actors = min(config.engine.num_actors, num_devices(resolve_device(config.tasks[0].model.device)))
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, actors=actors, ray_address="local"))


def saved_forecast(output: Place) -> Forecast | None:
    """What was forecast for this output, if anything was."""
    place = output.join(FORECAST_FILE)
    if not place.exists():
        return None
    try:
        values = json.loads(place.read())
    except ValueError:
        return None
    return values if isinstance(values, dict) and "wall_s_here" in values else None


def is_of(result: Forecast, config: JobConfig) -> bool:
    """Whether a forecast was made for these inputs and models."""
    inputs = [without_credentials(url) for url in config.inputs]
    models = [without_credentials(task.model.model) for task in config.tasks]
    return bool(result.get("inputs") == inputs and result.get("models") == models and result.get("job") == config.name)


def compare_with_outcome(result: Forecast, summary: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Forecast against outcome of a whole run: name, forecast, outcome."""
    hours = summary["duration_s"] / 3600
    rows = [
        ("hours of audio", result["hours"], hours),
        ("speech share", result["speech_share"], summary["speech_s"] / max(summary["duration_s"], 1e-9)),
        ("rejected", sum(result["rejections"].values()), float(summary["num_rejections"])),
    ]
    names = sorted(summary["bytes"].keys() & result["bytes"].keys())
    rows += [(f"bytes of {name}", result["bytes"][name], float(summary["bytes"][name])) for name in names]
    rows.append(("bytes in all", sum(result["bytes"].values()), float(sum(summary["bytes"].values()))))
    if summary["num_parts_this_run"] == result["parts"]:
        rows.append(("wall seconds", result["wall_s_here"], summary["wall_s"]))
        rows.append(("device seconds", 3600 * result["device_hours"], summary["seconds"].get("infer", 0.0)))
    return rows
