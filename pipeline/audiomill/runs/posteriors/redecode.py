"""The respell job: kept posteriors -> new texts, without another forward pass. Parts are read side by side on CPU.

A finished part is not done again; the tables are those of `transcribe`, and so is the ledger.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from functools import partial
from typing import Any

import pyarrow as pa
from rich.console import Console

from audiomill import schema
from audiomill.audio.clock import samples_from_seconds
from audiomill.config.fields import digest, flag, result_fields
from audiomill.config.output_jobs import RedecodeConfig, TuneConfig, TuneJobConfig
from audiomill.config.text import SearchConfig
from audiomill.errors import UsageError
from audiomill.models.ctc.beam_search import BeamDecoder, decoder_prints
from audiomill.models.device import usable_cores
from audiomill.runs.posteriors.saved_posteriors import KeptPosteriors, decoder_of, texts_of
from audiomill.runs.posteriors.tune import tuned
from audiomill.speakers.attribution import with_speakers
from audiomill.stages.write import PartTarget, declare_complete, write_part
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import in_schema, part_name, read_table
from audiomill.storage.urls import absolute
from audiomill.tables.assemble import Result, Tables
from audiomill.tables.outputs import table_names
from audiomill.tables.rows import in_time_order, joined_text, text_columns
from audiomill.tables.speaker_tables import SPEAKERS
from audiomill.watch.map_parts import map_parts

_Summary = dict[str, Any]


def redecode_output(config: RedecodeConfig, console: Console) -> _Summary:
    """Decodes what is not decoded yet.

    Args:
        config: the job; its only input is an output with posteriors.
        console: for progress.

    Returns:
        Counts of the whole output.

    Raises:
        UsageError: no posteriors, or a file of the decoder cannot be used.
    """
    options = config.storage.storage_options
    source = KeptPosteriors(Place(absolute(config.only_input()), options))
    output = Place(absolute(config.output.output), options)
    if output.path == source.place.path:
        raise UsageError(f"--output {config.output.output}: expected another folder than the one that is read")
    decoder = config.decoder if config.decoder.beam_size > 1 else dataclasses.replace(config.decoder, beam_size=32)
    BeamDecoder(decoder, source.vocabulary, options)  # tells what cannot be used before anything is written
    if config.tuned.tune_on is not None:
        decoder = _tuned(config, decoder, console)
    fields = {
        **result_fields(decoder),
        **decoder_prints(decoder, options),
        "respelled-from": digest(source.record["results"]),
        "channels": source.record["results"].get("channels", "mix"),
    }
    if config.output.overwrite:
        ledger.clear_output(output, table_names())
    names = {"job": "redecode", "model_name": source.record["model_name"], "inputs": [source.place.url]}
    ledger.guard(output, fields, names)
    for name in ledger.plan_files(source.place):
        output.join(name).write(source.place.join(name).read())
    todo = sorted(ledger.done_parts(source.place) - ledger.done_parts(output))
    seconds = {entry["part"]: entry["duration_s"] for entry in ledger.entries(source.place, todo)}
    work = partial(_redecode_part, source.place, output, decoder, digest(fields))
    map_parts(work, seconds, config.storage.workers or usable_cores(), console, config.output.quiet)
    return _finished(source, output)


def _tuned(config: RedecodeConfig, decoder: SearchConfig, console: Console) -> SearchConfig:
    """The decoder with the weights that do best on other posteriors. A search is deterministic: the same again finds the same."""
    assert config.tuned.tune_on is not None, "there is something to tune on"
    job = TuneJobConfig(
        inputs=(config.tuned.tune_on,),
        decoder=decoder,
        storage=config.storage,
        tune=TuneConfig(trials=config.tuned.tune_trials),
        output=config.output,
    )
    result = tuned(job, console)
    weights = {
        name: getattr(result, name) for name in ("lm_weight", "word_insertion_score", "unk_score", "rescore_weight")
    }
    changed_weights = ", ".join(
        f"{flag(name)} {value:g}" for name, value in weights.items() if value != getattr(decoder, name)
    )
    if not config.output.quiet:
        console.print(f"weights: {changed_weights or 'as given'}", highlight=False)
    return result


def _redecode_part(place: Place, output: Place, config: SearchConfig, key: str, part: int) -> int:
    """Number of rejections."""
    started = time.perf_counter()
    source = KeptPosteriors(place)
    segments, stretches, hop = source.part(part)
    texts = texts_of(segments, stretches, hop, decoder_of(config, source))
    rows = [
        segment | text_columns(text._replace(language=segment["language"]), *_edges(segment))
        for segment, text in zip(segments, texts, strict=True)
    ]
    turns = _speaker_tables(place, part)
    if "turns" in turns:
        rows = with_speakers(
            rows, turns["turns"].select(["recording_id", "channel", "speaker", "start_s", "stop_s"]).to_pylist()
        )
    columns = {
        name: in_schema(read_table(place.join(name, part_name(part) + ".parquet")), schema.TABLES[name])
        for name in ("recordings", "rejections")
    }
    tables = {
        **columns,
        "recordings": pa.Table.from_pylist(_with_texts(columns["recordings"].to_pylist(), rows), schema.RECORDINGS),
        "segments": pa.Table.from_pylist(rows, schema=schema.SEGMENTS),
        **turns,
    }
    planned = [id for table in columns.values() for id in table.column("id").to_pylist()]
    result = Result({"seconds": [("redecode", time.perf_counter() - started)], "began": None, "verification": None}, {})
    wanted = Tables(True, {}, {**schema.TABLES, **{name: table.schema for name, table in turns.items()}})
    entry = write_part(PartTarget(output, part, planned), tables, [result], wanted, key, time.perf_counter())
    return int(entry["num_rejections"])


def _speaker_tables(place: Place, part: int) -> dict[str, pa.Table]:
    """Turns and speakers, where the output knows them: who speaks does not depend on how the words are spelled."""
    files = {name: place.join(name, part_name(part) + ".parquet") for name in SPEAKERS.documented}
    return {
        name: in_schema(read_table(file), SPEAKERS.documented[name]) for name, file in files.items() if file.exists()
    }


def _edges(segment: dict[str, Any]) -> tuple[int, int]:
    return samples_from_seconds(segment["start_s"]), samples_from_seconds(segment["stop_s"])


def _with_texts(recordings: list[dict[str, Any]], segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    of: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for segment in segments:
        of[segment["recording_id"]].append(segment)
    return [row | {"text": joined_text(in_time_order(of[row["id"]]))} for row in recordings]


def _finished(source: KeptPosteriors, output: Place) -> _Summary:
    entries = list(ledger.entries(output))
    plan = ledger.load_plan(output)
    is_whole = plan is not None and set(plan.column("part").to_pylist()) <= ledger.done_parts(output)
    if is_whole and plan is not None:
        declare_complete(output, plan.num_rows, list(schema.TABLES))
    sums = ledger.totals(entries)
    hours, seconds = sums.numbers["duration_s"] / 3600, sums.seconds["redecode"]
    return {
        "num_parts": len(entries),
        "num_segments": int(sums.numbers["num_segments"]),
        "hours": hours,
        "x_real_time_a_core": 3600 * hours / max(seconds, 1e-9),
        "is_whole": is_whole,
    }
