"""audiomill report: makes report.html of an output (again)."""

from __future__ import annotations

from typing import Any

import click

from audiomill.config.run import WatchConfig
from audiomill.errors import InputError
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute
from audiomill.tables.chosen import check_chosen
from audiomill_jobs.options import JsonMapping, WithExamples, transcript_option
from audiomill_jobs.telling import quiet_libraries

EXAMPLES = """\
Examples:
  audiomill report out/ --clips 20
  audiomill report s3://results/run1
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--clips", type=click.IntRange(0), default=WatchConfig.report_clips, show_default=True, metavar="N",
    help="Clips to listen to, for each kind of failure.",
)  # fmt: skip
@transcript_option
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def report(output: str, clips: int, transcript: int, storage_options: dict[str, Any] | None) -> None:
    """Write OUTPUT/report.html: figures, charts, the worst clips to listen to, search.

    A run writes it at its end; this makes it of what is finished so far, or again. Open it in a browser.
    """
    place = Place(absolute(output), storage_options or {})
    if not ledger.done_parts(place):
        raise InputError(f"{output}: no finished parts; expected the --output of a run")
    check_chosen(place, transcript)
    from audiomill.report.build import write_report

    with quiet_libraries(False):
        write_report(place, clips, storage_options or {}, transcript)
    click.echo(f"{output.rstrip('/')}/report.html")
