"""audiomill transcribe: audio -> recordings, segments and rejections in Parquet."""

from __future__ import annotations

from typing import Any

import click

from audiomill.config.jobs import TranscribeConfig
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import run_and_report

EXAMPLES = """\
Examples:
  audiomill transcribe recordings/ --model openai/whisper-tiny.en --output out/
  audiomill transcribe s3://corpus/shards/*.tar --output s3://results/run1 --device cuda --actors 4
  audiomill transcribe calls.jsonl --channels split --language en --output out/
  audiomill transcribe recordings/ --output out/ --retry-rejected
"""


@click.command(cls=JobCommand, config=TranscribeConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@with_options(TranscribeConfig)
def transcribe(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> int:
    """Transcribe audio into Parquet tables.

    INPUT is a file, folder (recursive), glob, tar shard, Parquet shard with audio bytes, or manifest (.jsonl,
    .json, .csv, .tsv; NeMo, Lhotse, Hugging Face), local or at s3://, gs://, az://, http(s)://, hf://. Inputs
    may be mixed. Whatever cannot be used becomes a row of the rejections table, with the reason.
    """
    return run_and_report(config_from(TranscribeConfig, inputs, config_file, flags).job())
