"""What is queued for the scanners, and what is not."""

from collections import Counter
from datetime import timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import (
    Recorder,
    bar,
    drain,
    firing,
    new_york,
    on_one_engine,
    signalling,
    write,
)
from tickstock.db.connection import fetch_value
from tickstock.db.writer import write_bars
from tickstock.patterns import Pattern
from tickstock.scan.scanner import Candle, Scanned, Scanner

OPENING = new_york("2025-11-24 09:30")
MINUTE = timedelta(minutes=1)

QUEUED = "select coalesce(sum(cardinality(symbols)), 0) from tickstock.scan_queue"
EVENTS = "select symbol, timeframe, ts from events order by id"


def above(price: float) -> Pattern:
    return firing("Above", lambda c: c.close[-1] > price, direction=1, timeframes=("1min", "5min"))


def test_a_corrected_bar_is_scanned_again(conn: Connection[TupleRow]) -> None:
    scanner = Scanner([above(11)])
    write(conn, *(bar("AAPL", OPENING + n * MINUTE, "10") for n in range(6)))
    assert drain(conn, scanner).events == 0

    corrected = OPENING + 4 * MINUTE
    write(conn, bar("AAPL", corrected, "12"))
    assert drain(conn, scanner)[1:] == (2, 0)
    found = [("AAPL", "1min", corrected), ("AAPL", "5min", OPENING)]
    assert conn.execute(EVENTS).fetchall() == found

    write(conn, bar("AAPL", corrected, "13"))
    assert drain(conn, scanner)[1:] == (2, 0), "these are there already, at another price"
    assert conn.execute(EVENTS).fetchall() == found
    assert conn.execute("select price from events").fetchall() == [(13,), (13,)]

    write(conn, bar("AAPL", corrected, "13", volume=5))
    assert drain(conn, scanner)[1:] == (0, 0), "nothing of them has changed"

    write(conn, bar("AAPL", corrected, "11"))
    assert drain(conn, scanner)[1:] == (0, 2)
    assert conn.execute("select retracted_at is not null from events").fetchall() == [(True,)] * 2

    write(conn, bar("AAPL", corrected, "11", volume=6))
    assert drain(conn, scanner)[1:] == (0, 0), "they are retracted already"

    at_first = fetch_value(conn, "select max(detected_at) from events")
    write(conn, bar("AAPL", corrected, "12"))
    assert drain(conn, scanner)[1:] == (2, 0)
    assert fetch_value(conn, "select min(detected_at) from events") > at_first, "made again"


def test_a_late_bar_is_scanned_and_so_are_the_candles_that_hold_it(
    conn: Connection[TupleRow],
) -> None:
    recorder = Recorder()
    close = new_york("2025-11-28 13:00")
    write(conn, bar("AAPL", close - MINUTE), bar("CLOCK", close + timedelta(days=7)))
    drain(conn, recorder)
    recorder.windows.clear()

    write(conn, bar("AAPL", close - 30 * MINUTE))
    drain(conn, recorder)
    hour, four_hours = new_york("2025-11-28 12:00"), new_york("2025-11-28 12:00")
    half_hour = new_york("2025-11-28 12:30")
    assert recorder.scanned == Counter(
        Candle(timeframe, "AAPL", ts)
        for timeframe, ts in [
            ("1min", half_hour),
            ("5min", half_hour),
            ("15min", half_hour),
            ("30min", half_hour),
            ("1hour", hour),
            ("4hour", four_hours),
            ("daily", new_york("2025-11-28 00:00")),
            ("weekly", new_york("2025-11-24 00:00")),
            ("monthly", new_york("2025-11-01 00:00")),
        ]
    )


@pytest.mark.parametrize("move", ["symbol = 'B'", "ts = ts + interval '1 minute'"])
def test_a_bar_that_moves_leaves_no_event_behind(conn: Connection[TupleRow], move: str) -> None:
    scanner = Scanner([signalling()])
    write(conn, bar("A", OPENING))
    assert drain(conn, scanner) == Scanned(1, 1)
    conn.execute(f"update ohlcv_1min set {move}".encode())
    # It is judged where it is, and where it was.
    assert drain(conn, scanner)[1:] == (1, 1)
    standing = "select symbol, ts from events where retracted_at is null"
    assert (
        conn.execute(standing).fetchall()
        == conn.execute("select symbol, ts from ohlcv_1min").fetchall()
    )


def test_the_same_bar_written_again_queues_nothing(conn: Connection[TupleRow]) -> None:
    write(conn, bar("AAPL", OPENING))
    drain(conn, Scanner([]))
    waiting = fetch_value(conn, QUEUED)
    write(conn, bar("AAPL", OPENING))
    assert fetch_value(conn, QUEUED) == waiting


def test_bulk_loads_queue_nothing(conn: Connection[TupleRow]) -> None:
    bars = [bar("AAPL", OPENING + n * MINUTE) for n in range(10)]
    write_bars(conn, bars, source="file", queue_for_scan=False)
    write_bars(conn, [bars[3]._replace(volume=7)], source="file", queue_for_scan=False)
    assert fetch_value(conn, QUEUED) == 0
    write(conn, bar("AAPL", OPENING + 10 * MINUTE))
    assert fetch_value(conn, QUEUED) == 1, "the next one is live again"


def test_bars_out_of_the_session_are_no_part_of_the_day(conn: Connection[TupleRow]) -> None:
    recorder = Recorder()
    for clock in ("2025-11-28 09:29", "2025-11-28 13:00", "2025-11-29 11:00"):
        write(conn, bar("AAPL", new_york(clock)))
        drain(conn, recorder)
        days = "select count(*) from tickstock.scan_queue where timeframe = 'daily'"
        assert fetch_value(conn, days) == 0
    write(conn, bar("CLOCK", new_york("2025-12-31 23:59")))
    drain(conn, recorder)
    timeframes = {candle.timeframe for candle in recorder.scanned if candle.symbol == "AAPL"}
    assert timeframes == {"1min", "5min", "15min", "30min", "1hour", "4hour"}


@on_one_engine
def test_a_take_is_whole_batches_until_there_is_enough(conn: Connection[TupleRow]) -> None:
    scanner = Scanner([signalling()])
    for minute in range(3):
        write(conn, *(bar("A", OPENING + (2 * minute + n) * MINUTE) for n in range(2)))
    taken = [scanner.scan(conn, most=3) for _ in range(4)]
    assert taken == [Scanned(4, 4), Scanned(2, 2), Scanned(1, 0), Scanned(0, 0)], "at last 5min"


@on_one_engine
def test_those_that_have_waited_longest_are_taken_first(conn: Connection[TupleRow]) -> None:
    symbols = ["E", "A", "D", "B", "C"]
    for symbol in symbols:
        write(conn, bar(symbol, OPENING))
    taken = [fetch_value(conn, "select symbol from tickstock.take_candles(1)") for _ in symbols]
    assert taken == symbols


def test_bars_of_one_statement_are_batches_that_lack_none(conn: Connection[TupleRow]) -> None:
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select 'A', %s + n * interval '1 minute', 1, 1, 1, 1, 1 from generate_series(0, 20000) n",
        (OPENING - 20_000 * MINUTE,),
    )
    batches = (
        "select cardinality(symbols), cardinality(starts) from tickstock.scan_queue order by 1"
    )
    assert conn.execute(batches).fetchall() == [(1, 1), (10_000, 10_000), (10_000, 10_000)]
    starts = "select count(distinct ts) from tickstock.scan_queue, unnest(starts) ts"
    assert fetch_value(conn, starts) == 20_001


@on_one_engine
def test_a_scan_that_fails_gives_its_candles_back(conn: Connection[TupleRow]) -> None:
    write(conn, bar("AAPL", OPENING))
    scanner = Scanner([signalling()])
    with conn.transaction(force_rollback=True):
        assert scanner.scan(conn) == Scanned(1, 1)
    assert conn.execute(EVENTS).fetchall() == []
    assert drain(conn, scanner) == Scanned(1, 1)
