"""What is queued for the scanners, and what is not."""

from collections import Counter
from datetime import timedelta

from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import Recorder, bar, drain, new_york, on_one_engine, signalling, write
from tickstock.db.connection import fetch_value
from tickstock.db.writer import write_bars
from tickstock.patterns import Pattern, Signal, Window
from tickstock.scan.scanner import Candle, Scanned, Scanner

OPENING = new_york("2025-11-24 09:30")
MINUTE = timedelta(minutes=1)

QUEUED = "select count(*) from tickstock.scan_queue"
EVENTS = "select symbol, timeframe, ts from events order by id"


def above(price: float) -> Pattern:
    def function(window: Window) -> Signal | None:
        return Signal("long", {}) if window.close[-1] > price else None

    return Pattern("Above", 1, ("1min", "5min"), function)


def test_a_corrected_bar_is_scanned_again(conn: Connection[TupleRow]) -> None:
    scanner = Scanner([above(11)], to_redis=False)
    write(conn, *(bar("AAPL", OPENING + n * MINUTE, "10") for n in range(6)))
    assert drain(conn, scanner).events == 0

    corrected = OPENING + 4 * MINUTE
    write(conn, bar("AAPL", corrected, "12"))
    drain(conn, scanner)
    assert conn.execute(EVENTS).fetchall() == [
        ("AAPL", "1min", corrected),
        ("AAPL", "5min", OPENING),
    ]

    write(conn, bar("AAPL", corrected, "13"))
    assert drain(conn, scanner).events == 0, "these events are there already"


def test_a_late_bar_is_scanned_and_so_are_the_candles_that_hold_it(
    conn: Connection[TupleRow],
) -> None:
    recorder = Recorder()
    scanner = Scanner([recorder.pattern], to_redis=False)
    close = new_york("2025-11-28 13:00")
    write(conn, bar("AAPL", close - MINUTE), bar("CLOCK", close + timedelta(days=7)))
    drain(conn, scanner)
    recorder.windows.clear()

    write(conn, bar("AAPL", close - 30 * MINUTE))
    drain(conn, scanner)
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


def test_the_same_bar_written_again_queues_nothing(conn: Connection[TupleRow]) -> None:
    write(conn, bar("AAPL", OPENING))
    drain(conn, Scanner([], to_redis=False))
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
    scanner = Scanner([recorder.pattern], to_redis=False)
    for clock in ("2025-11-28 09:29", "2025-11-28 13:00", "2025-11-29 11:00"):
        write(conn, bar("AAPL", new_york(clock)))
        drain(conn, scanner)
        days = "select count(*) from tickstock.scan_queue where timeframe = 'daily'"
        assert fetch_value(conn, days) == 0
    write(conn, bar("CLOCK", new_york("2025-12-31 23:59")))
    drain(conn, scanner)
    timeframes = {candle.timeframe for candle in recorder.scanned if candle.symbol == "AAPL"}
    assert timeframes == {"1min", "5min", "15min", "30min", "1hour", "4hour"}


@on_one_engine
def test_a_take_is_no_larger_than_asked_for(conn: Connection[TupleRow]) -> None:
    scanner = Scanner([signalling()], to_redis=False)
    write(conn, *(bar(f"S{n}", OPENING) for n in range(10)))
    taken = [scanner.scan(conn, most=4) for _ in range(4)]
    assert taken == [Scanned(4, 4), Scanned(4, 4), Scanned(2, 2), Scanned(0, 0)]


@on_one_engine
def test_a_scan_that_fails_gives_its_candles_back(conn: Connection[TupleRow]) -> None:
    write(conn, bar("AAPL", OPENING))
    scanner = Scanner([signalling()], to_redis=False)
    with conn.transaction(force_rollback=True):
        assert scanner.scan(conn) == Scanned(1, 1)
    assert conn.execute(EVENTS).fetchall() == []
    assert drain(conn, scanner) == Scanned(1, 1)
