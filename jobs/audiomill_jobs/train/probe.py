"""audiomill probe: what the layers of a model know, and the weights of their mixture."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.output_jobs import ProbeJobConfig
from audiomill_jobs.options import JobCommand, config_from, with_options

EXAMPLES = """\
Examples:
  audiomill embed calls/ --model facebook/hubert-base-ls960 --layers all --pool mean --output vectors/
  audiomill probe vectors/ --labels labels.csv --by speaker --output probe/
  audiomill embed calls/ --model facebook/hubert-base-ls960 --layer-weights probe/weights.json --output mixed/
"""


@click.command(cls=JobCommand, config=ProbeJobConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="OUTPUT")
@with_options(ProbeJobConfig)
def probe(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Learn which layers tell a label, with cross-validation.

    OUTPUT is the --output of `embed --layers all --pool mean`. A linear probe is fitted to every layer, to their mean and to
    a weighted sum whose weights it learns; recordings (or what --group says) are never on both sides of a test.
    """
    from audiomill.train.probing.probing import probe_layers

    config = config_from(ProbeJobConfig, inputs, config_file, flags)
    result = probe_layers(config, Console(stderr=True))
    for way, accuracy in result["accuracy"].items():
        click.echo(f"{way:20} {accuracy:6.1%} +- {result['spread'][way]:.1%}")
    summary = f"{result['segments']} segments, {len(result['classes'])} classes, most frequent {result['majority']:.1%}"
    without = f"; {result['without_label']} without a label" if result["without_label"] else ""
    click.echo(f"{summary}{without}; weights in {config.output.output.rstrip('/')}/weights.json")
