"""audiomill trace: one recording through a model, step by step, as pictures."""

from __future__ import annotations

import importlib.util
from typing import Any

import click

from audiomill.config.jobs import TraceConfig
from audiomill.errors import UsageError
from audiomill_jobs.options import JobCommand, config_from, with_options
from audiomill_jobs.telling import quiet_libraries

EXAMPLES = """\
Examples:
  audiomill trace talk.wav --model facebook/wav2vec2-base-960h --output trace/
  audiomill trace talk.wav --model facebook/hubert-base-ls960 --layers 1,6,9,12 --codebook km500.safetensors --output trace/
  audiomill trace talk.wav --model openai/whisper-base --output trace/
"""


@click.command(cls=JobCommand, config=TraceConfig, epilog=EXAMPLES)
@click.argument("file", metavar="FILE")
@with_options(TraceConfig)
def trace(file: str, config_file: str | None, **flags: Any) -> None:
    """Follow one recording through a model, as the tutorials do.

    Waveform, log-mel, convolutional features, hidden states, codes, CTC posteriors with the letters over time; of a
    speech LLM what its projector makes of the encoder's frames, and the language model's first choices; each with
    its shape and rate: one HTML page (OUTPUT/index.html) and PNG files.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("trace draws with matplotlib: pip install 'audiomill[trace]'")
    from audiomill.report.trace.page import write_page
    from audiomill.report.trace.steps import trace_recording as follow
    from audiomill.storage.fs import Place
    from audiomill.storage.urls import absolute

    config = config_from(TraceConfig, (file,), config_file, flags)
    with quiet_libraries(config.output.verbose):
        result = follow(config)
        write_page(result, Place(absolute(config.output.output), config.plan.storage_options))
    for number, step in enumerate(result.steps, 1):
        shape = " x ".join(str(size) for size in step.array.shape)
        rate = f"at {step.rate_hz:g} Hz" if step.rate_hz else "a column a token"
        click.echo(f"{number:2d}  {step.name:<28} {shape:>14}  {rate}")
    if result.text is not None:
        click.echo(f"text: {result.text}")
    click.echo(f"open {config.output.output.rstrip('/')}/index.html")
