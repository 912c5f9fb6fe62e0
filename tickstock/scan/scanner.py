"""The scanner: takes completed candles, asks the patterns, records what they found.

What is taken, what follows and what is found is one transaction, so that several scanners can share
the queue, and a killed one loses and repeats nothing. They must have the same patterns: a candle is
scanned by one of them.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, get_args

import numpy as np
import orjson
from psycopg import Connection, pq, sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import TupleRow

from tickstock.patterns import Direction, Floats, Pattern, Signal, Window
from tickstock.timeframes import TIMEFRAMES

log = logging.getLogger(__name__)

# The queue and the marks of change grow and shrink by thousands in seconds: a plan made when they
# were empty must not read them from end to end for every candle.
PLAN_FOR_GROWTH = "select set_config('enable_seqscan', 'off', true)"
TAKE = "select timeframe, symbol, ts from tickstock.take_candles(%s)"
WINDOWS = {
    timeframe: sql.SQL("select * from tickstock.{}(%s, %s, %s)").format(
        sql.Identifier(f"windows_{timeframe}")
    )
    for timeframe in TIMEFRAMES
}
RECORD = "select tickstock.record_events(%s, %s, %s, %s, %s, %s, %s::jsonb[], %s)"


class Candle(NamedTuple):
    """Which candle: `ts` is its start, UTC."""

    timeframe: str
    symbol: str
    ts: datetime


class Scanned(NamedTuple):
    candles: int = 0
    events: int = 0
    """New ones: an event that is in the table already does not count."""


class _Found(NamedTuple):
    pattern: str
    symbol: str
    timeframe: str
    ts: datetime
    direction: Direction
    price: Decimal
    details: str


class Scanner:
    """Scans candles for patterns. `to_redis`: leave events marked for the publisher."""

    def __init__(self, patterns: Sequence[Pattern], *, to_redis: bool) -> None:
        self._patterns = {
            timeframe: [p for p in patterns if timeframe in p.timeframes]
            for timeframe in TIMEFRAMES
        }
        self._to_redis = to_redis
        self._failed: set[str] = set()

    def scan(self, conn: Connection[TupleRow], *, most: int = 2_000) -> Scanned:
        """Take what the first `most` entries of the queue ask for, record events; all or nothing."""
        with conn.transaction():
            conn.execute(PLAN_FOR_GROWTH)
            taken = [Candle(*row) for row in conn.execute(TAKE, (most,))]
            if not taken:
                return Scanned()
            found = [
                event
                for timeframe, candles in groupby(taken, attrgetter("timeframe"))
                for event in self._find(conn, timeframe, list(candles))
            ]
            return Scanned(len(taken), self._record(conn, found))

    def _find(
        self, conn: Connection[TupleRow], timeframe: str, candles: Sequence[Candle]
    ) -> Iterator[_Found]:
        patterns = self._patterns[timeframe]
        if not patterns:
            return
        _, symbols, ends = _columns(candles)
        length = max(p.candles for p in patterns)
        with conn.cursor(binary=True) as cursor:
            cursor.adapters.register_loader(conn.adapters.types["float8"].array_oid, _FloatsLoader)
            for row in cursor.execute(WINDOWS[timeframe], (symbols, ends, length)):
                symbol, ts, price = row[:3]
                window = Window(symbol, timeframe, *row[3:])
                for pattern in patterns:
                    if answer := self._ask(pattern, window):
                        yield _Found(
                            pattern.name, symbol, timeframe, ts, answer[0], price, answer[1]
                        )

    def _ask(self, pattern: Pattern, window: Window) -> tuple[Direction, str] | None:
        """The pattern's answer, its details as JSON."""
        try:
            signal = pattern.function(window.last(pattern.candles))
            return None if signal is None else _checked(signal)
        except Exception as error:  # a broken pattern must not stop the others
            self._report(pattern, window, error)
            return None

    def _report(self, pattern: Pattern, window: Window, error: Exception) -> None:
        # At length once: a broken pattern fails for thousands of symbols a minute.
        first = pattern.name not in self._failed
        self._failed.add(pattern.name)
        log.log(
            logging.ERROR if first else logging.DEBUG,
            "pattern %s failed on %s %s (further failures at --verbose only): %s",
            *(pattern.name, window.symbol, window.timeframe, error),
            exc_info=error if first else None,
        )

    def _record(self, conn: Connection[TupleRow], found: Sequence[_Found]) -> int:
        if not found:
            return 0
        row = conn.execute(RECORD, (*_columns(found), self._to_redis)).fetchone()
        return int(row[0]) if row else 0


def _checked(signal: Signal) -> tuple[Direction, str]:
    if not isinstance(signal, Signal):
        raise TypeError(f"it returned {signal!r}, which is neither a Signal nor None")
    if signal.direction not in get_args(Direction):
        raise ValueError(f"its direction is {signal.direction!r}")
    if not isinstance(signal.details, dict):
        raise TypeError(f"its details are {signal.details!r}, not a dict")
    details = orjson.dumps(
        signal.details, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    ).decode()
    if "\\u0000" in details:
        raise ValueError("its details hold a NUL character, which PostgreSQL does not take")
    return signal.direction, details


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


class _FloatsLoader(Loader):
    """A one-dimensional float8[] without nulls as a read-only array of numpy."""

    format = pq.Format.BINARY

    HEADER = 20
    ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])

    def load(self, data: Buffer) -> Floats:
        elements = np.frombuffer(data, dtype=self.ELEMENT, offset=self.HEADER)
        floats: Floats = elements["value"].astype(np.float64)
        floats.setflags(write=False)  # patterns share it
        return floats
