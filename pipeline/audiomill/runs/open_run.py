"""A run that is opened: its engine, its settings, settled once, and its output, claimed."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from rich.console import Console

from audiomill.config.fields import defaults_of
from audiomill.config.jobs import BY_NAME, JobConfig
from audiomill.runs.engine import check_places, engine_line, open_engine, with_engine
from audiomill.runs.record import run_record
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run, with_part_size
from audiomill.sources.listing import Listing
from audiomill.stages.plan import header_durations, listed, part_seconds_for
from audiomill.stages.spec import RunSpec
from audiomill.storage import ledger
from audiomill.storage.fs import Place, remove_stale_temporaries
from audiomill.storage.urls import absolute
from audiomill.tables.outputs import table_names
from audiomill.tables.voice_tables import drop_voices


@dataclasses.dataclass(frozen=True)
class Run:
    """What the steps of a run share.

    Attributes:
        config: the job, its engine and part size settled.
        spec: what workers are given.
        output: the output folder.
        listing: what the inputs hold.
        durations: of the listed recordings; None: their headers were not read.
        engine: `audiomill.runs.local` or `audiomill.runs.on_ray`, its session open.
        console: for progress and notes.
        started: seconds since 1970.
    """

    config: JobConfig
    spec: RunSpec
    output: Place
    listing: Listing
    durations: Sequence[float | None] | None
    engine: ModuleType
    console: Console
    started: float


@contextlib.contextmanager
def open_run(config: JobConfig, console: Console, listing: Listing | None = None) -> Iterator[Run]:
    """Finds the models, opens the engine, settles what was left open and claims the output.

    Of runs that claim an output at once the first one chooses: its part size holds for all.

    Raises:
        UsageError: an input, a model, an option or the output cannot be used.
    """
    started = time.time()
    asked = config
    config = with_engine(config)
    check_places(config)
    output = Place(absolute(config.output.output), config.plan.storage_options)
    listing = listing_of(config) if listing is None else listing
    config = with_access(config, listing)
    tasks = resolve_tasks(config)
    with open_engine(config) as opened:
        before = {} if config.output.overwrite else ledger.claim_of(output)
        config, durations = _with_part_seconds(config, listing, before, opened.device)
        spec, fields = resolve_run(config, tasks, opened.device, opened.features, before.get("results"))
        if asked.engine.engine == "auto" and not config.output.quiet:
            console.print(engine_line(asked), highlight=False, soft_wrap=True)
        claim = _claim(config, output, fields)
        if asked.plan.part_seconds is None:
            spec = with_part_size(spec, claim["part_seconds"])
        _withdraw_damaged(output, console)
        yield Run(config, spec, output, listing, durations, opened.module, console, started)


def listing_of(config: JobConfig) -> Listing:
    """What the inputs of a job hold."""
    return listed(config.inputs, config.plan, config.decode, config.output.output)


def with_access(config: JobConfig, listing: Listing) -> JobConfig:
    """The job with what is needed to read its inputs, where they were named with a signature or a password."""
    options = listing.options(config.plan.storage_options)
    return dataclasses.replace(config, plan=dataclasses.replace(config.plan, storage_options=options))


def _with_part_seconds(
    config: JobConfig, listing: Listing, claim: Mapping[str, Any], device: str
) -> tuple[JobConfig, list[float | None] | None]:
    """The job with its part size settled: as asked, as the output was begun, or as the corpus wants it; and the durations of
    the listed recordings where they had to be read for it."""
    chosen, durations = config.plan.part_seconds or claim.get("part_seconds"), None
    if chosen is None:
        durations = header_durations(listing.entries, config.plan.storage_options)
        chosen = part_seconds_for(listing.entries, durations, device)
    return dataclasses.replace(config, plan=dataclasses.replace(config.plan, part_seconds=chosen)), durations


def _claim(config: JobConfig, output: Place, fields: dict[str, Any]) -> dict[str, Any]:
    """Makes the output this job's, or checks that it is; clears it first where that was asked for. Returns run.json."""
    if config.output.overwrite:
        ledger.clear_output(output, table_names())
        if not config.speakers.save_speaker_embeddings:
            drop_voices(output)
    remove_stale_temporaries(output)
    return ledger.guard(output, fields, run_record(config), defaults_of(*BY_NAME.values()))


def _withdraw_damaged(output: Place, console: Console) -> None:
    """Parts whose files were damaged since they were written are made anew."""
    for part, why in ledger.damaged(output).items():
        console.print(f"warning: part {part} is made anew: {why}", highlight=False, soft_wrap=True)
        ledger.withdraw(output, part)
