"""The scanner: takes completed candles, asks the patterns, records what they found.

What is taken, what is found and what follows is one transaction, so that several scanners can share
the queue, and a killed one loses and repeats nothing.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from psycopg import Connection, sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from tickstock.patterns import Pattern, Signal, Window
from tickstock.timeframes import TIMEFRAMES

log = logging.getLogger(__name__)

WINDOWS = {
    timeframe: sql.SQL("select * from tickstock.{}(%s, %s, %s)").format(
        sql.Identifier(f"windows_{timeframe}")
    )
    for timeframe in TIMEFRAMES
}
RECORD = "select tickstock.record_event(%s, %s, %s, %s, %s, %s, %s, %s)"


class Candle(NamedTuple):
    """Which candle: `ts` is its start, UTC."""

    timeframe: str
    symbol: str
    ts: datetime


class Scanned(NamedTuple):
    candles: int = 0
    events: int = 0


class Scanner:
    """Scans candles for patterns. `to_redis`: leave events marked for the publisher."""

    def __init__(self, patterns: Sequence[Pattern], *, to_redis: bool) -> None:
        self._patterns = {
            timeframe: [p for p in patterns if timeframe in p.timeframes]
            for timeframe in TIMEFRAMES
        }
        self._to_redis = to_redis

    def scan(self, conn: Connection[TupleRow], *, most: int = 2_000) -> Scanned:
        """Take up to `most` completed candles, record their events; all or nothing."""
        with conn.transaction():
            taken = [
                Candle(*row)
                for row in conn.execute("select * from tickstock.take_candles(%s)", (most,))
            ]
            events = 0
            for timeframe, candles in _by_timeframe(taken).items():
                events += self._scan_timeframe(conn, timeframe, candles)
            if taken:
                columns = [list(column) for column in zip(*taken, strict=True)]
                conn.execute("select tickstock.queue_larger(%s, %s, %s)", columns)
            return Scanned(len(taken), events)

    def _scan_timeframe(
        self, conn: Connection[TupleRow], timeframe: str, candles: Sequence[Candle]
    ) -> int:
        patterns = self._patterns[timeframe]
        if not patterns:
            return 0
        length = max(p.candles for p in patterns)
        symbols, ends = [c.symbol for c in candles], [c.ts for c in candles]
        found = []
        with conn.cursor(binary=True) as cursor:
            for row in cursor.execute(WINDOWS[timeframe], (symbols, ends, length)):
                symbol, ts, price = row[:3]
                window = Window(symbol, timeframe, *(np.array(column) for column in row[3:]))
                found += self._signals(patterns, window, ts, price)
        with conn.cursor() as cursor:
            cursor.executemany(RECORD, found, returning=bool(found))
            return sum(result.fetchone() != (None,) for result in cursor.results()) if found else 0

    def _signals(
        self, patterns: Iterable[Pattern], window: Window, ts: datetime, price: Decimal
    ) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for pattern in patterns:
            signal = _ask(pattern, window)
            if signal is not None:
                where = (pattern.name, window.symbol, window.timeframe, ts)
                found = (signal.direction, price, Jsonb(signal.details), self._to_redis)
                rows.append((*where, *found))
        return rows


def _ask(pattern: Pattern, window: Window) -> Signal | None:
    try:
        return pattern.function(window.last(pattern.candles))
    except Exception:  # a broken pattern must not stop the others
        log.exception("pattern %s failed on %s %s", pattern.name, window.symbol, window.timeframe)
        return None


def _by_timeframe(candles: Iterable[Candle]) -> dict[str, list[Candle]]:
    groups: dict[str, list[Candle]] = defaultdict(list)
    for candle in candles:
        groups[candle.timeframe].append(candle)
    return groups
