"""audiomill completion: the script that lets a shell complete jobs, options and choices."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  echo 'eval "$(audiomill completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(audiomill completion zsh)"' >> ~/.zshrc
    fish:  audiomill completion fish > ~/.config/fish/completions/audiomill.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "audiomill", "_AUDIOMILL_COMPLETE").source())
