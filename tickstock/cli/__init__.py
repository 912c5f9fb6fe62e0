"""The command `tickstock`. Each module holds a command, or a group of them."""

from typing import Any

import click
import psycopg

import tickstock
from tickstock.cli.db import db
from tickstock.cli.demo import demo
from tickstock.cli.ingest import ingest
from tickstock.cli.listen import listen
from tickstock.cli.load import load
from tickstock.cli.refresh import refresh
from tickstock.cli.scan import scan
from tickstock.cli.simulate import simulate
from tickstock.db.connection import first_line
from tickstock.errors import DatabaseUnavailableError


class _Program(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(
                f"the database went away: {first_line(error)}. Start the command again when it is back."
            ) from error
        except psycopg.Error as error:
            raise DatabaseUnavailableError(
                f"the database refused: {first_line(error)}. `tickstock db status` says what is there."
            ) from error


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tickstock.__version__, prog_name="tickstock")
def main() -> None:
    """Live market data into SQL: every timeframe exact, patterns published as they form.

    \b
    Try it:      tickstock demo
    For real:    tickstock db migrate
                 tickstock ingest --symbols AAPL,TSLA
                 tickstock scan

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no database, 4 schema missing or old,
    5 the feed refuses (key, plan), 6 the feed can't be reached.
    """


for command in (ingest, scan, listen, load, refresh, simulate, demo, db):
    main.add_command(command)
