"""The last 300 candles of one symbol, of any timeframe, clean and with many bars corrected."""

from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Protocol

import bench_nightly
from bench_duckdb import Duck, check
from bench_market import Market
from bench_support import Latencies, Row, duration, must, relation, seconds
from psycopg import sql

from tickstock.db.connection import fetch_value
from tickstock.timeframes import TIMEFRAMES

READS = 1_000
READS_OF_RIVALS = 90
LAST_WEEK = 5


class Read(Protocol):
    def __call__(self, timeframe: str) -> object: ...


def measure(market: Market, folder: Path, dirty: int) -> list[Row]:
    """Raises InexactError if candles are not exact, dirty or refreshed."""
    market.refresh()
    clean = _times(lambda timeframe: market.read_last_300(market.conn, timeframe), READS)
    number = fetch_value(market.conn, "select count(*) from ohlcv_1min")
    _correct(market, dirty)
    marks = fetch_value(
        market.conn, "select count(*) from (select distinct symbol, granule from tickstock.dirty) d"
    )
    corrected = _times(lambda timeframe: market.read_last_300(market.conn, timeframe), READS)
    check(market.conn, folder, market.some_symbols())
    worst, worst_times = max(corrected.items(), key=lambda item: item[1].p99)
    p99 = _all(corrected).p99
    rows = [
        Row(
            f"candles(…, last => 300), any timeframe; {number:,} bars, all clean",
            str(_all(clean)),
        ),
        Row(
            f"the same after {dirty:,} corrections, {marks:,} half hours dirty",
            str(_all(corrected)),
            must("p99 < 10 ms", p99 < 0.010),
        ),
        Row(f"  the slowest timeframe of these, {worst}", str(worst_times)),
        *_views(market),
        *_rivals(market, folder),
        Row(f"refresh of {dirty:,} corrections", duration(seconds(market.refresh))),
    ]
    check(market.conn, folder, market.some_symbols())
    return rows


def _correct(market: Market, number: int) -> None:
    """Half of them within the last week, where most readers look."""
    half = number // 2
    market.write([market.late_bar() for _ in range(half)])
    market.write([market.late_bar(LAST_WEEK) for _ in range(number - half)])
    # As autovacuum does it, when it comes round.
    market.conn.execute("analyze tickstock.dirty")


def _views(market: Market) -> list[Row]:
    def bounded(timeframe: str) -> None:
        query = sql.SQL(
            "select * from {} where symbol = %s and ts >= feed_clock() - interval {}"
            " order by ts desc limit 300"
        ).format(relation(timeframe), bench_nightly.days_of_300(timeframe))
        market.conn.execute(query, (market.random.choice(market.old_symbols),)).fetchall()

    def unbounded(timeframe: str) -> None:
        query = sql.SQL("select * from {} where symbol = %s order by ts desc limit 300").format(
            relation(timeframe)
        )
        market.conn.execute(query, (market.random.choice(market.old_symbols),)).fetchall()

    return [
        Row("  the same from the view, since a time", str(_all(_times(bounded, READS)))),
        Row("  the same from the view, since ever", str(_all(_times(unbounded, READS)))),
    ]


def _rivals(market: Market, folder: Path) -> list[Row]:
    clock = fetch_value(market.conn, "select feed_clock()")
    duck = Duck(market.conn, folder)

    def on_the_fly(timeframe: str) -> None:
        parameters = (market.random.choice(market.old_symbols), clock)
        market.conn.execute(bench_nightly.on_the_fly(timeframe), parameters).fetchall()

    def in_duck(timeframe: str) -> None:
        duck.last_300(timeframe, market.random.choice(market.old_symbols))

    return [
        Row("instead: aggregated on the fly", str(_all(_times(on_the_fly, READS_OF_RIVALS)))),
        Row(
            "instead: aggregated on the fly by DuckDB, from its own sorted copy",
            str(_all(_times(in_duck, READS_OF_RIVALS))),
        ),
    ]


def _times(read: Read, number: int) -> dict[str, Latencies]:
    times = {timeframe: Latencies([]) for timeframe in TIMEFRAMES}
    for timeframe in TIMEFRAMES:
        read(timeframe)  # a session's first plan, and what is in memory afterwards
    for timeframe in islice(cycle(TIMEFRAMES), number):
        times[timeframe].times.append(seconds(partial(read, timeframe)))
    return times


def _all(times: dict[str, Latencies]) -> Latencies:
    return Latencies([each for latencies in times.values() for each in latencies.times])
