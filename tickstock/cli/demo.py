"""`tickstock demo`."""

import logging

import click

from tickstock.cli import options
from tickstock.db.source import DEMO_DBNAME, database
from tickstock.demo import Demo


@click.command()
@click.option(
    "--seconds",
    type=click.IntRange(5),
    default=60,
    show_default=True,
    metavar="N",
    help="How long to run.",
)
@click.option(
    "--symbols",
    type=click.IntRange(1, 474_000),
    default=50,
    show_default=True,
    metavar="N",
    help="How many symbols the simulated market has.",
)
@options.database_url
def demo(seconds: int, symbols: int, database_url: str | None) -> None:
    """Run the whole pipeline on a simulated market, and show what happens.

    It uses an embedded database of its own, whose data stays until the next demo; or the given
    database, if that holds no bars yet.

    \b
    Example: tickstock demo --seconds 30
    """
    options.set_up_logging(logging.WARNING)
    with database(database_url, dbname=DEMO_DBNAME, fresh=True) as source:
        Demo(source, seconds=seconds, symbols=symbols).run()
