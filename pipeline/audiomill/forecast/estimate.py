"""A measured sample and a plan -> what the whole corpus will take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from audiomill.config.forecast import ForecastConfig, numbers, prices
from audiomill.forecast.cascade import describe
from audiomill.forecast.measure import Measured
from audiomill.forecast.rates import as_rows, seconds_for
from audiomill.forecast.simulate import Cluster, Outcome, Work, simulate
from audiomill.forecast.sizes import bytes_of_file
from audiomill.storage.ledger import split_by_part
from audiomill.watch.meter import BEFORE_INFER

MOST_SIMULATED = 20_000
"""Parts; of more, so many are simulated and the time is scaled."""
RAY_DISPATCH_S, LOCAL_DISPATCH_S = 0.03, 0.001

_Row = Mapping[str, Any]
Forecast = dict[str, Any]


def forecast(
    plan: pa.Table, strata: Mapping[str, Sequence[_Row]], measured: Measured, config: ForecastConfig, actors: int
) -> Forecast:
    """Everything that `audiomill plan` tells, as JSON.

    Args:
        plan: of the whole corpus.
        strata: its rows by stratum.
        measured: on the sample.
        config: what was asked.
        actors: model workers on this machine.
    """
    shares = {name: _of_stratum(name, rows, measured) for name, rows in strata.items()}
    refused = Counter(reason for reason in plan.column("reason").to_pylist() if reason is not None)
    hours = sum(share["audio_s"] for share in shares.values()) / 3600
    speech = sum(each["speech_s"] for each in shares.values()) / 3600
    parts = _parts(plan, shares, measured)
    here = _here(parts, measured, actors)
    results: Forecast = {
        "recordings": plan.num_rows,
        "parts": len(parts),
        "hours": hours,
        "speech_share": speech / hours if hours else 0.0,
        "languages": _languages(shares),
        "rejections": _rejections(shares, refused),
        "sample": {
            "recordings": len(measured.rows),
            "minutes": measured.audio_s / 60,
            "strata": {name: each["drawn"] for name, each in shares.items()},
        },
        "measured_on": {
            name: getattr(measured, name) for name in ("device", "machine", "precision", "engine", "cores")
        },
        "stage_seconds_per_audio_hour": _stages(parts, measured),
        "start_up_s": measured.fixed_s,
        "contention": measured.contention,
        "curve": [point._asdict() for point in measured.points],
        "batch_seconds": _batch_sizes(measured),
        "bytes": _bytes(parts, measured),
        "device_hours": sum(part.model_s for part in parts) / 3600,
        "decode_core_hours": sum(part.decode_s for part in parts) / 3600,
        "wall_s_here": here.wall_s,
        "machines": _machines(parts, measured, config),
        "prices": prices(config.price),
        "notes": _notes(measured, config),
    }
    if measured.cascade is not None:
        results["second_pass_model"] = measured.cascade._asdict()
        results["notes"].append(describe(measured.cascade))
    return results


def _batch_sizes(measured: Measured) -> dict[str, Any]:
    """Padded seconds a batch: by default, the best of those tried, and all of them."""
    return {
        "default": measured.batch_seconds,
        "best": measured.best_batch_seconds,
        "tried": as_rows(measured.tried),
    }


def _of_stratum(name: str, rows: Sequence[_Row], measured: Measured) -> dict[str, Any]:
    """Totals of a stratum from its part of the sample; from the whole sample where that has nothing of it."""
    mine = [row for row in measured.rows if row["stratum"] == name]
    drawn = len(mine)
    mine = mine or measured.rows
    planned = sum(row["planned_s"] for row in mine)
    longer = sum(row["true_s"] for row in mine) / planned if planned else 1.0
    audio_s = longer * sum(row["planned_s"] for row in rows)
    measured_s = sum(row["measured_s"] for row in mine)
    languages: defaultdict[str, float] = defaultdict(float)
    for row in mine:
        if row["language"] is not None:
            languages[row["language"]] += row["speech_s"]
    per_second = audio_s / measured_s if measured_s else 0.0
    return {
        "drawn": drawn,
        "longer": longer,
        "audio_s": audio_s,
        "speech_s": per_second * sum(row["speech_s"] for row in mine),
        "languages": {code: per_second * seconds for code, seconds in languages.items()},
        "rejections": {
            reason: len(rows) * count / len(mine)
            for reason, count in Counter(row["reason"] for row in mine if row["reason"]).items()
        },
        "ids": [row["id"] for row in rows],
    }


def _languages(shares: Mapping[str, Any]) -> dict[str, float]:
    """Hours of speech by language."""
    results: defaultdict[str, float] = defaultdict(float)
    for share in shares.values():
        for code, seconds in share["languages"].items():
            results[code] += seconds / 3600
    return dict(sorted(results.items(), key=lambda pair: -pair[1]))


def _rejections(shares: Mapping[str, Any], refused: Counter[str]) -> dict[str, float]:
    """Recordings by reason: known from the plan, or expected by the sample."""
    results: defaultdict[str, float] = defaultdict(float, {reason: float(count) for reason, count in refused.items()})
    for share in shares.values():
        for reason, count in share["rejections"].items():
            results[reason] += count
    return {reason: round(count, 1) for reason, count in sorted(results.items(), key=lambda pair: -pair[1])}


def _parts(plan: pa.Table, shares: Mapping[str, Any], measured: Measured) -> list[Work]:
    """What every part asks of the machines."""
    factor = {
        identity: (each["longer"], each["speech_s"] / each["audio_s"] if each["audio_s"] else 0.0)
        for each in shares.values()
        for identity in each["ids"]
    }
    speech_s = sum(row["speech_s"] for row in measured.rows)
    seen = measured.model_s / speech_s if speech_s else 0.0  # windows with context are longer than what they answer
    decode_s = sum(measured.stage_s.get(stage, 0.0) for stage in BEFORE_INFER)
    parts = []
    for rows in split_by_part(plan).values():
        audio = speech = size = 0.0
        columns = (rows.column(name).to_pylist() for name in ("id", "planned_s", "kind", "size"))
        for identity, planned_s, kind, num_bytes in zip(*columns, strict=True):
            longer, share = factor.get(identity, (0.0, 0.0))
            audio += longer * planned_s
            speech += longer * planned_s * share
            size += (num_bytes or 0) if kind != "parquet" else 0
        opening = measured.opening_s if measured.engine == "ray" else 0.0  # there each part has a decoder of its own
        parts.append(Work(audio, size, opening + decode_s * audio, _model_s(measured, speech * seen, audio)))
    return parts


def _model_s(measured: Measured, audio_s: float, raw_s: float) -> float:
    """Of a part, which passes in pieces where it holds more than a part's worth of audio."""
    pieces = max(1, -(-int(audio_s) // int(max(1.0, measured.part_seconds))))
    return measured.contention * pieces * seconds_for(measured.points, audio_s / pieces) if raw_s else 0.0


def _stages(parts: Sequence[Work], measured: Measured) -> dict[str, float]:
    hours = sum(part.audio_s for part in parts) / 3600
    results = {stage: 3600 * seconds for stage, seconds in measured.stage_s.items()}
    results["infer"] = sum(part.model_s for part in parts) / hours if hours else 0.0
    return {stage: results[stage] for stage in (*BEFORE_INFER, "infer", "write")}


def _bytes(parts: Sequence[Work], measured: Measured) -> dict[str, float]:
    """Of each table, one file a part."""
    return {
        name: sum(bytes_of_file(growth, part.audio_s / measured.audio_s) for part in parts)
        for name, growth in measured.growth.items()
    }


def _notes(measured: Measured, config: ForecastConfig) -> list[str]:
    """What was asked and cannot be told from this sample."""
    notes = []
    on_gpu = measured.device.startswith("cuda")
    if not on_gpu and "gpu" in prices(config.price):
        notes.append("The sample ran on CPU cores: nothing is known about GPUs, and their price is not used.")
    if not on_gpu and config.gpus != ForecastConfig.gpus:
        notes.append("The sample ran on CPU cores: --gpus is not used. Plan on a machine with such a GPU.")
    if on_gpu and config.cores != ForecastConfig.cores:
        notes.append("The sample ran on a GPU: --cores is not used, see --cores-per-gpu.")
    if not on_gpu and any(count % measured.cores for count in numbers(config.cores, "cores")):
        notes.append(
            f"Machines like this one have {measured.cores} cores: other numbers are rounded up to whole machines."
        )
    return notes


def _cluster(measured: Measured, **fields: Any) -> Cluster:
    dispatch = RAY_DISPATCH_S if measured.engine == "ray" else LOCAL_DISPATCH_S
    return Cluster(startup_s=0.0, start_s=measured.fixed_s, dispatch_s=dispatch, **fields)


def _here(parts: Sequence[Work], measured: Measured, actors: int) -> Outcome:
    """This machine, with the engine and the actors of the job."""
    shared = None if measured.device.startswith("cuda") else measured.cores
    decoders = max(1, measured.cores - 1)
    return _simulated(parts, _cluster(measured, actors=actors, decoders=decoders, shared_cores=shared))


def _simulated(parts: Sequence[Work], cluster: Cluster) -> Outcome:
    """Large jobs by a part of them: what takes long is the same all the time."""
    few = parts[:: max(1, -(-len(parts) // MOST_SIMULATED))]
    outcome = simulate(few, cluster)
    first = cluster.startup_s + cluster.start_s
    outcome.wall_s = first + (outcome.wall_s - first) * len(parts) / max(1, len(few))
    return outcome


def _machines(parts: Sequence[Work], measured: Measured, config: ForecastConfig) -> list[dict[str, Any]]:
    """Wall time and money for each number of GPUs, or of cores where the sample ran on cores."""
    cost, machines = prices(config.price), []
    on_gpu = measured.device.startswith("cuda")
    for count in numbers(config.gpus if on_gpu else config.cores, "gpus" if on_gpu else "cores"):
        if on_gpu:
            cluster = _cluster(measured, nodes=count, actors=1, decoders=config.cores_per_gpu)
            cores = count * config.cores_per_gpu
        else:
            nodes = -(-count // measured.cores)
            cluster = _cluster(
                measured, nodes=nodes, actors=1, decoders=max(1, measured.cores - 1), shared_cores=measured.cores
            )
            cores = nodes * measured.cores
        outcome = _simulated(parts, cluster)
        hours = outcome.wall_s / 3600
        row: dict[str, Any] = {
            "gpus": count if on_gpu else 0,
            "cores": cores,
            "wall_s": outcome.wall_s,
            "x_real_time": outcome.audio_s / outcome.wall_s if outcome.wall_s else 0.0,
            "bottleneck": outcome.bottleneck,
        }
        if cost:
            row["money"] = hours * (row["gpus"] * cost.get("gpu", 0.0) + cores * cost.get("cpu", 0.0))
        machines.append(row)
    return machines
