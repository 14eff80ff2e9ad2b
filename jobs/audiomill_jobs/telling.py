"""What every job that runs models does around the run: quiet libraries, summary, exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

from audiomill.config.jobs import JobConfig


@contextlib.contextmanager
def quiet_libraries(verbose: bool) -> Iterator[None]:
    """Keeps descriptor 2 to ourselves: `sys.stderr` still reaches the user, C libraries reach nothing."""
    if verbose:
        yield
        return
    sys.stderr.flush()
    saved_stderr, ours = os.dup(2), sys.stderr
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    sys.stderr = os.fdopen(os.dup(saved_stderr), "w", buffering=1)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved_stderr, 2)
        os.close(saved_stderr)
        sys.stderr = ours


EXIT_REJECTIONS = 3


def _against_forecast(config: JobConfig, summary: dict[str, Any]) -> list[str]:
    """How good the forecast of `audiomill plan` for this output was."""
    from audiomill.forecast.plan_job import compare_with_outcome, is_of, saved_forecast
    from audiomill.storage.fs import Place
    from audiomill.storage.urls import absolute

    result = saved_forecast(Place(absolute(config.output.output), config.plan.storage_options))
    if result is None or summary["num_parts_left"]:
        return []
    if not is_of(result, config):
        return ["forecast: made for other inputs, models or options; not compared"]
    rows = [
        f"{name} {forecast:,.4g} against {came:,.4g}" for name, forecast, came in compare_with_outcome(result, summary)
    ]
    return [f"forecast against outcome: {'; '.join(rows)}"]


def report_of(output: str, clips: int, storage_options: dict[str, Any], quiet: bool, console: Console) -> None:
    """Writes the report; a job that is done stays done if that fails."""
    from audiomill.report.build import write_report
    from audiomill.storage.fs import Place
    from audiomill.storage.urls import absolute

    if not quiet:
        console.print(f"writing {output.rstrip('/')}/report.html", highlight=False, soft_wrap=True)
    try:
        write_report(Place(absolute(output), storage_options), clips, storage_options)
    except Exception as error:
        warning = f"warning: no report ({type(error).__name__}: {error}); the tables are complete. Try again: audiomill report {output}"
        console.print(warning, highlight=False, soft_wrap=True)


def run_and_report(config: JobConfig) -> int:
    """Runs a job, prints its summary and returns the exit code."""
    from audiomill.runs.job import run_job
    from audiomill.watch.journal import console_for
    from audiomill.watch.progress import summary_lines

    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, dict):
        context.obj["log_format"] = config.watch.log_format  # for errors, which `audiomill_jobs.main` tells
    console = console_for(config.watch.log_format)
    with quiet_libraries(config.output.verbose):
        summary = run_job(config, console)
        if config.watch.report and not summary["num_parts_left"]:
            options, output = config.plan.storage_options, config.output
            report_of(output.output, config.watch.report_clips, options, output.quiet, console)
    for line in [*summary_lines(summary), *_against_forecast(config, summary)]:
        click.echo(line)
    if summary["num_rejections"]:
        console.print(f"see: audiomill inspect {config.output.output}", highlight=False, soft_wrap=True)
    return EXIT_REJECTIONS if config.output.strict and summary["num_rejections"] else 0
