"""Hot queries read what they return, not the history: rows and chunks they touch, on each engine.

Counted by the server itself, which sees into functions too, where EXPLAIN does not.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tickstock.db.connection import connect, fetch_value
from tickstock.timeframes import TIMEFRAMES

SYMBOLS = 12
# A year, of which each day has an hour of bars: a chunk a week.
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap)
select 'S' || symbol, d.opens_at + m * interval '1 minute', 10, 12, 8, 11, 100, 10
from trading_days d, generate_series(1, %s) symbol, generate_series(0, 58, 2) m
where d.day between '2025-01-02' and '2025-12-30'
"""
# Thousands of symbols whose first bars have just come in, and old corrections of the one asked for.
MARKS = """
with late as (
  update ohlcv_1min set volume = 7 where symbol = 'S7' and ts < '2025-01-07' and extract(minute from ts) = 40
)
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select 'T' || symbol, '2025-12-30 15:20+00', 1, 1, 1, 1, 1 from generate_series(1, 4000) symbol
"""
COUNTERS = """
select c.oid::regclass::text, pg_stat_get_xact_tuples_returned(c.oid)
from pg_class c
where relkind in ('r', 'i') and relnamespace = any ('{public, tickstock}'::regnamespace[]
                                                   || to_regnamespace('_timescaledb_internal')::oid)
"""

ASKED = """
select coalesce(pg_stat_get_xact_function_calls('candle_complete_at(text, timestamptz)'::regprocedure), 0)
  + coalesce(pg_stat_get_xact_function_calls('latest_minute()'::regprocedure), 0)
"""


class Read(NamedTuple):
    rows: dict[str, int]
    """Rows or index entries read, by table or index; none of which at most two were read."""
    returned: int

    @property
    def total(self) -> int:
        return sum(self.rows.values())


@pytest.fixture(scope="module", params=["clean", "marked"])
def history(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Connection[TupleRow]]:
    """A year of bars, all of it materialized; or with thousands of half hours marked since."""
    url = engine.clone()
    try:
        with connect(url, program="test") as conn:
            conn.execute("set tickstock.scan_queue = off")
            conn.execute(BARS, (SYMBOLS,))
            conn.execute("call ohlcv_refresh()")
            # So that no query has to pass over what the refresh has taken away.
            conn.execute("vacuum analyze")
            if request.param == "marked":
                conn.execute(MARKS)
            conn.execute("set max_parallel_workers_per_gather = 0")
            yield conn
    finally:
        engine.drop(url)


def counters(conn: Connection[TupleRow]) -> dict[str, int]:
    return dict(conn.execute(COUNTERS).fetchall())


def read(conn: Connection[TupleRow], query: str, *values: Any) -> Read:
    """What the second run of a query reads: the first one fills caches of plans and of the catalog."""
    with conn.transaction():
        conn.execute(query, values)
        before = counters(conn)
        returned = len(conn.execute(query, values).fetchall())
        after = counters(conn)
    rows = {name: after[name] - before.get(name, 0) for name in after}
    # To estimate, the planner looks at both ends of an index.
    return Read({name: number for name, number in rows.items() if number > 2}, returned)


def check(found: Read, most_rows: int, most_chunks: int) -> None:
    # A chunk of bars is read by itself or by one of its indexes: _hyper_1_52_chunk…, "52_ohlcv_1min_pkey".
    chunks = {
        n for name in found.rows for n in re.findall(r"_hyper_1_(\d+)_|(\d+)_ohlcv_1min_pkey", name)
    }
    numbers = {one or other for one, other in chunks}
    assert found.total <= most_rows, found
    assert len(numbers) <= most_chunks, found


LAST = {
    "view": "select * from ohlcv_{} where symbol = 'S7' and ts > feed_clock() - interval '{}'"
    " order by ts desc limit 10",
    "candles()": "select * from candles('S7', '{}', last => 10) -- {}",
}
DAY = {
    "view": "select * from ohlcv_{} where symbol = 'S7' and ts >= '2025-06-09 04:00+00'"
    " and ts < '2025-06-10 04:00+00'",
    "candles()": "select * from candles('S7', '{}', '2025-06-09 04:00+00', '2025-06-10 04:00+00')",
}
SINCE = dict.fromkeys(TIMEFRAMES, "21 days") | {
    "daily": "30 days",
    "weekly": "100 days",
    "monthly": "11 months",
}
REGULAR = ("daily", "weekly", "monthly")


# There are 90,000 bars, 7,500 of S7. What a query may read at most is what it returns, the marks, and
# what three weeks hold of it; small tables (monthly: 144 candles) may be read as a whole.
@pytest.mark.parametrize("timeframe", TIMEFRAMES)
@pytest.mark.parametrize("form", LAST)
def test_the_last_candles_of_a_symbol(
    history: Connection[TupleRow], form: str, timeframe: str
) -> None:
    found = read(history, LAST[form].format(timeframe, SINCE[timeframe]))
    assert found.returned == 10
    check(found, 4000, 4)


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
@pytest.mark.parametrize("form", DAY)
def test_a_day_of_a_symbol(history: Connection[TupleRow], form: str, timeframe: str) -> None:
    found = read(history, DAY[form].format(timeframe))
    assert (found.returned > 0) == (timeframe != "monthly")
    check(found, 600, 4)


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_each_symbol_s_latest_candle(history: Connection[TupleRow], timeframe: str) -> None:
    found = read(history, "select * from latest_candles(%s)", timeframe)
    assert found.returned in (SYMBOLS, SYMBOLS + 4000) or timeframe in REGULAR
    # Of chunks as small as these the planner reads all rows, for each marked symbol.
    check(found, 15_000 + 400 * found.returned, 4)


@pytest.mark.parametrize("timeframe", TIMEFRAMES[1:])
def test_what_is_complete_is_asked_once_and_not_for_each_candle(
    history: Connection[TupleRow], timeframe: str
) -> None:
    """Of thousands of symbols, whose candles are forming."""
    query = (
        f"select count(*), count(*) filter (where complete) from ohlcv_{timeframe} where ts >= %s"
    )
    with history.transaction():
        history.execute("set local track_functions = 'all'")
        start = fetch_value(history, "select candle_start(%s, latest_minute())", timeframe)
        before = fetch_value(history, ASKED)
        candles, complete = history.execute(query, (start,)).fetchone() or (0, 0)
        after = fetch_value(history, ASKED)
    assert candles >= SYMBOLS
    assert complete == 0
    assert after - before == 2


@pytest.mark.parametrize("timeframe", ["1hour", "4hour", "daily"])
def test_a_forming_candle_does_not_pass_over_the_chunks_of_a_year(
    history: Connection[TupleRow], timeframe: str
) -> None:
    """Of thousands of symbols: to pass over them takes longer, a symbol, than to make its candle."""
    start = fetch_value(history, "select candle_start(%s, latest_minute())", timeframe)
    query = f"explain select * from ohlcv_{timeframe} where ts >= '{start}'"
    plan = "\n".join(line for (line,) in history.execute(query))
    # Of its own candles, of half hours, and of bars; two of each where one has just begun.
    assert len(set(re.findall(r"_hyper_\w+_chunk\b", plan))) <= 6


def test_other_widths_read_no_more(history: Connection[TupleRow]) -> None:
    for timeframe in ("10 minutes", "65 minutes", "2 hours", "3 days"):
        asked = f"candles('S7', '{timeframe}', last => 10, sessions => 'regular', fill => "
        for fill in ("false", "true"):
            found = read(history, f"select * from {asked}{fill})")
            assert found.returned == 10
            check(found, 8000, 5)


def test_the_coverage_of_all_symbols_reads_no_more_for_each(
    history: Connection[TupleRow],
) -> None:
    with history.transaction(force_rollback=True):
        history.execute(
            "insert into feed_stretches (feed, channel, starts, latest, closed_at)"
            " select 'test', 'AM', opens_at - interval '1 hour', closes_at, closes_at"
            " from trading_days where day between '2025-06-02' and '2025-12-30'"
        )
        history.execute(
            "insert into backfills (symbol, starts, ends, source)"
            " select 'S' || symbol, '2025-06-09 08:00+00', '2025-06-09 13:00+00', 'test'"
            " from generate_series(1, 1000) symbol"
        )
        found = read(history, "select * from coverage(null, '2025-06-09', '2025-06-13')")
        assert found.returned == SYMBOLS * 5 * 3
        # 1,800 bars, found by an index; a thousand backfills, and 147 stretches.
        check(found, 8000, 3)


def test_without_its_index_a_query_fails_these_tests(history: Connection[TupleRow]) -> None:
    query = "select * from candles('S7', '1min', last => 10)"
    check(read(history, query), 200, 2)
    with history.transaction(force_rollback=True):
        history.execute("alter table ohlcv_1min drop constraint ohlcv_1min_pkey")
        history.execute("drop index ohlcv_1min_ts_idx")
        with pytest.raises(AssertionError):
            check(read(history, query), 200, 2)


@pytest.mark.parametrize("engine", ["postgres", "apache"], indirect=True)
def test_a_refresh_knows_of_the_symbols_that_it_adds(conn: Connection[TupleRow]) -> None:
    """Each timeframe is made of the one before: by statistics of one symbol, the planner would look for each
    of thousands by the time alone, and go through all of them."""
    opens_at = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
    some = """
      insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
      select 'S' || s, t, 10, 11, 9, 10, 100 from generate_series(1, %s::integer) s,
        generate_series(%s::timestamptz, %s, interval '5 minutes') t
    """
    conn.execute(some, (1, opens_at - timedelta(days=7), opens_at - timedelta(days=6)))
    conn.execute("call ohlcv_refresh()")
    conn.execute("analyze")
    conn.execute(some, (2_000, opens_at, opens_at + timedelta(minutes=30)))
    conn.execute("call ohlcv_refresh()")
    symbols = (
        "select n_distinct from pg_stats where tablename = 'candles_5min' and attname = 'symbol'"
    )
    assert fetch_value(conn, symbols) not in (0, 1)
