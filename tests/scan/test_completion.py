"""A candle is scanned when, and only when, it is complete by the feed's clock."""

import random
from collections import Counter
from datetime import datetime, timedelta

from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.oracle import MINUTE, complete_candles, start_of
from tests.scan.support import Recorder, bar, drain, new_york, write
from tickstock.bars import Bar
from tickstock.scan.scanner import Candle
from tickstock.timeframes import TIMEFRAMES

LAST_MINUTES = {
    # The last minute of candles, in New York: each timeframe with an earlier minute of its candle.
    # A week that ends on a Thursday at 13:00, before a holiday.
    "2025-07-03 12:59": {"weekly": "2025-06-30 11:15", "daily": "2025-07-03 09:30"},
    # A month, in summer time.
    "2025-10-31 15:59": {"monthly": "2025-10-03 10:15"},
    "2025-11-14 15:59": {"weekly": "2025-11-10 15:59"},
    "2025-11-24 09:34": {"5min": "2025-11-24 09:30"},
    "2025-11-24 09:59": {"15min": "2025-11-24 09:45"},
    "2025-11-24 10:29": {"30min": "2025-11-24 10:00"},
    "2025-11-24 10:59": {"1hour": "2025-11-24 10:01"},
    "2025-11-24 11:59": {"4hour": "2025-11-24 08:30"},
    # At 16:00 the session ends, and with it the day.
    "2025-11-24 15:59": {"4hour": "2025-11-24 12:00", "daily": "2025-11-24 12:40"},
    "2025-11-24 19:59": {"4hour": "2025-11-24 16:00"},
    # A half day, a Friday, and the month's last session: all three end at 13:00.
    "2025-11-28 12:59": {
        "daily": "2025-11-28 09:31",
        "weekly": "2025-11-25 10:00",
        "monthly": "2025-11-05 15:00",
    },
    "2025-11-28 15:59": {"4hour": "2025-11-28 12:05"},
}


def test_each_timeframe_with_its_last_minute_or_when_that_is_over_for_others(
    conn: Connection[TupleRow],
) -> None:
    recorder = Recorder()
    for clock, inside in LAST_MINUTES.items():
        last = new_york(clock)
        earlier = {timeframe: new_york(minute) for timeframe, minute in inside.items()}
        busy = {Candle(tf, f"BUSY {tf} {clock}", start_of(tf, ts)) for tf, ts in earlier.items()}
        quiet = {Candle(tf, f"QUIET {tf} {clock}", start_of(tf, ts)) for tf, ts in earlier.items()}

        def scanned(candles: set[Candle], *bars: Bar) -> "Counter[Candle]":
            write(conn, *bars)
            drain(conn, recorder)
            return Counter({candle: recorder.scanned[candle] for candle in candles})

        first = [bar(c.symbol, earlier[c.timeframe]) for c in busy | quiet]
        assert not +scanned(busy | quiet, *first), "both are forming"
        assert not +scanned(busy | quiet, bar("CLOCK", last)), "bars of that minute may still come"
        theirs = [bar(c.symbol, last) for c in busy]
        assert scanned(busy, *theirs) == Counter(busy), "their last minute is there"
        corrected = [bar(c.symbol, earlier[c.timeframe], volume=7) for c in busy]
        assert scanned(busy, *corrected) == Counter([*busy, *busy]), "nor does it wait"
        assert not +scanned(quiet), "theirs may still come"
        assert scanned(quiet, bar("CLOCK", last + MINUTE)) == Counter(quiet), "it did not"
        assert scanned(busy) == Counter([*busy, *busy]), "and these no more than that"


SPANS = [
    # From and until, New York. A Wednesday's close; a holiday; a half day that ends week and month.
    ("2025-11-26 15:52", "2025-11-26 16:04"),
    ("2025-11-27 11:58", "2025-11-27 12:01"),
    ("2025-11-28 03:58", "2025-11-28 04:02"),
    ("2025-11-28 09:28", "2025-11-28 09:37"),
    ("2025-11-28 12:50", "2025-11-28 13:03"),
    ("2025-11-28 15:58", "2025-11-28 16:02"),
    ("2025-12-01 09:28", "2025-12-01 09:31"),
]


def minutes_of(span: tuple[str, str]) -> list[datetime]:
    start, end = map(new_york, span)
    return [start + timedelta(minutes=n) for n in range(int((end - start) / MINUTE))]


def test_minute_by_minute_exactly_the_complete_candles_have_been_scanned(
    conn: Connection[TupleRow],
) -> None:
    """Three symbols that trade in some minutes, over the edges of all timeframes."""
    rng = random.Random(1)
    recorder = Recorder()
    bars: list[Bar] = []
    for ts in (ts for span in SPANS for ts in minutes_of(span)):
        new = [bar(symbol, ts) for symbol in "ABC" if rng.random() < 0.4]
        if new:
            bars += new
            write(conn, *new)
            drain(conn, recorder)
            assert set(recorder.scanned) == complete_candles(bars), ts
    assert {candle.timeframe for candle in recorder.scanned} == set(TIMEFRAMES)
    # Twice only where a grandparent was waiting and the parent was not: no harm, and seldom.
    assert recorder.scanned.total() <= 1.05 * len(recorder.scanned)


def test_the_wall_clock_says_nothing(conn: Connection[TupleRow]) -> None:
    recorder = Recorder(timeframes=["5min"])
    past, future = new_york("2013-10-01 10:00"), new_york("2039-10-03 10:00")
    insert = (
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " values (%s, %s, 1, 1, 1, 1, 1)"
    )

    conn.execute(insert, ("PAST", past))
    drain(conn, recorder)
    assert not recorder.windows, "by the feed's clock it is still 2013"

    conn.execute(insert, ("CLOCK", past + 5 * MINUTE))
    drain(conn, recorder)
    assert set(recorder.scanned) == {Candle("5min", "PAST", past)}

    conn.execute(insert, ("FUTURE", future))
    conn.execute(insert, ("CLOCK", future + 5 * MINUTE))
    drain(conn, recorder)
    assert Candle("5min", "FUTURE", future) in recorder.scanned
