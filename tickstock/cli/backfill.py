"""`tickstock backfill`."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import click
import orjson
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.cli import options
from tickstock.counted import counted
from tickstock.db.connection import connect, fetch_value, require_schema
from tickstock.db.source import database
from tickstock.db.upkeep import refresh
from tickstock.db.writer import Counts
from tickstock.errors import TickstockError
from tickstock.feed import rest
from tickstock.feed.http import StoppedError
from tickstock.feed.rest import RestClient
from tickstock.ingest.fill import (
    OF_ALL_QUESTIONS,
    OF_ONE_QUESTION,
    Failure,
    Filled,
    Gap,
    ask_each,
    askable,
    fill,
    questions,
    source_clock,
)
from tickstock.ingest.load import load_whole_day
from tickstock.progress import progress_bar

NEW_YORK = ZoneInfo("America/New_York")
DAY = click.DateTime(["%Y-%m-%d"])
REQUESTS = "select starts, ends from tickstock.requests(%s, %s)"
LISTED = 20
"""Of what was not filled, so much is listed for people."""


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option("--from", "first_day", type=DAY, metavar="DAY", help="First day (New York).")
@click.option("--to", "last_day", type=DAY, metavar="DAY", help="Last day. Default: today.")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Fill a day from the vendor's minute file (-: standard input) of all symbols. May be repeated.",
)
@options.as_json("One JSON object per line: for each file, or for the whole request.")
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
    """Fill gaps of the live feed, or history of SYMBOLs, over REST; or a day from its flat file.

    Safe to repeat and to interrupt: bars received so far are kept. History is not scanned for patterns.

    \b
    Example: tickstock backfill
             tickstock backfill AAPL TSLA --from 2025-01-02 --to 2025-06-30
             tickstock backfill --file 2025-11-24.csv.gz
    """
    if bool(symbols) != bool(first_day) or (last_day and not first_day):
        raise click.UsageError(
            "history needs both: SYMBOL... and --from DAY (--to DAY is optional)"
        )
    if files and symbols:
        raise click.UsageError("either SYMBOL... with --from, or --file, not both")
    stop = threading.Event()
    options.stop_on_signals(stop)
    with database(database_url) as source, connect(source.url, program="backfill") as conn:
        require_schema(conn)
        filled = Filled(Counts(), [])
        if files:
            for file in files:
                day, counts = load_whole_day(conn, source.url, file, stop)
                _tell({"file": file, "day": str(day)}, f"{day}, all symbols", counts, as_json)
            return
        with (
            closing(_client(feed_url, rest_url, api_key, calls_per_minute, stop)) as client,
            suppress(StoppedError),
        ):
            if first_day:
                filled = _history(conn, client, symbols, first_day, last_day, feed_url, as_json)
            else:
                filled = _fill_owed(conn, client, feed_url, as_json)
        refresh(conn, source.url)
    _list("not filled", [f"{gap}: {error.message}" for gap, error in filled.failures])
    _list("not asked to the end", list(map(str, filled.left)))
    if stop.is_set():
        raise TickstockError(
            "stopped before the end: the same command continues where this one was"
        )
    if isinstance(filled.ended, TickstockError):
        raise type(filled.ended)(
            f"{filled.ended.message}. Bars received so far are kept, and the same command asks for the rest"
        )
    if filled.failures:
        _fail(filled.failures)


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
            f"no REST API is known for {feed_url}: set --rest-url (TICKSTOCK_REST_URL)"
        )
    if not api_key:
        raise click.UsageError("no API key: set MASSIVE_API_KEY (or POLYGON_API_KEY)")
    # Somebody waits: what does not answer within some seconds is told, and can be started again.
    return RestClient(url, api_key, stop=stop, calls_per_minute=calls_per_minute, tries=5)


def _fill_owed(conn: Connection[TupleRow], client: RestClient, feed: str, as_json: bool) -> Filled:
    """Fill what is owed, and tell; what became of it."""
    clock = source_clock(conn, client, feed)
    gaps = askable(conn, clock) if clock else []
    plans, total = _plans(conn, client, gaps)
    with progress_bar(sum(len(asked) for _, asked in plans), "gaps", show_pos=True) as progress:
        for gap, asked in plans:
            assert clock is not None
            if total.ended:
                filled = Filled(Counts(), [], asked)
            else:
                filled = fill(conn, client, gap, asked, clock, lambda _: progress.update(1))
            total = total.plus(filled)
    left = fetch_value(conn, "select count(*) from tickstock.owed(%s)", clock) if clock else None
    what = {"gaps": len(gaps), "still_owed": left, **_listed(total)}
    _tell(what, counted(len(gaps), "gap"), total.counts, as_json)
    if left is not None and not as_json:
        click.echo(
            f"{counted(left, 'gap')} still owed: `tickstock gaps` says why"
            if left
            else "nothing is owed"
        )
    return total


def _plans(
    conn: Connection[TupleRow], client: RestClient, gaps: Sequence[Gap]
) -> tuple[list[tuple[Gap, list[Gap]]], Filled]:
    """The gaps with what to ask for each, so that it is known how much that is; and what fails."""
    plans, failures = [], []
    for number, gap in enumerate(gaps):
        try:
            plans.append((gap, questions(conn, client, gap)))
        except OF_ONE_QUESTION as error:
            failures.append(Failure(gap, error))
        except OF_ALL_QUESTIONS as error:
            return plans, Filled(Counts(), failures, gaps[number:], error)
    return plans, Filled(Counts(), failures)


def _history(
    conn: Connection[TupleRow],
    client: RestClient,
    symbols: Sequence[str],
    first_day: datetime,
    last_day: datetime | None,
    feed: str,
    as_json: bool,
) -> Filled:
    """Ask for history, and tell; what became of it."""
    clock = source_clock(conn, client, feed) or datetime.now(UTC)
    bounds = _bounds(first_day, last_day or clock, clock)
    requests = conn.execute(REQUESTS, bounds).fetchall()
    wanted = [
        Gap(symbol, starts, ends)
        for symbol in (client.symbols() if "*" in symbols else symbols)
        for starts, ends in requests
    ]
    with progress_bar(len(wanted), "history", show_pos=True) as progress:
        filled = ask_each(
            conn, client, wanted, clock,
            queue_for_scan=False, progress=lambda _: progress.update(1),
        )  # fmt: skip
    names = f"{', '.join(symbols[:5])}{' …' if len(symbols) > 5 else ''}"
    _tell({"symbols": symbols, **_listed(filled)}, names, filled.counts, as_json)
    return filled


def _list(what: str, lines: Sequence[str]) -> None:
    """The first of them, for people."""
    for line in lines[:LISTED]:
        click.echo(f"{what}: {line}", err=True)
    more = len(lines) - LISTED
    if more > 0:
        click.echo(f"{what}: {more:,} more, --json lists them all", err=True)


def _fail(failures: Sequence[Failure]) -> None:
    """End with an error like theirs, if they are alike."""
    kinds = {type(error) for _, error in failures}
    kind = kinds.pop() if len(kinds) == 1 else TickstockError
    raise kind(
        f"{len(failures):,} of the requests failed; bars from the others are kept,"
        " and the same command asks for these again"
    )


def _bounds(first_day: datetime, last_day: datetime, clock: datetime) -> tuple[datetime, datetime]:
    """From the first day's beginning to the last one's end in New York, or to now."""
    starts = _midnight(first_day)
    now = clock.replace(second=0, microsecond=0)
    # Compared before a day is added: the calendar has a last one.
    ends = min(_midnight(min(last_day.date(), now.date()) + timedelta(days=1)), now)
    if starts >= ends:
        raise click.UsageError(
            f"--from {first_day:%Y-%m-%d}: no time has passed since, or --to is earlier"
        )
    return starts, ends


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)


def _listed(filled: Filled) -> dict[str, object]:
    return {
        "failed": [{**gap._asdict(), "reason": error.message} for gap, error in filled.failures],
        "not_asked": [gap._asdict() for gap in filled.left],
    }


def _tell(what: Mapping[str, object], words: str, counts: Counts, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps({**what, **counts._asdict()}))
        return
    click.echo(
        f"{words}: {counted(counts.received, 'bar')} = {counts.inserted:,} new + {counts.replaced:,} replaced"
        f" + {counts.unchanged:,} unchanged + {counts.refused:,} refused"
    )
