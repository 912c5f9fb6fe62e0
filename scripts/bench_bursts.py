"""All symbols' bars of one minute, written at once; and the refresh after it, beside others at work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench_duckdb import check
from bench_market import Market
from bench_support import Beside, Conn, Latencies, Row, must, seconds

from tickstock.bars import Bar
from tickstock.db.connection import fetch_value
from tickstock.db.writer import write_bars

HALF_HOURS = 2
ENOUGH = 50
"""Of each kind of work, to know how long it takes while nobody refreshes."""
WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and wait_event <> 'extend'
"""


@dataclass
class Times:
    bursts: Latencies = field(default_factory=lambda: Latencies([]))
    forming: Latencies = field(default_factory=lambda: Latencies([]))
    ended: Latencies = field(default_factory=lambda: Latencies([]))


class Others:
    """A reader of candles, a writer of a hundred symbols, and one who looks who waits for a lock."""

    def __init__(self, market: Market) -> None:
        self.reads = Latencies([])
        self.writes = Latencies([])
        self.seen_waiting = 0
        self._market = market

    @contextmanager
    def at_work(self, live: list[Bar]) -> Iterator[Callable[[], bool]]:
        """They work while the block does; yields what tells whether they have done enough."""
        url = self._market.url
        with (
            Beside(url, self._market.read_any) as reader,
            Beside(url, lambda conn: self._write(conn, live[-100:])) as writer,
            Beside(url, self._look),
        ):
            yield lambda: all(
                len(each.latencies.times) >= ENOUGH or not each.is_alive()
                for each in (reader, writer)
            )
        self.reads.times.extend(reader.latencies.times)
        self.writes.times.extend(writer.latencies.times)

    def _write(self, conn: Conn, bars: list[Bar]) -> None:
        corrections = [self._market.bar(bar.symbol, bar.ts) for bar in bars]
        write_bars(conn, corrections, source="bench beside")

    def _look(self, conn: Conn) -> None:
        self.seen_waiting += fetch_value(conn, WAITING) > 0


def measure(market: Market, folder: Path) -> list[Row]:
    """Raises InexactError if candles are not exact, before a refresh or after it."""
    times, alone, beside = Times(), Others(market), Others(market)
    live = market.next_minute()
    market.write(live)
    market.refresh()
    for _ in range(HALF_HOURS):
        _rest_of_half_hour(market, times)
        check(market.conn, folder, market.some_symbols())
        live = market.next_minute()
        with alone.at_work(live) as enough:
            while not enough():
                time.sleep(0.01)
        times.bursts.times.append(seconds(partial(market.write, live)))
        with beside.at_work(live):
            times.ended.times.append(seconds(market.refresh))
    check(market.conn, folder, market.some_symbols())
    return _rows(len(live), times, alone, beside)


def _rest_of_half_hour(market: Market, times: Times) -> None:
    """After its first minute; a refresh after each, as ingest does it every ten seconds."""
    for _ in range(1, 30):
        bars = market.next_minute()
        times.bursts.times.append(seconds(partial(market.write, bars)))
        times.forming.times.append(seconds(market.refresh))


def _rows(number: int, times: Times, alone: Others, beside: Others) -> list[Row]:
    return [
        Row(
            f"bars of {number:,} symbols in one minute committed: now exact in all timeframes",
            str(times.bursts),
            must("p50 < 0.5 s", times.bursts.median < 0.5),
        ),
        Row(
            "refresh after that, the half hour still forming",
            str(times.forming),
            must("p50 < 1 s", times.forming.median < 1),
        ),
        Row(
            f"refresh when it has ended: candles of {30 * number:,} bars materialized",
            str(times.ended),
            must("p50 < 1 s", times.ended.median < 1),
        ),
        Row(
            "  reads of 300 candles beside it", str(beside.reads), ratio=f"without it {alone.reads}"
        ),
        Row(
            "  writes of 100 bars beside it", str(beside.writes), ratio=f"without it {alone.writes}"
        ),
        Row(
            "  times that somebody was seen waiting for a lock",
            str(beside.seen_waiting),
            must("0", not beside.seen_waiting),
            f"without it {alone.seen_waiting}",
        ),
    ]
