"""What every job that runs models does around the run: quiet libraries, summary, exit code."""

from __future__ import annotations

import click

from jobs.quiet import quiet_libraries
from pipeline.job_config import JobConfig

EXIT_REJECTIONS = 3


def run_and_tell(config: JobConfig) -> int:
    """Runs a job, prints its summary and returns the exit code."""
    from pipeline.run.job import run_job
    from pipeline.run.journal import console_for
    from pipeline.run.progress import summary_lines

    console = console_for(config.watch.log_format)
    with quiet_libraries(config.output.verbose):
        summary = run_job(config, console)
    for line in summary_lines(summary):
        click.echo(line)
    if summary["num_rejections"]:
        console.print(f"see: audiomill inspect {config.output.output}", highlight=False, soft_wrap=True)
    return EXIT_REJECTIONS if config.output.strict and summary["num_rejections"] else 0
