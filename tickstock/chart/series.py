"""What a chart shows: candles of a symbol, and the events in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.read import Ask, ask_candles
from tickstock.errors import TickstockError

NEW_YORK = ZoneInfo("America/New_York")
MOST = 10_000
"""Candles in a chart: beyond that neither a browser nor an eye follows."""

COLUMNS: LiteralString = """
ts, open::float8, high::float8, low::float8, close::float8, volume::float8, vwap::float8, session, complete
"""
# Of the timeframe that has these very candles, if one has, by whatever name its width was asked for.
EVENTS = """
select ts, pattern, direction, price::float8, strength, details from events
where symbol = %s and ts between %s and %s and retracted_at is null
  and timeframe = (select f.source from tickstock.frame_of(%s, %s) f where f.is_source)
  and (%s::text[] is null or pattern = any (%s))
order by ts, strength desc, pattern
"""
KNOWN_PATTERNS = "select pattern from patterns union select distinct pattern from events"


@dataclass(frozen=True)
class Candle:
    ts: datetime
    """Its start, New York time."""
    open: float
    high: float
    low: float
    close: float
    """Dollars."""
    volume: float
    """Shares."""
    vwap: float | None
    session: str | None
    """pre, regular, after or closed; None where it lies in more than one."""
    complete: bool


@dataclass(frozen=True)
class Event:
    place: int
    """Of its candle in the series, from 0 up."""
    pattern: str
    direction: str
    """long, short or neutral."""
    price: float
    """Dollars: the close of the candle when it was found."""
    strength: float
    details: dict[str, Any]


@dataclass(frozen=True)
class Series:
    symbol: str
    timeframe: str
    candles: Sequence[Candle]
    """Oldest first; never none."""
    events: Sequence[Event]
    """In the order of their candles, the strongest of a candle first."""


def read_series(
    conn: Connection[TupleRow], ask: Ask, *, patterns: Sequence[str] | None = None
) -> Series:
    """The candles asked for, and the events of these patterns (None: all) in them.

    An event belongs to the candle that begins with it: where candles are counted otherwise than those
    that were searched (hours from the opening), there is none. Raises what ask_candles() raises, and
    TickstockError where there is nothing to draw, or too much, or no such pattern.
    """
    with conn.cursor() as cursor:
        last = min(ask.last or MOST + 1, MOST + 1)
        bounded = Ask(**(vars(ask) | {"last": last}))
        rows = ask_candles(cursor, bounded, COLUMNS)
    if not rows:
        raise TickstockError(
            f"{ask.symbol} has no {ask.timeframe} candles in this range: {_range(conn, ask)}"
        )
    if len(rows) > MOST:
        raise TickstockError(
            f"more than {MOST:,} candles: choose a longer timeframe, a shorter range, or --last N"
        )
    candles = [Candle(ts.astimezone(NEW_YORK), *rest) for ts, *rest in rows]
    return Series(ask.symbol, ask.timeframe, candles, _events(conn, ask, candles, patterns))


def _events(
    conn: Connection[TupleRow],
    ask: Ask,
    candles: Sequence[Candle],
    patterns: Sequence[str] | None,
) -> list[Event]:
    chosen = list(patterns) if patterns is not None else None
    if chosen:
        _require_patterns(conn, chosen)
    places = {candle.ts.astimezone(UTC): place for place, candle in enumerate(candles)}
    bounds = (candles[0].ts, candles[-1].ts)
    rows = conn.execute(EVENTS, (ask.symbol, *bounds, ask.timeframe, ask.sessions, chosen, chosen))
    return [Event(places[ts], *rest) for ts, *rest in rows if ts in places]


def _require_patterns(conn: Connection[TupleRow], chosen: Sequence[str]) -> None:
    known = [name for (name,) in conn.execute(KNOWN_PATTERNS)]
    for name in chosen:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4)
            remedy = (
                f"did you mean {' or '.join(near)}?"
                if near
                else "`tickstock patterns list` has them"
            )
            raise TickstockError(f"no pattern {name!r}: {remedy}")


def _range(conn: Connection[TupleRow], ask: Ask) -> str:
    """What there is of the symbol instead."""
    found = conn.execute(
        "select min(ts), max(ts) from ohlcv_4hour where symbol = %s", (ask.symbol,)
    ).fetchone()
    assert found is not None
    first, last = (each.astimezone(NEW_YORK) for each in found)
    return f"its bars are of {first:%Y-%m-%d} to {last:%Y-%m-%d}"
