"""How the feed is doing, in SQL, against what a test has written."""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow, dict_row

from tests.conftest import Engine
from tickstock.bars import Bar, Refusal
from tickstock.db.connection import connect
from tickstock.db.writer import write_bars
from tickstock.ingest.ledger import Behind, Stretch

START = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
"""The opening of a Monday. The pre-market has 330 minutes."""
MINUTE = timedelta(minutes=1)
OWED = "select symbol, sum(minutes) from feed_gaps group by 1"


def bar(symbol: str, minute: int) -> Bar:
    return Bar(symbol, START + minute * MINUTE, 10, 12, 8, 11, 100)


def test_nothing_yet(conn: Connection[TupleRow]) -> None:
    told = conn.cursor(row_factory=dict_row).execute("select * from feed_status").fetchone()
    assert told is not None
    assert told["feed_clock"] is told["lag"] is told["latest_complete"] is None
    assert (told["subscriptions"], told["gaps"], told["owed_minutes"]) == (0, 0, 0)
    assert conn.execute("select * from symbol_status()").fetchall() == []
    assert conn.execute("select * from symbol_status('{A}')").fetchall() == [
        ("A", None, None, 0, 0, 0)
    ]


def test_a_feed_that_is_on(conn: Connection[TupleRow], url: str) -> None:
    old = [bar("OLD", -60 * 24 * 4 + minute) for minute in range(3)]  # of Thursday
    write_bars(conn, old, source="test")
    bars = [bar("A", minute) for minute in range(40)] + [bar("B", minute) for minute in range(35)]
    with connect(url, program="ingest") as writer:
        stretch = Stretch(writer, "ws://feed", "AM", ["A", "B", "NEVER"])
        write_bars(writer, [], source="feed", refusals=[Refusal("feed", "no", "{}")])
        for batch in (bars[:39], bars[40:], bars[39:40]):
            write_bars(writer, batch, source="feed")
            stretch.extend(writer, batch)
            stretch.commit(batch)
        with conn.cursor(row_factory=dict_row) as cursor:
            told = cursor.execute("select *, now() as now from feed_status").fetchone()
        assert told is not None
        clock = START + 40 * MINUTE
        assert (told["feed_clock"], told["lag"]) == (clock, told["now"] - clock)
        assert (told["subscriptions"], told["symbols"]) == (1, 3)
        assert told["bars_in_5_minutes"] == 5
        assert told["latest_complete"] == START + 38 * MINUTE
        # Its first quarter of an hour is not covered: what is owed is so of A, B and NEVER.
        owed = conn.execute("select count(*), sum(minutes) from feed_gaps").fetchone()
        assert (told["gaps"], told["owed_minutes"]) == owed
        assert told["owed_minutes"] > 0
        assert told["refused_today"] == 1
        assert told["candles_to_scan"] == len(old) + len(bars)
        rows = conn.execute("select * from symbol_status()").fetchall()
        by_name = conn.execute("select * from symbol_status('{B,GONE}')").fetchall()
        owed_by: dict[str, int] = dict(conn.execute(OWED).fetchall())
    expected = 330 + 40
    assert rows == [
        ("A", START + 39 * MINUTE, 0 * MINUTE, 40, expected, owed_by["A"]),
        ("B", START + 34 * MINUTE, 5 * MINUTE, 35, expected, owed_by["B"]),
        ("NEVER", None, None, 0, expected, owed_by["NEVER"]),
        ("OLD", old[-1].ts, clock - old[-1].ts - MINUTE, 0, expected, 0),
    ]
    assert by_name == [rows[1], ("GONE", None, None, 0, expected, 0)]


WAITS = "select frames_waiting, spilled_bytes, stored_after from feed_status"


def test_what_waits_in_the_ingests_that_are_alive(conn: Connection[TupleRow], url: str) -> None:
    gone = Stretch(conn, "ws://gone", "AM", ["A"])
    gone.extend(conn, [bar("A", 0)], Behind(1_000, 1_000, 9 * MINUTE))
    gone.close(conn, "cut", intended=False)
    assert conn.execute(WAITS).fetchone() == (None, None, None)
    with connect(url, program="ingest") as one, connect(url, program="ingest") as other:
        first, second = (
            Stretch(writer, f"ws://{name}", "AM", [name])
            for writer, name in ((one, "A"), (other, "B"))
        )
        first.extend(one, [bar("A", 0)], Behind(7, 2**40, 2 * MINUTE))
        first.extend(one, [bar("A", 1)], Behind(3, 2**33, MINUTE))
        assert conn.execute(WAITS).fetchone() == (3, 2**33, MINUTE)
        second.extend(other, [bar("B", 0)], Behind(4, 0, MINUTE / 60))
        assert conn.execute(WAITS).fetchone() == (7, 2**33, MINUTE)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_feed_of_all_symbols_that_was_lost(engine: Engine, conn: Connection[TupleRow]) -> None:
    bars = [bar("A", minute) for minute in range(40)]
    stretch = Stretch(conn, "ws://feed", "AM", None)
    write_bars(conn, bars, source="feed")
    stretch.extend(conn, bars)
    assert conn.execute("select subscriptions, symbols from feed_status").fetchone() == (1, None)
    stretch.close(conn, "cut", intended=False)
    row = conn.execute("select subscriptions, gaps, owed_minutes from feed_status").fetchone()
    assert row is not None
    assert row[0] == 0
    assert row[1:] == conn.execute("select count(*), sum(minutes) from feed_gaps").fetchone()
    assert row[2] > 0
    # What all symbols are owed, each of them is.
    assert conn.execute("select owed_minutes from symbol_status('{A,NEW}')").fetchall() == [
        (row[2],),
        (row[2],),
    ]
