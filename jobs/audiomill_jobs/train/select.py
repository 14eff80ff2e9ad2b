"""audiomill select: transcripts -> pseudo-labels."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.select import SelectJobConfig
from audiomill_jobs.options import JobCommand, config_from, with_options

EXAMPLES = """\
Examples:
  audiomill select transcripts/ --min-confidence 0.9 --output selected/
  audiomill select transcripts/ --calibrate labelled-transcripts/ --max-expected-wer 0.1 --budget 50h --output selected/
  audiomill select transcripts/ --compare-with other-model/ --max-disagreement 0.1 --lm news.arpa --min-lm-score -8 \\
      --held-out test.jsonl --balance source,duration --budget 500h --output selected/
"""


@click.command(cls=JobCommand, config=SelectJobConfig, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="OUTPUT...")
@with_options(SelectJobConfig)
def select(inputs: tuple[str, ...], config_file: str | None, **flags: Any) -> None:
    """Turn transcripts into pseudo-labels by rules that need no ground truth.

    OUTPUT is the --output of transcribe runs. Every dropped segment is counted with its reason and kept in
    dropped.parquet; report.html plays some of each. The selection is a table (selected.parquet, for `finetune`), a
    manifest (NeMo, Hugging Face datasets) and Lhotse cuts.
    """
    from audiomill.train.select import selection

    config = config_from(SelectJobConfig, inputs, config_file, flags)
    report = selection.select_labels(config, Console(stderr=True))
    for line in selection.selection_lines(report, config.output.output):
        click.echo(line)
