"""An event with all that explains it: its pattern, its candles, and what came after."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow, dict_row

EVENT = """
select e.id, e.change, e.pattern, e.symbol, e.timeframe, e.ts, e.direction, e.price::float8 as price,
  e.strength, e.parameters, e.details, e.candles_from, e.detected_at, e.lag, e.late,
  e.retracted_at, p.summary, p.source, p.default_parameters,
  (select e.change <= up_to from tickstock.publishing where e.change > since) as published
from events e left join patterns p using (pattern) where e.id = %s
"""
CANDLES = """
select place, ts, open::float8, high::float8, low::float8, close::float8, volume::float8
from event_candles(%s, %s) order by ts
"""
OUTCOME = """
select candles_after, return_1::float8, return_5::float8, return_20::float8 from event_outcomes where id = %s
"""


@dataclass(frozen=True)
class Candle:
    """A candle of the event's symbol and timeframe; prices are dollars."""

    place: int
    """0: the one that completed the pattern; -1: the one before; 1: the next."""
    ts: datetime
    """Its start, UTC."""
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True)
class Explanation:
    event: dict[str, Any]
    """The row of events, and of its pattern: summary, source, default_parameters; null if unknown."""
    candles: list[Candle]
    """What the pattern looked at, as it is now, and some after, oldest first."""
    outcome: dict[str, Any] | None
    """candles_after, return_1, return_5, return_20; None for an event that was retracted."""


def explain(conn: Connection[TupleRow], id_: int, *, after: int) -> Explanation | None:
    """What there is to say about an event; None if there is none of this id. after: candles."""
    with conn.cursor(row_factory=dict_row) as cursor:
        event = cursor.execute(EVENT, (id_,)).fetchone()
        if event is None:
            return None
        outcome = cursor.execute(OUTCOME, (id_,)).fetchone()
    candles = [Candle(*row) for row in conn.execute(CANDLES, (id_, after))]
    return Explanation(event, candles, outcome)
