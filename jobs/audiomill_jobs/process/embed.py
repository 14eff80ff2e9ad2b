"""audiomill embed: audio -> hidden states of a model in Parquet."""

from __future__ import annotations

from typing import Any

import click

from audiomill.config.jobs import EmbedConfig
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import run_and_report

EXAMPLES = """\
Examples:
  audiomill embed recordings/ --model facebook/hubert-base-ls960 --layers 9 --output out/
  audiomill embed recordings/ --model microsoft/wavlm-base --layers all --pool mean --output out/
  audiomill embed recordings/ --model openai/whisper-base --layers -1 --frame-stride 5 --dtype int8 --output out/

In training code: for segment_id, values in audiomill.open_output("out/"): ...
"""


@click.command(cls=JobCommand, config=EmbedConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@with_options(EmbedConfig)
def embed(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> int:
    """Turn audio into vectors, exact in every batch.

    Gives OUTPUT/embeddings: hidden states of the layers that are asked for, frame by frame or pooled over a segment.
    A segment is a whole recording where the model can take it (up to 120 s; Whisper: 30 s). Longer ones are cut into
    windows that overlap; every frame comes once, and the rows of a recording, end to end, are its frames.
    """
    return run_and_report(config_from(EmbedConfig, inputs, config_file, flags).job())
