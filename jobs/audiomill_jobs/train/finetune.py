"""audiomill finetune: labelled audio -> a checkpoint."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.train import FinetuneConfig
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import quiet_libraries

EXAMPLES = """\
Examples:
  audiomill finetune labelled.jsonl --model facebook/wav2vec2-base --dev dev.jsonl --epochs 30 --output model/
  audiomill finetune labelled.jsonl --pseudo selected/ --pseudo-weight 0.5 --model facebook/wav2vec2-base --output student/
  audiomill finetune calls.jsonl --model openai/whisper-tiny.en --freeze-encoder --learning-rate 1e-5 --output adapted/
  audiomill finetune radio/ --objective pretrain --model facebook/wav2vec2-base --output continued/
  torchrun --nproc-per-node 8 -m audiomill finetune labelled.jsonl --model facebook/wav2vec2-large --output model/
"""


@click.command(cls=JobCommand, config=FinetuneConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@with_options(FinetuneConfig)
def finetune(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Train a model on labelled audio.

    INPUT is any audio with text: manifests with a text column, shards or folders with .txt files beside the audio, and
    selections (`audiomill select`). Clips that cannot be learnt from are counted with their reason. The same command
    again goes on where a killed one was. Writes OUTPUT/checkpoint (safetensors), metrics, TensorBoard events and
    report.html.
    """
    from audiomill.train.fit import finetune as job

    config = config_from(FinetuneConfig, inputs, config_file, flags)
    with quiet_libraries(config.output.verbose):
        report = job.train_model(config, Console(stderr=True))
    for line in (
        job.training_lines(report, config.output.output) if report else ()
    ):  # of several processes the first one tells
        click.echo(line)
