"""Asking the patterns of one timeframe about spans of candles."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import orjson
import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.patterns import Direction, SqlPattern
from tickstock.patterns.evaluate import Chosen, Failures, Hit, history, live
from tickstock.scan.windows import (
    Reader,
    Series,
    Sessions,
    Span,
    at,
    end_to_end,
    read_series,
    side_by_side,
)

DIRECTIONS = ("long", "short", "neutral")
SQL_PATTERN = sql.SQL("""
with candles as materialized (select * from tickstock.pattern_candles(%s, %s, %s, %s, %s, %s)),
parameters as (select {})
select symbol, judged, direction, strength::float8, details,
  (select min(ts) from candles c where (c.symbol, c.judged) = (p.symbol, p.judged))
from ({}) p (symbol, judged, direction, strength, details)
""")


class Found(NamedTuple):
    """A pattern in a candle: a row of `events` to be."""

    symbol: str
    ts: datetime
    pattern: str
    direction: Direction
    price: str
    """The candle's close, with all its digits."""
    strength: float
    details: str
    """As JSON."""
    candles_from: datetime


class Judged(NamedTuple):
    """What was asked about what, and found, in one timeframe."""

    timeframe: str
    asked: dict[str, dict[str, float]]
    """Names of patterns, with their parameters."""
    series: list[Series]
    """What was judged, which may be more than was asked for: candles after it look back at it."""
    found: list[Found]

    @property
    def candles(self) -> int:
        """How many were judged."""
        return sum(each.judged for each in self.series)


def judge(
    conn: Connection[TupleRow],
    timeframe: str,
    spans: Sequence[Span],
    chosen: Sequence[Chosen],
    failures: Failures,
    read: Reader = read_series,
) -> Judged:
    """Ask these patterns about the complete candles of the spans, and those that look back at them."""
    reach = max(each.candles for each in chosen) - 1
    series = list(read(conn, timeframe, spans, reach=reach))
    asked = {each.pattern.name: dict(each.parameters) for each in chosen}
    found: dict[tuple[str, datetime, str], Found] = {}
    if any(each.judged for each in series):
        sessions = Sessions.read(conn, series)
        # Spans of one symbol may overlap where they look back: what is found twice is the same.
        for each in _found(timeframe, series, sessions, chosen, failures):
            found[each.symbol, each.ts, each.pattern] = each
        for one in chosen:
            if isinstance(one.pattern, SqlPattern):
                for each in _ask_database(conn, timeframe, series, one, failures):
                    found[each.symbol, each.ts, each.pattern] = each
    return Judged(timeframe, asked, series, list(found.values()))


def _found(
    timeframe: str,
    series: Sequence[Series],
    sessions: Sessions,
    chosen: Sequence[Chosen],
    failures: Failures,
) -> Iterator[Found]:
    """Newest candles are judged side by side, as many windows; longer spans one after the other."""
    reach = {each.pattern.name: each.candles - 1 for each in chosen}
    newest = [each for each in series if each.judged == 1]
    if newest:
        candles = side_by_side(timeframe, newest, sessions)
        for hit in live(chosen, candles, failures):
            each = newest[hit.at]
            yield _row(each, each.first, hit, reach[hit.pattern])
    longer = [each for each in series if each.judged > 1]
    if longer:
        candles, begins, judged = end_to_end(timeframe, longer, sessions)
        places = [(each, n) for each in longer for n in range(len(each.ts))]
        for hit in history(chosen, candles, failures, begins=begins, asked=judged):
            each, number = places[hit.at]
            yield _row(each, number, hit, reach[hit.pattern])


def _row(series: Series, number: int, hit: Hit, reach: int) -> Found:
    ts = series.columns[0]
    return Found(
        series.span.symbol,
        at(float(ts[number])),
        hit.pattern,
        hit.direction,
        series.prices[number - series.first],
        hit.strength,
        orjson.dumps(hit.details).decode(),
        at(float(ts[max(0, number - reach)])),
    )


def _ask_database(
    conn: Connection[TupleRow],
    timeframe: str,
    series: Sequence[Series],
    one: Chosen,
    failures: Failures,
) -> list[Found]:
    """A pattern in SQL. One that fails is reported, and finds nothing."""
    pattern = one.pattern
    assert isinstance(pattern, SqlPattern)
    names = [
        sql.SQL("{}::numeric as {}").format(value, sql.Identifier(name))
        for name, value in one.parameters.items()
    ]
    query = SQL_PATTERN.format(
        sql.SQL(", ").join(names) if names else sql.SQL("null as none"),
        sql.SQL(pattern.query.replace("%", "%%")),  # a file of ours or the operator's
    )
    columns = [list(column) for column in zip(*(each.span for each in series), strict=True)]
    try:
        with conn.transaction():  # a savepoint: a broken pattern must not stop the others
            rows = conn.execute(query, (timeframe, *columns, one.candles, 0)).fetchall()
        prices = _prices(series) if rows else {}
        return [_checked(pattern.name, prices.get(row[:2]), *row) for row in rows]
    except psycopg.OperationalError:
        raise  # not the pattern's fault
    except (psycopg.Error, ValueError) as error:
        failures.report(pattern.name, timeframe, error)
        return []


def _prices(series: Sequence[Series]) -> dict[tuple[str, datetime], str]:
    """Of each judged candle."""
    return {
        (each.symbol, at(ts)): price
        for each in series
        for ts, price in zip(each.ts[each.first :], each.prices, strict=True)
    }


def _checked(
    pattern: str,
    price: str | None,
    symbol: str,
    judged: datetime,
    direction: Direction,
    strength: float,
    details: dict[str, object],
    candles_from: datetime,
) -> Found:
    """ValueError for an answer that makes no sense."""
    if price is None:
        raise ValueError(f"it found itself in {symbol} at {judged}, which was not asked about")
    if direction not in DIRECTIONS:
        raise ValueError(f"its direction is {direction!r}")
    if strength is None or not 0 <= strength <= 1:
        raise ValueError(f"its strength is {strength}, not 0 to 1")
    if not isinstance(details, dict):
        raise ValueError(f"its details are {details!r}, not an object")
    told = orjson.dumps(details).decode()
    return Found(symbol, judged, pattern, direction, price, strength, told, candles_from)
