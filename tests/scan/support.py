"""What the tests of the scanner share: bars, recording patterns, and waiting for what must happen."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.e2e.program import DEADLINE
from tickstock.bars import Bar
from tickstock.db.writer import write_bars
from tickstock.patterns import (
    Bools,
    Candles,
    Floats,
    Found,
    Parameters,
    Pattern,
    PythonPattern,
    pattern,
)
from tickstock.scan.judge import Judged
from tickstock.scan.record import Recorded
from tickstock.scan.scanner import Candle, Scanned, Scanner
from tickstock.scan.windows import at
from tickstock.scan.worker import ScanWorker
from tickstock.timeframes import TIMEFRAMES

on_one_engine = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
"""For what is not a matter of the engine."""

NEW_YORK = ZoneInfo("America/New_York")

WAITING = (
    "select coalesce(sum(cardinality(symbols)), 0) from tickstock.scan_queue"
    " where ready_at <= (select max(ts) from ohlcv_1min)"
)


def new_york(clock: str) -> datetime:
    """A time in New York, such as "2025-11-28 12:59", as UTC."""
    return datetime.fromisoformat(clock).replace(tzinfo=NEW_YORK).astimezone(UTC)


def bar(symbol: str, ts: datetime, close: str = "10.00", volume: int = 100) -> Bar:
    price = Decimal(close)
    return Bar(symbol, ts, price, price + 1, price / 2, price, volume)


def write(conn: Connection[TupleRow], *bars: Bar) -> None:
    written = write_bars(conn, bars, source="test")
    assert written.counts.refused == 0


def drain(conn: Connection[TupleRow], scanner: Scanner, *, most: int = 2_000) -> Scanned:
    """Scan until there is nothing to scan; how much it was."""
    total = Scanned()
    while (scanned := scanner.scan(conn, most=most)).candles:
        total = total.plus(scanned)
    return total


class Window(NamedTuple):
    """The candles up to a judged one, oldest first, as patterns get them."""

    timeframe: str
    symbol: str
    ts: Floats
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    @property
    def candle(self) -> Candle:
        """The one that is judged."""
        return Candle(self.timeframe, self.symbol, at(self.ts[-1]))


def windows_of(judged: Judged, candles: int) -> Iterator[Window]:
    """At most so many candles up to each judged one."""
    for some in judged.shown:
        for place in (some.number >= 0).nonzero()[0]:
            symbol = some.spans[some.span[some.number[place]]].symbol
            columns, last = some.columns, place
            if some.of_windows:
                columns, last = columns[:, :, place], columns.shape[1] - 1
            first = max(some.oldest[place], last - candles + 1)
            yield Window(judged.timeframe, symbol, *columns[:, first : last + 1])


class Recorder(Scanner):
    """A scanner that finds nothing and keeps the windows it judged."""

    def __init__(
        self,
        candles: int = 1,
        timeframes: Sequence[str] = TIMEFRAMES,
        *,
        beside: Scanner | None = None,
    ) -> None:
        declare = pattern("Recorder", candles=candles, timeframes=timeframes)
        super().__init__([declare(lambda _, __: None)], beside=beside)
        self.windows: list[Window] = []
        self._candles = candles

    def _record(self, conn: Connection[TupleRow], judged: Sequence[Judged]) -> Recorded:
        for each in judged:
            self.windows += windows_of(each, self._candles)
        return super()._record(conn, judged)

    @property
    def scanned(self) -> "Counter[Candle]":
        """How often each candle was judged."""
        return Counter(window.candle for window in self.windows)


def firing(
    name: str,
    where: Callable[[Candles], Bools],
    *,
    timeframes: Sequence[str] = ("1min",),
    candles: int = 1,
    direction: int = 0,
    details: Callable[[Candles], dict[str, Floats]] = lambda _: {},
) -> PythonPattern:
    """A pattern that is where it is told to be."""

    def function(c: Candles, _: Parameters) -> Found:
        there = where(c)
        return Found(there, direction, np.ones(there.shape), details(c))

    return pattern(name, candles=candles, timeframes=timeframes)(function)


def signalling(
    name: str = "Always", timeframes: Sequence[str] = ("1min",), candles: int = 1
) -> PythonPattern:
    """A pattern that fires on every candle."""
    return firing(name, lambda c: c.close[-1] > 0, timeframes=timeframes, candles=candles)


@contextmanager
def working(
    url: str, patterns: Iterable[Pattern], redis_url: str | None = None
) -> Iterator[ScanWorker]:
    """A ScanWorker at work; afterwards it must have ended well."""
    worker = ScanWorker(url, list(patterns), redis_url=redis_url)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="worker")
    thread.start()
    try:
        yield worker
    finally:
        worker.stop.set()
        thread.join(DEADLINE)
    assert not thread.is_alive()
    assert not failures


def terminate(conn: Connection[TupleRow], program: str) -> int:
    """Cut the connections of this program to our database; how many there were."""
    row = conn.execute(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and application_name = %s",
        (f"tickstock {program}",),
    ).fetchone()
    assert row is not None
    return int(row[0])
