"""The Python API: what it returns is what SQL returns, in the types that are told."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow, dict_row

import tickstock
from tests.contract.test_any_candle import (
    SYMBOLS,
    WRITE,
    Ask,
    Step,
    asks,
    bars_of,
    oracle,
    steps,
    write_market,
)
from tests.properties import on_a_database
from tests.scan.making import OPENING, event, record
from tests.scan.support import on_one_engine
from tickstock.db.connection import fetch_value
from tickstock.errors import SchemaMissingError, TickstockError, UnknownSymbolError

NEW_YORK = ZoneInfo("America/New_York")
TEXT = pd.StringDtype(na_value=np.nan)
PRICES = ("open", "high", "low", "close", "volume", "vwap")
OTHERS = ("trades", "bars", "session", "complete", "filled")
TYPES = {
    "symbol": TEXT,
    **dict.fromkeys(PRICES, np.dtype("float64")),
    "trades": pd.Int64Dtype(),
    "bars": np.dtype("int64"),
    "session": TEXT,
    "complete": np.dtype("bool"),
    "filled": np.dtype("bool"),
}
INDEX = pd.DatetimeTZDtype("us", UTC)
MINUTE = timedelta(minutes=1)


def write(conn: Connection[TupleRow], symbol: str = "AAPL", minutes: int = 10) -> None:
    """Bars from the opening on."""
    conn.execute(WRITE, (symbol, OPENING, minutes, 1, 1000, 7, True))


def lines(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """The rows as the oracle gives them, with None where pandas has a missing value."""
    rows: Iterable[Any] = frame.drop(columns="symbol").itertuples(name=None)
    return [
        tuple(None if each is pd.NA or each is None or each != each else each for each in row)
        for row in rows
    ]


@on_a_database(examples=8)
@given(st.lists(steps, min_size=2, max_size=6), st.lists(asks, min_size=2, max_size=6))
def test_candles_equal_the_oracle(
    conn: Connection[TupleRow], writing: list[Step], asked: list[Ask]
) -> None:
    write_market(conn, writing)
    clock = fetch_value(conn, "select feed_clock()")
    for symbol in SYMBOLS:
        bars = bars_of(conn, symbol)
        for ask in asked if bars else []:
            check(conn, symbol, ask, oracle(bars, clock, ask))


def check(conn: Connection[TupleRow], symbol: str, ask: Ask, wanted: list[tuple[Any, ...]]) -> None:
    options = {**ask._asdict(), "connection": conn}
    for decimals in (False, True):
        got = tickstock.candles(symbol, decimals=decimals, **options)
        kind = np.dtype("object") if decimals else np.dtype("float64")
        assert dict(got.dtypes) == TYPES | dict.fromkeys(PRICES, kind)
        assert got.index.dtype == INDEX
        assert got.index.name == "ts"
        assert set(got["symbol"]) <= {symbol}
        number: Callable[[Decimal], object] = Decimal if decimals else float
        exact = [
            tuple(number(each) if isinstance(each, Decimal) else each for each in line)
            for line in wanted
        ]
        without_vwap = [line[:6] + line[7:] for line in lines(got)]
        assert without_vwap == [line[:6] + line[7:] for line in exact], ask
        for mine, theirs in zip((line[6] for line in lines(got)), wanted, strict=True):
            assert (mine is None) == (theirs[6] is None)
            assert mine is None or float(mine) == pytest.approx(float(theirs[6]), rel=1e-12)


def test_candles_are_what_pandas_makes_of_the_bars_when_the_clocks_change(
    conn: Connection[TupleRow],
) -> None:
    for day in (date(2025, 3, 7), date(2025, 3, 10), date(2025, 10, 31), date(2025, 11, 3)):
        opening = datetime.combine(day, datetime.min.time(), NEW_YORK) + timedelta(hours=9.5)
        conn.execute(WRITE, ("AAPL", opening, 390, 7, 1000, 3, True))
    bars = tickstock.candles("AAPL", "1min", connection=conn)
    wanted = (
        bars.tz_convert(NEW_YORK)
        .resample("D")
        .agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
        .dropna()
        .tz_convert("UTC")
    )
    got = tickstock.candles("AAPL", "daily", connection=conn)
    assert [each.hour for each in got.index] == [5, 4, 4, 5], "midnight in New York"
    pd.testing.assert_frame_equal(got[list(wanted.columns)], wanted, check_freq=False)


def test_a_range_without_candles_is_an_empty_frame_of_the_same_types(
    conn: Connection[TupleRow],
) -> None:
    write(conn)
    empty = tickstock.candles("AAPL", "5min", since="2030-01-01", connection=conn)
    full = tickstock.candles("AAPL", "5min", connection=conn)
    assert len(empty) == 0 < len(full)
    assert dict(empty.dtypes) == dict(full.dtypes) == TYPES
    assert empty.index.dtype == full.index.dtype == INDEX
    nothing = tickstock.events(since="2030-01-01", connection=conn)
    record(conn, [event("AAPL")])
    some = tickstock.events(connection=conn)
    assert len(nothing) == 0 < len(some)
    assert dict(nothing.dtypes) == dict(some.dtypes)
    assert nothing.index.dtype == some.index.dtype == INDEX


@on_one_engine
def test_an_unknown_symbol_is_told_with_one_that_is_known(
    conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownSymbolError, match="'AAPL': the database holds no bars yet"):
        tickstock.candles("AAPL", "5min", connection=conn)
    monkeypatch.setattr("tickstock.db.read.DEMO_DBNAME", conn.info.dbname)
    with pytest.raises(UnknownSymbolError, match=r"holds no bars yet \(tickstock demo\)"):
        tickstock.candles("AAPL", "5min", connection=conn)
    write(conn)
    for wrong in ("AAPLE", "aapl"):
        with pytest.raises(ValueError, match=f"no candles of '{wrong}': did you mean AAPL\\?"):
            tickstock.candles(wrong, "5min", connection=conn)
    with pytest.raises(UnknownSymbolError, match="the database has 1 symbol: AAPL"):
        tickstock.candles("'; drop table events; --", "5min", connection=conn)
    with pytest.raises(ValueError, match="no zero byte"):
        tickstock.candles("A\0", "5min", connection=conn)


@on_one_engine
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeframe": "7 minutes"}, "no candles of the width '7 minutes'. Possible are the names"),
        ({"timeframe": "1M"}, "no candles of the width '1M'"),
        ({"sessions": "evening"}, "sessions 'evening'"),
        ({"last": 0}, "the last 0 candles"),
        ({"last": 2.5}, "the last 2.5 candles? Give last a whole number"),
        ({"last": True}, "the last True candles"),
        ({"since": np.datetime64("2025-11-24")}, "since=np.datetime64('2025-11-24') can't be read"),
        ({"since": datetime(2025, 11, 24)}, "since='2025-11-24 00:00:00' has no time zone"),  # noqa: DTZ001
        (
            {"until": pd.Timestamp("2025-11-24 09:30")},
            "until='2025-11-24 09:30:00' has no time zone",
        ),
        ({"since": "2025-11-24T09:30"}, "since='2025-11-24 09:30:00' has no time zone"),
        ({"since": pd.NaT}, "since=NaT is no time"),
        ({"since": "yesterday"}, "since='yesterday' can't be read"),
    ],
    ids=str,
)
def test_what_makes_no_candles_is_a_value_error(
    conn: Connection[TupleRow], options: dict[str, Any], told: str
) -> None:
    write(conn)
    with pytest.raises(ValueError) as caught:
        tickstock.candles("AAPL", options.pop("timeframe", "5min"), connection=conn, **options)
    assert told in str(caught.value)


@on_one_engine
def test_times_may_be_given_in_any_zone_and_days_are_new_yorks(conn: Connection[TupleRow]) -> None:
    write(conn, minutes=5)
    seconds = OPENING + 2 * MINUTE
    for since in (
        seconds,
        seconds.astimezone(timezone(timedelta(hours=9))),
        pd.Timestamp(seconds),
        "2025-11-24T09:32-05:00",
        "2025-11-24T14:32Z",
    ):
        got = tickstock.candles("AAPL", "1min", since=since, connection=conn)
        assert list(got.index) == [OPENING + n * MINUTE for n in (2, 3, 4)]
    # A bar at 23:59 of the day before, New York: in UTC it is the same day.
    conn.execute(WRITE, ("AAPL", "2025-11-23 23:59-05", 1, 1, 1000, 3, True))
    for day in (date(2025, 11, 24), "2025-11-24"):
        assert len(tickstock.candles("AAPL", "1min", since=day, connection=conn)) == 5
        assert len(tickstock.candles("AAPL", "1min", until=day, connection=conn)) == 1


def test_events_of_a_symbol_a_pattern_and_a_time(conn: Connection[TupleRow]) -> None:
    minutes = [OPENING + n * MINUTE for n in range(4)]
    record(conn, [event("AAPL", ts=ts, price=10.1) for ts in minutes])
    record(conn, [event("TSLA", pattern="Hammer", direction="long")], asked=["Hammer"])
    conn.execute("update events set retracted_at = now() where ts = %s", (minutes[3],))
    ask: dict[str, Any] = {"connection": conn}
    assert list(tickstock.events("AAPL", **ask).index) == minutes[:3]
    assert len(tickstock.events("AAPL", retracted=True, **ask)) == 4
    assert list(tickstock.events("AAPL", last=2, **ask).index) == minutes[1:3], "oldest first"
    assert list(tickstock.events("AAPL", since=minutes[1], until=minutes[2], **ask).index) == [
        minutes[1]
    ]
    assert list(tickstock.events(pattern="Hammer", **ask)["symbol"]) == ["TSLA"]
    assert len(tickstock.events(timeframe="5min", **ask)) == 0
    first = tickstock.events("AAPL", **ask).iloc[0]
    assert (first["price"], first["details"]) == (10.1, {"body": 0.01})
    assert tickstock.events("AAPL", decimals=True, **ask)["price"].iloc[0] == Decimal("10.1")
    for last in (0, 2.5):
        with pytest.raises(ValueError, match=f"the last {last} events"):
            tickstock.events(last=last, **ask)  # type: ignore[arg-type]
    for timeframe in ("5m", "5 minutes"):
        with pytest.raises(ValueError, match=f"timeframe='{timeframe}' has no events"):
            tickstock.events("AAPL", timeframe=timeframe, **ask)


@on_one_engine
@pytest.mark.parametrize("number", [2, np.int64(2), np.int16(2), 10**30])
def test_the_last_of_any_whole_number(conn: Connection[TupleRow], number: int) -> None:
    """Those of pandas are numpy's."""
    minutes = [OPENING + n * MINUTE for n in range(3)]
    write(conn, minutes=3)
    record(conn, [event("AAPL", ts=ts) for ts in minutes])
    wanted = minutes[-min(number, 3) :]
    assert list(tickstock.candles("AAPL", "1min", last=number, connection=conn).index) == wanted
    assert list(tickstock.events("AAPL", last=number, connection=conn).index) == wanted


@on_one_engine
def test_queries_have_types_by_their_columns(conn: Connection[TupleRow]) -> None:
    statement = """
    select n::smallint as small, n::bigint as large, nullif(n, 2) as gaps, n * 0.1 as share,
      n::float8 as real, n > 1 as flag, nullif(n > 1, true) as maybe, 'a' || n as name,
      interval '1 minute' * n as width,
      timestamptz '2025-11-24 09:30-05' + n * interval '1 day' as ts,
      array[n] as list, date '2025-11-24' as day
    from generate_series(1, 2) n where n <= %s
    """
    frame = tickstock.query(statement, [2], connection=conn)
    assert [str(each) for each in frame.dtypes] == [
        "int64", "int64", "Int64", "float64", "float64", "bool", "boolean", "str", "timedelta64[us]",
        "datetime64[us, UTC]", "object", "object",
    ]  # fmt: skip
    assert frame["share"].tolist() == [0.1, 0.2]
    assert frame["list"].tolist() == [[1], [2]]
    empty = tickstock.query(statement, [0], connection=conn)
    assert len(empty) == 0
    assert empty["share"].dtype == "float64"
    exact = tickstock.query("select 0.10 as share", connection=conn, decimals=True)
    assert str(exact["share"].iloc[0]) == "0.10"
    named = tickstock.query("select %(a)s::text as a, 1 as a", {"a": "x"}, connection=conn)
    assert list(named.columns) == ["a", "a"]
    assert named.iloc[0].tolist() == ["x", 1]
    with pytest.raises(ValueError, match="returns no rows"):
        tickstock.query("set local timezone = 'UTC'", connection=conn)
    with pytest.raises(psycopg.errors.UndefinedTable):
        tickstock.query("select from nowhere", connection=conn)


@on_one_engine
def test_whatever_connection_one_has(conn: Connection[TupleRow], url: str) -> None:
    write(conn)
    with psycopg.connect(url, row_factory=dict_row) as other:
        other.execute("set timezone = 'Asia/Tokyo'")
        got = tickstock.candles("AAPL", "5min", connection=other)
    pd.testing.assert_frame_equal(got, tickstock.candles("AAPL", "5min", database_url=url))


@on_one_engine
def test_the_database_is_the_one_of_the_settings(
    conn: Connection[TupleRow], url: str, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(conn)
    monkeypatch.setenv("TICKSTOCK_DATABASE_URL", url)
    assert len(tickstock.candles("AAPL", "5min")) == 2
    with tickstock.connect() as own:
        assert own.execute("show timezone").fetchone() == ("UTC",)
        assert own.autocommit
    with (
        pytest.raises(SchemaMissingError, match="tickstock db migrate"),
        tickstock.connect(empty_url),
    ):
        pass
    with pytest.raises(TickstockError, match="the database URL can't be read"):
        tickstock.candles("AAPL", "5min", database_url="postgres:/me:s3cr3t@nowhere")


def test_importing_tickstock_does_not_import_pandas() -> None:
    program = (
        "import sys, tickstock, tickstock.cli, tickstock.cli.chart, tickstock.chart.terminal\n"
        "assert not {'pandas', 'plotly', 'matplotlib'} & set(sys.modules)\n"
        "assert {'candles', 'events', 'query', 'connect'} <= set(dir(tickstock))\n"
        "from tickstock import candles\n"
        "assert 'pandas' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'candle'"):
        tickstock.candle  # noqa: B018
