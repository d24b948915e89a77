"""``hostler completion``: the script that makes a shell complete commands, flags and names."""

from __future__ import annotations

import click

from hostler.cli.options import Verb

_INSTALL = {
    "bash": "hostler completion bash > ~/.local/share/bash-completion/completions/hostler",
    "zsh": 'hostler completion zsh > "${fpath[1]}/_hostler"',
    "fish": "hostler completion fish > ~/.config/fish/completions/hostler.fish",
}


@click.command("completion", cls=Verb)
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell; ids are completed from the server."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "hostler", "_HOSTLER_COMPLETE").source())
    click.echo(f"to install it: {_INSTALL[shell]}", err=True)
