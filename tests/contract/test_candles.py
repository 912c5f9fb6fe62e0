"""The candles, against an oracle that shares nothing with our SQL: pandas and exchange_calendars."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import exchange_calendars
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tickstock.bars import Bar
from tickstock.db.connection import fetch_value
from tickstock.db.writer import Counts, write_bars
from tickstock.timeframes import TIMEFRAMES


def test_columns_and_types_are_the_same_in_every_timeframe(conn: Connection[TupleRow]) -> None:
    def columns(timeframe: str) -> list[TupleRow]:
        return conn.execute(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = 'public' and table_name = 'ohlcv_' || %s order by ordinal_position",
            (timeframe,),
        ).fetchall()

    names = ["symbol", "ts", "open", "high", "low", "close", "volume", "vwap", "trades", "bars"]
    names += ["session", "complete"]
    assert [name for name, _ in columns("1min")] == names
    for timeframe in TIMEFRAMES:
        assert columns(timeframe) == columns("1min"), timeframe


def test_what_goes_in_comes_out_to_the_last_digit(conn: Connection[TupleRow]) -> None:
    numbers = [Decimal(t) for t in ("0.0001", "123456.123456789012345", "0.0000", "99.90", "1.5")]
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " values ('X', '2025-11-24 15:00+00', %s, %s, %s, %s, %s)",
        numbers,
    )
    row = conn.execute("select open, high, low, close, volume from ohlcv_1min").fetchone()
    assert row is not None
    assert list(map(str, row)) == list(map(str, numbers))


Operation = Callable[[Connection[TupleRow]], object]

# Around what goes wrong: clocks put forward and back, a holiday and the half day after it, the turn
# of a year, a week and a month; before, at and after the session's edges.
DAYS = (
    "2025-03-07",
    "2025-03-09",
    "2025-11-02",
    "2025-11-03",
    "2025-11-27",
    "2025-11-28",
    "2025-12-31",
    "2026-01-02",
)
TIMES = ("00:58", "04:00", "09:28", "11:57", "12:58", "15:58", "19:55", "23:57")
SYMBOLS = ("A", "BRK.B", "ZZ")

moments = st.builds(
    lambda day, time: f"{day} {time} America/New_York",
    st.sampled_from(DAYS),
    st.sampled_from(TIMES),
)
runs = st.tuples(st.sampled_from(SYMBOLS), moments, st.integers(1, 40))
"""A symbol, a New York time, and a number of minutes from there."""
cents = st.integers(1, 10_000)

UPSERT = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select %s, %s::timestamptz + i * interval '1 minute', p + i, p + i + 3, p * 0.5, p + 1, v + i * 0.5,
       case when vwap then p + 0.0001 * i end, case when not vwap then i end
from generate_series(0, %s - 1) i, (select %s / 100.0 as p, %s as v, %s as vwap) x
on conflict (symbol, ts) do update set (open, high, low, close, volume, vwap, trades)
  = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume,
     excluded.vwap, excluded.trades)
"""
UPDATE = """
update ohlcv_1min set close = high, volume = volume + %s
where symbol = %s and ts >= %s and ts < %s::timestamptz + %s * interval '1 minute'
"""
DELETE = """
delete from ohlcv_1min where symbol = %s and ts >= %s and ts < %s::timestamptz + %s * interval '1 minute'
"""

MERGE = """
merge into ohlcv_1min b
using (select %s as symbol, %s::timestamptz + i * interval '1 minute' as ts
       from generate_series(0, %s - 1) i) n
on b.symbol = n.symbol and b.ts = n.ts
when matched and extract(minute from b.ts)::int %% 3 = 0 then delete
when matched then update set volume = b.volume + 1
when not matched then
  insert (symbol, ts, open, high, low, close, volume) values (n.symbol, n.ts, 7, 8, 6, 7, 1)
"""


def write(run: tuple[str, str, int], price: int, volume: int, vwap: bool) -> Operation:
    symbol, ts, minutes = run
    return lambda conn: conn.execute(UPSERT, (symbol, ts, minutes, price, volume, vwap))


def correct(run: tuple[str, str, int], volume: int) -> Operation:
    symbol, ts, minutes = run
    return lambda conn: conn.execute(UPDATE, (volume, symbol, ts, ts, minutes))


def delete(run: tuple[str, str, int]) -> Operation:
    symbol, ts, minutes = run
    return lambda conn: conn.execute(DELETE, (symbol, ts, ts, minutes))


def rename(run: tuple[str, str, int], symbol: str) -> Operation:
    old, ts, _ = run

    def update(conn: Connection[TupleRow]) -> None:
        conn.execute("delete from ohlcv_1min where symbol = %s and ts = %s", (symbol, ts))
        conn.execute(
            "update ohlcv_1min set symbol = %s where symbol = %s and ts = %s", (symbol, old, ts)
        )

    return update


def copy(run: tuple[str, str, int]) -> Operation:
    """Plain COPY into the table, as analysts do; the range is emptied before."""
    symbol, ts, minutes = run

    def load(conn: Connection[TupleRow]) -> None:
        delete(run)(conn)
        start = conn.execute("select %s::timestamptz", (ts,)).fetchone()
        assert start is not None
        columns = "copy ohlcv_1min (symbol, ts, open, high, low, close, volume) from stdin"
        with conn.cursor().copy(columns) as rows:
            for minute in range(minutes):
                rows.write_row(
                    (symbol, start[0] + timedelta(minutes=minute), 5, 6 + minute, 4, 5, 70)
                )

    return load


def merge(run: tuple[str, str, int]) -> Operation:
    symbol, ts, minutes = run

    def execute(conn: Connection[TupleRow]) -> None:
        # TimescaleDB refuses MERGE into what may have a columnstore.
        if fetch_value(conn, "select tickstock_engine()") != "community":
            conn.execute(MERGE, (symbol, ts, minutes))

    return execute


def refresh(conn: Connection[TupleRow]) -> None:
    conn.execute("call ohlcv_refresh()")


def refresh_in_bulk(conn: Connection[TupleRow]) -> None:
    """As if many symbols had changed: continuous aggregates are refreshed, not mended."""
    conn.execute("set tickstock.bulk_symbols = 1")
    refresh(conn)
    conn.execute("reset tickstock.bulk_symbols")


def truncate(conn: Connection[TupleRow]) -> None:
    conn.execute("truncate ohlcv_1min")


operations = st.one_of(
    st.builds(write, runs, cents, cents, st.booleans()),
    st.builds(write, runs, cents, cents, st.booleans()),
    st.builds(correct, runs, cents),
    st.builds(delete, runs),
    st.builds(rename, runs, st.sampled_from(SYMBOLS)),
    st.builds(copy, runs),
    st.builds(merge, runs),
    st.just(refresh),
    st.just(refresh_in_bulk),
    st.just(truncate),
)


@settings(
    max_examples=int(os.environ.get("TICKSTOCK_TEST_EXAMPLES", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(operations, min_size=3, max_size=12))
def test_candles_equal_the_oracle_after_every_operation(
    conn: Connection[TupleRow], steps: list[Operation]
) -> None:
    truncate(conn)
    for step in steps:
        step(conn)
        assert differences(read_snapshot(conn)) == []


def test_a_corrected_calendar_mends_the_day(conn: Connection[TupleRow]) -> None:
    conn.execute(UPSERT, ("A", "2025-11-28 12:50 America/New_York", 30, 100, 100, True))
    conn.execute(UPSERT, ("A", "2025-11-26 12:50 America/New_York", 30, 100, 100, True))
    refresh(conn)

    def bars(timeframe: str) -> object:
        return conn.execute(
            f"select bars from ohlcv_{timeframe} order by ts desc limit 1"
        ).fetchone()

    assert (bars("daily"), bars("weekly"), bars("monthly")) == ((10,), (40,), (40,))
    conn.execute(
        "update trading_days set closes_at = closes_at + interval '3 hours' where day = '2025-11-28'"
    )
    for _ in range(2):
        assert (bars("daily"), bars("weekly"), bars("monthly")) == ((30,), (60,), (60,))
        refresh(conn)
    conn.execute("delete from trading_days where day = '2025-11-28'")
    for _ in range(2):
        assert differences(read_snapshot(conn), holidays=["2025-11-28"]) == []
        assert (bars("weekly"), bars("monthly")) == ((30,), (30,))
        refresh(conn)


def test_the_calendar_is_that_of_exchange_calendars(conn: Connection[TupleRow]) -> None:
    calendar = exchange_calendars.get_calendar(
        "XNYS", start="1990-01-01", end="2040-12-31"
    ).schedule
    wanted = [
        (day.date(), opens.to_pydatetime(), closes.to_pydatetime())
        for day, opens, closes in zip(
            calendar.index, calendar["open"], calendar["close"], strict=True
        )
    ]
    assert (
        conn.execute("select day, opens_at, closes_at from trading_days order by day").fetchall()
        == wanted
    )


def test_refreshing_leaves_only_what_is_forming(conn: Connection[TupleRow]) -> None:
    conn.execute(UPSERT, ("A", "2025-11-24 10:00 America/New_York", 45, 100, 100, True))
    for _ in range(3):  # marks of one half hour, of which one is enough
        conn.execute("update ohlcv_1min set volume = volume + 1")
    refresh(conn)
    left = conn.execute("select symbol, granule from tickstock.dirty").fetchall()
    assert left == [("A", datetime(2025, 11, 24, 15, 30, tzinfo=UTC))]
    assert differences(read_snapshot(conn)) == []


def test_the_same_bar_again_changes_nothing(conn: Connection[TupleRow]) -> None:
    bar = Bar("A", datetime(2025, 11, 24, 15, 0, tzinfo=UTC), 1.5, 2, 1, 1.25, 100, 1.4, 7)
    assert write_bars(conn, [bar], source="test").counts == Counts(received=1, inserted=1)
    later = bar._replace(ts=bar.ts + timedelta(hours=1))
    write_bars(conn, [later], source="test")
    refresh(conn)
    waiting = (
        "select (select count(*) from tickstock.dirty), (select count(*) from tickstock.scan_queue)"
    )
    before = conn.execute(waiting).fetchone()
    assert write_bars(conn, [bar], source="test").counts == Counts(received=1, unchanged=1)
    assert conn.execute(waiting).fetchone() == before
