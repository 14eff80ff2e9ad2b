"""audiomill models: which checkpoints can be used, and what one of them is."""

from __future__ import annotations

from typing import Any

import click

from audiomill.jobs.options import JsonMapping, WithExamples

EXAMPLES = """\
Examples:
  audiomill models                                every family
  audiomill models nvidia/parakeet-tdt-0.6b-v3    what this checkpoint gives
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("checkpoint", required=False)
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def models(checkpoint: str | None, storage_options: dict[str, Any] | None) -> None:
    """Show the families of models that can be used, or what a checkpoint (hub id, folder or URL) is and gives."""
    from audiomill.models.checkpoint import told
    from audiomill.models.model_table import HEADINGS, model_rows

    if checkpoint is not None:
        click.echo(told(checkpoint, storage_options or {}))
        return
    for row in model_rows():
        click.echo(row[0])
        for heading, value in zip(HEADINGS[1:], row[1:], strict=True):
            click.echo(f"  {heading:<14}  {value}")
