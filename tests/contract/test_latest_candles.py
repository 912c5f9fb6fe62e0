"""latest_candles(), against the maximum of each symbol."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.oracle import COLUMNS
from tickstock.timeframes import TIMEFRAMES

# Symbols that trade each minute, every 50 minutes, once on the first day, and after hours only.
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap)
select symbol, ts, 10, 12, 8, 11, 100, 10
from (values ('A', 1, 0, 960), ('B', 50, 0, 960), ('C', 1000, 400, 960), ('D', 7, 720, 960))
    s (symbol, every, first, last),
  unnest('{2025-11-21, 2025-11-25, 2025-11-26, 2025-11-28}'::date[]) day,
  generate_series(first, last - 1, every) minute,
  lateral (select (day + time '04:00') at time zone 'America/New_York' + minute * interval '1 minute' as ts) b
where symbol <> 'C' or day = '2025-11-21'
"""
CHANGES = (
    "update ohlcv_1min set close = 12 where symbol = 'A' and ts >= '2025-11-28 20:00+00'",
    # The last candles are gone, and their half hours are marked.
    "delete from ohlcv_1min where symbol = 'A' and ts >= '2025-11-28 16:10+00'",
    "delete from ohlcv_1min where symbol = 'D' and ts >= '2025-11-26 12:00+00'",
    "delete from ohlcv_1min where symbol = 'C'",
    "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
    " values ('E', '2025-12-01 15:00+00', 1, 1, 1, 1, 1)",
)


def check(conn: Connection[TupleRow], since: datetime) -> int:
    found = 0
    for timeframe in TIMEFRAMES:
        wanted = conn.execute(
            f"select {COLUMNS} from ohlcv_{timeframe} o join (select symbol, max(ts) as ts"
            f" from ohlcv_{timeframe} where ts >= %s group by symbol) m using (symbol, ts)"
            " order by o.symbol",
            (since,),
        ).fetchall()
        asked = (timeframe, since)
        assert conn.execute("select * from latest_candles(%s, %s)", asked).fetchall() == wanted
        found += len(wanted)
    return found


def test_it_is_each_symbol_s_last(conn: Connection[TupleRow]) -> None:
    conn.execute(BARS)
    early, late = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 11, 28, 14, tzinfo=UTC)
    assert check(conn, early) == 3 * len(TIMEFRAMES) + 6
    conn.execute("call ohlcv_refresh()")
    assert check(conn, early) > check(conn, late) > 0
    for change in CHANGES:
        conn.execute(change)
        check(conn, early)
        check(conn, late)
    conn.execute("call ohlcv_refresh()")
    check(conn, early)


def test_since_ever_it_is_the_last_of_all(conn: Connection[TupleRow]) -> None:
    conn.execute(BARS)
    conn.execute("call ohlcv_refresh()")
    for timeframe in TIMEFRAMES:
        ever, early = (
            conn.execute("select * from latest_candles(%s, %s)", (timeframe, since)).fetchall()
            for since in ("-infinity", "2025-01-01")
        )
        assert ever == early != []


def test_by_default_it_is_the_feed_s_last_week(conn: Connection[TupleRow]) -> None:
    conn.execute(BARS)
    week = conn.execute("select feed_clock() - interval '7 days'").fetchall()[0][0]
    rows = conn.execute("select symbol, ts from latest_candles('1min')").fetchall()
    assert [symbol for symbol, _ in rows] == ["A", "B", "D"]
    assert all(ts > week + timedelta(days=6) for _, ts in rows)


def test_unknown_timeframes_are_told(conn: Connection[TupleRow]) -> None:
    for timeframe in ("10 minutes", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            conn.execute("select * from latest_candles(%s)", (timeframe,))
        assert (timeframe or "NULL") in str(caught.value)
        assert "1min, 5min, 15min" in str(caught.value)
