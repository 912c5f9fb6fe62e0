"""What the tests of the scanner share: bars, recording patterns, and waiting for what must happen."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar
from tickstock.db.writer import write_bars
from tickstock.patterns import Pattern, Signal, Window
from tickstock.scan.scanner import Candle, Scanned, Scanner
from tickstock.scan.worker import ScanWorker
from tickstock.timeframes import TIMEFRAMES

on_one_engine = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
"""For what is not a matter of the engine."""

DEADLINE = 30.0
"""Seconds after which something that must happen has not happened."""
NEW_YORK = ZoneInfo("America/New_York")

WAITING = (
    "select count(*) from tickstock.scan_queue where ready_at <= (select max(ts) from ohlcv_1min)"
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
    candles = events = 0
    while (scanned := scanner.scan(conn, most=most)).candles:
        candles += scanned.candles
        events += scanned.events
    return Scanned(candles, events)


def candle_of(window: Window) -> Candle:
    """The candle that a window judges."""
    return Candle(window.timeframe, window.symbol, datetime.fromtimestamp(window.ts[-1], UTC))


class Recorder:
    """A pattern that finds nothing and keeps the windows it was shown."""

    def __init__(self, candles: int = 1, timeframes: Sequence[str] = TIMEFRAMES) -> None:
        self.windows: list[Window] = []
        self.pattern = Pattern("Recorder", candles, tuple(timeframes), self._see)

    def _see(self, window: Window) -> None:
        self.windows.append(window)

    @property
    def scanned(self) -> "Counter[Candle]":
        """How often each candle was judged."""
        return Counter(map(candle_of, self.windows))


def signalling(
    name: str = "Always", timeframes: Sequence[str] = ("1min",), candles: int = 1
) -> Pattern:
    """A pattern that fires on every candle."""
    return Pattern(name, candles, tuple(timeframes), lambda _: Signal("neutral", {}))


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for the condition; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.005)


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
