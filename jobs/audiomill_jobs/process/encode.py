"""audiomill encode: audio -> discrete units in Parquet."""

from __future__ import annotations

from typing import Any

import click

from audiomill.config.jobs import EncodeConfig
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import run_and_report

EXAMPLES = """\
Examples:
  audiomill encode recordings/ --model facebook/wav2vec2-base --output out/
  audiomill kmeans recordings/ --model facebook/hubert-base-ls960 --layer 6 --clusters 100 --output km100.safetensors
  audiomill encode recordings/ --model facebook/hubert-base-ls960 --codebook km100.safetensors --deduplicate --output out/
  audiomill export out/ --format txt --to units/
"""


@click.command(cls=JobCommand, config=EncodeConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@with_options(EncodeConfig)
def encode(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> int:
    """Turn audio into discrete codes, the same in every batch.

    Gives OUTPUT/codes: one row a segment and codebook, a number for every frame. The codes come from the checkpoint's
    own quantizer (wav2vec 2.0 pretraining checkpoints, vq-wav2vec) or from a k-means codebook of any layer.
    """
    return run_and_report(config_from(EncodeConfig, inputs, config_file, flags).job())
