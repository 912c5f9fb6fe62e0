"""candles(), against an oracle in plain Python over the bars in the table."""

from collections.abc import Iterable
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from itertools import groupby
from typing import Any, Literal, NamedTuple

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.exchange import (
    DAY,
    HOUR,
    MINUTE,
    NEW_YORK,
    new_york,
    schedule,
    session_at,
)
from tests.contract.oracle import COLUMNS
from tests.properties import on_a_database
from tickstock.db.connection import fetch_value

Sessions = Literal["all", "regular"]


class Ask(NamedTuple):
    """The arguments of candles(), but for the symbol."""

    timeframe: str
    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None
    sessions: Sessions = "all"
    fill: bool = False


class Bar(NamedTuple):
    ts: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    vwap: Decimal | None
    trades: int | None


NAMED = {
    "1min": "1 minutes",
    "5min": "5 minutes",
    "15min": "15 minutes",
    "30min": "30 minutes",
    "1hour": "1 hours",
    "4hour": "4 hours",
    "daily": "1 days",
    "weekly": "7 days",
    "monthly": "1 months",
}
BEYOND_A_DAY = {"days": 1, "weeks": 7, "months": 1, "years": 12}


class Width:
    """Where candles of a timeframe begin and end."""

    def __init__(self, timeframe: str, sessions: Sessions) -> None:
        number, unit = NAMED.get(timeframe, timeframe).split()
        unit = unit.removesuffix("s") + "s"
        self.number = int(number) * BEYOND_A_DAY.get(unit, 60 if unit == "hours" else 1)
        self.unit = {"weeks": "days", "years": "months", "hours": "minutes"}.get(unit, unit)
        if self.unit == "minutes" and self.number == 1440:
            self.number, self.unit = 1, "days"
        self.regular = sessions == "regular" or self.unit != "minutes"

    def start(self, ts: datetime) -> datetime:
        """Of the candle that holds this minute."""
        local = ts.astimezone(NEW_YORK)
        day = local.date()
        if self.unit == "months":
            month = (day.year - 2000) * 12 + day.month - 1
            month -= month % self.number
            return new_york(date(2000 + month // 12, month % 12 + 1, 1), time(0))
        if self.unit == "days":
            return new_york(day - (day - date(2000, 1, 3)).days % self.number * DAY, time(0))
        if not self.regular and self.number > 60 and self.number % 60 == 0:
            hours = self.number // 60
            return new_york(day, time(local.hour - local.hour % hours))
        first = schedule()[day][0] if self.regular else new_york(day, time(0))
        return first + (ts - first) // (self.number * MINUTE) * self.number * MINUTE

    def end(self, start: datetime) -> datetime:
        """Of the candle that begins here, if all days had sessions."""
        local = start.astimezone(NEW_YORK)
        day = local.date()
        if self.unit == "months":
            month = day.year * 12 + day.month - 1 + self.number
            return new_york(date(month // 12, month % 12 + 1, 1), time(0))
        if self.unit == "days":
            return new_york(day + self.number * DAY, time(0))
        midnight = new_york(day + DAY, time(0))
        if self.regular:
            return min(start + self.number * MINUTE, schedule()[day][1])
        if self.number > 60 and self.number % 60 == 0:
            hours = self.number // 60
            # One that would begin at two o'clock may begin at three: there is no two.
            hour = local.hour - local.hour % hours + hours
            return midnight if hour == 24 else new_york(day, time(hour))
        return min(start + self.number * MINUTE, midnight)

    def complete_at(self, start: datetime) -> datetime:
        end = self.end(start)
        if self.unit == "minutes":
            return end
        days = (day for day in days_between(start, end) if day in schedule())
        return max((schedule()[day][1] for day in days), default=end)

    def session(self, start: datetime) -> str | None:
        return "regular" if self.regular else only_session(start, self.end(start))

    def slots(self, since: datetime, clock: datetime) -> set[datetime]:
        """Where a candle could be that begins from this moment on."""
        found = set()
        for day in days_between(since, clock + DAY):
            if day not in schedule():
                continue
            opens, closes = schedule()[day]
            minute, end = (
                (opens, closes) if self.regular else (new_york(day, time(4)), closes + 4 * HOUR)
            )
            while minute < min(end, clock):
                start = self.start(minute)
                if start >= since:
                    found.add(start)
                minute = self.end(start)
        return found


def days_between(start: datetime, end: datetime) -> Iterable[date]:
    day = start.astimezone(NEW_YORK).date()
    while new_york(day, time(0)) < end:
        yield day
        day += DAY


@cache
def only_session(start: datetime, end: datetime) -> str | None:
    minutes = (end - start) // MINUTE
    sessions = {session_at(start + n * MINUTE) for n in range(minutes)}
    return sessions.pop() if len(sessions) == 1 else None


def oracle(bars: list[Bar], clock: datetime, ask: Ask) -> list[tuple[Any, ...]]:
    """What candles() has to return, without the symbol. bars: of the symbol, in order."""
    width = Width(ask.timeframe, ask.sessions)
    if width.regular:
        bars = [bar for bar in bars if session_at(bar.ts) == "regular"]
    candles = {
        start: candle(list(group)) for start, group in groupby(bars, lambda b: width.start(b.ts))
    }
    vwaps = {bar.ts: bar.vwap for bar in bars}
    lines: list[tuple[Any, ...]] = []
    starts = set(candles)
    if ask.fill and candles:
        starts |= width.slots(min(candles), clock)
    for start in sorted(starts):
        if start in candles:
            numbers, filled = candles[start], False
            if width.end(start) - start == MINUTE:
                # The bar itself, which may tell a vwap without any volume.
                numbers = (*numbers[:5], vwaps[start], *numbers[6:])
        else:
            numbers, filled = (*[lines[-1][4]] * 4, Decimal(0), None, 0, 0), True
        # The feed sends minutes when they are over.
        complete = width.end(start) - start == MINUTE or width.complete_at(start) < clock
        lines.append((start, *numbers, width.session(start), complete, filled))
    wanted = [
        line
        for line in lines
        if (not ask.since or line[0] >= ask.since) and (not ask.until or line[0] < ask.until)
    ]
    return wanted[-ask.last :] if ask.last else wanted


def candle(bars: list[Bar]) -> tuple[Any, ...]:
    """open … trades, bars."""
    volume = sum((bar.volume for bar in bars), Decimal(0))
    turnovers = [bar.vwap * bar.volume for bar in bars if bar.vwap is not None]
    trades = [bar.trades for bar in bars if bar.trades is not None]
    vwap = None
    if len(turnovers) == len(bars) and volume:
        vwap = sum(turnovers, Decimal(0)) / volume
    return (
        bars[0].open,
        max(bar.high for bar in bars),
        min(bar.low for bar in bars),
        bars[-1].close,
        volume,
        vwap,
        sum(trades) if len(trades) == len(bars) else None,
        len(bars),
    )


def same(wanted: list[tuple[Any, ...]], got: list[tuple[Any, ...]]) -> bool:
    def but_vwap(lines: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [line[:6] + line[7:] for line in lines]

    def near(one: Decimal | None, other: Decimal | None) -> bool:
        # A quotient has no last digit: the database gives at least 16.
        both = one is not None and other is not None and abs(one - other) < Decimal("1e-12")
        return both or one is other

    return but_vwap(wanted) == but_vwap(got) and all(
        near(one[6], other[6]) for one, other in zip(wanted, got, strict=True)
    )


def bars_of(conn: Connection[TupleRow], symbol: str) -> list[Bar]:
    rows = conn.execute(
        "select ts, open, high, low, close, volume, vwap, trades from ohlcv_1min"
        " where symbol = %s order by ts",
        (symbol,),
    )
    return [Bar(*row) for row in rows]


def ask_database(conn: Connection[TupleRow], symbol: str, ask: Ask) -> list[tuple[Any, ...]]:
    rows = conn.execute(
        "select * from candles(%s, %s, %s, %s, %s, %s, %s)", (symbol, *ask)
    ).fetchall()
    assert {row[0] for row in rows} <= {symbol}
    return [row[1:] for row in rows]


def check(conn: Connection[TupleRow], symbol: str, ask: Ask) -> None:
    clock = fetch_value(conn, "select feed_clock()")
    wanted = oracle(bars_of(conn, symbol), clock, ask) if clock else []
    got = ask_database(conn, symbol, ask)
    assert same(wanted, got), "\n".join(
        [f"{ask} as of {clock}", "wanted", *map(str, wanted), "got", *map(str, got)]
    )


# Around what goes wrong: clocks put forward and back, a holiday and the half day after it, the turn
# of a year, a week and a month; before, at and after the session's edges.
DAYS = [
    date(2024, 7, 3),
    date(2025, 3, 7),
    date(2025, 3, 9),
    date(2025, 3, 10),
    date(2025, 11, 2),
    date(2025, 11, 3),
    date(2025, 11, 26),
    date(2025, 11, 27),
    date(2025, 11, 28),
    date(2025, 12, 31),
    date(2026, 1, 2),
]
TIMES = [
    time(*each)
    for each in [
        (0, 58),
        (1, 50),
        (4, 0),
        (9, 28),
        (11, 57),
        (12, 58),
        (15, 58),
        (19, 55),
        (23, 57),
    ]
]
SYMBOLS = ["A", "ZZ"]

moments = st.builds(new_york, st.sampled_from(DAYS), st.sampled_from(TIMES))
runs = st.tuples(st.sampled_from(SYMBOLS), moments, st.integers(1, 100), st.sampled_from([1, 1, 7]))
"""A symbol, a time, a number of minutes from there, and every how many of them trade."""

DIVIDE_A_DAY = [n for n in range(1, 60) if 1440 % n == 0]
timeframes = st.one_of(
    st.sampled_from(list(NAMED)),
    st.builds("{} minutes".format, st.sampled_from([*DIVIDE_A_DAY, 60, 72, 90, 160, 240, 480])),
    st.builds("{} hours".format, st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24])),
    st.builds("{} days".format, st.sampled_from([1, 2, 3, 5, 7, 10, 14])),
    st.builds("{} weeks".format, st.integers(1, 4)),
    st.builds("{} months".format, st.sampled_from([1, 2, 3, 5, 6, 12, 24])),
    st.just("1 years"),
)
bounds = st.none() | st.builds(lambda moment, n: moment + n * MINUTE, moments, st.integers(-3, 9))
lasts = st.none() | st.integers(1, 40)
asks = st.one_of(
    st.builds(
        Ask, timeframes, bounds, bounds, lasts, st.sampled_from(["all", "regular"]), st.booleans()
    ),
    st.builds(
        Ask,
        st.builds("{} minutes".format, st.sampled_from([65, 78, 130, 195, 390])),
        bounds,
        bounds,
        lasts,
        st.just("regular"),
        st.booleans(),
    ),
)

WRITE = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select %s, %s::timestamptz + i * interval '1 minute', p + i, p + i + 3, p * 0.5, p + 1, mod(v + i, 5) * 0.5,
       case when vwap then p + 0.0001 * i end, case when not vwap then i end
from generate_series(0, %s - 1, %s) i, (select %s / 100.0 as p, %s as v, %s as vwap) x
on conflict (symbol, ts) do update set (open, high, low, close, volume, vwap, trades)
  = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume,
     excluded.vwap, excluded.trades)
"""
DELETE = """
delete from ohlcv_1min where symbol = %s and ts >= %s and ts < %s::timestamptz + %s * interval '1 minute'
"""


class Step(NamedTuple):
    run: tuple[str, datetime, int, int]
    price: int
    vwap: bool
    kind: Literal["write", "delete", "refresh"]

    def take(self, conn: Connection[TupleRow]) -> None:
        symbol, ts, minutes, every = self.run
        if self.kind == "write":
            values = (symbol, ts, minutes, every, self.price, self.price, self.vwap)
            conn.execute(WRITE, values)
        elif self.kind == "delete":
            conn.execute(DELETE, (symbol, ts, ts, minutes))
        else:
            conn.execute("call ohlcv_refresh()")


steps = st.builds(
    Step,
    runs,
    st.integers(1, 10_000),
    st.booleans(),
    st.sampled_from(["write", "write", "write", "write", "delete", "refresh"]),
)


def write_market(conn: Connection[TupleRow], steps: Iterable[Step]) -> None:
    """In an empty table, step by step."""
    conn.execute("truncate ohlcv_1min")
    for step in steps:
        step.take(conn)


@on_a_database(examples=15)
@given(st.lists(steps, min_size=2, max_size=7), st.lists(asks, min_size=4, max_size=12))
def test_candles_equal_the_oracle(
    conn: Connection[TupleRow], writing: list[Step], asked: list[Ask]
) -> None:
    write_market(conn, writing)
    for ask in asked:
        for symbol in SYMBOLS:
            check(conn, symbol, ask)


def test_named_timeframes_are_the_relations(conn: Connection[TupleRow]) -> None:
    for day in DAYS:
        conn.execute(WRITE, ("A", new_york(day, time(3, 58)), 700, 7, 500, 3, True))
    for timeframe in NAMED:
        wanted = conn.execute(
            f"select {COLUMNS}, false from ohlcv_{timeframe} order by ts"
        ).fetchall()
        for alias in (timeframe, NAMED[timeframe]):
            assert (
                conn.execute("select * from candles('A', %s)", (alias,)).fetchall() == wanted != []
            )


def test_a_part_of_a_filled_series_is_what_it_is_in_the_whole(
    conn: Connection[TupleRow],
) -> None:
    conn.execute(WRITE, ("A", new_york(date(2025, 11, 26), time(9, 45)), 500, 7, 500, 3, True))
    conn.execute(WRITE, ("A", new_york(date(2025, 12, 3), time(9, 45)), 100, 7, 500, 3, True))
    for timeframe, sessions in [("15min", "regular"), ("2 hours", "all"), ("2 days", "all")]:
        ask = "select * from candles('A', %s, %s, %s, sessions => %s, fill => true)"
        every = conn.execute(ask, (timeframe, None, None, sessions)).fetchall()
        filled = [n for n, row in enumerate(every) if row[-1]]
        # From within a gap to within another one.
        first, last = filled[len(filled) // 3], filled[-1]
        bounds = (every[first][1], every[last][1])
        part = conn.execute(ask, (timeframe, *bounds, sessions)).fetchall()
        assert part == every[first:last] != []


def test_filling_leaves_the_latest_candle_as_it_is(conn: Connection[TupleRow]) -> None:
    """One that has begun with the feed's latest minute, too."""
    conn.execute(WRITE, ("A", new_york(date(2025, 11, 26), time(9, 45)), 76, 5, 500, 3, True))
    for timeframe in ("1min", "5min", "15min", "20 minutes", "daily"):
        ask = "select * from candles('A', %s, last => 1, fill => %s)"
        left, filled = (conn.execute(ask, (timeframe, fill)).fetchall() for fill in (False, True))
        assert filled == left != []


def test_a_candle_that_begins_where_the_clocks_are_put_forward_ends_in_time(
    conn: Connection[TupleRow],
) -> None:
    sunday = date(2025, 3, 9)
    conn.execute(WRITE, ("A", new_york(sunday, time(1)), 121, 1, 500, 3, True))
    got = conn.execute("select ts, bars, complete from candles('A', '2 hours')").fetchall()
    # From one o'clock to four there are two hours.
    assert got == [
        (new_york(sunday, time(0)), 60, True),
        (new_york(sunday, time(3)), 60, True),
        (new_york(sunday, time(4)), 1, False),
    ]
    check(conn, "A", Ask("2 hours"))


def test_candles_of_sessions_are_complete_with_the_close_of_the_last(
    conn: Connection[TupleRow],
) -> None:
    """A half day, a Friday, and the month's last session: all three close at 13:00."""
    friday = date(2025, 11, 28)
    conn.execute(WRITE, ("A", new_york(friday, time(12, 30)), 1, 1, 500, 3, True))
    complete = "select complete from candles('A', %s, sessions => %s)"
    for clock, closed in ((time(12, 59), False), (time(13, 0), True)):
        conn.execute(WRITE, ("CLOCK", new_york(friday, clock), 1, 1, 500, 3, True))
        for timeframe, sessions in (
            ("daily", "all"),
            ("1 week", "all"),
            ("1 month", "all"),
            ("130 minutes", "regular"),
        ):
            assert fetch_value(conn, complete, timeframe, sessions) is closed, timeframe


@pytest.mark.parametrize("fill", [False, True])
def test_no_candle_is_made_of_the_bars_that_a_drop_has_left_of_it(
    conn: Connection[TupleRow], fill: bool
) -> None:
    for day in (date(2025, 11, 12), date(2025, 11, 26)):
        conn.execute(WRITE, ("A", new_york(day, time(9, 45)), 600, 1, 500, 3, True))
    ask = "select ts, bars, close, volume from candles('A', %s, fill => %s)"
    timeframes = ("8 minutes", "18 minutes", "10 minutes", "90 minutes", "2 hours")
    before = {each: conn.execute(ask, (each, fill)).fetchall() for each in timeframes}
    # In winter a week of bars begins at seven in the evening, when shares still trade.
    conn.execute("call drop_bars('2025-11-13')")
    since = fetch_value(conn, "select tickstock.bars_since()")
    for timeframe, candles in before.items():
        of_minutes = timeframe in ("8 minutes", "18 minutes")
        wanted = [c for c in candles if not of_minutes or c[0] >= since]
        assert conn.execute(ask, (timeframe, fill)).fetchall() == wanted != []
        assert (wanted[0][0] > since) == of_minutes, "one was cut in two"


def test_all_time_is_no_time_too_long(conn: Connection[TupleRow]) -> None:
    conn.execute(WRITE, ("A", new_york(date(2025, 11, 26), time(9, 45)), 500, 7, 500, 3, True))
    ever = ("-infinity", "infinity")
    for symbol in ("A", "of nobody"):
        for last, fill in [(None, False), (None, True), (3, False), (3, True)]:
            ask = "select * from candles(%s, '5min', %s, %s, %s, fill => %s)"
            found, wanted = (
                conn.execute(ask, (symbol, *bounds, last, fill)).fetchall()
                for bounds in (ever, (None, None))
            )
            assert found == wanted
            assert bool(found) == (symbol == "A")


def test_more_than_there_are_is_all(conn: Connection[TupleRow]) -> None:
    conn.execute(WRITE, ("A", new_york(date(2025, 11, 26), time(9, 45)), 500, 7, 500, 3, True))
    for timeframe in ("1min", "10 minutes", "monthly", "100 years"):
        ask = "select * from candles('A', %s, last => %s)"
        every, *most = (
            conn.execute(ask, (timeframe, last)).fetchall() for last in (None, 999_999, 2**31 - 1)
        )
        assert most == [every, every] != [[], []]


@pytest.mark.parametrize(
    ("timeframe", "sessions", "told"),
    [
        ("7 minutes", "all", "7 minutes"),
        ("5 hours", "all", "5 hours"),
        ("65 minutes", "all", "65 minutes"),
        ("30 seconds", "all", "30 seconds"),
        ("90 seconds", "regular", "90 seconds"),
        ("-5 minutes", "all", "-5 minutes"),
        ("0", "all", "'0'"),
        ("1 month 3 days", "all", "1 month 3 days"),
        ("36 hours", "all", "36 hours"),
        ("fortnightly", "all", "fortnightly"),
        ("99999999999 days", "all", "99999999999 days"),
        ("infinity", "all", "infinity"),
        ("101 years", "all", "101 years"),
        # PostgreSQL would take these for a minute, or four.
        ("1M", "all", "1M"),
        ("1 M ", "all", "1 M "),
        ("60", "all", "'60'"),
        ("240.0", "regular", "'240.0'"),
        ("'; drop table events; --", "all", "drop table events"),
        (None, "all", "NULL"),
        ("5min", "evening", "evening"),
        ("5min", None, "NULL"),
    ],
)
def test_what_is_not_possible_is_told(
    conn: Connection[TupleRow], timeframe: str | None, sessions: str | None, told: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        conn.execute("select * from candles('A', %s, sessions => %s)", (timeframe, sessions))
    assert told in str(caught.value)
    if sessions == "all":
        assert "Possible are the names in the table timeframes" in str(caught.value)


def test_the_last_none_are_an_error(conn: Connection[TupleRow]) -> None:
    for last in (0, -3):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"the last {last} candles"):
            conn.execute("select * from candles('A', '5min', last => %s)", (last,))
