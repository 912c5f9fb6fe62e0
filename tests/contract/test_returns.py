"""daily_returns() and what is made of them. With pandas they are compared in tests/test_cookbook.py."""

from datetime import date
from decimal import Decimal

from psycopg import Connection
from psycopg.rows import TupleRow

# A trades each day, H was halted for two weeks and then for a day more, Z is worth nothing.
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select symbol, opens_at, price, price, price, price, 100
from trading_days, lateral (select 100 + extract(day from day) % 7 as dear) p,
  lateral (values ('A', dear), ('H', dear), ('Z', 0)) s (symbol, price)
where day between '2025-11-03' and '2025-12-02'
  and (symbol <> 'H' or day in ('2025-11-03', '2025-11-17', '2025-12-02'))
"""
RANGE = "select * from daily_returns(null, '2025-11-03', '2025-12-02')"


def test_a_day_is_the_same_alone_and_in_a_range(conn: Connection[TupleRow]) -> None:
    conn.execute(BARS)
    rows = conn.execute(RANGE).fetchall()
    assert len(rows) == 21 + 3 + 21
    for row in rows:
        alone = conn.execute("select * from daily_returns(%s, %s, %s)", (row[0], row[1], row[1]))
        assert alone.fetchall() == [row]


def test_after_more_than_two_weeks_a_symbol_begins_anew(conn: Connection[TupleRow]) -> None:
    conn.execute(BARS)
    halted = "select day, previous_close, change is null from daily_returns('H', %s, %s)"
    rows = conn.execute(halted, (date(2025, 11, 3), date(2025, 12, 2))).fetchall()
    assert [row[0].day for row in rows] == [3, 17, 2]
    assert [row[1:] for row in rows] == [(None, True), (Decimal(103), False), (None, True)]
    movers = conn.execute("select symbol from top_movers(9, '2025-12-02')").fetchall()
    assert movers == [("A",)]
