"""audiomill resynthesize: codes -> sound, and how much of it is left."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.output_jobs import ResynthesizeConfig
from audiomill.watch.progress import counted
from audiomill_jobs.options import JobCommand, config_from, with_options

EXAMPLES = """\
Examples:
  audiomill encode calls/ --model kyutai/mimi --output units/
  audiomill resynthesize units/ --recogniser openai/whisper-tiny.en
  audiomill resynthesize units/ --codebooks 4 --most 100 --output coarse/
"""


@click.command(cls=JobCommand, config=ResynthesizeConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="OUTPUT")
@with_options(ResynthesizeConfig)
def resynthesize(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Make sound of a codec's codes, and compare it with the original.

    OUTPUT is the --output of an encode or run job with a codec. Writes a FLAC file a segment, and quality/ with a row
    for each: SI-SDR, log-mel distance and, with a recogniser, the words that the copy loses. `report` plays
    originals and copies side by side, the worst first.
    """
    from audiomill.resynthesis.copies import resynthesize_output

    config = config_from(ResynthesizeConfig, inputs, config_file, flags)
    result = resynthesize_output(config, Console(stderr=True))
    lines = [f"{counted(result['copies'], 'segment')} made again in {result['folder']}"]
    if result["without"]:
        lines.append(f"{result['without']} without an original to compare with")
    for name, unit in (("si_sdr_db", "SI-SDR {:.1f} dB"), ("mel_distance_db", "log-mel distance {:.1f} dB")):
        if result[name] is not None:
            lines.append(unit.format(result[name]))
    if result["wer"] is not None:
        lines.append(f"WER of the copies {result['wer']:.1%}")
    click.echo(", ".join(lines))
