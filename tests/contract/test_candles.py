"""The candles, against an oracle that shares nothing with our SQL: pandas and exchange_calendars."""

from decimal import Decimal

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.timeframes import TIMEFRAMES


def test_columns_and_types_are_the_same_in_every_timeframe(conn: Connection[TupleRow]) -> None:
    def columns(timeframe: str) -> list[TupleRow]:
        return conn.execute(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = 'public' and table_name = 'ohlcv_' || %s order by ordinal_position",
            (timeframe,),
        ).fetchall()

    names = "symbol ts open high low close volume vwap trades bars".split()
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
