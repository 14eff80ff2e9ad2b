"""audiomill plan: what a job will take, before it is paid for."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from audiomill.config.fields import flat_fields
from audiomill.config.forecast import UNSAID_OUTPUT, PlanJobConfig
from audiomill.config.jobs import RunConfig
from audiomill_jobs.options import JobCommand, checked_values, merged, with_options
from audiomill_jobs.process.run import tasks_of
from audiomill_jobs.telling import quiet_libraries
from audiomill_jobs.yaml_files import yaml_mapping

EXAMPLES = """\
Examples:
  audiomill plan recordings/ --model openai/whisper-tiny.en --output out/
  audiomill plan s3://corpus/shards/*.tar --device cuda --gpus 1,16,128 --price gpu=2.5/h --price cpu=0.04/h
  audiomill plan --config job.yaml --sample-minutes 20      a job with several models
"""


@click.command("plan", cls=JobCommand, config=PlanJobConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@with_options(PlanJobConfig)
def plan(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Forecast a job: hours, rejections, time, machines, money and bytes, from a small sample.

    Lists the corpus, draws a sample by source and duration, runs the real stages on it on this machine and scales up.
    Takes the options of transcribe; a YAML file may list `models:` as for run. Saves OUTPUT/forecast.json and
    forecast.html; a run into the same OUTPUT then tells forecast against outcome.
    """
    values = yaml_mapping(config_file) if config_file else {}
    models = values.pop("models", None)
    of_the_run = {field.name for field in flat_fields(RunConfig)} & PlanJobConfig.LEFT_OUT
    values = {name: value for name, value in values.items() if name not in of_the_run}  # the run's own, unused here
    checked = checked_values(values, PlanJobConfig, config_file or "")
    if not flags["output"] and not checked.get("output"):
        flags["output"] = UNSAID_OUTPUT
    config = merged(PlanJobConfig, checked, inputs, flags)
    tasks = tuple(tasks_of(models, config_file or "")) if models is not None else None
    from audiomill.forecast.page import batch_rows, headline, machine_rows
    from audiomill.forecast.plan_job import PAGE_FILE, plan_job
    from audiomill.watch.journal import PlainConsole, console_for

    with quiet_libraries(config.output.verbose):
        result = plan_job(config.job(tasks), config.forecast, console_for(config.watch.log_format))
    console = PlainConsole()
    for name, value in headline(result):
        console.print(f"{name}: {value}")
    languages = ", ".join(f"{code} {hours:.2f} h" for code, hours in result["languages"].items())
    console.print(f"speech by language: {languages or 'not told'}")
    refused = ", ".join(f"{count:g} {reason}" for reason, count in result["rejections"].items())
    console.print(f"rejections to expect: {refused or 'none were met'}")
    stages = result["stage_seconds_per_audio_hour"]
    console.print("seconds an hour of audio: " + ", ".join(f"{name} {value:.1f}" for name, value in stages.items()))
    _show(console, "machines", *machine_rows(result))
    for note in result["notes"]:
        console.print(f"note: {note}")
    _show(console, "batches", *batch_rows(result))
    if result["batch_seconds"]["tried"]:
        console.print(f"best --batch-seconds: {result['batch_seconds']['best']:g}")
    console.print(f"saved: {config.output.output.rstrip('/')}/forecast.json, {PAGE_FILE}")


def _show(console: Console, title: str, head: Any, rows: Any) -> None:
    if rows:
        table = Table(*head, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
