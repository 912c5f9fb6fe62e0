"""`tickstock backfill`."""

import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click
import orjson
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.cli import options
from tickstock.db.connection import connect, fetch_value, require_schema
from tickstock.db.source import database
from tickstock.db.upkeep import refresh
from tickstock.db.writer import Counts
from tickstock.errors import TickstockError
from tickstock.feed import rest
from tickstock.feed.http import StoppedError
from tickstock.feed.rest import RestClient
from tickstock.ingest.fill import Gap, ask, askable, fill, source_clock
from tickstock.ingest.load import load_whole_day

NEW_YORK = ZoneInfo("America/New_York")
DAY = click.DateTime(["%Y-%m-%d"])
STRETCH = timedelta(days=60)
"""Of one request: fewer minutes than the 50,000 that an answer may hold."""


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option("--from", "first_day", type=DAY, metavar="DAY", help="First day (New York).")
@click.option("--to", "last_day", type=DAY, metavar="DAY", help="Last day; today if left out.")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Fill from the vendor's minute file of a day, which holds all symbols. May be given again.",
)
@options.as_json("One JSON object a line: a file, or all that was asked for.")
@options.feed_url
@options.rest_url
@options.calls_per_minute
@options.api_key
@options.database_url
@options.verbosity
def backfill(
    symbols: tuple[str, ...],
    first_day: datetime | None,
    last_day: datetime | None,
    files: tuple[str, ...],
    as_json: bool,
    feed_url: str,
    rest_url: str | None,
    calls_per_minute: int | None,
    api_key: str | None,
    database_url: str | None,
) -> None:
    """Fill what the feed owes, or history of SYMBOLs, by REST; or a day by its flat file.

    Safe to repeat, and to interrupt: what has been told is kept. History is not scanned for patterns.

    \b
    Example: tickstock backfill
             tickstock backfill AAPL TSLA --from 2025-01-02 --to 2025-06-30
             tickstock backfill --file 2025-11-24.csv.gz
    """
    if bool(symbols) != bool(first_day) or (last_day and not first_day):
        raise click.UsageError("history needs both: SYMBOL... and --from DAY (and --to DAY)")
    if files and symbols:
        raise click.UsageError("either SYMBOL... with --from, or --file, not both")
    stop = threading.Event()
    options.stop_on_signals(stop)
    with database(database_url) as source, connect(source.url, program="backfill") as conn:
        require_schema(conn)
        if files:
            for file in files:
                day, counts = load_whole_day(conn, source.url, file)
                _tell({"file": file, "day": str(day)}, f"{day}, all symbols", counts, as_json)
            return
        with (
            closing(_client(feed_url, rest_url, api_key, calls_per_minute, stop)) as client,
            suppress(StoppedError),
        ):
            if first_day:
                counts = _history(conn, client, symbols, first_day, last_day, feed_url, stop)
                names = f"{', '.join(symbols[:5])}{' …' if len(symbols) > 5 else ''}"
                _tell({"symbols": symbols}, names, counts, as_json)
            else:
                _fill_owed(conn, client, feed_url, stop, as_json)
        refresh(conn, source.url)
    if stop.is_set():
        raise TickstockError("stopped before the end: the same command goes on where this one was")


def _client(
    feed_url: str,
    rest_url: str | None,
    api_key: str | None,
    calls_per_minute: int | None,
    stop: threading.Event,
) -> RestClient:
    url = rest_url or rest.url_beside(feed_url)
    if not url:
        raise click.UsageError(
            f"which REST API belongs to {feed_url}? Set --rest-url (TICKSTOCK_REST_URL)"
        )
    if not api_key:
        raise click.UsageError("no API key: set MASSIVE_API_KEY (or POLYGON_API_KEY)")
    # Somebody waits: what does not answer within some seconds is told, and can be started again.
    return RestClient(url, api_key, stop=stop, calls_per_minute=calls_per_minute, tries=5)


def _fill_owed(
    conn: Connection[TupleRow],
    client: RestClient,
    feed: str,
    stop: threading.Event,
    as_json: bool,
) -> None:
    clock = source_clock(conn, client, feed)
    gaps = askable(conn, clock) if clock else []
    counts = Counts()
    with click.progressbar(gaps, label="gaps", file=sys.stderr) as progress:
        for gap in progress:
            if stop.is_set():
                break
            assert clock is not None
            counts = counts.plus(fill(conn, client, gap, clock))
    left = fetch_value(conn, "select count(*) from tickstock.owed(%s)", clock) if clock else None
    _tell({"gaps": len(gaps), "still_owed": left}, f"{len(gaps):,} gaps", counts, as_json)
    if left is not None and not as_json:
        click.echo(f"{left:,} gaps are still owed: tickstock gaps" if left else "nothing is owed")


def _history(
    conn: Connection[TupleRow],
    client: RestClient,
    symbols: Sequence[str],
    first_day: datetime,
    last_day: datetime | None,
    feed: str,
    stop: threading.Event,
) -> Counts:
    clock = source_clock(conn, client, feed) or datetime.now(UTC)
    stretches = _stretches(first_day, last_day or clock, clock)
    wanted = [
        Gap(symbol, starts, ends)
        for symbol in (client.symbols() if "*" in symbols else symbols)
        for starts, ends in stretches
    ]
    counts = Counts()
    with click.progressbar(wanted, label="history", file=sys.stderr) as progress:
        for gap in progress:
            if stop.is_set():
                break
            counts = counts.plus(ask(conn, client, gap, clock, queue_for_scan=False))
    return counts


def _stretches(
    first_day: datetime, last_day: datetime, clock: datetime
) -> list[tuple[datetime, datetime]]:
    """From the first day's beginning to the last one's end in New York, or to now; newest first."""
    starts = _midnight(first_day)
    ends = min(_midnight(last_day + timedelta(days=1)), clock.replace(second=0, microsecond=0))
    if starts >= ends:
        raise click.UsageError(
            f"--from {first_day:%Y-%m-%d}: no time has passed since, or --to is earlier"
        )
    found = []
    while starts < ends:
        found.append((starts, min(starts + STRETCH, ends)))
        starts += STRETCH
    return found[::-1]


def _midnight(day: datetime) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)


def _tell(what: dict[str, object], words: str, counts: Counts, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps({**what, **counts._asdict()}))
        return
    click.echo(
        f"{words}: {counts.received:,} bars = {counts.inserted:,} new + {counts.replaced:,} replaced"
        f" + {counts.unchanged:,} unchanged + {counts.refused:,} refused"
    )
