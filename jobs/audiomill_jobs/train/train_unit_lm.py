"""audiomill train-unit-lm: codes -> a language model over them."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.train_unit_lm import TrainUnitsConfig
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import quiet_libraries

EXAMPLES = """\
Examples:
  audiomill encode radio/ --model vq-wav2vec.pt --output codes/
  audiomill train-unit-lm codes/ --output units/
  audiomill embed radio/ --model units/checkpoint --layers 6 --output vectors/
  audiomill finetune labelled.jsonl --features --model units/checkpoint --output recogniser/
  audiomill train-unit-lm codes/ --codebook km500.safetensors --deduplicate --width 512 --depth 6 --heads 8 --output units/
"""


@click.command("train-unit-lm", cls=JobCommand, config=TrainUnitsConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="OUTPUT_OF_ENCODE...")
@with_options(TrainUnitsConfig)
def train_unit_lm(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Train a BERT over codes.

    Spans of codes are hidden and told from what is around them. Codes of several codebooks at one frame are one token. The
    checkpoint knows what makes its codes: give it audio, as --model of embed, encode or finetune --features. The same command
    again goes on where a killed one was.
    """
    from audiomill.train.unit_lm import train_unit_lm as job

    config = config_from(TrainUnitsConfig, inputs, config_file, flags)
    with quiet_libraries(config.output.verbose):
        report = job.train_unit_model(config, Console(stderr=True))
    for line in job.unit_lm_lines(report, config.output.output) if report else ():
        click.echo(line)
