"""The candles, against an oracle that shares nothing with our SQL: pandas and exchange_calendars."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import exchange_calendars
import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.contract.oracle import OFFICIAL, differences, read_snapshot
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
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
    *shared, came = columns("1min")
    assert [name for name, _ in shared] == names
    assert came == ("came", "integer"), "of a bar alone"
    for timeframe in TIMEFRAMES:
        assert timeframe == "1min" or columns(timeframe) == shared, timeframe


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


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("symbol", "", "no symbol"),
        ("symbol", "Ä" * 4000, "a symbol of 8000 bytes"),
        ("ts", "infinity", "time infinity is not the start of a minute"),
        ("ts", "-infinity", "time -infinity is not the start of a minute"),
        ("ts", "4714-11-24 00:00+00 BC", "time 4714-11-24 00:00:00+00 BC is before 1700"),
        ("ts", "1699-12-31 23:59+00", "time 1699-12-31 23:59:00+00 is before 1700"),
        (
            "ts",
            "3000-01-01 00:00+00",
            "time 3000-01-01 00:00:00+00 is more than a day in the future",
        ),
        ("high", "9" * 130_000, "a price is 1e30 or more"),
        ("high", "1e30", "a price is 1e30 or more"),
        ("open", "1." + 16_000 * "0", "a price has more than 100 decimals"),
        ("high", "1." + 16_000 * "0", "a price has more than 100 decimals"),
        ("low", "1e-400", "a price has more than 100 decimals"),
        ("close", "1." + 101 * "0", "a price has more than 100 decimals"),
        ("volume", "1e30", "the volume is 1e30 or more"),
        ("volume", "1e-400", "the volume has more than 100 decimals"),
        ("vwap", "1e30", "vwap 1" + 30 * "0" + " is not a price"),
    ],
)
def test_a_bar_that_would_stop_what_reads_it_is_refused(
    conn: Connection[TupleRow], column: str, value: str, reason: str
) -> None:
    bar = {"symbol": "X", "ts": "2025-11-24 15:00+00"}
    bar |= dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), "1")
    bar[column] = value
    # TimescaleDB has no chunk at the beginning of time, and says so first.
    refused = (psycopg.errors.CheckViolation, psycopg.errors.DatetimeFieldOverflow)
    columns = sql.SQL(", ").join(map(sql.Identifier, bar))
    values = sql.SQL(", ").join(map(sql.Literal, bar.values()))
    with pytest.raises(refused):
        conn.execute(sql.SQL("insert into ohlcv_1min ({}) values ({})").format(columns, values))
    assert conn.execute("select from ohlcv_1min").fetchall() == []
    row = conn.execute(sql.SQL("select bar_defect({}, null)").format(values)).fetchone()
    assert row == (reason,)


def test_no_count_of_trades_is_too_large_to_be_added_up(conn: Connection[TupleRow]) -> None:
    """In some files the largest integer stands for an unknown number."""
    starts = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)
    most = 10**11 - 1
    bars = [
        Bar("A", starts + n * timedelta(minutes=1), 1, 1, 1, 1, 1, None, trades)
        for n, trades in enumerate([most, 2**63 - 1, most, most + 1])
    ]
    counts = Counts(received=4, inserted=2, refused=2)
    assert write_bars(conn, bars, source="test").counts == counts
    reasons = conn.execute("select reason from refused_bars order by id").fetchall()
    assert reasons == [(f"{2**63 - 1} trades",), (f"{most + 1} trades",)]
    with pytest.raises(psycopg.errors.CheckViolation, match="trades_add_up"):
        conn.execute("update ohlcv_1min set trades = %s", (most + 1,))
    write_bars(conn, [Bar("B", starts + timedelta(hours=1), 1, 1, 1, 1, 1)], source="test")
    refresh(conn)
    assert differences(read_snapshot(conn)) == []
    assert (
        conn.execute(
            "select trades from candles('A', '100 years')"
            " union all select trades from ohlcv_5min where symbol = 'A'"
        ).fetchall()
        == [(2 * most,)] * 2
    )


UPSERT = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select %s, %s::timestamptz + i * interval '1 minute', p + i, p + i + 3, p * 0.5, p + 1, v + i * 0.5,
       case when vwap then p + 0.0001 * i end, case when not vwap then i end
from generate_series(0, %s - 1) i, (select %s / 100.0 as p, %s as v, %s as vwap) x
on conflict (symbol, ts) do update set (open, high, low, close, volume, vwap, trades)
  = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume,
     excluded.vwap, excluded.trades)
"""


def refresh(conn: Connection[TupleRow]) -> None:
    conn.execute("call ohlcv_refresh()")


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
        assert differences(read_snapshot(conn), OFFICIAL.with_day(date(2025, 11, 28), None)) == []
        assert (bars("weekly"), bars("monthly")) == ((30,), (30,))
        refresh(conn)


@pytest.mark.parametrize("style", ["German", "SQL, DMY", "Postgres, MDY"])
def test_no_style_of_dates_changes_an_answer(conn: Connection[TupleRow], style: str) -> None:
    def in_style(*statements: str) -> None:
        # In these a moment in Shanghai is written with CST, which elsewhere is Chicago's time.
        conn.execute("select set_config('datestyle', %s, false)", (style,))
        conn.execute("set timezone = 'Asia/Shanghai'")
        for statement in statements:
            conn.execute(statement)
        conn.execute("reset datestyle")
        conn.execute("set timezone = 'UTC'")

    for minute in ("2025-06-27 16:30+00", "2025-07-03 16:30+00", "2025-08-01 16:30+00"):
        conn.execute(UPSERT, ("A", minute, 60, 100, 10, True))
    in_style(
        "call ohlcv_refresh()",
        "update ohlcv_1min set high = 2 * high where ts < '2025-07-04T00:00Z'",
        "delete from trading_days where day = '2025-08-01'",
        "call ohlcv_refresh()",
    )
    calendar = OFFICIAL.with_day(date(2025, 8, 1), None)
    whole = read_snapshot(conn)
    assert differences(whole, calendar) == []
    in_style("call drop_bars('2025-07-05T00:00Z')")
    kept = read_snapshot(conn)
    dropped = whole.bars[:60]
    assert kept.bars == whole.bars[60:]
    assert differences(kept, calendar, dropped) == []


def test_programs_read_times_whatever_style_the_database_has(
    url: str, conn: Connection[TupleRow]
) -> None:
    database = psycopg.sql.Identifier(conn.info.dbname)
    for setting in ("datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'"):
        alter = psycopg.sql.SQL("alter database {} set " + setting)
        conn.execute(alter.format(database))
    with connect(url, program="test") as fresh:
        times = (
            "select timestamptz '2025-07-03 17:00Z', date '2025-07-03', interval '1 day 2 hours'"
        )
        assert fresh.execute(times).fetchall() == [
            (datetime(2025, 7, 3, 17, tzinfo=UTC), date(2025, 7, 3), timedelta(days=1, hours=2))
        ]


def test_the_calendar_is_not_truncated_behind_the_candles_back(
    conn: Connection[TupleRow],
) -> None:
    conn.execute(UPSERT, ("A", "2025-11-28 17:30+00", 60, 100, 10, False))
    refresh(conn)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="can't be truncated") as caught:
        conn.execute("truncate trading_days")
    assert caught.value.diag.message_hint == "delete from trading_days does so, day by day."
    assert differences(read_snapshot(conn)) == []


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


def test_where_old_bars_end_and_recent_ones_begin_none_counts_twice(
    conn: Connection[TupleRow],
) -> None:
    """They are read by two paths, and the border lies within days and candles of four hours."""
    latest = datetime(2025, 11, 24, 15, 10, tzinfo=UTC)
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select 'A', ts, 5, 9, 4, 5, 100 from generate_series(%s, %s, interval '10 minutes') ts",
        (latest - timedelta(days=8), latest),
    )
    refresh(conn)
    (border,) = conn.execute("select tickstock.recent_since()").fetchone() or ()
    assert border == datetime(2025, 11, 17, 15, 0, tzinfo=UTC)
    conn.execute("update ohlcv_1min set volume = volume + 1")
    assert differences(read_snapshot(conn)) == []


def test_the_same_bar_again_changes_nothing(conn: Connection[TupleRow]) -> None:
    bar = Bar("A", datetime(2025, 11, 24, 15, 0, tzinfo=UTC), 1.5, 2, 1, 1.25, 100, 1.4, 7)
    assert write_bars(conn, [bar], source="test").counts == Counts(received=1, inserted=1)
    later = bar._replace(ts=bar.ts + timedelta(hours=1))
    write_bars(conn, [later], source="test")
    refresh(conn)
    waiting = (
        "select (select count(*) from tickstock.dirty),"
        " (select sum(cardinality(symbols)) from tickstock.scan_queue)"
    )
    before = conn.execute(waiting).fetchone()
    assert write_bars(conn, [bar], source="test").counts == Counts(received=1, unchanged=1)
    assert conn.execute(waiting).fetchone() == before


def test_of_two_versions_in_one_batch_the_later_counts(conn: Connection[TupleRow]) -> None:
    first = Bar("A", datetime(2025, 11, 24, 15, 0, tzinfo=UTC), 1, 3, 1, 2, 100)
    counts = write_bars(conn, [first, first._replace(close=3)], source="test").counts
    assert counts == Counts(received=2, inserted=1, unchanged=1)
    assert conn.execute("select close from ohlcv_1min").fetchall() == [(3,)]


def test_sources_complete_each_other_until_one_corrects_the_bar(conn: Connection[TupleRow]) -> None:
    """The feed has no trade count, flat files have no vwap."""
    bar = Bar("A", datetime(2025, 11, 24, 15, 0, tzinfo=UTC), 1, 3, 1, 2, 100)
    vwap = Decimal("1.4")
    for come, (known_vwap, known_trades) in (
        (bar._replace(vwap=vwap), (vwap, None)),
        (bar._replace(trades=7), (vwap, 7)),
        (bar, (vwap, 7)),
        (bar._replace(close=3, trades=8), (None, 8)),
        (bar._replace(close=3, vwap=vwap), (vwap, 8)),
        (bar._replace(close=1, vwap=vwap), (vwap, None)),
    ):
        write_bars(conn, [come], source="test")
        rows = conn.execute("select vwap, trades from ohlcv_1min").fetchall()
        assert rows == [(known_vwap, known_trades)], come


def test_a_bar_of_more_than_a_day_ahead_is_refused(conn: Connection[TupleRow]) -> None:
    now = fetch_value(conn, "select date_trunc('minute', now())")
    ahead = [Bar("A", now + timedelta(hours=hours), 1, 1, 1, 1, 1) for hours in (23, 25)]
    assert write_bars(conn, ahead, source="test").refused_rows == {1}
    (reason,) = conn.execute("select reason from refused_bars").fetchone() or ()
    assert reason.endswith("is more than a day in the future")
