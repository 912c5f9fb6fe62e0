"""The reference of all commands, docs/cli.md, made of the commands themselves. Not a command:

python -m tickstock.cli.reference > docs/cli.md
"""

import inspect
import re
import sys
from collections.abc import Iterator

import click

from tickstock.cli import main, options, walk
from tickstock.cli.settings import VARIABLES
from tickstock.errors import EXIT_CODES

HEAD = """\
# Command line

<!-- Made by `python -m tickstock.cli.reference > docs/cli.md`. A test compares. -->

`tickstock COMMAND --help` says the same. The command line overrides the environment variable, which
overrides the [settings file](operations.md#settings-file), which overrides the default. If an option may
be repeated, its variable holds the values separated by spaces; a switch's variable holds 1 or 0.
"""
SHARED = """
`--settings FILE` (`TICKSTOCK_SETTINGS`) and `--version` come before the command. Each command takes `-h`
and `--help`. Several commands have these:
"""
VARIABLES_TOO = """
These variables have no option (README, Settings, explains them):
"""
CODES = """
One line on standard error says why, and what to do. `tickstock db shell` ends with the code of psql.
"""
COLUMNS = ("option", "environment", "default", "what it does")


def reference() -> str:
    """The document, in Markdown."""
    commands = [(path, command) for path, command in walk(main) if not _is_group(command)]
    return "\n".join(
        [
            HEAD,
            "| command | |",
            "| --- | --- |",
            *(
                f"| [{_title(path)}](#{'-'.join(_words(path))}) | {_summary(c)} |"
                for path, c in commands
            ),
            "\n## Exit codes\n" + CODES,
            "| code | meaning |",
            "| --- | --- |",
            *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
            "\n## Options that commands share",
            SHARED,
            *_table(options.shared, options.SHARED),
            VARIABLES_TOO,
            "| variable | in the settings file |",
            "| --- | --- |",
            *(f"| `{variable}` | `{key}` |" for key, variable in VARIABLES.items()),
            *(line for path, command in commands for line in _section(path, command)),
            "",
        ]
    )


def _is_group(command: click.Command) -> bool:
    return isinstance(command, click.Group)


def _words(path: tuple[str, ...]) -> list[str]:
    return ["tickstock", *path]


def _title(path: tuple[str, ...]) -> str:
    return " ".join(_words(path))


def _summary(command: click.Command) -> str:
    return _paragraphs(command)[0]


def _paragraphs(command: click.Command) -> list[str]:
    return inspect.cleandoc(command.help or "").split("\n\n")


def _section(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    shared = {option.opts[0] for option in options.SHARED}
    given = options.options_of(command)
    own = [each for each in given if each.opts[0] not in shared]
    others = [f"`{each.opts[0]}`" for each in given if each.opts[0] in shared]
    usage = " ".join(command.collect_usage_pieces(_context(command)))
    yield f"\n## {_title(path)}\n"
    for paragraph in _paragraphs(command):
        if not paragraph.startswith("\b"):
            yield " ".join(paragraph.split()) + "\n"
    yield "```sh"
    yield from _examples(command)
    yield "```\n"
    yield from ("```text", f"{_title(path)} {usage}", "```")
    if own:
        yield ""
        yield from _table(command, own)
    if others:
        yield f"\n[Shared](#options-that-commands-share): {', '.join(others)}."


def _examples(command: click.Command) -> Iterator[str]:
    for paragraph in _paragraphs(command):
        if paragraph.startswith("\b"):
            joined = re.sub(r" \\\n\s+", " ", paragraph.removeprefix("\b\n"))
            for line in joined.splitlines():
                yield re.sub(r"^ *([A-Z][a-z ]+: )?", "", line)


def _table(command: click.Command, of: list[click.Option]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield "| --- | --- | --- | --- |"
    context = _context(command)
    for option in of:
        told = option.get_help_extra(context)
        name = " ".join([option.opts[0], "" if option.is_flag else option.make_metavar(context)])
        variables = ", ".join(f"`{name}`" for name in told.get("envvars", ()))
        default = told.get("default", "").strip("()")
        cells = (
            f"`{name.strip()}`",
            variables,
            f"`{default}`" if default else "",
            option.help or "",
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _context(command: click.Command) -> click.Context:
    return click.Context(command, info_name=command.name, **main.context_settings)


if __name__ == "__main__":
    sys.stdout.write(reference())
