"""The calendar is changed afterwards: events follow, as they do when bars are corrected."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import (
    WAITING,
    bar,
    drain,
    firing,
    new_york,
    on_one_engine,
    signalling,
    write,
)
from tickstock.db.connection import fetch_value
from tickstock.patterns import Pattern
from tickstock.scan.history import History, scan_together
from tickstock.scan.scanner import Scanner
from tickstock.scan.shown import Sessions
from tickstock.timeframes import TIMEFRAMES

DAYS = [new_york(f"2025-11-{day} 00:00") for day in (17, 18, 19, 20, 21, 24)]
PATTERNS: list[Pattern] = [
    signalling("Always", timeframes=TIMEFRAMES),
    firing("Dear", lambda c: c.close[-1] > 15, timeframes=TIMEFRAMES),
    firing("InSession", lambda c: c.in_session[-1], timeframes=["1min", "5min"]),
    firing("Dearer", lambda c: c.close[-1] > c.close[-2], timeframes=["daily"], candles=2),
]
STANDING = """
select pattern, symbol, timeframe, ts, price from events where retracted_at is null order by 1, 2, 3, 4
"""


def opening(day: datetime, minutes: int) -> datetime:
    return day + timedelta(hours=9, minutes=30 + minutes)


@pytest.mark.parametrize(
    "change",
    [
        # Without B's only bars, which are of the afternoon, and with another close of A's.
        "update trading_days set closes_at = closes_at - interval '3 hours' where day = '2025-11-20'",
        "delete from trading_days where day = '2025-11-20'",
        "insert into trading_days select '2025-11-22', opens_at + interval '1 day',"
        " closes_at + interval '1 day' from trading_days where day = '2025-11-21'",
    ],
)
def test_events_follow_the_calendar(conn: Connection[TupleRow], change: str) -> None:
    for day in [*DAYS, new_york("2025-11-22 00:00")]:
        write(
            conn,
            bar("A", opening(day, 0)),
            bar("A", opening(day, 300), "20.00"),
            bar("B", opening(day, 240)),
            bar("C", opening(day, 400)),
        )
    scanner = Scanner(PATTERNS)
    drain(conn, scanner)
    before = conn.execute(STANDING).fetchall()
    conn.execute(change.encode())
    drain(conn, scanner)
    live = conn.execute(STANDING).fetchall()
    assert live != before
    history = History(DAYS[0], DAYS[-1] + timedelta(days=5), TIMEFRAMES)
    scan_together(conn, scanner, ["A", "B", "C"], history)
    assert conn.execute(STANDING).fetchall() == live


def test_a_candle_has_the_session_of_its_own_day_alone() -> None:
    day, opens, closes = 86_400.0, 34_200.0, 57_600.0
    friday = (0, day, opens, closes)
    monday = tuple(3 * day + each for each in friday)
    sessions = Sessions(*np.array([friday, monday]).T)
    times = np.array([-1, 0, day - 1, day, 3 * day - 1, 3 * day, 4 * day])
    opens_at, closes_at = sessions.of(times)
    own = [None, opens, opens, None, None, 3 * day + opens, None]
    assert [None if np.isnan(each) else each for each in opens_at] == own
    assert (closes_at - opens_at)[[1, 2, 5]].tolist() == [closes - opens] * 3


@on_one_engine
def test_an_evening_has_the_session_of_its_day(conn: Connection[TupleRow]) -> None:
    """Though by UTC it is the next day's."""
    write(conn, bar("A", new_york("2025-11-24 19:30")))
    scanned = drain(conn, Scanner([firing("After", lambda c: c.ts[-1] >= c.closes_at)]))
    assert scanned.events == 1


def test_a_day_that_goes_on_is_not_judged_before_its_new_close(conn: Connection[TupleRow]) -> None:
    write(conn, bar("A", opening(DAYS[0], 0)), bar("A", opening(DAYS[0], 60)))
    scanner = Scanner(PATTERNS)
    days = "select count(*) from events where timeframe = 'daily'"
    conn.execute(
        "update trading_days set closes_at = closes_at - interval '3 hours' where day = '2025-11-17'"
    )
    drain(conn, scanner)
    assert fetch_value(conn, days) == 0
    write(conn, bar("CLOCK", opening(DAYS[0], 210)))
    drain(conn, scanner)
    assert fetch_value(conn, days) == 1


def test_past_the_queue_the_calendar_goes_past_the_queue_too(conn: Connection[TupleRow]) -> None:
    conn.execute("set tickstock.scan_queue = off")
    write(conn, bar("A", opening(DAYS[0], 0)), bar("A", opening(DAYS[1], 0)))
    conn.execute("delete from trading_days where day = '2025-11-17'")
    assert fetch_value(conn, WAITING) == 0
