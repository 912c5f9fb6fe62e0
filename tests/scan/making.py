"""Events for tests of what comes after scanning: recorded as a scanner records them, and as they are told."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import numpy as np
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import fetch_value
from tickstock.patterns import Direction
from tickstock.scan.judge import SIGNS, Found, Judged
from tickstock.scan.listen import Event
from tickstock.scan.record import Recorded
from tickstock.scan.record import record as record_found
from tickstock.scan.shown import Shown
from tickstock.scan.windows import Span

OPENING = datetime.fromisoformat("2025-11-24T09:30-05:00")
CLOCK = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
values ('CLOCK', '2025-11-24 14:30+00', 1, 1, 1, 1, 1) on conflict do nothing
"""


class Row(NamedTuple):
    """An event to be."""

    symbol: str
    ts: datetime
    pattern: str
    direction: Direction
    price: str
    strength: float
    details: dict[str, object]
    since: datetime


def event(
    symbol: str,
    *,
    ts: datetime = OPENING,
    pattern: str = "Doji",
    direction: Direction = "neutral",
    price: float = 10.5,
    strength: float = 0.5,
    details: str = '{"body": 0.01}',
    since: datetime | None = None,
) -> Row:
    told = json.loads(details)
    return Row(symbol, ts, pattern, direction, str(price), strength, told, since or ts)


def record(
    conn: Connection[TupleRow],
    found: Iterable[Row],
    *,
    judged: Iterable[Span] = (),
    timeframe: str = "1min",
    asked: Iterable[str] = ("Doji",),
) -> Recorded:
    """Record what was found; in what was judged besides, nothing was, so its events are retracted."""
    conn.execute(CLOCK)  # there is a feed
    found = list(found)
    spans = [Span(each.symbol, each.ts, each.ts) for each in found]
    patterns = {each.pattern for each in found} | set(asked)
    parameters = {name: {"max_body": 0.1} for name in sorted(patterns)}
    with conn.transaction():
        return record_found(
            conn,
            [
                Judged(
                    timeframe, parameters, [*spans, *judged], [_shown(found, spans)], _found(found)
                )
            ],
        )


def _shown(rows: list[Row], spans: list[Span]) -> Shown:
    each = np.arange(len(rows))
    ts = np.array([row.ts.timestamp() for row in rows])
    prices = [row.price for row in rows]
    return Shown(np.empty((6, 0, len(rows))), spans, each, ts, prices, number=each, oldest=each)


def _found(rows: list[Row]) -> Found:
    return Found(
        list(range(len(rows))),
        [row.pattern for row in rows],
        [SIGNS[row.direction] for row in rows],
        [row.strength for row in rows],
        [row.details for row in rows],
        [row.since.timestamp() for row in rows],
    )


def payloads(conn: Connection[TupleRow]) -> list[Event]:
    query = "select tickstock.event_payload(e) from events e order by change"
    return [json.loads(payload) for (payload,) in conn.execute(query)]


def change_of(conn: Connection[TupleRow], symbol: str) -> int:
    return int(fetch_value(conn, "select change from events where symbol = %s", symbol))
