"""Candles of a half hour that is still forming: made as they end, and exact when it has ended."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import LiteralString

import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tests.contract.test_concurrency import WAITS_FOR
from tests.e2e.program import until
from tickstock.db.connection import connect, fetch_value

pytestmark = pytest.mark.parametrize("engine", ["community"], indirect=True)

DAY = "2025-11-24 "
WRITE = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select symbol, ts, 5, 9, 4, 5, 100 from unnest(%s::text[]) symbol,
  generate_series(%s::timestamptz, %s::timestamptz, '1 min') ts
"""
CORRECT = "update ohlcv_1min set high = high + 1 where symbol = %s and ts = %s"
MADE = "select to_char(max(ts) at time zone 'UTC', 'HH24:MI') from tickstock.candles_{}"
MARKS = """
select distinct to_char(min(since) at time zone 'UTC', 'HH24:MI') from tickstock.dirty
where granule = '2025-11-24 14:30+00' group by symbol order by 1
"""


@pytest.fixture
def conn(url: str) -> Iterator[Connection[TupleRow]]:
    with connect(url, program="test") as conn:
        conn.execute("set timezone = 'UTC'")
        yield conn


def write(
    conn: Connection[TupleRow], first: str, last: str, symbols: tuple[str, ...] = ("A", "B")
) -> None:
    conn.execute(WRITE, (list(symbols), DAY + first, DAY + last))


def correct(conn: Connection[TupleRow], symbol: str, minute: str) -> None:
    conn.execute(CORRECT, (symbol, DAY + minute + "+00"))


def refresh(conn: Connection[TupleRow], bulk_symbols: int = 1) -> None:
    conn.execute(f"set tickstock.bulk_symbols = {bulk_symbols}")
    conn.execute("call ohlcv_refresh()")


def made(conn: Connection[TupleRow]) -> tuple[object, object]:
    """Start of the last materialized candle of five and of fifteen minutes."""
    return fetch_value(conn, MADE.format("5min")), fetch_value(conn, MADE.format("15min"))


def marks(conn: Connection[TupleRow]) -> list[str]:
    return [row[0] for row in conn.execute(MARKS)]


def stored_in(conn: Connection[TupleRow], relation: str) -> sql.Identifier:
    query = "select stored_in::text from tickstock.storage where relation = %s"
    return sql.Identifier(*fetch_value(conn, query, relation).split("."))


def end(conn: Connection[TupleRow]) -> None:
    """The half hour ends; everything is materialized, and right."""
    write(conn, "15:00", "15:00", ("A",))
    refresh(conn)
    assert marks(conn) == []
    assert differences(read_snapshot(conn)) == []


def test_candles_are_made_as_they_end(conn: Connection[TupleRow]) -> None:
    write(conn, "14:30", "14:34")
    refresh(conn)
    assert (made(conn), marks(conn)) == ((None, None), ["14:30"])
    write(conn, "14:35", "14:36")
    refresh(conn, bulk_symbols=3)
    assert (made(conn), marks(conn)) == ((None, None), ["14:30"])
    refresh(conn)
    assert (made(conn), marks(conn)) == (("14:30", None), ["14:35"])
    write(conn, "14:37", "14:47")
    refresh(conn)
    assert (made(conn), marks(conn)) == (("14:40", "14:30"), ["14:45"])
    assert differences(read_snapshot(conn)) == []
    write(conn, "14:48", "14:59")
    end(conn)


@pytest.mark.parametrize(
    "change",
    [
        "update ohlcv_1min set low = 1 where ts = '2025-11-24 14:32+00'",
        "delete from ohlcv_1min where symbol = 'A' and ts = '2025-11-24 14:32+00'",
        "update ohlcv_1min set ts = '2025-11-24 14:53+00' where ts = '2025-11-24 14:32+00'",
        "update ohlcv_1min set ts = '2025-11-24 14:29+00' where ts = '2025-11-24 14:32+00'",
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " values ('A', '2025-11-24 14:53+00', 5, 9, 4, 5, 6), ('A', '2025-11-24 14:29+00', 5, 9, 4, 5, 6),"
        " ('LATE', '2025-11-24 14:51+00', 5, 9, 4, 5, 6), ('LATE', '2025-11-24 14:31+00', 5, 9, 4, 5, 6)",
        "truncate ohlcv_1min",
        "update trading_days set closes_at = closes_at - interval '1 hour' where day = '2025-11-24'",
    ],
    ids=["correction", "deletion", "later", "earlier", "late", "truncation", "calendar"],
)
def test_what_changes_in_candles_that_are_made_is_made_again(
    conn: Connection[TupleRow], change: LiteralString
) -> None:
    write(conn, "14:30", "14:50")
    refresh(conn)
    assert made(conn) == ("14:45", "14:30")
    conn.execute(change)
    write(conn, "14:51", "14:52")
    refresh(conn)
    write(conn, "14:54", "14:56")
    refresh(conn)
    end(conn)


@pytest.mark.parametrize("earlier", [False, True], ids=["later mark", "earlier mark"])
def test_changes_that_a_refresh_has_not_seen_are_made_when_the_half_hour_ends(
    url: str, conn: Connection[TupleRow], earlier: bool
) -> None:
    """They are committed when 5-minute candles have just been made: by a writer who marks what he
    changes then, or has done so before the refresh began."""
    with ExitStack() as stack:
        writer, blocker = (stack.enter_context(connect(url, program="test")) for _ in range(2))
        write(conn, "14:30", "14:47")
        if earlier:
            writer.execute("begin")
            correct(writer, "A", "14:31")
        write(conn, "14:30", "14:47", ("C",))
        blocker.execute("begin")
        blocker.execute(
            sql.SQL("lock table {} in share mode").format(stored_in(conn, "ohlcv_15min"))
        )
        with ThreadPoolExecutor() as pool:
            refreshed = pool.submit(refresh, conn)
            try:
                until(url, WAITS_FOR, "relation", conn.info.backend_pid)
                assert made(writer) == ("14:40", None)
                if not earlier:
                    correct(writer, "A", "14:31")
                writer.execute("commit")
            finally:
                blocker.execute("commit")
            refreshed.result()
        assert (made(conn), marks(conn)) == (("14:40", "14:30"), ["14:31", "14:45"])
        assert differences(read_snapshot(conn)) == []
        write(conn, "14:48", "14:49")
        end(conn)


def test_who_begins_later_has_nothing_passed_over(conn: Connection[TupleRow]) -> None:
    """It marks a later minute than those that have traded from the beginning."""
    write(conn, "14:30", "14:41")
    write(conn, "14:37", "14:41", ("C",))
    refresh(conn)
    assert (made(conn), marks(conn)) == (("14:35", None), ["14:40"])
    end(conn)


def test_a_late_bar_has_not_all_symbols_made_again(conn: Connection[TupleRow]) -> None:
    """Where few bars are late among those of many symbols: theirs are mended when the half hour has ended."""
    symbols = ("A", "B", *(f"S{i}" for i in range(200)))
    first_candle = sql.SQL(
        "select xmin, symbol from {} where symbol <> 'A' and ts = '2025-11-24 14:30+00'"
    ).format(stored_in(conn, "ohlcv_5min"))
    write(conn, "14:30", "14:35", symbols)
    refresh(conn)
    before = conn.execute(first_candle).fetchall()
    correct(conn, "A", "14:32")
    write(conn, "14:36", "14:40", symbols)
    refresh(conn)
    assert (made(conn), marks(conn)) == (("14:35", None), ["14:32", "14:40"])
    write(conn, "14:41", "14:44", symbols)
    end(conn)
    assert conn.execute(first_candle).fetchall() == before
    assert len(before) == len(symbols) - 1
