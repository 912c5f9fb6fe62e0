"""`tickstock scan`."""

import threading
from collections.abc import Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import orjson
from click.core import ParameterSource
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.cli import options
from tickstock.counted import counted
from tickstock.db.connection import connect, require_schema
from tickstock.db.read import require_symbol
from tickstock.db.source import database
from tickstock.errors import TickstockError
from tickstock.patterns import discover
from tickstock.progress import progress_bar
from tickstock.scan.history import History, HistoryScan, symbols_between
from tickstock.scan.scanner import Scanner, side_by_side
from tickstock.scan.watch import telling_of_slow_patterns
from tickstock.scan.worker import ScanWorker
from tickstock.timeframes import TIMEFRAMES

NEW_YORK = ZoneInfo("America/New_York")
EVENT_OF = "select from events where symbol = %s limit 1"
DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option(
    "--from", "first_day", type=DAY, metavar="DAY", help="Scan history from this day on (New York)."
)
@click.option(
    "--to",
    "last_day",
    type=DAY,
    metavar="DAY",
    help="Last day of history. Default: to its end. Later candles that look back at it are judged too.",
)
@click.option(
    "--symbol",
    "symbols",
    multiple=True,
    metavar="SYMBOL",
    help="History: only this symbol. May be repeated.",
)
@click.option(
    "--timeframe",
    "timeframes",
    multiple=True,
    type=click.Choice(TIMEFRAMES),
    help="History: only this timeframe. May be repeated.",
)
@options.as_json("History: one JSON object at the end.")
@options.patterns_folder
@options.pattern_timeout
@options.database_url
@options.redis_url
@options.verbosity
def scan(
    first_day: datetime | None,
    last_day: datetime | None,
    symbols: tuple[str, ...],
    timeframes: tuple[str, ...],
    as_json: bool,
    folder: Path | None,
    pattern_timeout: float,
    database_url: str | None,
    redis_url: str | None,
) -> None:
    """Find patterns in completed candles, until Ctrl-C; with --from, in history.

    Events are recorded in the table events and published on the channel tickstock_patterns, by
    NOTIFY and on Redis. Several scanners share the work. The table patterns sets what to look for.
    A scan of history finds the events that live scanning would have found; it is safe to repeat and
    to interrupt.

    \b
    Example: tickstock scan --redis-url redis://localhost:6379/0
             tickstock scan --from 2025-01-02 --to 2025-06-30 --symbol AAPL
    """
    if not first_day and _asked_for_history():
        raise click.UsageError(
            "--to, --symbol, --timeframe and --json are for history: give --from, too"
        )
    patterns = discover(folder)
    with database(database_url) as source:
        if first_day:
            what = History(_midnight(first_day), _end_of(last_day), timeframes or TIMEFRAMES)
            with telling_of_slow_patterns(pattern_timeout):
                _history(
                    source.url, side_by_side(patterns, pattern_timeout), what, symbols, as_json
                )
            return
        worker = ScanWorker(
            source.url, patterns, redis_url=redis_url, pattern_timeout=pattern_timeout
        )
        options.stop_on_signals(worker.stop)
        worker.run()


def _asked_for_history() -> bool:
    """On the command line; what the settings file says of history is no matter of live scanning."""
    context = click.get_current_context()
    return any(
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        for name in ("last_day", "symbols", "timeframes", "as_json")
    )


def _history(
    url: str, scanners: Sequence[Scanner], what: History, symbols: tuple[str, ...], as_json: bool
) -> None:
    if what.since >= what.until:
        raise click.UsageError("--to is before --from")
    stop = threading.Event()
    options.stop_on_signals(stop)
    with connect(url, program="scan") as conn:
        require_schema(conn)
        for symbol in symbols:
            _require(conn, symbol)
        wanted = list(dict.fromkeys(symbols)) or symbols_between(conn, what.since, what.until)
    with progress_bar(len(wanted), "symbols") as progress:
        total = HistoryScan(url, scanners, what, stop=stop, progress=progress.update).run(wanted)
    if as_json:
        click.echo(orjson.dumps({"symbols": len(wanted), **total._asdict()}))
    else:
        click.echo(
            f"{counted(total.candles, 'candle')} of {counted(len(wanted), 'symbol')} scanned:"
            f" {counted(total.events, 'event')} new or changed, {total.retracted:,} retracted"
        )
    if stop.is_set():
        raise TickstockError(
            "stopped before the end: run the same command again to scan everything"
        )


def _require(conn: Connection[TupleRow], symbol: str) -> None:
    """UnknownSymbolError for one without candles; its events may be there to be taken back."""
    if conn.execute(EVENT_OF, (symbol,)).fetchone() is None:
        require_symbol(conn, symbol)


def _end_of(day: datetime | None) -> datetime:
    """Of none it is the end of time, and so it is of a day in its last year."""
    if day is None or day.year == MAXYEAR:
        return datetime.max.replace(tzinfo=UTC)
    return _midnight(day + timedelta(days=1))


def _midnight(day: datetime) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)
