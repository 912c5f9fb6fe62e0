"""`tickstock status`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson
from psycopg.rows import dict_row

from tickstock.cli import options
from tickstock.counted import counted
from tickstock.db.connection import connect, require_schema
from tickstock.db.source import database

OVERALL = "select * from feed_status"
BY_SYMBOL = "select * from symbol_status(%s)"


@click.command()
@click.option(
    "--symbols",
    metavar="LIST",
    help="Also show these tickers, separated by commas, or '*' for all.",
)
@options.as_json("One JSON object; lags are in seconds.")
@options.database_url
@options.verbosity
def status(symbols: str | None, as_json: bool, database_url: str | None) -> None:
    """Show how the feed is doing, and each symbol.

    The feed's clock, live subscriptions, incoming bars, minutes owed (missed live and not filled yet),
    and what waits to be processed. Times are UTC.

    \b
    Example: tickstock status --symbols AAPL,TSLA
    """
    wanted = None if symbols is None else _tickers(symbols)
    with database(database_url) as source, connect(source.url, program="status") as conn:
        require_schema(conn)
        with conn.cursor(row_factory=dict_row) as cursor:
            overall = cursor.execute(OVERALL).fetchone()
            by_symbol = [] if symbols is None else cursor.execute(BY_SYMBOL, (wanted,)).fetchall()
    assert overall is not None
    if as_json:
        told = {"overall": overall} | ({} if symbols is None else {"symbols": by_symbol})
        click.echo(orjson.dumps(told, default=timedelta.total_seconds, option=orjson.OPT_UTC_Z))
        return
    _show(overall)
    if symbols is not None:
        _show_symbols(by_symbol)


def _tickers(symbols: str) -> list[str] | None:
    """The tickers of the list; None for all."""
    tickers = {ticker.strip() for ticker in symbols.split(",") if ticker.strip()}
    if not tickers:
        raise click.UsageError(f"--symbols {symbols!r} names no ticker; try AAPL,TSLA or '*'")
    return None if "*" in tickers else sorted(tickers)


def _show(told: dict[str, Any]) -> None:
    names = "all symbols" if told["symbols"] is None else counted(told["symbols"], "symbol")
    live = (
        f"{told['subscriptions']}, of {names}"
        if told["subscriptions"]
        else "none: no ingest is subscribed"
    )
    lag = f", {_span(told['lag'])} behind now" if told["feed_clock"] else ""
    owed = f" ({counted(told['gaps'], 'gap')}; see `tickstock gaps`)" if told["gaps"] else ""
    for label, value in (
        ("feed's clock", _moment(told["feed_clock"], "no bar yet") + lag),
        ("market", _MARKET[told["session"]]),
        ("live subscriptions", live),
        ("bars in its last 5 min", f"{told['bars_in_5_minutes'] or 0:,}"),
        ("waits in ingest", _waiting(told)),
        ("latest complete minute", _moment(told["latest_complete"], "none")),
        ("minutes owed", f"{told['owed_minutes']:,}{owed}"),
        ("half hours to refresh", f"{told['dirty_half_hours']:,}"),
        ("candles to scan", f"{told['candles_to_scan']:,}"),
        ("events to publish", f"{told['events_to_publish']:,}"),
        ("refused in 24 hours", f"{told['refused_today']:,}"),
    ):
        click.echo(f"{label:<22}  {value}")


_MARKET = {
    "pre": "before the opening",
    "regular": "open",
    "after": "after the close",
    "closed": "closed",
}


def _waiting(told: dict[str, Any]) -> str:
    if told["frames_waiting"] is None:
        return "unknown: no live subscription has stored a bar"
    spilled = f" and {told['spilled_bytes'] / 2**20:,.1f} MiB on disk"
    return (
        f"{counted(told['frames_waiting'], 'frame')}{spilled if told['spilled_bytes'] else ''}, "
        f"stored {told['stored_after'].total_seconds():,.1f} s after receipt (as of the last batch)"
    )


def _show_symbols(rows: list[dict[str, Any]]) -> None:
    click.echo(f"\n{'symbol':<10}  {'last bar':<16}  {'lag':>10}  {'bars today':>13}  {'owed':>7}")
    for row in rows:
        lag = "" if row["lag"] is None else _span(row["lag"])
        bars = f"{row['bars']:,} of {row['expected']:,}"
        last = _moment(row["last_bar"], "none in 7 days")
        click.echo(
            f"{row['symbol']:<10}  {last:<16}  {lag:>10}  {bars:>13}  {row['owed_minutes']:>7,}"
        )


def _moment(ts: datetime | None, otherwise: str) -> str:
    return f"{ts.astimezone(UTC):%Y-%m-%d %H:%M}" if ts else otherwise


def _span(span: timedelta) -> str:
    """Days, hours and minutes, the two largest of them; seconds below a minute."""
    seconds = int(span.total_seconds())
    if abs(seconds) < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days:,} d {hours % 24} h"
