"""The command `tickstock`. Each module holds a command, or a group of them, of the module's name;
but for `options`, `settings` and `reference`, which are for all of them.
"""

import errno
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import tickstock
from tickstock.errors import DatabaseUnavailableError, TickstockError

COMMANDS = {
    "ingest": "Store the feed's minute bars, until Ctrl-C.",
    "scan": "Find patterns in completed candles, until Ctrl-C.",
    "listen": "Print pattern events as they are found, until Ctrl-C.",
    "chart": "Draw candles, volume and events of a SYMBOL.",
    "explain": "Explain an event: why it was found, and what came after.",
    "patterns": "List patterns, describe one, try out your own.",
    "load": "Load the vendor's minute flat files.",
    "status": "Show how the feed is doing, and each symbol.",
    "doctor": "Check everything that ingest needs, and say what to do.",
    "gaps": "List minutes that the live feed missed and nothing has filled.",
    "backfill": "Fill gaps of the live feed, or history of SYMBOLs, over REST.",
    "refresh": "Precompute the candles whose bars have changed.",
    "simulate": "Run a simulated feed: a local server with the vendor's protocol.",
    "demo": "Run the whole pipeline on a simulated market.",
    "db": "The database: its schema, its state, a shell.",
    "completion": "Print a script that lets the shell complete commands.",
}
"""What each is for, in a line; shown without importing them, which would take a second."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Program(click.Group):
    """Imports a command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tickstock.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        names = [
            CompletionItem(name, help=summary)
            for name, summary in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        # Help is told even where the settings file is broken, and shows nothing that is in it.
        words = rest[: rest.index("--")] if "--" in rest else rest
        asks_for_help = set(words) & set(ctx.help_option_names)
        if name and not ctx.resilient_parsing and not asks_for_help and _has_settings(command):
            from tickstock.cli.settings import default_map

            ctx.default_map = default_map(self, name, ctx.params["settings"])
        return name, command, rest

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except click.NoSuchOption as error:
            if error.option_name != "--settings":
                raise
            raise click.UsageError(
                "--settings comes before the command: tickstock --settings FILE COMMAND", error.ctx
            ) from None
        except click.ClickException as error:
            from tickstock import logs

            if not logs.is_json():
                raise
            logging.getLogger("tickstock").error("%s", error.format_message())
            ctx.exit(error.exit_code)

    def _invoke(self, ctx: click.Context) -> Any:
        import psycopg

        from tickstock.db.connection import first_line

        try:
            return super().invoke(ctx)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
            raise TickstockError(
                f"the database stopped this: {first_line(error)}. Try again; if that is a limit that was set "
                "for this role or database (statement_timeout, lock_timeout), raise it with `alter role`"
            ) from error
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(
                f"the database went away: {first_line(error)}. Start the command again when it is back."
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise TickstockError(
                f"this role may not do that: {first_line(error)}. Use another role, or let the "
                "schema's owner run `tickstock db grant`."
            ) from error
        except psycopg.Error as error:
            raise DatabaseUnavailableError(
                f"the database refused: {first_line(error)}. `tickstock db status` says what is there."
            ) from error
        except OSError as error:
            # What has no name is what we print to; a reader that has gone (EPIPE) is click's business.
            if error.errno not in NO_ROOM or error.filename is not None:
                raise
            _forget_output()
            raise TickstockError(
                f"the output can't be written: {error.strerror}. Make room where it goes, and start the "
                "command again"
            ) from error


def _forget_output() -> None:
    """What is still in the buffer: Python would try to write it as it ends, and complain again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _has_settings(command: click.Command | None) -> bool:
    """Without any, as completion is, a broken file is no matter: it must not greet whoever opens a shell."""
    return command is not None and (
        isinstance(command, click.Group) or any(isinstance(p, click.Option) for p in command.params)
    )


def walk(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command, with the words that call it. Imports them all."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--settings",
    envvar="TICKSTOCK_SETTINGS",
    show_envvar=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings in TOML. Default: ~/.config/tickstock/settings.toml, if it exists.",
)
@click.version_option(tickstock.__version__, prog_name="tickstock")
def main(settings: Path | None) -> None:  # _Program reads it
    """Live market data in SQL: exact candles in every timeframe, patterns published as they are found.

    \b
    Try it:      tickstock demo
    For real:    tickstock db migrate
                 tickstock ingest --symbols AAPL,TSLA
                 tickstock scan

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no database, 4 schema missing or old,
    5 the feed refuses (key, plan), 6 the feed can't be reached.
    """
