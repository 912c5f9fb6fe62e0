"""`tickstock refresh`."""

import click

from tickstock.cli import options
from tickstock.db.connection import connect, fetch_value, require_schema
from tickstock.db.source import database


@click.command()
@options.database_url
@options.verbosity
def refresh(database_url: str | None) -> None:
    """Materialize the candles that have changed. Makes queries cheaper; answers stay the same.

    `tickstock ingest` does it all the time; this is for after changes by hand.

    \b
    Example: tickstock refresh
    """
    with database(database_url) as source, connect(source.url, program="refresh") as conn:
        require_schema(conn)
        conn.execute("call ohlcv_refresh()")
        left = fetch_value(conn, "select count(*) from tickstock.dirty")
        click.echo(f"refreshed; {left:,} half hours are still forming and stay live")
