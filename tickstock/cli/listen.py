"""`tickstock listen`."""

import threading
from collections.abc import Iterable

import click
import orjson

from tickstock.cli import options
from tickstock.db.connection import connect, require_schema
from tickstock.db.source import database
from tickstock.scan.listen import Event, from_postgres, from_redis, in_words


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, for pipes.")
@options.database_url
@options.redis_url
@options.verbosity
def listen(as_json: bool, database_url: str | None, redis_url: str | None) -> None:
    """Print events as they come, until Ctrl-C: from Redis if it is given, else from Postgres.

    \b
    Example: tickstock listen --json | jq .symbol
    """
    stop = threading.Event()
    options.stop_on_signals(stop)
    if redis_url:
        _print(from_redis(redis_url, stop), as_json)
    else:
        with database(database_url) as source:
            with connect(source.url, program="listen") as conn:
                require_schema(conn)
            _print(from_postgres(source.url, stop), as_json)


def _print(events: Iterable[Event], as_json: bool) -> None:
    for event in events:
        click.echo(orjson.dumps(event) if as_json else in_words(event))
