"""audiomill tune-decoder: weights of the beam search from audio with known text."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.output_jobs import TuneJobConfig
from audiomill_jobs.options import JobCommand, config_from, with_options

EXAMPLES = """\
Examples:
  audiomill transcribe dev.jsonl --model facebook/wav2vec2-base-960h --save-posteriors 32 --output dev/
  audiomill tune-decoder dev/ --lm news.arpa --output tuned/
  audiomill transcribe calls/ --model facebook/wav2vec2-base-960h --config tuned/decoder.yaml --output out/
"""


@click.command("tune-decoder", cls=JobCommand, config=TuneJobConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="OUTPUT")
@with_options(TuneJobConfig)
def tune_decoder(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Find the decoder's weights on a dev set.

    OUTPUT is the --output of `transcribe --save-posteriors` on audio with reference texts. Writes OUTPUT/decoder.yaml, which
    `transcribe` and `redecode` take with --config, and every trial.
    """
    from audiomill.runs.posteriors.tune import tune

    config = config_from(TuneJobConfig, inputs, config_file, flags)
    result = tune(config, Console(stderr=True))
    click.echo(
        f"WER {100 * result['best']['wer']:.2f}% (with the weights as given: {100 * result['first']['wer']:.2f}%) after "
        f"{result['num_trials']} trials on {result['best']['num_words']} words"
    )
    click.echo(f"settings: {config.output.output}/decoder.yaml (use it as --config)")
