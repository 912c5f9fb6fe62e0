"""`tickstock scan`."""

from pathlib import Path

import click

from tickstock.cli import options
from tickstock.db.source import database
from tickstock.patterns import discover
from tickstock.scan.worker import ScanWorker


@click.command()
@click.option(
    "--patterns",
    "folder",
    envvar="TICKSTOCK_PATTERNS",
    show_envvar=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder with Python files of your own patterns.",
)
@options.database_url
@options.redis_url
@options.verbosity
def scan(folder: Path | None, database_url: str | None, redis_url: str | None) -> None:
    """Find patterns in completed candles, until Ctrl-C.

    Events are recorded in the table events and published on tickstock_patterns, by NOTIFY and on
    Redis. Several scanners share the work.

    \b
    Example: tickstock scan --redis-url redis://localhost:6379/0
    """
    patterns = discover(folder)
    with database(database_url) as source:
        worker = ScanWorker(source.url, patterns, redis_url=redis_url)
        options.stop_on_signals(worker.stop)
        worker.run()
