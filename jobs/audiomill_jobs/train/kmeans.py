"""audiomill kmeans: audio -> a codebook of hidden states."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.jobs import KmeansJobConfig
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import quiet_libraries

EXAMPLES = """\
Examples:
  audiomill kmeans recordings/ --model facebook/hubert-base-ls960 --layer 9 --clusters 500 --output km500.safetensors
  audiomill kmeans s3://corpus/*.tar --model microsoft/wavlm-base --layer 6 --clusters 100 --audio-hours 10 \\
      --output km100.safetensors
  audiomill encode recordings/ --model facebook/hubert-base-ls960 --codebook km500.safetensors --output out/
"""


@click.command(cls=JobCommand, config=KmeansJobConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@with_options(KmeansJobConfig)
def kmeans(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Fit a k-means codebook to hidden states.

    Frames are drawn at random from the whole input while it passes through the model; nothing is dumped on disk, and
    memory is bounded by --max-frames. The same seed gives the same codebook, whatever the engine. Writes OUTPUT
    (safetensors that knows its model, layer and weights) and a report beside it (.json).
    """
    from audiomill.runs.kmeans import fit_codebook, kmeans_lines

    config = config_from(KmeansJobConfig, inputs, config_file, flags)
    with quiet_libraries(config.output.verbose):
        report = fit_codebook(config, Console(stderr=True))
    for line in kmeans_lines(report, config.output.output):
        click.echo(line)
