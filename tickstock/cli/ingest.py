"""`tickstock ingest`."""

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.core import ParameterSource
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.cli import options
from tickstock.db.connection import connect, require_schema
from tickstock.db.source import database
from tickstock.embedded.paths import data_dir
from tickstock.feed import rest
from tickstock.feed.client import FeedClient
from tickstock.feed.opening import redact_url
from tickstock.feed.rest import RestClient
from tickstock.feed.watchdog import PATIENCE, Watchdog
from tickstock.ingest.fill import Filler, delay_of
from tickstock.ingest.inbox import MEMORY
from tickstock.ingest.making import Making
from tickstock.ingest.pipeline import Ingest, Listener
from tickstock.ingest.symbols import SymbolsFile, read_symbols

log = logging.getLogger(__name__)

SMALL_PAGE = 10_000
"""Bars in an answer of REST: parsing a larger one would hold up the thread that drains the socket."""
CHANNELS = ("AM", "A", "T")
SESSIONS = "select opens_at, closes_at from trading_days order by day"


@click.command()
@click.option(
    "--symbols",
    envvar="TICKSTOCK_SYMBOLS",
    show_envvar=True,
    metavar="LIST",
    help="Tickers, separated by commas, or '*' for all.",
)
@click.option(
    "--symbols-file",
    envvar="TICKSTOCK_SYMBOLS_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with one ticker per line; # begins a comment. Ingest follows changes while it runs.",
)
@click.option(
    "--channel",
    "channels",
    envvar="TICKSTOCK_CHANNEL",
    show_envvar=True,
    multiple=True,
    type=click.Choice(CHANNELS),
    default=["AM"],
    show_default="AM",
    help="AM: minute bars. A: second bars, T: trades, to make minute bars from. May be repeated.",
)
@click.option(
    "--store-ticks",
    envvar="TICKSTOCK_STORE_TICKS",
    show_envvar=True,
    is_flag=True,
    help="Also store the trades of channel T, in the table ticks.",
)
@options.feed_url
@options.rest_url
@options.calls_per_minute
@options.api_key
@options.database_url
@options.redis_url
@click.option(
    "--silence-limit",
    envvar="TICKSTOCK_SILENCE_LIMIT",
    show_envvar=True,
    type=options.Seconds(min=0.1),
    default=PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="Reconnect after so long without data in a regular session.",
)
@click.option(
    "--spill-after",
    envvar="TICKSTOCK_SPILL_AFTER",
    show_envvar=True,
    type=click.IntRange(min=0),
    default=MEMORY >> 20,
    show_default=True,
    metavar="MIB",
    help="Memory for data that waits for the database; more goes to a file below $TICKSTOCK_DATA_DIR.",
)
@click.option(
    "--metrics-port",
    envvar="TICKSTOCK_METRICS_PORT",
    show_envvar=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve metrics for Prometheus at http://HOST:PORT/metrics; 0: any free port.",
)
@click.option(
    "--metrics-host",
    envvar="TICKSTOCK_METRICS_HOST",
    show_envvar=True,
    default="127.0.0.1",
    show_default=True,
    metavar="HOST",
    help="Address of this machine for the metrics; 0.0.0.0: all of them.",
)
@options.verbosity
def ingest(
    symbols: str | None,
    symbols_file: Path | None,
    channels: tuple[str, ...],
    store_ticks: bool,
    feed_url: str,
    rest_url: str | None,
    calls_per_minute: int | None,
    api_key: str | None,
    database_url: str | None,
    redis_url: str | None,
    silence_limit: float,
    spill_after: int,
    metrics_port: int | None,
    metrics_host: str,
) -> None:
    """Store the feed's minute bars, until Ctrl-C.

    \b
    Example: MASSIVE_API_KEY=… tickstock ingest --symbols AAPL,TSLA
             MASSIVE_API_KEY=… tickstock ingest --symbols-file watchlist.txt
             MASSIVE_API_KEY=… tickstock ingest --symbols AAPL --channel T --store-ticks
    """
    if not api_key:
        raise click.UsageError(
            "no API key: set MASSIVE_API_KEY (or POLYGON_API_KEY). "
            "Without an account, try `tickstock demo` or `tickstock simulate`."
        )
    if symbols is not None and symbols_file is not None:
        symbols, symbols_file = _stronger(symbols, symbols_file)
    tickers = _tickers(symbols, symbols_file)
    channels = _checked(channels, store_ticks)
    with database(database_url) as source:

        def make_client(listener: Listener, stop: threading.Event) -> FeedClient:
            return FeedClient(
                feed_url,
                api_key,
                tickers,
                on_frame=listener.receive,
                on_subscribed=listener.subscribed,
                on_lost=listener.lost,
                patience=listener.patience,
                stop=stop,
                channels=channels,
                ping_after=min(20.0, silence_limit / 2),
                ping_timeout=min(10.0, silence_limit / 2),
            )

        rest_url = rest_url or rest.url_beside(feed_url)

        def make_filler(stop: threading.Event) -> Filler:
            assert rest_url
            client = RestClient(
                rest_url, api_key, stop=stop, calls_per_minute=calls_per_minute, page_limit=10_000
            )
            return Filler(source.url, client, stop, feed=feed_url)

        with connect(source.url, program="calendar") as conn:
            require_schema(conn)
            sessions = [(opens, closes) for opens, closes in conn.execute(SESSIONS)]
            spill = spill_path(feed_url, conn)
        pipeline = Ingest(
            source.url,
            make_client,
            feed=redact_url(feed_url),
            spill=spill,
            channels=channels,
            making=Making(channels, sessions, keep_trades=store_ticks),
            watchdog=Watchdog(sessions, patience=silence_limit, delay=delay_of(feed_url)),
            redis_url=redis_url,
            make_filler=make_filler if rest_url else None,
            memory=spill_after << 20,
        )
        options.stop_on_signals(pipeline.stop)
        if symbols_file:
            change, stop = pipeline.client.change_symbols, pipeline.stop
            SymbolsFile(symbols_file, tickers, change, stop).start()
        if rest_url:
            rest.log_market_now(rest_url, api_key)
        with _metrics(pipeline, metrics_host, metrics_port):
            pipeline.run()


@contextmanager
def _metrics(pipeline: Ingest, host: str, port: int | None) -> Iterator[None]:
    """Metrics for the length of the block, if they are asked for."""
    if port is None:
        yield
        return
    from tickstock.ingest.metrics import served  # a library that most runs can do without

    with served(pipeline, host, port) as port:
        log.info("metrics: http://%s:%d/metrics", host, port)
        yield


def _tickers(symbols: str | None, file: Path | None) -> list[str]:
    if (symbols is None) == (file is None):
        raise click.UsageError(
            "which symbols? Give either --symbols AAPL,TSLA (or '*' for all) or --symbols-file FILE"
        )
    if file is not None:
        return read_symbols(file)
    assert symbols is not None
    tickers = [ticker.strip() for ticker in symbols.split(",") if ticker.strip()]
    if not tickers:
        raise click.UsageError(f"--symbols {symbols!r} names no ticker; try AAPL,TSLA or '*'")
    return tickers


def _stronger(symbols: str, file: Path) -> tuple[str | None, Path | None]:
    """Of both the one that stands in the stronger place, such as the command line; or both."""
    context = click.get_current_context()
    for place in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
        given = [
            context.get_parameter_source(name) is place for name in ("symbols", "symbols_file")
        ]
        if any(given):
            return (symbols if given[0] else None), (file if given[1] else None)
    return symbols, file


def _checked(channels: tuple[str, ...], store_ticks: bool) -> tuple[str, ...]:
    """Each channel once, in a fixed order."""
    if {"A", "T"} <= set(channels):
        raise click.UsageError(
            "--channel A and T: bars can be made from seconds or from trades, not both; choose one"
        )
    if store_ticks and "T" not in channels:
        raise click.UsageError("--store-ticks stores trades: add --channel T")
    return tuple(channel for channel in CHANNELS if channel in channels)


def spill_path(feed_url: str, conn: Connection[TupleRow]) -> Path:
    """Where what one feed sent for one database waits when memory is full.

    The database, not its URL: a new password must not leave the file behind, nor may libpq's
    variables, which are in no URL, lead to that of another database.
    """
    given = conn.info.get_parameters()
    # As they were given: of several hosts another one may answer next time.
    place = [given.get(name, "") for name in ("host", "hostaddr", "port")]
    whole = " ".join((redact_url(feed_url), *place, conn.info.dbname))
    return data_dir() / "spill" / hashlib.sha256(whole.encode()).hexdigest()[:12]
