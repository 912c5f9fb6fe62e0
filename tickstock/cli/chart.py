"""`tickstock chart`."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import get_terminal_size
from zoneinfo import ZoneInfo

import click

from tickstock.chart.series import Series, read_series
from tickstock.cli import completion, options
from tickstock.counted import counted
from tickstock.db.connection import connect, require_schema
from tickstock.db.read import Ask
from tickstock.db.source import DBNAME, DEMO_DBNAME, database
from tickstock.errors import TickstockError, UnknownSymbolError

NEW_YORK = ZoneInfo("America/New_York")
LAST = 200
"""Candles, where no range is asked for."""
FORMATS = (".html", ".png")


class _Moment(click.ParamType[datetime]):
    """A day, or a time of day, in New York; as UTC."""

    name = "time"

    def __init__(self, *, end_of_day: bool) -> None:
        self._end_of_day = end_of_day

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if "T" in value or " " in value:
                local = datetime.strptime(value.replace(" ", "T"), "%Y-%m-%dT%H:%M")  # noqa: DTZ007
            else:
                local = datetime.strptime(value, "%Y-%m-%d")  # noqa: DTZ007
                local += timedelta(days=self._end_of_day)
            return local.replace(tzinfo=NEW_YORK).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a day such as 2025-11-24 nor a time such as 2025-11-24T09:30",
                param,
                ctx,
            )


@click.command()
@click.argument("symbol")
@click.argument("timeframe", shell_complete=completion.timeframes)
@click.option(
    "--from",
    "since",
    type=_Moment(end_of_day=False),
    metavar="TIME",
    help="From this day, or from a time such as 2025-11-24T09:30 (New York).",
)
@click.option(
    "--to",
    "until",
    type=_Moment(end_of_day=True),
    metavar="TIME",
    help="To the end of this day, or before this time.",
)
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Only the last N candles; {LAST} if no range is given.",
)
@click.option(
    "--sessions",
    type=click.Choice(["all", "regular"]),
    default="all",
    show_default=True,
    help="all includes pre-market and after-hours.",
)
@click.option("--fill", is_flag=True, help="Keep a place for candles without trades.")
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    shell_complete=completion.patterns,
    metavar="NAME",
    help="Only events of this pattern. May be repeated.",
)
@click.option("--no-events", is_flag=True, help="Draw only candles and volume.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write FILE.html, a page that works offline, or FILE.png. Default: draw in the terminal.",
)
@click.option(
    "--demo", is_flag=True, help="Use the embedded database that the latest `tickstock demo` left."
)
@options.database_url
@options.verbosity
def chart(
    symbol: str,
    timeframe: str,
    since: datetime | None,
    until: datetime | None,
    last: int | None,
    sessions: str,
    fill: bool,
    patterns: tuple[str, ...],
    no_events: bool,
    output: Path | None,
    demo: bool,
    database_url: str | None,
) -> None:
    """Draw candles, volume and events of a SYMBOL, in the terminal or into a file. Times are New York's.

    TIMEFRAME is 5min, daily, …, or any width such as '10 minutes'. Hours without trading are left out.

    \b
    Example: tickstock chart AAPL 5min
             tickstock chart AAPL 1min --from 2025-11-24 --sessions regular --output aapl.html
    """
    _check_options(patterns, no_events, output)
    if since and until and since >= until:
        raise click.UsageError("--to is before --from")
    if not (since or until or last):
        last = LAST
    ask = Ask(symbol, timeframe, since, until, last, sessions, fill)
    wanted: Sequence[str] | None = () if no_events else patterns or None
    dbname = DEMO_DBNAME if demo else DBNAME
    with (
        database(database_url, dbname=dbname) as source,
        connect(source.url, program="chart") as conn,
    ):
        require_schema(conn)
        try:
            series = read_series(conn, ask, patterns=wanted)
        except UnknownSymbolError:
            raise
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    if output is None:
        _draw(series)
    else:
        _write(series, output)


def _check_options(patterns: tuple[str, ...], no_events: bool, output: Path | None) -> None:
    if no_events and patterns:
        raise click.UsageError("either --pattern or --no-events, not both")
    if output is not None and output.suffix.lower() not in FORMATS:
        raise click.UsageError(f"--output {output}: the name has to end with .html or .png")


def _draw(series: Series) -> None:
    from tickstock.chart.terminal import series_chart

    size = get_terminal_size()
    height = min(24, max(8, size.lines - 18))
    colors = sys.stdout.isatty()
    width = size.columns if colors else min(100, size.columns)
    click.echo(series_chart(series, width=width, height=height, colors=colors))


def _write(series: Series, output: Path) -> None:
    try:
        if output.suffix.lower() == ".png":
            from tickstock.chart.picture import write_picture

            write_picture(series, output)
        else:
            from tickstock.chart.page import page

            output.write_text(page(series), encoding="utf-8")
    except OSError as error:
        raise TickstockError(f"can't write {output}: {error.strerror or error}") from error
    click.echo(
        f"{output}: {counted(len(series.candles), 'candle')}, {counted(len(series.events), 'event')},"
        f" {output.stat().st_size / 1e3:,.0f} kB"
    )
