"""`tickstock ingest`."""

import click

from tickstock.cli import options
from tickstock.db.source import database
from tickstock.feed import rest
from tickstock.feed.client import FeedClient
from tickstock.ingest.pipeline import Ingest


@click.command()
@click.option(
    "--symbols",
    required=True,
    envvar="TICKSTOCK_SYMBOLS",
    show_envvar=True,
    metavar="LIST",
    help="Tickers, separated by commas, or '*' for all.",
)
@options.feed_url
@click.option(
    "--rest-url",
    envvar="TICKSTOCK_REST_URL",
    show_envvar=True,
    show_default=f"{rest.DEFAULT_URL} for the vendor's feeds",
    metavar="URL",
    help="REST API of the feed, asked at the start whether the market is open.",
)
@options.api_key
@options.database_url
@options.redis_url
@options.verbosity
def ingest(
    symbols: str,
    feed_url: str,
    rest_url: str | None,
    api_key: str | None,
    database_url: str | None,
    redis_url: str | None,
) -> None:
    """Store the feed's minute bars, until Ctrl-C.

    \b
    Example: MASSIVE_API_KEY=… tickstock ingest --symbols AAPL,TSLA
    """
    if not api_key:
        raise click.UsageError(
            "no API key: set MASSIVE_API_KEY (or POLYGON_API_KEY). "
            "Without an account, try `tickstock demo` or `tickstock simulate`."
        )
    tickers = [ticker.strip() for ticker in symbols.split(",") if ticker.strip()]
    if not tickers:
        raise click.UsageError(f"--symbols {symbols!r} names no ticker; try AAPL,TSLA or '*'")
    with database(database_url) as source:
        pipeline = Ingest(
            source.url,
            lambda on_frame, stop: FeedClient(
                feed_url, api_key, tickers, on_frame=on_frame, stop=stop
            ),
            redis_url=redis_url,
        )
        options.stop_on_signals(pipeline.stop)
        if rest_url := rest_url or rest.url_beside(feed_url):
            rest.log_market_now(rest_url, api_key)
        pipeline.run()
