"""audiomill redecode: kept posteriors -> text by beam search, with another language model or other weights."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.output_jobs import RedecodeConfig
from audiomill.config.run import WatchConfig
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import report_of

EXAMPLES = """\
Examples:
  audiomill transcribe calls/ --model facebook/wav2vec2-base-960h --save-posteriors 16 --output out/
  audiomill redecode out/ --lm news.arpa --beam-size 64 --num-best 5 --output news/
  audiomill redecode out/ --beam-size 50 --lm 4gram.arpa --rescore-model lm/ --tune-on dev-kept/ --output best/
  audiomill redecode out/ --config tuned/decoder.yaml --hotwords "aortic stenosis,Zolgensma" --output clinic/
"""


@click.command(cls=JobCommand, config=RedecodeConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="OUTPUT")
@with_options(RedecodeConfig)
def redecode(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Write a corpus's texts anew, without another forward pass.

    OUTPUT is the --output of `transcribe --save-posteriors` with a CTC model. Runs on CPU, a process a core; finished
    parts are not done again.
    """
    from audiomill.runs.posteriors.redecode import redecode_output

    config = config_from(RedecodeConfig, inputs, config_file, flags)
    console = Console(stderr=True)
    result = redecode_output(config, console)
    if result["is_whole"]:
        options = config.storage.storage_options
        report_of(config.output.output, WatchConfig.report_clips, options, config.output.quiet, console)
    click.echo(
        f"done: {result['num_segments']} segments, {result['hours']:.2f} h in {result['num_parts']} parts, "
        f"{result['x_real_time_a_core']:.0f}x real time a core"
    )
    if not result["is_whole"]:
        click.echo("the source is not finished: run both again for the rest")
