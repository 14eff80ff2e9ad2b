"""The plan of a run: read back, added to where inputs are new, told."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from audiomill.config.jobs import JobConfig
from audiomill.config.run import size_in_bytes
from audiomill.errors import RunError
from audiomill.runs.changes import as_they_are_now, without_aliases
from audiomill.runs.open_run import Run
from audiomill.sources.listing import Listing
from audiomill.stages.plan import header_durations, planned_table
from audiomill.stages.spec import RunSpec
from audiomill.storage import ledger
from audiomill.watch.journal import tell
from audiomill.watch.progress import audio_text, counted, size_text

MAX_TRIES = 20
"""Each is lost to another run that plans at the same time."""


def plan_of(run: Run) -> pa.Table:
    """The plan on file, with new inputs added to it; planned again if another run was faster."""
    listing, output, console = run.listing, run.output, run.console
    for _ in range(MAX_TRIES):
        names = ledger.plan_files(output)
        plan = ledger.load_plan(output, names)
        if plan is not None:
            plan = as_they_are_now(run, plan, names)
        fresh, new, first_part = listing.entries, run.durations, 0
        if plan is not None:
            is_known = pc.is_in(listing.entries.table.column("id"), value_set=plan.column("id").combine_chunks())
            at = pc.indices_nonzero(pc.invert(is_known))
            rows, notes = without_aliases(listing.entries.table.take(at), plan)
            at = at.take(pa.array(rows, pa.int64()))
            for note in notes:
                console.print(f"note: {note}", highlight=False, soft_wrap=True)
            if not len(at):
                return plan
            fresh, first_part = listing.entries.take(at), int(plan.column("part")[-1].as_py()) + 1
            new = None if run.durations is None else [run.durations[number] for number in at.to_pylist()]
        if new is None:
            new = header_durations(fresh, run.config.plan.storage_options)
        addition = planned_table(fresh, new, first_part=first_part, part_seconds=run.spec.part_seconds)
        if ledger.add_to_plan(output, addition, len(names)):
            _tell_left_out(console, listing)
            if not run.config.output.quiet:
                _log_plan(console, listing, addition, plan)
                _tell_sizes(console, addition, run.spec, run.config)
            output.join("_SUCCESS").remove()
            return addition if plan is None else pa.concat_tables([plan, addition])
    raise RunError(f"{output.url}: the plan could not be written in {MAX_TRIES} tries; is the place writable?")


def _tell_left_out(console: Console, listing: Listing) -> None:
    """Files that are left out, and what is unusual about those that are not: whoever wants quiet, must know that."""
    ignored = listing.describe_ignored()
    for text in [*listing.notes, *([ignored] if ignored else [])]:
        console.print(f"note: {text}", highlight=False, soft_wrap=True)


def _log_plan(console: Console, listing: Listing, addition: pa.Table, before: pa.Table | None) -> None:
    hours = pc.sum(addition.column("planned_s")).as_py() / 3600
    parts = pc.count_distinct(addition.column("part")).as_py()
    what = "new recording" if before is not None else "recording"
    text = f"planned {counted(addition.num_rows, what)}, about {audio_text(3600 * hours)}, in {counted(parts, 'part')}"
    if listing.num_duplicates:
        text += f"; {listing.num_duplicates} named twice, taken once"
    console.print(text, highlight=False, soft_wrap=True)
    tell(console, "planned", recordings=addition.num_rows, hours=round(hours, 4), parts=parts)


def _tell_sizes(console: Console, addition: pa.Table, spec: RunSpec, config: JobConfig) -> None:
    """Bytes of the tables of frames, before they are paid for. Durations that headers do not tell are estimates."""
    hours = pc.sum(addition.column("planned_s")).as_py() / 3600
    total = 0.0
    for name, per_second in spec.bytes_per_second.items():
        total += 3600 * per_second * hours
        most = "" if spec.segments.kind != "vad" else "at most "
        console.print(
            f"{name}: {most}{size_text(3600 * per_second)} an hour of audio, {most}{size_text(3600 * per_second * hours)} in all",
            highlight=False,
            soft_wrap=True,
        )
    if total > size_in_bytes(config.output.max_output_bytes):
        console.print(
            f"warning: the output is forecast to be larger than --max-output-bytes {config.output.max_output_bytes}; "
            "fewer --layers, --pool mean, --frame-stride 2, --dtype int8 or codes make it smaller",
            highlight=False,
            soft_wrap=True,
        )
