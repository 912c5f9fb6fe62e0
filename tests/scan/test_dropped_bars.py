"""Scanning where old bars have been dropped: what was found in them stands."""

from datetime import timedelta

from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import drain, firing, new_york
from tickstock.db.connection import fetch_value
from tickstock.patterns import Pattern
from tickstock.scan.history import History, scan_together, symbols_between
from tickstock.scan.scanner import Scanner
from tickstock.timeframes import TIMEFRAMES

BEGIN, END = new_york("2025-10-30 09:30"), new_york("2025-11-21 15:55")
FILL = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select symbol, ts, 10, 11, 9, 10, 5
from unnest(%s::text[]) symbol, generate_series(%s::timestamptz, %s, '30 minutes') ts
"""
EVENTS = """
select symbol, timeframe, ts, pattern, change from events where retracted_at is null order by 1, 2, 3, 4
"""


def patterns() -> list[Pattern]:
    """One that is everywhere, and one that is only where a symbol's history begins."""
    every = firing("Every", lambda c: c.close[-1] > 0, timeframes=TIMEFRAMES)
    begins = firing("Begins", lambda c: ~(c.close[0] > 0), candles=5, timeframes=TIMEFRAMES)
    return [every, begins]


def test_events_in_dropped_bars_stand(conn: Connection[TupleRow]) -> None:
    conn.execute(FILL, (["A", "B"], BEGIN, END))
    conn.execute(FILL, (["LATER"], END - timedelta(days=4), END))
    scanner = Scanner(patterns())
    drain(conn, scanner)
    before = conn.execute(EVENTS).fetchall()
    since = fetch_value(
        conn, "select date_bin('7 days', %s, '1970-01-01 00:00+00')", END
    ) - timedelta(days=7)
    assert any(ts < since for _, timeframe, ts, *_ in before if timeframe == "1min")
    conn.execute("call drop_bars(%s)", (since,))

    history = History(BEGIN, END, TIMEFRAMES)
    scanned = scan_together(conn, scanner, symbols_between(conn, BEGIN, END), history)
    assert (scanned.events, scanned.retracted) == (0, 0)
    assert conn.execute(EVENTS).fetchall() == before

    # A correction beside what has been dropped: its own candle looks back at it.
    conn.execute(
        "update ohlcv_1min set close = 11 where symbol = 'A' and ts = (select min(ts) from ohlcv_1min)"
    )
    drain(conn, scanner)
    assert {row[:4] for row in conn.execute(EVENTS)} == {row[:4] for row in before}

    # Where nothing is missing, everything is judged as ever: longer candles have outlived their bars.
    conn.execute(
        "delete from events where symbol = 'LATER' or ts > %s or timeframe <> '1min'",
        (since + timedelta(days=2),),
    )
    whole = history._replace(since=BEGIN - timedelta(days=32))
    scan_together(conn, scanner, symbols_between(conn, BEGIN, END), whole)
    assert {row[:4] for row in conn.execute(EVENTS)} == {row[:4] for row in before}
