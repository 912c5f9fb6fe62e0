"""What scanning has found becomes events, and what it no longer finds is taken back."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.scan.judge import Found, Judged

RECORD = "select made, retracted from tickstock.record_events(%s, %s, %s)"


class Recorded(NamedTuple):
    candles: int
    """That were judged."""
    made: int
    """Events that are new, or other than they were."""
    retracted: int


def record(conn: Connection[TupleRow], judged: Sequence[Judged]) -> Recorded:
    """Within the caller's transaction, last: until its end, other scanners wait with their events."""
    candles = sum(each.candles for each in judged)
    spans = [
        {"timeframe": each.timeframe, **series.span._asdict()}
        for each in judged
        for series in each.series
    ]
    if not spans:
        return Recorded(candles, 0, 0)
    asked = {each.timeframe: each.asked for each in judged}
    found = [_row(each.timeframe, one) for each in judged for one in each.found]
    # As JSON, which is made and read several times faster than arrays of text.
    arguments = [orjson.dumps(argument).decode() for argument in (asked, spans, found)]
    made, retracted = conn.execute(RECORD, arguments).fetchone() or (0, 0)
    return Recorded(candles, made, retracted)


def _row(timeframe: str, one: Found) -> dict[str, object]:
    # Told one by one: _asdict() takes four times as long, and there are thousands of them.
    return {
        "timeframe": timeframe,
        "symbol": one.symbol,
        "ts": one.ts,
        "pattern": one.pattern,
        "direction": one.direction,
        "price": one.price,
        "strength": one.strength,
        "details": orjson.Fragment(one.details),
        "candles_from": one.candles_from,
    }
