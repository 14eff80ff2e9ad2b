"""audiomill transcribe: audio -> recordings, segments and rejections in Parquet."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console

from jobs.options import GroupedCommand, config_from, headings, with_options
from jobs.quiet import quiet_libraries
from pipeline.config import TranscribeConfig

EXIT_REJECTIONS = 3
EXAMPLES = """\
Examples:
  audiomill transcribe recordings/ --model openai/whisper-tiny.en --output out/
  audiomill transcribe s3://corpus/shards/*.tar --output s3://results/run1 --device cuda --actors 4
  audiomill transcribe calls.jsonl --channels split --language en --output out/
  audiomill transcribe recordings/ --output out/ --retry-rejected
"""


class TranscribeCommand(GroupedCommand):
    headings = headings(TranscribeConfig)


@click.command(cls=TranscribeCommand, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@with_options(TranscribeConfig)
def transcribe(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> int:
    """Transcribe audio into Parquet tables.

    INPUT is a file, folder (recursive), glob, tar shard, Parquet shard with audio bytes, or manifest (.jsonl,
    .json, .csv, .tsv; NeMo, Lhotse, Hugging Face), local or at s3://, gs://, az://, http(s)://, hf://. Inputs
    may be mixed. Whatever cannot be used becomes a row of the rejections table, with the reason.
    """
    from pipeline.run.progress import summary_lines
    from pipeline.run.transcribe import transcribe as run

    config = config_from(TranscribeConfig, inputs, config_file, flags)
    with quiet_libraries(config.output.verbose):
        summary = run(config, Console(stderr=True))
    for line in summary_lines(summary):
        click.echo(line)
    if summary["num_rejections"]:
        click.echo(f"see: audiomill inspect {config.output.output}", file=sys.stderr)
    return EXIT_REJECTIONS if config.output.strict and summary["num_rejections"] else 0
