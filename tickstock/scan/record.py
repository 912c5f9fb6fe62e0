"""What scanning has found becomes events, and what it no longer finds is taken back."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.scan.judge import Found, Judged

RECORD = """
select made, retracted from tickstock.record_events(
  %s::jsonb, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::numeric[], %s, %s::jsonb[], %s, %s)
"""


class Recorded(NamedTuple):
    candles: int
    """That were judged."""
    made: int
    """Events that are new, or other than they were."""
    retracted: int


def record(conn: Connection[TupleRow], judged: Sequence[Judged], *, to_redis: bool) -> Recorded:
    """Within the caller's transaction, last: until its end, other scanners wait with their events."""
    candles = sum(each.candles for each in judged)
    spans = [(each.timeframe, *series.span) for each in judged for series in each.series]
    if not spans:
        return Recorded(candles, 0, 0)
    asked = orjson.dumps({each.timeframe: each.asked for each in judged}).decode()
    found = [_columns(each.timeframe, one) for each in judged for one in each.found]
    made, retracted = conn.execute(
        RECORD, (asked, *_transposed(spans, 4), *_transposed(found, 9), to_redis)
    ).fetchone() or (0, 0)
    return Recorded(candles, made, retracted)


def _columns(timeframe: str, one: Found) -> tuple[object, ...]:
    return (
        *(timeframe, one.symbol, one.ts, one.pattern, one.direction, one.price),
        *(one.strength, one.details, one.candles_from),
    )


def _transposed(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * width
