"""`tickstock completion`, and the values that it can complete without a database."""

import logging

import click
from click.shell_completion import CompletionItem, get_completion_class

from tickstock.errors import TickstockError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_TICKSTOCK_COMPLETE"
"""What click looks for, when the program is called tickstock."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that lets the shell complete commands, options and values.

    \b
    Example: eval "$(tickstock completion bash)"             # in ~/.bashrc; zsh: in ~/.zshrc
             tickstock completion fish > ~/.config/fish/completions/tickstock.fish
    """
    program = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found
    click.echo(found(program, {}, "tickstock", VARIABLE).source())


def timeframes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    from tickstock.timeframes import TIMEFRAMES

    return [CompletionItem(name) for name in TIMEFRAMES if name.startswith(incomplete)]


def patterns(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Patterns by name, upper or lower case; those of --patterns too, where the command has it."""
    from tickstock.patterns import discover

    logging.disable()  # what is wrong with a file of patterns is not for the middle of a line
    try:
        found = discover(context.params.get("folder"))
    except TickstockError:
        found = discover()
    return [
        CompletionItem(each.name, help=each.summary)
        for each in found
        if each.name.lower().startswith(incomplete.lower())
    ]


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The shell's own completion of files."""
    return [CompletionItem(incomplete, type="file")]
