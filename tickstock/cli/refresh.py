"""`tickstock refresh`."""

import threading

import click
import orjson

from tickstock.cli import options
from tickstock.counted import counted
from tickstock.db.connection import connect, fetch_value, require_schema
from tickstock.db.source import database
from tickstock.db.upkeep import UpkeepWorker
from tickstock.db.upkeep import refresh as refresh_candles


@click.command()
@click.option(
    "--every",
    envvar="TICKSTOCK_REFRESH_EVERY",
    show_envvar=True,
    metavar="SECONDS",
    type=options.Seconds(min=0.1),
    help="Repeat until Ctrl-C, and apply storage_policy (old bars) every hour.",
)
@options.as_json()
@options.database_url
@options.verbosity
def refresh(every: float | None, as_json: bool, database_url: str | None) -> None:
    """Precompute the candles whose bars have changed. Makes queries cheaper; answers stay the same.

    `tickstock ingest` and `tickstock scan` do this all the time. Use it after changes by hand, and for
    databases on which neither runs.

    \b
    Example: tickstock refresh
    """
    with database(database_url) as source:
        with connect(source.url, program="refresh") as conn:
            require_schema(conn)
            refresh_candles(conn, source.url)
            left = fetch_value(conn, "select count(*) from tickstock.dirty")
        if as_json:
            click.echo(orjson.dumps({"still_live_half_hours": left}))
        else:
            click.echo(f"refreshed; still forming and computed live: {counted(left, 'half hour')}")
        if every is not None:
            stop = threading.Event()
            options.stop_on_signals(stop)
            UpkeepWorker(source.url, stop, interval=every).run()
